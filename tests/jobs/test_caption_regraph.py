"""Graphs made wrong, diagnosed, mended and captioned again: the job."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from aaca.data.scenegraph.edits import facts_of
from aaca.data.scenegraph.graph import SceneGraph
from aaca.evaluate.captions.cider import CiderIndex
from aaca.evaluate.captions.scores import caption_table, figures_of
from aaca.evaluate.captions.structure import grammar_parser
from aaca.runtime.files import read_json
from aaca.world.phrases import Grammar
from tests.graph_toys import write_tree
from tests.jobs.caption_runs import scored
from tests.jobs.conftest import Run

TINY = ("hyper=embedded", "trainer=cpu", "training.lr=3e-3", "captioner.hidden=32")
SHAPES = (
    *TINY,
    "captioner=rgcn",
    "training.epochs=8",
    "training.batch_size=8",
    "graphs=shapes",
    "graphs.images={trn:40,val:2,tst:10}",
    "regraph.samples=40",
)
EDITS = ["none", "drop irrelevant", "add missing", "both", "drop unused", "human graph"]


def ran(run: Run, root: Path, *arguments: object) -> tuple[Path, str]:
    """The run's folder and all that was printed."""
    before = {file: file.stat().st_mtime_ns for file in root.glob("caption/*/run.json")}
    status, said = run("caption", "regraph", *map(str, arguments), f"paths.root={root}")
    assert status == 0, said
    (file,) = [file for file in root.glob("caption/*/run.json") if file.stat().st_mtime_ns != before.get(file)]
    return file.parent, said


def made(said: str) -> list[str]:
    """Stages that were made, not found."""
    return re.findall(r"stage (\S+)(?: \S+)? +[0-9a-f]{8}  made in", said)


def diagnoses(folder: Path) -> dict[str, dict[str, Any]]:
    lines = (folder / "diagnoses.jsonl").read_text().splitlines()
    return {record["name"]: record for record in map(json.loads, lines)}


def humans(layout: Path, name: str = "tst") -> dict[str, SceneGraph]:
    """The graphs of a set as its files have them."""
    found = {}
    for image, region in np.load(layout / "annotation" / "regionfiles" / f"{name}_names.npy").tolist():
        record = read_json(layout / "annotation" / "regionfiles" / f"{image}.json")[region]
        found[f"{image}_{region}"] = SceneGraph.from_region(record, image)
    return found


def graph(record: dict[str, Any]) -> SceneGraph:
    return SceneGraph.from_region(record, "a diagnosis")


def facts(one: SceneGraph) -> set[tuple[str, ...]]:
    return set(facts_of(one).values())


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    """A captioner of shapes, trained and scored."""
    return scored(tmp_path_factory.mktemp("root"), *SHAPES, "score.examples=0", "score.diversity=0")


@pytest.fixture(scope="module")
def stage(root) -> Path:
    """The folder of laid out graphs."""
    return next(root.glob("stages/graphs/*/about.json")).parent


@pytest.fixture
def mended(root, run) -> tuple[Path, str]:
    return ran(run, root, *SHAPES)


def test_people_bring_every_graph_back_and_its_caption_with_it(root, stage, mended):
    folder, _ = mended
    found, wanted = diagnoses(folder), humans(stage)
    (scored,) = root.glob("caption/*/captions.csv")
    captions = pd.read_csv(scored, keep_default_na=False).set_index("name")["caption"]
    assert len(found) == 40 and list(found) == [name for name in wanted if name in found]
    changes = pd.Series([one["change"] for one in found.values()]).value_counts()
    assert changes["lost"] + changes["foreign"] == changes["none"] == 20 and changes.min() > 3
    for name, one in found.items():
        human, given, both = wanted[name], graph(one["given"]), graph(one["both"])
        assert one["captions"]["human graph"] == captions[name]  # as of the packed set
        assert facts(both) == facts(human)
        if one["change"] == "lost":
            assert len(given.objects) == len(human.objects) - 1 and facts(given) < facts(human)
        else:
            assert both == human and one["captions"]["both"] == captions[name]
            assert (given == human) == (one["change"] == "none")
        if one["change"] == "foreign":
            image = name.rpartition("_")[0]
            seen = {thing.box for other, own in wanted.items() if other.startswith(image) for thing in own.objects}
            assert given.objects[:-1] == human.objects and given.objects[-1].box in seen
            assert one["captions"]["drop irrelevant"] == captions[name]
    changed = [one for one in found.values() if one["captions"]["none"] != one["captions"]["both"]]
    assert changed and all(one["change"] != "none" for one in changed)


