"""The job `caption` with action=image: an image of yours and its graph."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from aaca.data.scenegraph.batch import collate
from aaca.runtime.files import read_json
from tests.jobs.caption_runs import SCENES, captions_of, graphs_stage, made, ran, references, scored, shown


@pytest.fixture(scope="module")
def scenes(tmp_path_factory) -> Path:
    """The same of the embedded world, whose features are made here."""
    return scored(tmp_path_factory.mktemp("scenes"), *SCENES)


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


def test_captions_features_and_nodes_are_cut_as_those_of_the_test_set(scenes, run, monkeypatch):
    image, file = image_and_graphs(scenes)
    few = ("feature_dtype=float16", "training.lr=1e-12", "training.epochs=1", "training.length=4", "training.nodes=3")
    scored, _ = ran(run, scenes, "score", *SCENES, *few, "score.examples=0", "score.diversity=0")
    items, records = [], shown(monkeypatch)
    monkeypatch.setattr("aaca.experiments.caption_image.collate", lambda own: items.extend(own) or collate(own))
    wide = [name for name in captions_of(scored) if len(read_json(file)[name[-1]]["objects"]) > 1][:2]
    for name in wide:
        folder, said = ran(run, scenes, "image", *SCENES, *few, f"image={image}", f"asg={file}", f"region={name[-1]}")
        found, graph = read_json(folder / "caption.json"), read_json(file)[name[-1]]
        numbers, tables, pictures = records["caption image"]
        assert found["caption"] == captions_of(scored)[name] and len(found["caption"].split()) == 3  # no room for EOS
        assert numbers["log_prob"] == found["log_prob"] and numbers["a_step"] == pytest.approx(found["log_prob"] / 3)
        assert tables["caption"]["caption"].item() == found["caption"] and pictures["graph"].is_file()
        features, nodes = items[-1].features, items[-1].nodes
        np.testing.assert_array_equal(features, features.astype(np.float16).astype(np.float32))
        gone = nodes.dropped
        told = f"{gone.objects} objects, {gone.attributes} attributes and {gone.relationships} relationships beyond"
        assert f"not captioned: {told} training.nodes=3" in said and len(nodes) == 3
        held = [thing["attributes"] for thing in graph["objects"]]
        assert gone.total == len(held) + sum(map(len, held)) + len(graph["relationships"]) - 3 > 0
