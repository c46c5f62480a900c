"""The job `caption` with action=explain: words, the nodes they hang on, pictures."""

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from aaca.data.shape_grammar import SIZE
from aaca.discover.captions.attribution import METHODS
from tests.jobs.caption_runs import SHAPES, graphs_stage, ran, records, shown

KINDS = ("object", "attribute", "relationship")


def named_in(record: dict) -> dict[str, list[str]]:
    """Names of the nodes of each kind that a caption of shapes says: all of them."""
    return {
        "object": [one["name"] for one in record["objects"]],
        "attribute": [word for one in record["objects"] for word in one["attributes"]],
        "relationship": [one["name"] for one in record["relationships"]],
    }


def test_explain_says_for_every_named_node_which_of_its_kind_each_method_takes(run, tmp_path):
    arguments = ["explain.samples=20", "explain.pictures=2", "explain.steps=4", "explain.by=gradient_x_input"]
    folder, said = ran(run, tmp_path, "explain", *SHAPES, *arguments)
    words, pointing = pd.read_csv(folder / "words.csv"), pd.read_csv(folder / "pointing.csv")
    assert len(METHODS) == 4 and "the one they name" in said
    assert list(zip(pointing["kind"], pointing["method"], strict=True)) == [(k, m) for k in KINDS for m in METHODS]
    nodes = {name: named_in(record) for name, record in records(graphs_stage(tmp_path)).items()}
    samples = set(words["sample"])
    for (kind, method), own in words.groupby(["kind", "method"]):
        wanted = [(name, word) for name in samples for word in nodes[name][kind] if len(nodes[name][kind]) > 1]
        assert sorted(zip(own["sample"], own["word"], strict=True)) == sorted(wanted) and wanted
        row = pointing.set_index(["kind", "method"]).loc[kind, method]
        assert row["words"] == len(own) and row["right"] == pytest.approx(own["right"].mean())
        assert row["by_chance"] == pytest.approx(np.mean([1 / len(nodes[name][kind]) for name in own["sample"]]))
        assert 0 < own["right"].mean() < 1
    objects = words[words["kind"] == "object"]  # each name once a graph: who is right can be told by names
    assert (objects["right"] == (objects["best"] == objects["word"])).all()
    assert not words[words["right"]]["best"].ne(words[words["right"]]["word"]).any()


def test_pictures_show_scores_of_words_that_were_scored(run, tmp_path, monkeypatch):
    dashboards = shown(monkeypatch)
    folder, _ = ran(run, tmp_path, "explain", *SHAPES, "explain.samples=10", "explain.pictures=2", "explain.steps=2")
    samples = list(dict.fromkeys(pd.read_csv(folder / "words.csv")["sample"]))
    files = sorted((folder / "attribution").glob("*.png"))
    assert [file.stem for file in files] == sorted(name.replace("/", "_") for name in samples[:2])
    phrases = records(graphs_stage(tmp_path))
    for name, file in zip(sorted(samples[:2]), files, strict=True):
        picture = Image.open(file)
        rows = len(phrases[name]["phrase"].split())
        assert picture.width > 4 * SIZE and picture.height > 480 + 26 * rows  # the graph, and a row a word
    numbers, tables, pictures = dashboards["caption explain"]
    own = pd.read_csv(folder / "pointing.csv").set_index(["kind", "method"])["right"]
    assert numbers == pytest.approx({" ".join(key): right for key, right in own.items()}) and len(own) >= 8
    assert len(tables["words"]) == len(pd.read_csv(folder / "words.csv")) and len(tables["pointing"]) == len(own)
    assert pictures == {name: folder / "attribution" / f"{name.replace('/', '_')}.png" for name in samples[:2]}
