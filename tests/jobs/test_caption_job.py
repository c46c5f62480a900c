"""The job `caption` at toy size: captions and their scores, explanations, the filter, an image of yours, errors."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hydra import compose, initialize_config_module
from omegaconf import DictConfig, OmegaConf
from PIL import Image

from aaca.data.graph_writer import cleaned_file
from aaca.data.scenegraph.files import read_graphs
from aaca.data.scenegraph.store import PackedGraphs
from aaca.data.shape_grammar import write_shapes
from aaca.discover.captions.attribution import METHODS
from aaca.evaluate.captions.scores import score_captions
from aaca.evaluate.captions.structure import grammar_parser
from aaca.runtime.config import load_config, plain
from aaca.runtime.errors import ConfigError, DataError
from aaca.runtime.files import read_json
from aaca.world.phrases import Grammar
from experiments.caption_config import CaptionConfig
from experiments.caption_run import given_captions, without_presets
from tests.graph_toys import FOLDERS, Kind, write_tree
from tests.jobs.conftest import Run, command

TINY = ("hyper=embedded", "trainer=cpu", "training.epochs=2", "training.lr=3e-3", "captioner.hidden=32")
SHAPES = (*TINY, "graphs=shapes", "graphs.images={trn:30,val:6,tst:10}")
FEW = ("graphs.images={trn:7,val:2,tst:2}", "graphs.regions=4")
SCENES = (
    *TINY,
    "graphs=stampscenes",
    "graphs.images={trn:16,val:1,tst:1}",
    "training.epochs=12",
    "feature_dtype=float32",
)
PARTS = ["all", "filtered", "random", "without the planted"]


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    """A captioner of shapes, trained and scored: what the other runs go on from."""
    folder = tmp_path_factory.mktemp("root")
    with pytest.MonkeyPatch.context() as patch:
        assert command(patch, folder, ["caption", "score", *SHAPES, f"paths.root={folder}"]) == 0
    return folder


@pytest.fixture(scope="module")
def scenes(tmp_path_factory) -> Path:
    """The same of the embedded world, whose features are made here."""
    folder = tmp_path_factory.mktemp("scenes")
    with pytest.MonkeyPatch.context() as patch:
        assert command(patch, folder, ["caption", "score", *SCENES, f"paths.root={folder}"]) == 0
    return folder


@pytest.fixture(scope="module")
def trees(tmp_path_factory) -> Path:
    """A tiny tree of each released layout."""
    folder = tmp_path_factory.mktemp("trees")
    for kind in FOLDERS:
        write_tree(folder, kind, images=4)  # type: ignore[arg-type]
    return folder


def ran(run: Run, root: Path, action: str, *arguments: object) -> tuple[Path, str]:
    """The run's folder and all that was printed."""
    before = {file: file.stat().st_mtime_ns for file in root.glob("caption/*/run.json")}
    status, said = run("caption", action, *map(str, arguments), f"paths.root={root}")
    assert status == 0, said
    (file,) = [file for file in root.glob("caption/*/run.json") if file.stat().st_mtime_ns != before.get(file)]
    return file.parent, said


def refused(run: Run, *arguments: object) -> str:
    """The one line that says why a job ends."""
    status, said = run("caption", *map(str, arguments), "paths.root=refused")
    lines = [line for line in said.splitlines() if line.startswith("error: ")]
    assert status == 1 and len(lines) == 1 and "Traceback" not in said, said
    return str(lines[0].removeprefix("error: "))


def made(said: str) -> list[str]:
    """Stages that were made, not found."""
    return re.findall(r"stage (\S+(?: \S+)?) +[0-9a-f]{8}  made in", said)


def graphs_stage(root: Path, holds: str = "about.json", planted: bool = False) -> Path:
    """The folder of laid out graphs that has noise planted in it, or that has not."""
    found = [path.parent for path in root.glob(f"stages/graphs/*/{holds}")]
    (stage,) = [path for path in found if (path / "annotation" / "trn_planted.json").is_file() == planted]
    return stage


def references(stage: Path, name: str = "tst") -> dict[str, str]:
    cleaned = read_json(stage / cleaned_file(name))
    return {f"{image}_{region}": one["phrase"] for image, of in cleaned.items() for region, one in of.items()}


def records(stage: Path, name: str = "tst") -> dict[str, Any]:
    """Region records by name."""
    found = {}
    for image, region in np.load(stage / "annotation" / "regionfiles" / f"{name}_names.npy").tolist():
        found[f"{image}_{region}"] = read_json(stage / "annotation" / "regionfiles" / f"{image}.json")[region]
    return found


def captions_of(folder: Path) -> dict[str, str]:
    frame = pd.read_csv(folder / "captions.csv", keep_default_na=False)
    return dict(zip(frame["name"], frame["caption"], strict=True))


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
    assert [name.split()[0] for name in again] == ["captioner", "captions", "captions", "captions", "captions"]
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