def test_all_rows_are_scored_by_the_frequencies_of_the_whole_set(stage, mended):
    folder, said = mended
    found, wanted = diagnoses(folder), humans(stage)
    references = {name: [own.phrase] for name, own in wanted.items()}
    index, parse = (
        CiderIndex.fit(references),
        grammar_parser(Grammar.from_json(read_json(stage / "about.json")["grammar"])),
    )
    rows = pd.read_csv(folder / "regraph.csv").set_index("graphs")
    assert list(rows.index) == [*EDITS, "filter", "random filter"]
    own = {name: references[name] for name in found}

    def table(edit: str) -> pd.DataFrame:
        return caption_table({name: one["captions"][edit] for name, one in found.items()}, own, wanted, index, parse)

    before = table("none")
    for edit in EDITS:
        after, row = table(edit), rows.loc[edit]
        figures = figures_of(after)
        shown = [row["CIDEr-D"], row["Go"], row["Ga"], row["Gr"]]
        keys = ("cider", "g_objects", "g_attributes", "g_relationships")
        assert shown == pytest.approx([figures[key] for key in keys]), edit
        assert row["structure"] == pytest.approx(100 * (after["g_sum"] == 0).mean())
        assert row["changed"] == pytest.approx(100 * (after["caption"] != before["caption"]).mean())
        if edit != "none":
            assert row["Δ"] == pytest.approx(row["CIDEr-D"] - rows["CIDEr-D"]["none"])
            assert row["low"] <= row["Δ"] <= row["high"]
    kept = [name for name, one in found.items() if one["change"] == "none"]
    assert rows["captions"]["filter"] == rows["captions"]["random filter"] == len(kept) == 20
    assert rows["CIDEr-D"]["filter"] == pytest.approx(figures_of(before.loc[kept])["cider"])
    own, few = rows.loc["filter"], rows.loc["random filter"]
    assert own["structure"] == pytest.approx(100 * (before.loc[kept]["g_sum"] == 0).mean())
    assert own["Δ"] == pytest.approx(own["CIDEr-D"] - rows["CIDEr-D"]["none"]) and own["low"] < own["Δ"] < own["high"]
    assert few["low"] < few["Δ"] < few["high"] and few["CIDEr-D"] == pytest.approx(rows["CIDEr-D"]["none"], rel=0.1)
    for name in ("regraph.csv", "facts.csv", "regraph.json", "diagnoses.jsonl"):
        assert (folder / name).is_file()
    assert "mended or filtered" in said and "planted facts" in said


def test_what_is_said_of_the_facts_follows_from_the_diagnoses(stage, mended):
    folder, _ = mended
    found, wanted = diagnoses(folder), humans(stage)
    told = read_json(folder / "regraph.json")["facts"]
    foreign = sum(one["change"] == "foreign" for one in found.values())
    given = sum(len(facts(graph(one["given"]))) for one in found.values())
    right = {"of": given, "planted": foreign, "found": foreign, "precision": 1, "recall": 1}
    assert told["irrelevant, with people"] == right
    lost = {
        name: {" ".join(it) for it in facts(wanted[name]) - facts(graph(one["given"]))} for name, one in found.items()
    }
    hits = sum(len(own & set(found[name]["missing"])) for name, own in lost.items())
    counts = told["missing, with people"]
    assert counts["planted"] == sum(map(len, lost.values())) > 0
    assert counts["of"] == sum(len(facts(wanted[name])) for name in found)
    assert counts["found"] == sum(len(one["missing"]) for one in found.values())
    assert (counts["recall"], counts["precision"]) == (hits / counts["planted"], hits / counts["found"])
    table = pd.read_csv(folder / "facts.csv")
    assert set(table.columns) == {"name", "kind", "supported", "irrelevant", "missing"}
    objects = table[table["kind"] == "object"].set_index("name")
    for name in objects.index:
        for verdict in ("supported", "irrelevant", "missing"):
            assert objects[verdict][name] == sum(name in one[verdict] for one in found.values())


def test_a_second_run_and_another_threshold_find_what_was_made(root, run, mended):
    folder, said = ran(run, root, *SHAPES)
    assert made(said) == [] and folder == mended[0]
    other, said = ran(run, root, *SHAPES, "regraph.threshold=-1e9")
    assert "node_scores" not in made(said)
    one = diagnoses(other)
    assert all(it["captions"]["drop unused"] == it["captions"]["none"] for it in one.values())
    assert {name: it["given"] for name, it in one.items()} == {
        name: it["given"] for name, it in diagnoses(folder).items()
    }
    _, said = ran(run, root, *SHAPES, "regraph.by=attention")
    assert made(said).count("node_scores") == 1


def test_where_nothing_is_planted_nothing_is_found_and_nothing_changes(root, run):
    folder, _ = ran(run, root, *SHAPES, "regraph.wrong=0")
    written = read_json(folder / "regraph.json")
    assert written["changes"] == {"lost": 0, "foreign": 0, "none": 40}
    for people in ("with people", "without people"):
        assert written["facts"][f"irrelevant, {people}"]["planted"] == 0
        assert written["facts"][f"irrelevant, {people}"]["recall"] is None
    assert (
        written["facts"]["irrelevant, with people"]["found"] == written["facts"]["missing, with people"]["planted"] == 0
    )
    rows = pd.read_csv(folder / "regraph.csv").set_index("graphs")
    for edit in ("drop irrelevant", "add missing", "both", "human graph", "filter", "random filter"):
        assert rows["CIDEr-D"][edit] == pytest.approx(rows["CIDEr-D"]["none"])
        assert rows["Δ"][edit] == pytest.approx(0, abs=1e-9) and (rows["changed"][edit] == 0) != ("filter" in edit)
    assert rows["captions"]["filter"] == 40
    folder, _ = ran(run, root, *SHAPES, "regraph.wrong=1")
    assert pd.read_csv(folder / "regraph.csv").set_index("graphs")["captions"]["filter"] == 0


@pytest.mark.parametrize("kind", ["ega", "visual_genome"])
def test_graphs_of_a_release_without_a_grammar(kind, run, tmp_path):
    write_tree(tmp_path / "tree", kind, images=4, objects=5)
    place, option = ("EGA", "ega") if kind == "ega" else ("VisualGenome", "vg")
    tree = tmp_path / "tree" / place
    arguments = [*TINY, f"graphs={option}", f"graphs.root={tree}", "training.epochs=1", "regraph.wrong=1"]
    folder, _ = ran(run, tmp_path, *arguments)
    found, wanted = diagnoses(folder), humans(tree, "val_sub" if kind == "ega" else "tst")
    assert set(found) == set(wanted) and {"lost", "foreign"} <= {one["change"] for one in found.values()}
    for name, one in found.items():
        assert facts(graph(one["both"])) == facts(wanted[name])
    assert "structure" not in pd.read_csv(folder / "regraph.csv").columns
