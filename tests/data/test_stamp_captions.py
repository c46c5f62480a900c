"""Captioned scenes in the released layout: complete, unseen where it says so, the same for the same seed."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from aaca.data import stamp_captions
from aaca.data.caption_parser import caption_graph
from aaca.data.planted_noise import plant_noise
from aaca.data.scenegraph.layout import Layout
from aaca.data.scenegraph.samples import GraphSet
from aaca.data.stamp_captions import StampCaptions, is_unseen
from aaca.models.region_embedder import RegionEmbedder
from aaca.models.timm_model import TimmModel
from aaca.runtime.errors import AacaError, ConfigError
from aaca.world.stamp_graphs import grammar, parse
from tests.data.layout_toys import check_layout, load

SETS = ("trn", "val", "val_sub", "tst")
IMAGES = {"trn": 60, "val": 6, "tst": 8}
BACKBONE = {"patch_size": 8, "embed_dim": 96, "depth": 4, "num_heads": 4}
HALF = [0.5, 0.5, 0.5]


def means(crops):
    """Mean colours of a 4 x 4 grid."""
    return crops.reshape(len(crops), 4, 2, 4, 2, 3).mean((2, 4)).reshape(len(crops), -1)


def backbone(**kwargs):
    source = TimmModel(
        "vit_tiny_patch16_224", 64, "embedded:backbone/model.safetensors", kwargs=BACKBONE, mean=HALF, std=HALF
    )
    return RegionEmbedder(source.build(2), **kwargs)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("captions")
    StampCaptions(IMAGES, image_size=64).build(root, means, 8, {"model": "means"})
    return root


def test_files_are_as_released(folder):
    check_layout(folder, SETS, 64, 48 + 5)
    assert json.loads((folder / "about.json").read_text())["features"] == {"model": "means"}
    words = np.load(folder / "annotation/int2word.npy").tolist()
    assert set(words[3:]) <= grammar().words
    assert len(words) < 120
    for name, count in {**IMAGES, "val_sub": 3}.items():
        names = np.load(folder / f"annotation/public_split/{name}_names.npy")
        assert len(names) == count
        assert all((folder / "images" / f"{str(file).split('.')[0]}.png").is_file() for file in names)
        regions = np.load(folder / f"annotation/regionfiles/{name}_names.npy")
        counts = np.unique(regions[:, 0], return_counts=True)[1]
        assert counts.min() >= 4 and counts.max() <= 6


def test_records_say_what_their_captions_say(folder):
    for name in SETS:
        for record in load(folder, name)[1].values():
            reading = parse(record["phrase"])
            assert not reading.leftover
            assert [thing.name for thing in reading.said.things] == [entry["name"] for entry in record["objects"]]
            assert [list(thing.attributes) for thing in reading.said.things] == [
                e["attributes"] for e in record["objects"]
            ]
            ids = [entry["object_id"] for entry in record["objects"]]
            links = [(ids[s], word, ids[o]) for s, word, o in reading.said.relations]
            assert links == [(r["subject_id"], r["name"], r["object_id"]) for r in record["relationships"]]


def test_the_loader_of_the_released_files_takes_every_sample(folder):
    for name in SETS:
        found = GraphSet.open(replace(Layout.ega(folder), sets=SETS), name)
        assert not any(sum(counts.values()) for counts in found.survey().values())
        for row in range(len(found)):
            graph = found.graph(row)
            assert not any(problem.serious for problem in graph.problems((64, 64)))
            assert caption_graph(graph.phrase, grammar()).counts() == graph.counts()
            assert found.item(row).features.shape == (graph.counts().total, 53)


def combination(records, image):
    names = {entry["name"] for pair, record in records.items() if pair[0] == image for entry in record["objects"]}
    ground = names & set(grammar().grounds)
    return *sorted(names - ground), *ground


def test_tests_show_unseen_combinations_of_seen_words(folder):
    shown, words, pictures = {}, {}, {}
    for name in ("trn", "val", "tst"):
        _, records, _ = load(folder, name)
        shown[name] = {combination(records, image) for image, _ in records}
        words[name] = {word for record in records.values() for word in record["phrase"].split()}
        pictures[name] = [
            Image.open(folder / f"images/{image}.png").tobytes() for image in {pair[0] for pair in records}
        ]
    assert all(is_unseen(*names) for names in shown["tst"])
    assert not any(is_unseen(*names) for names in shown["trn"] | shown["val"])
    assert words["tst"] | words["val"] <= words["trn"]
    assert len({one for some in pictures.values() for one in some}) == sum(IMAGES.values())


def test_region_features_are_those_of_the_crop(folder):
    """Recomputed for an object's box by hand, with the mean and deviation that the folder states."""
    _, records, features = load(folder, "val")
    told = json.loads((folder / "about.json").read_text())["described"]["regions"]
    (image, _), record = next(iter(records.items()))
    entry = record["objects"][0]
    x, y, w, h = (entry[key] for key in "xywh")
    picture = Image.open(folder / f"images/{image}.png")
    crop = np.asarray(picture.crop((x, y, x + w, y + h)).resize((8, 8), Image.Resampling.BICUBIC))
    row = features[image][x, y, x + w - 1, y + h - 1] * np.array(told["std"]) + np.array(told["mean"])
    assert np.abs(row[:48] - means(crop[None])[0]).max() < 12  # crop and box differ by how edges are weighed
    assert np.allclose(row[48:], [x / 64, y / 64, (x + w) / 64, (y + h) / 64, w * h / 64**2])