def test_explain_says_for_every_named_object_which_node_each_method_takes(root, run):
    folder, said = ran(run, root, "explain", *SHAPES, "explain.samples=20", "explain.pictures=2", "explain.steps=4")
    assert made(said) == []
    words, pointing = pd.read_csv(folder / "words.csv"), pd.read_csv(folder / "pointing.csv")
    assert tuple(pointing["method"]) == tuple(METHODS) and len(METHODS) == 4
    graphs = records(graphs_stage(root))
    named = [
        (name, one["name"])
        for name in dict.fromkeys(words["sample"])
        for one in sorted(graphs[name]["objects"], key=lambda one: graphs[name]["phrase"].index(one["name"]))
    ]
    for method, own in words.groupby("method"):
        assert sorted(zip(own["sample"], own["word"], strict=True)) == sorted(named)
        row = pointing.set_index("method").loc[method]
        assert row["words"] == len(own) and row["right"] == pytest.approx(own["right"].mean())
        assert row["by_chance"] == pytest.approx(np.mean([1 / len(graphs[name]["objects"]) for name in own["sample"]]))
    assert (words["right"] == (words["best"] == words["word"])).all() and 0 < words["right"].mean() < 1
    assert {len(graphs[name]["objects"]) for name in words["sample"]} == {2, 3}  # of one object there is no choice
    assert len(list((folder / "graphs").glob("*.png"))) == 2


def recounted(folder: Path, root: Path) -> tuple[pd.DataFrame, set[str]]:
    """`ease.csv` and the planted names of a filter's run, its own counts held against them."""
    ease = pd.read_csv(folder / "ease.csv")
    stage = graphs_stage(root, planted=True)
    planted = {
        f"{image}_{region}"
        for image, of in read_json(stage / "annotation" / "trn_planted.json").items()
        for region in of
    }
    dropped = set(ease["name"][~ease["kept"]])
    found = read_json(folder / "filter.json")
    assert found["dropped"] == len(dropped) and set(ease["name"]) == set(records(stage, "trn"))
    assert found["precision"] == (len(dropped & planted) / len(dropped) if dropped else None)
    assert found["recall"] == pytest.approx(len(dropped & planted) / len(planted))
    rows = pd.read_csv(folder / "filter.csv")
    kept = len(ease) - len(dropped)
    assert rows["trained on"].tolist() == PARTS
    assert rows["captions"].tolist() == [len(ease), kept, kept, len(ease) - len(planted)]
    return ease, planted


def test_the_filter_by_records_counts_as_a_recount_does(run, tmp_path):
    folder, said = ran(run, tmp_path, "filter", *SHAPES, *FEW, "filter.rule=released", "filter.threshold=0.8")
    assert made(said).count("captioner") == 4
    ease, planted = recounted(folder, tmp_path)
    assert len(planted) == round(0.3 * len(ease))
    # the released rule by hand: the mean rating over 5, of each caption's words
    answers = pd.read_csv(graphs_stage(tmp_path, planted=True) / "annotation" / "trn_records.csv")
    answers["image"] = answers["file"].str.extract(r"p1_(.*)__caption", expand=False)
    by_hand = answers.groupby(["image", "region"])["relevance"].mean() / 5
    short = ease["name"].str.split("/").str[-1].str.rsplit("_", n=1)
    values = [by_hand[image, int(region)] for image, region in short]
    assert ease["ease"].to_numpy() == pytest.approx(values)
    assert (ease["kept"] == (ease["ease"] >= 0.8)).all() and 0 < ease["kept"].sum() < len(ease)
    assert read_json(folder / "filter.json")["records"]["answers"] == len(answers)


@pytest.mark.parametrize(
    "by", ["swap", pytest.param("choice", marks=pytest.mark.slow), pytest.param("hold", marks=pytest.mark.slow)]
)
def test_the_captioner_rates_its_own_words(by, run, tmp_path):
    folder, said = ran(run, tmp_path, "filter", *SHAPES, *FEW, f"filter.by={by}", "filter.keep=0.5")
    assert "ratings" in made(said)
    ease, _ = recounted(folder, tmp_path)
    assert ease["kept"].sum() == round(0.5 * len(ease))
    assert ease["ease"][ease["kept"]].min() >= ease["ease"][~ease["kept"]].max()
    (ratings,) = tmp_path.glob("stages/ratings/*/records.csv")
    ratings_of = pd.read_csv(ratings)["relevance"]
    assert ratings_of.between(1, 5).all() and ratings_of.nunique() > 5


