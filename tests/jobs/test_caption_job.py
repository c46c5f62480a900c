"""The job `caption` at toy size: captions and their scores, of every layout."""

import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from aaca.data.scenegraph.files import read_graphs
from aaca.data.scenegraph.store import PackedGraphs
from aaca.evaluate.captions.scores import score_captions
from aaca.evaluate.captions.structure import grammar_parser
from aaca.runtime.errors import DataError
from aaca.runtime.files import read_json
from aaca.world.phrases import Grammar
from experiments.caption_given import given_captions
from tests.graph_toys import FOLDERS, Kind, write_tree
from tests.jobs.caption_runs import SHAPES, TINY, captions_of, graphs_stage, made, ran, records, references, scored


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    """A captioner of shapes, trained and scored: what the other runs go on from."""
    return scored(tmp_path_factory.mktemp("root"), *SHAPES)


@pytest.fixture(scope="module")
def trees(tmp_path_factory) -> Path:
    """A tiny tree of each released layout."""
    folder = tmp_path_factory.mktemp("trees")
    for kind in FOLDERS:
        write_tree(folder, kind, images=4)  # type: ignore[arg-type]
    return folder


def test_score_writes_captions_and_every_figure_and_a_second_run_finds_all(root, run):
    folder, said = ran(run, root, "score", *SHAPES)
    stage = graphs_stage(root)
    assert made(said) == [] and "captions of tst" in said and "edited graphs" in said
    wanted = references(stage)
    captions, found = captions_of(folder), read_json(folder / "scores.json")
    assert set(captions) == set(wanted) == set(records(stage))
    table = pd.read_csv(folder / "captions.csv", keep_default_na=False)
    assert dict(zip(table["name"], table["reference"], strict=True)) == wanted
    graphs = {
        f"{image}_{region}": graph
        for image in {name.rpartition("_")[0] for name in wanted}
        for region, graph in read_graphs(stage / "annotation" / "regionfiles" / f"{image}.json").items()
    }
    parse = grammar_parser(Grammar.from_json(read_json(stage / "about.json")["grammar"]))
    again = score_captions(captions, {name: [text] for name, text in wanted.items()}, graphs, None, parse)
    for key, value in again.items():
        assert found[key] == (None if value != value else pytest.approx(value)), key
    assert found["exact"] == 100 * np.mean([captions[name] == wanted[name] for name in wanted])
    row = pd.read_csv(folder / "table.csv").iloc[0]
    assert row["rouge_l"] == pytest.approx(found["rouge_l"]) and 0 < found["rouge_l"] < 100
    for edit in ("drop_object", "drop_attribute", "reverse"):
        assert 0 <= found[f"{edit}_edit_sensitivity"] <= 100 and 0 <= found[f"{edit}_locality"] <= 100


def test_the_references_themselves_are_perfect_and_nothing_is_trained(root, run, tmp_path):
    wanted = references(graphs_stage(root))
    pd.DataFrame({"name": wanted.keys(), "caption": wanted.values()}).to_csv(tmp_path / "own.csv", index=False)
    (tmp_path / "own.json").write_text(json.dumps({name: [text] for name, text in wanted.items()}))
    ideal = score_captions(wanted, {name: [text] for name, text in wanted.items()})["cider"]
    for file in ("own.csv", "own.json"):
        folder, said = ran(run, root, "score", *SHAPES, f"captions={tmp_path / file}")
        found = read_json(folder / "scores.json")
        assert made(said) == [] and "edited graphs" not in said
        assert found["cider"] == pytest.approx(ideal) and captions_of(folder) == wanted
        for key in ("exact", "structure", "bleu4", "rouge_l", "direction_accuracy"):
            assert found[key] == pytest.approx(100), key
        assert found["g_sum"] == found["g_objects"] == 0


def test_document_frequencies_of_another_set_change_cider_alone(root, run, tmp_path):
    wanted = references(graphs_stage(root))
    others = [*list(wanted.values())[1:], "a red circle"]  # nearly right: what is right scores the same by any index
    pd.DataFrame({"name": wanted.keys(), "caption": others}).to_csv(tmp_path / "own.csv", index=False)
    own, _ = ran(run, root, "score", *SHAPES, f"captions={tmp_path / 'own.csv'}")
    other, _ = ran(run, root, "score", *SHAPES, f"captions={tmp_path / 'own.csv'}", "reference_index=trn")
    one, two = read_json(own / "scores.json"), read_json(other / "scores.json")
    assert {key for key in one if one[key] != two[key]} == {"cider"}


def test_figures_that_are_asked_for_are_those_of_the_test_set_s_captions_and_images(root, run, tmp_path, monkeypatch):
    stage = graphs_stage(root)
    wanted = references(stage)
    pd.DataFrame({"name": wanted.keys(), "caption": wanted.values()}).to_csv(tmp_path / "own.csv", index=False)

    def by_java(metric, said, references):
        assert said == wanted and references == {name: [text] for name, text in wanted.items()}
        return {"meteor": 12.5, "spice": 33.0}[metric]

    def by_clip(said, image, weights):
        assert said == wanted and weights == tmp_path
        pictures = {name: stage / "images" / f"{name.rpartition('_')[0]}.png" for name in said}
        assert all((image(name) == np.asarray(Image.open(file))).all() for name, file in pictures.items())
        return 71.25

    stubs = {"java_score": by_java, "clip_score": by_clip, "missing": lambda _: None, "missing_clip": lambda _: None}
    for name, stub in stubs.items():
        monkeypatch.setattr(f"aaca.experiments.caption_metrics.{name}", stub)
    more = ["score.metrics=[meteor,spice,clip_score]", f"score.clip_weights={tmp_path}"]
    folder, said = ran(run, root, "score", *SHAPES, f"captions={tmp_path / 'own.csv'}", *more)
    found = read_json(folder / "scores.json")
    assert (found["meteor"], found["spice"], found["clip_score"]) == (12.5, 33, 71.25)
    assert all(name in said for name in ("METEOR", "SPICE", "CLIPScore", "71.25"))
    assert pd.read_csv(folder / "table.csv").iloc[0]["meteor"] == 12.5


