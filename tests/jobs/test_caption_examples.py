"""What `aaca caption` shows beside its figures: diversity over sub-graphs, edited graphs, the page of examples."""

import re
from collections import defaultdict
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from aaca.data.scenegraph.batch import GraphItem
from aaca.data.scenegraph.edits import drop_node, facts_of, reverse_relationship
from aaca.data.scenegraph.graph import GraphObject, SceneGraph
from aaca.data.scenegraph.layout import Layout
from aaca.data.scenegraph.nodes import nodes_of
from aaca.evaluate.captions.cider import CiderIndex
from aaca.evaluate.captions.diversity import diversity
from aaca.evaluate.captions.structure import grammar_parser, names_of
from aaca.runtime.files import read_json
from aaca.world.phrases import Grammar
from experiments.caption_diversity import diverse_captions, largest_graphs
from experiments.caption_edits import EditedCaptions, EditedGraphs
from experiments.caption_examples import chosen_rows, edited_node, free_words
from tests.jobs.caption_runs import scored
from tests.jobs.conftest import Run
from tests.training.caption_toys import COLOURS, Shapes, graph
from tests.training.caption_toys import SHAPES as NOUNS

SHAPES = (
    *("hyper=embedded", "trainer=cpu", "training.epochs=2", "training.lr=3e-3", "captioner.hidden=32"),
    *("graphs=shapes", "graphs.images={trn:20,val:4,tst:3}", "score.examples=4", "score.diversity=3"),
)
KINDS = ("drop_object", "drop_attribute", "reverse")


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    return scored(tmp_path_factory.mktemp("root"), *SHAPES)


@pytest.fixture(scope="module")
def folder(root: Path) -> Path:
    """The run's."""
    (file,) = root.glob("caption/*/scores.json")
    return file.parent


def test_the_job_scores_diversity_and_edits(root, folder):
    found = read_json(folder / "scores.json")
    assert 0 < found["div1"] <= 1 and 0 <= found["div2"] <= 1 and 0 <= found["self_cider"] <= 1
    assert found["diversity_images"] + found["diversity_left_out"] == 3
    said = defaultdict(list)
    for file in root.glob("stages/captions/*/captions.parquet"):
        frame = pd.read_parquet(file)
        if frame["name"].duplicated().any():  # of sub-graphs; other sets have each sample once
            for row in frame.itertuples():
                said[row.name].append(row.caption)
    captions = pd.read_csv(folder / "captions.csv", keep_default_na=False)
    index = CiderIndex.fit({row.name: [row.reference] for row in captions.itertuples()})
    assert {name: found[name] for name in ("div1", "div2", "self_cider")} == pytest.approx(diversity(said, index))
    assert sum(map(len, said.values())) == found["diversity_captions"] <= 9
    for kind in KINDS:
        for figure in ("edit_sensitivity", "follows", "locality", "content_kept"):
            assert found[f"{kind}_{figure}"] is None or 0 <= found[f"{kind}_{figure}"] <= 100


def test_the_page_shows_samples_with_every_edit_that_the_job_made(folder):
    page = (folder / "examples.html").read_text(encoding="utf-8")
    captions = pd.read_csv(folder / "captions.csv", keep_default_na=False)
    shown = re.findall(r"<h3>(.*)</h3>", page)
    assert len(shown) == 4 == len(set(shown)) and set(shown) <= set(captions["name"])
    cards = page.split("<article")[1:]
    known = captions.set_index("name")
    for name, card in zip(shown, cards, strict=True):
        words = re.sub(r"<[^>]*>", "", card)
        assert known.loc[name, "caption"] in words and known.loc[name, "reference"] in words
        assert [kind for kind in KINDS if f'"row">{kind.replace("_", " ")}<' in card] == list(KINDS)
    assert page.count("data:image/webp;base64,") == 4


def test_without_examples_and_diversity_there_is_neither(root, folder, run: Run):
    status, said = run("caption", "score", *SHAPES, "score.examples=0", "score.diversity=0", f"paths.root={root}")
    assert status == 0 and "Div-1" not in said and "examples:" not in said and "follows" in said
    (other,) = [file.parent for file in root.glob("caption/*/scores.json") if file.parent != folder]
    assert not (other / "examples.html").exists()
    assert not [key for key in read_json(other / "scores.json") if key.startswith(("div", "self"))]


class Images:
    """Samples of three images: a graph and a part of it; one object alone; none."""

    names = ("a_0", "a_1", "b_0", "c_0")
    words = Shapes.words

    def __init__(self) -> None:
        alone = SceneGraph((GraphObject(0, "circle", (), (0, 5, 10, 10)),), (), "a circle")
        self.graphs = (graph((0, 0), (1, 2), single=True), graph((0, 0), (1, 2)), alone, SceneGraph((), (), ""))

    def __len__(self) -> int:
        return len(self.names)

    def name(self, i: int) -> str:
        return self.names[i]

    def graph(self, i: int) -> SceneGraph:
        return self.graphs[i]

    def item(self, i: int) -> GraphItem:
        nodes = nodes_of(self.graphs[i])
        features = np.arange(len(nodes), dtype=np.float32)[:, None]
        return GraphItem(nodes, np.zeros(4, np.float32), features, np.array([0, 1]), i)