def test_records_of_yours_take_the_place_of_simulated_ones_and_belong_to_the_run(run, tmp_path):
    arguments = [*SHAPES, *FEW, "filter.noise=0", "filter.rule=released", f"filter.records={tmp_path / 'mine.csv'}"]
    write_shapes(tmp_path / "shapes", {"trn": 7, "val": 2, "tst": 2}, 4)
    names = [name.rpartition("_") for name in records(tmp_path / "shapes", "trn")]
    lines = ["file,region,content_type,content,relevance"]
    for row, (image, _, region) in enumerate(names):
        rating = 1 if row % 3 == 0 else 5
        lines.append(f"p1_{image.split('/')[1]}__caption_1_attr_result.jpg,{region},object,circle,{rating}")
    (tmp_path / "mine.csv").write_text("\n".join(lines))
    folder, _ = ran(run, tmp_path, "filter", *arguments)
    ease = pd.read_csv(folder / "ease.csv").set_index("name")["kept"]
    assert [bool(ease["_".join((image, region))]) for image, _, region in names] == [
        row % 3 > 0 for row in range(len(names))
    ]
    assert pd.read_csv(folder / "filter.csv")["trained on"].tolist() == PARTS[:3]
    assert read_json(folder / "filter.json") == {
        "records": {"images": 7, "answers": len(names), "unfinished": 0, "unrated": 0, "blank": 0, "unreadable": 0},
        "captions_unrated": 0,
    }
    before = read_json(folder / "run.json")["dataset"]
    (tmp_path / "mine.csv").write_text("\n".join(lines[:-2]))
    folder, _ = ran(run, tmp_path, "filter", *arguments)
    assert read_json(folder / "run.json")["dataset"] != before
    assert read_json(folder / "filter.json")["captions_unrated"] == 2


def test_a_filter_that_keeps_nothing_says_so_and_noise_in_all_leaves_nothing_clean(run, tmp_path):
    few = (*SHAPES, *FEW, f"paths.root={tmp_path}")
    status, said = run("caption", "filter", *few, "filter.keep=0")
    assert status == 1 and "error: filter.keep: 0.0 leaves none of " in said and "Traceback" not in said
    folder, _ = ran(run, tmp_path, "filter", *SHAPES, *FEW, "filter.noise=1", "filter.keep=0.5")
    assert pd.read_csv(folder / "filter.csv")["trained on"].tolist() == PARTS[:3]
    assert read_json(folder / "filter.json")["precision"] == 1


def image_and_graphs(scenes: Path) -> tuple[Path, Path]:
    stage = graphs_stage(scenes)
    ((image, _), *_) = np.load(stage / "annotation" / "regionfiles" / "tst_names.npy").tolist()
    return stage / "images" / f"{image}.png", stage / "annotation" / "regionfiles" / f"{image}.json"


def test_an_image_of_the_test_set_gets_the_caption_of_its_packed_sample(scenes, run):
    image, file = image_and_graphs(scenes)
    packed = pd.concat([pd.read_parquet(one) for one in scenes.glob("stages/captions/*/captions.parquet")])
    names = references(graphs_stage(scenes))
    (scored,) = scenes.glob("caption/*/captions.csv")
    expected = captions_of(scored.parent)
    assert len(set(expected.values())) > 1
    for name in list(names)[:3]:
        folder, said = ran(run, scenes, "image", *SCENES, f"image={image}", f"asg={file}", f"region={name[-1]}")
        found = read_json(folder / "caption.json")
        assert made(said) == [] and found["caption"] == expected[name] and found["caption"] in said
        own = packed[(packed["name"] == name) & (packed["caption"] == found["caption"])]["log_prob"]
        assert np.abs(own - found["log_prob"]).min() < 1e-4
        assert found["graph"] == read_json(file)[name[-1]]
        assert Image.open(folder / "graph.png").width > 256


def test_a_copy_of_the_image_and_one_graph_are_enough_and_another_graph_says_something_else(scenes, run, tmp_path):
    image, file = image_and_graphs(scenes)
    graphs = read_json(file)
    (tmp_path / "mine.json").write_text(json.dumps({"mine": graphs["1"]}))
    Image.open(image).save(tmp_path / "mine.bmp")
    mine, _ = ran(run, scenes, "image", *SCENES, f"image={tmp_path / 'mine.bmp'}", f"asg={tmp_path / 'mine.json'}")
    first, _ = ran(run, scenes, "image", *SCENES, f"image={image}", f"asg={file}")  # the first region
    second, _ = ran(run, scenes, "image", *SCENES, f"image={image}", f"asg={file}", "region=1")
    mine, first, second = (read_json(one / "caption.json") for one in (mine, first, second))
    assert mine["log_prob"] == pytest.approx(second["log_prob"], abs=1e-4) and mine["caption"] == second["caption"]
    assert first["graph"] == graphs["0"] and abs(first["log_prob"] - second["log_prob"]) > 1e-3