def test_features_of_training_have_mean_0_and_deviation_1(folder):
    _, _, features = load(folder, "trn")  # all of its images are those that the scale is fitted on
    rows = np.array([row for boxes in features.values() for box, row in boxes.items() if box != "size"])
    assert np.abs(rows.mean(axis=0)).max() < 1e-9
    assert np.abs(rows.std(axis=0) - 1).max() < 1e-9
    wholes = np.load(folder / "features/MP/resnet101.ctrl/trn_ft.npy")
    assert np.abs(wholes.std(axis=0) - 1).max() < 1e-5


def test_the_same_seed_writes_the_same_bytes_and_another_does_not(tmp_path, monkeypatch):
    monkeypatch.setattr(stamp_captions, "SKIPS", 2000)
    for name, seed in (("one", 0), ("two", 0), ("other", 1)):
        few = StampCaptions({"trn": 12, "val": 1, "tst": 1}, image_size=64, seed=seed)
        few.build(tmp_path / name, means, 8, {})
    one, two, other = (
        {
            path.relative_to(tmp_path / name): path.read_bytes()
            for path in (tmp_path / name).rglob("*")
            if path.is_file()
        }
        for name in ("one", "two", "other")
    )
    assert one == two
    assert one != other


def test_noise_can_be_planted_in_scenes_too(tmp_path, folder):
    shutil.copytree(folder, tmp_path / "noisy")
    records, truth = plant_noise(tmp_path / "noisy", "trn", 0.2, seed=5)
    assert len(json.loads(truth.read_text())) == 12
    assert records.read_text().startswith("file,region,content_type,content,relevance\n")
    check_layout(tmp_path / "noisy", SETS, 64, 48 + 5)


def test_a_training_set_that_lacks_words_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(stamp_captions, "SKIPS", 2)
    with pytest.raises(ConfigError, match=r"images\.trn: 1; "):
        StampCaptions({"trn": 1, "val": 4, "tst": 1}, image_size=64).build(tmp_path, means, 8, {})


@pytest.mark.parametrize(
    ("arguments", "key"),
    [
        ({"images": {"trn": 1}}, "images"),
        ({"images": {"trn": 1, "val": 0, "tst": 1}}, "images"),
        ({"val_sub": 81}, "val_sub"),
        ({"regions": (5, 4)}, "regions"),
        ({"image_size": 32}, "image_size"),
        ({"seed": -1}, "seed"),
    ],
)
def test_wrong_arguments_are_refused(arguments, key):
    with pytest.raises(ConfigError, match=rf"^graphs\.{key}: "):
        StampCaptions(**arguments)


def test_the_fingerprint_tells_every_argument_apart():
    others = ({"seed": 1}, {"val_sub": 3}, {"regions": (4, 5)}, {"image_size": 96}, {"test_sources": "test"})
    prints = [json.dumps(StampCaptions(**kwargs).fingerprint(), default=str) for kwargs in ({}, *others)]
    assert len(set(prints)) == len(prints)


def test_the_embedder_averages_the_backbones_map_and_its_centre():
    embed = backbone(batch_size=2)
    crops = np.random.default_rng(0).integers(0, 256, (3, 64, 64, 3), dtype=np.uint8)
    vectors = embed(crops)
    assert vectors.shape == (3, 192)
    assert np.allclose(vectors[2:], embed(crops[2:]), atol=1e-5)
    with torch.no_grad():
        pixels = torch.from_numpy(crops).permute(0, 3, 1, 2) / 127.5 - 1
        tokens = embed.classifier.backbone.forward_features(pixels)[:, 1:].numpy()
    centre = [row * 8 + column for row in range(2, 6) for column in range(2, 6)]
    assert np.allclose(vectors, np.concatenate([tokens.mean(1), tokens[:, centre].mean(1)], 1), atol=1e-4)


def test_a_backbone_without_a_map_is_refused():
    embed = backbone()
    embed.classifier.backbone.num_prefix_tokens = 0
    with pytest.raises(AacaError, match="no square map"):
        embed(np.zeros((1, 64, 64, 3), dtype=np.uint8))


@pytest.mark.slow
def test_the_backbones_features_tell_names_colours_and_sizes(tmp_path):
    StampCaptions({"trn": 200, "val": 10, "tst": 60}).build(tmp_path, backbone(), 64, {})
    train, test = objects(tmp_path, "trn"), objects(tmp_path, "tst")
    for kind, least in enumerate((0.7, 0.8, 0.95)):
        x, y = labelled(train, kind)
        scaler = StandardScaler().fit(x)
        probe = LogisticRegression(C=0.1, max_iter=500).fit(scaler.transform(x), y)
        held_out, names = labelled(test, kind)
        score = probe.score(scaler.transform(held_out), names)
        print(("name", "colour", "size")[kind], len(y), len(names), round(score, 3))
        assert score > least


def objects(folder, name):
    """Every object once: its feature, and its name, colour, size where some caption says them."""
    _, records, features = load(folder, name)
    found = {}
    for (image, _), record in records.items():
        for e in record["objects"]:
            box = e["x"], e["y"], e["x"] + e["w"] - 1, e["y"] + e["h"] - 1
            said = (e["name"], *e["attributes"], None, None)[:3]
            known = found.get((image, box), (None, (None,) * 3))[1]
            found[image, box] = features[image][box], tuple(a or b for a, b in zip(said, known, strict=True))
    return found


def labelled(found, kind):
    rows = [(row, said[kind]) for row, said in found.values() if said[kind]]
    return np.stack([row for row, _ in rows]), [word for _, word in rows]