class Stages:
    """A captioner that says the names of all nodes."""

    def __init__(self, count: int) -> None:
        self.options = SimpleNamespace(
            seed=0,
            training=SimpleNamespace(nodes=10),
            score=SimpleNamespace(diversity=count),
            graphs=SimpleNamespace(test="tst"),
        )
        self.asked: EditedGraphs | None = None

    def graphs(self) -> tuple[None, Layout]:
        return None, Layout.ega(Path())

    def captions(self, fitted: None, model: None, name: str, graphs: EditedGraphs, what: str) -> pd.DataFrame:
        self.asked = graphs
        rows = [(graphs.name(i), " ".join(names_of(graphs.graph(i)))) for i in range(len(graphs))]
        return pd.DataFrame(rows, columns=["name", "caption"])


def test_sub_graphs_of_each_images_largest_graph_are_captioned():
    images, stages = Images(), Stages(4)
    assert largest_graphs(images) == [1, 2, 3]
    index = CiderIndex(10, {})
    found = diverse_captions(stages, None, None, images, index)
    asked = stages.asked
    graphs = [asked.graph(i) for i in range(len(asked))]
    assert len(set(graphs)) == len(graphs) == 4 and [asked.name(i) for i in range(4)] == ["a_1"] * 4
    whole, nodes = facts_of(images.graph(1)), nodes_of(images.graph(1))
    for i, part in enumerate(graphs):
        assert set(facts_of(part).values()) <= set(whole.values())
        item = asked.item(i)  # each node comes with its own feature, an attribute with its object's
        own = [("object", owner[1], 0) if owner[0] == "attribute" else owner for owner in item.nodes.owners]
        assert [nodes.owners[row] for row in item.features[:, 0].astype(int)] == own
    words = [word for part in graphs for name in names_of(part) for word in name.split()]
    assert found["div1"] == len(set(words)) / len(words)
    assert [found[f"diversity_{key}"] for key in ("images", "captions", "left_out")] == [1, 4, 2]


def test_fewer_sub_graphs_than_asked_for_are_captioned_once_each():
    images, stages = Images(), Stages(500)
    found = diverse_captions(stages, None, None, images, CiderIndex(10, {}))
    graphs = stages.asked.graphs
    # one object with its colour or without: 2 of each; both: colours or not, related: 4
    assert len(graphs) == len(set(graphs)) == found["diversity_captions"] == 8
    images.graphs = images.graphs[2:]
    images.names = images.names[2:]
    found = diverse_captions(stages, None, None, images, CiderIndex(10, {}))
    assert found == {"diversity_images": 0, "diversity_captions": 0, "diversity_left_out": 2}


def edited(kind: str, *rows: int) -> EditedCaptions:
    return EditedCaptions(kind, dict.fromkeys(rows), dict.fromkeys(rows), {})


def test_samples_that_allow_every_edit_are_chosen_first():
    made = [edited("one", *range(20)), edited("two", 3, 5, 8, 13)]
    assert chosen_rows(made, 4, 0) == [3, 5, 8, 13]
    six = chosen_rows(made, 6, 0)
    assert len(set(six)) == 6 and {3, 5, 8, 13} <= set(six) <= set(range(20)) and six == sorted(six)
    draws = {tuple(chosen_rows(made, 2, seed)) for seed in range(20)}
    assert len(draws) > 1 and set(sum(draws, ())) <= {3, 5, 8, 13}
    assert chosen_rows(made, 2, 1) == chosen_rows(made, 2, 1) and len(chosen_rows(made, 50, 0)) == 20


def test_an_edit_in_words():
    whole = graph((0, 0), (1, 2))
    assert edited_node(whole, drop_node(whole, ("object", 1, 0))) == "2 square"
    assert edited_node(whole, drop_node(whole, ("attribute", 0, 0))) == "red of 1 circle"
    assert edited_node(whole, drop_node(whole, ("relationship", 9, 0))) == "1 circle left of 2 square"
    turned = reverse_relationship(whole, 9)
    assert edited_node(whole, turned) == "1 circle left of 2 square"
    twice = replace(whole, objects=(replace(whole.objects[0], attributes=("red", "red")), whole.objects[1]))
    assert edited_node(twice, whole) == "red of 1 circle"


def test_a_turned_relationship_may_be_told_by_any_word_in_the_new_order():
    whole, parse = graph((0, 0), (1, 2)), grammar_parser(Grammar(NOUNS, COLOURS, (), ("left of", "right of")))
    turned = reverse_relationship(whole, 9)
    assert free_words(whole, turned, parse("a square right of a circle")) == ["right of"]
    assert free_words(whole, turned, parse("a circle right of a square")) == []
    assert free_words(whole, turned, parse("a square and a circle")) == []
    assert free_words(whole, whole, parse("a square right of a circle")) == []