def test_what_is_wrong_with_an_image_or_its_graph_is_one_line(scenes, run, tmp_path):
    image, file = image_and_graphs(scenes)
    graphs = read_json(file)

    def said_of(**files: object) -> str:
        given = [f"{key}={value}" for key, value in ({"image": image, "asg": file} | files).items()]
        status, said = run("caption", "image", *SCENES, *given, f"paths.root={scenes}")
        assert status == 1 and "Traceback" not in said, said
        (line,) = [line for line in said.splitlines() if line.startswith("error: ")]
        return str(line)

    graphs["0"]["objects"][0]["w"] = 4000
    (tmp_path / "outside.json").write_text(json.dumps(graphs))
    (tmp_path / "none.json").write_text("{}")
    (tmp_path / "cut.png").write_bytes(image.read_bytes()[:200])
    assert "reaches outside the image of 128×128" in said_of(asg=tmp_path / "outside.json")
    assert "region: '99'" in said_of(region=99)
    assert "not a readable image" in said_of(image=file)
    assert "not a readable image" in said_of(image=tmp_path / "cut.png")
    assert "not JSON" in said_of(asg=image)
    assert "no region" in said_of(asg=tmp_path / "none.json")
    assert "no file" in said_of(image="nowhere.png")


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
        assert status == 1 and "error: set: 'val_sup'; nearest valid: val_sub" in said
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


@pytest.fixture(scope="module")
def composed() -> dict[str, DictConfig]:
    """The config by its graphs."""
    with initialize_config_module("aaca.conf", version_base="1.3"):
        return {
            name: compose(
                "caption", overrides=[f"graphs={name}", "paths.root=x", *["graphs.root=tree"] * (name == "ega")]
            )
            for name in ("stampscenes", "shapes", "ega")
        }


HERE = __file__


@pytest.mark.parametrize(
    ("graphs", "changes", "message"),
    [
        ("stampscenes", {"action": "image"}, "image: missing"),
        ("stampscenes", {"image": HERE}, "image, asg: an image and its scene graph go together"),
        ("stampscenes", {"asg": HERE}, "image, asg: an image and its scene graph go together"),
        ("shapes", {"action": "image", "image": HERE, "asg": HERE}, "graphs: the features of these graphs were made"),
        ("ega", {"action": "filter"}, "filter.noise: only planted in embedded graphs"),
        ("ega", {"action": "filter", "filter.noise": 0.0}, "filter.records: missing"),
        ("shapes", {"filter.records": "nowhere.csv"}, "filter.records: no file nowhere.csv"),
        ("shapes", {"filter.records": HERE, "filter.by": "swap"}, "filter.records: given, but filter.by is swap"),
        ("shapes", {"filter.threshold": 1.5}, "filter.threshold: "),
        ("shapes", {"filter.keep": -0.1}, "filter.keep: "),
        ("shapes", {"captions": "nowhere.csv"}, "captions: no file nowhere.csv"),
        ("ega", {"graphs.kind": "cocoa"}, "graphs.kind: 'cocoa' is not a choice; nearest valid: coco"),
        ("stampscenes", {"graphs.regions": [3, 2]}, "regions"),
        ("shapes", {"training.decode": "beam", "training.width": 0}, "width: 0; expected at least 1"),
        ("shapes", {"training.align_weight": 0.5}, "align_weight: 0.5 weighs nothing"),
        ("shapes", {"captioner.hidden": 0}, "captioner.hidden: "),
        ("shapes", {"explain.by": "gradient"}, "explain.by: 'gradient'"),
        ("shapes", {"on_missing_box": "guess"}, "on_missing_box: 'guess'"),
        ("shapes", {"action": "invent"}, "action: 'invent'"),
    ],
)
def test_values_that_do_not_fit_are_named(graphs, changes, message, composed):
    config = composed[graphs].copy()
    for key, value in changes.items():
        OmegaConf.update(config, key, value)
    with pytest.raises(ConfigError, match=re.escape(message)) as raised:
        load_config(without_presets(plain(config)), CaptionConfig)
    assert "\n" not in str(raised.value)
    load_config(without_presets(plain(composed[graphs])), CaptionConfig)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["image"], "image: missing"),
        (["score", "graphs=ega", "graphs.root=nowhere"], "graphs.root: nothing at nowhere"),
        (["score", "graphs=ega", "graphs.root=."], "annotation: no such folder"),
        (["score", "graphs=coco"], "graphs.root: "),
        (["score", "captioner=rgcn_memories"], "captioner"),
    ],
)
def test_what_is_wrong_is_one_line_before_anything_is_made(arguments, message, run, tmp_path):
    assert message in refused(run, *arguments)
    assert not list(tmp_path.glob("refused/stages/*"))