def test_captions_of_somebody_else_have_to_be_all_and_readable(root, run, tmp_path):
    wanted = references(graphs_stage(root))
    (test,) = [one for one in map(PackedGraphs.open, root.glob("stages/packed/*/set")) if one.name(0) in wanted]
    first, second = list(wanted)[:2]
    lines = [f"{name},{text}" for name, text in wanted.items()]
    for name, content, message in (
        ("one.csv", "\n".join(["name,caption", *lines[1:]]), f"no caption of {first} and 0 more"),
        ("two.csv", "\n".join(["name,caption", *lines, lines[1]]), f"'{second}' comes twice"),
        ("columns.csv", "image,text\na,b\n", "expected name and caption"),
        ("empty.csv", "", "not readable as .csv"),
        ("cut.json", '{"a": ', "not a readable JSON"),
        ("list.json", "[]", "expected an object"),
        ("several.json", json.dumps({**wanted, first: ["a", "b"]}), "expected one caption"),
        ("number.json", json.dumps({**wanted, first: 3}), "expected one caption"),
    ):
        (tmp_path / name).write_text(content)
        with pytest.raises(DataError, match=re.escape(message)):
            given_captions(tmp_path / name, test)
    (tmp_path / "bytes.csv").write_bytes(b"name,caption\n\xff\xfe,\x93\n")
    status, said = run("caption", "score", *SHAPES, f"captions={tmp_path / 'bytes.csv'}", f"paths.root={root}")
    assert status == 1 and "Traceback" not in said and "not readable as .csv" in said


def test_a_sweep_over_captioners_leaves_a_row_each_and_shares_the_data(root, run):
    status, said = run("caption", "-m", "captioner=node,rgcn_flow_memory", *SHAPES, f"paths.root={root}")
    assert status == 0, said
    again = made(said)  # the full model is the default, and was made before
    # of the test set, its graphs under three edits, sub-graphs
    assert [name.split()[0] for name in again] == ["captioner", *["captions"] * 5]
    rows = {}
    for kind in ("node", "rgcn_flow_memory"):
        (file,) = root.glob(f"caption/*captioner={kind},*/table.csv")
        rows[kind] = pd.read_csv(file)
        assert len(rows[kind]) == 1
    assert not rows["node"].equals(rows["rgcn_flow_memory"])
    (default,) = [
        file for file in root.glob("caption/action=score,captioner.*/table.csv") if "captions=" not in str(file)
    ]
    pd.testing.assert_frame_equal(pd.read_csv(default), rows["rgcn_flow_memory"])


@pytest.mark.parametrize(("option", "kind"), [("coco", "coco"), ("vg", "visual_genome"), ("ega", "ega")])
def test_released_layouts_are_trained_on_and_scored(option, kind: Kind, trees, run, tmp_path):
    where = trees / FOLDERS[kind]
    arguments = [*TINY, f"graphs={option}", f"graphs.root={where}", "training.epochs=1"]
    folder, said = ran(run, tmp_path, "score", *arguments)
    test = "val_sub" if option == "ega" else "tst"
    annotation = where / ("annotation/controllable" if option == "coco" else "annotation")
    cleaned = read_json(annotation / f"cleaned_{test}_region_descriptions.json")
    wanted = {f"{image}_{region}": one["phrase"] for image, of in cleaned.items() for region, one in of.items()}
    table = pd.read_csv(folder / "captions.csv", keep_default_na=False)
    assert dict(zip(table["name"], table["reference"], strict=True)) == wanted and len(wanted) == 12
    found = read_json(folder / "scores.json")
    assert 0 <= found["cider"] < 100 and "structure" not in found  # no grammar is known
    if option == "vg":  # its boxes end beyond their last pixel: read otherwise, none has a feature
        status, said = run("caption", "score", *arguments, "graphs.box_mode=inclusive", f"paths.root={tmp_path}")
        assert status == 1 and "Traceback" not in said
    if option == "ega":
        status, said = run("caption", "score", *arguments, "graphs.test=val_sup", f"paths.root={tmp_path}")
        assert status == 1 and "error: graphs.test: 'val_sup'; nearest valid: val_sub" in said
        _, said = ran(run, tmp_path, "score", *arguments, "graphs.test=val_sub_opt")
        assert "captioner" not in made(said) and made(said)[0] == "packed val_sub_opt"
        _, said = ran(run, tmp_path, "explain", *arguments, "explain.steps=2", "explain.samples=4")
        assert made(said) == []


def test_a_changed_list_of_samples_is_another_set(trees, run, tmp_path):
    root = tmp_path / "tree"
    write_tree(root, "ega", images=2)
    arguments = [*TINY, "graphs=ega", f"graphs.root={root / 'EGA'}", "training.epochs=1"]
    folder, _ = ran(run, tmp_path, "score", *arguments)
    before, names = read_json(folder / "run.json")["dataset"], captions_of(folder)
    listed = root / "EGA" / "annotation" / "regionfiles" / "val_sub_names.npy"
    np.save(listed, np.load(listed)[:-1])
    folder, said = ran(run, tmp_path, "score", *arguments)
    assert "captioner" not in made(said) and len(captions_of(folder)) == len(names) - 1
    assert read_json(folder / "run.json")["dataset"] != before
