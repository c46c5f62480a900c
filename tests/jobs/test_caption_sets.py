"""The sets of a run of `caption` on released data: wrong names, shared images, files that changed, what was lost."""

import json
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest

from aaca.data.scenegraph.layout import Layout
from aaca.runtime.files import read_json
from tests.graph_toys import region_path, write_tree
from tests.jobs.caption_runs import SHAPES, TINY, made, ran, refused

NO_GRAMMAR = "no grammar is known of these graphs: Go, Ga, Gr, structure and direction are not scored"


@pytest.fixture
def tree(tmp_path) -> Layout:
    return write_tree(tmp_path, "ega", images=3)


def ega(tmp_path: Path) -> list[str]:
    return [*TINY, "training.epochs=1", "graphs=ega", f"graphs.root={tmp_path / 'EGA'}"]


def plain(said: str) -> str:
    """Without the clock and the line ends that the terminal puts in."""
    return " ".join(word for word in said.split() if word.count(":") != 2)


def share(layout: Layout, source: str, target: str) -> None:
    """Put what is in one set into another, behind its own."""
    files = [getattr(layout, f"{kind}_file") for kind in ("samples", "images", "globals")]
    for file in files:
        np.save(file(target), np.concatenate([np.load(file(target)), np.load(file(source))]))
    cleaned = layout.references_file(target)
    if cleaned.exists():
        own = layout.references_file(source)
        cleaned.write_text(json.dumps(read_json(cleaned) | read_json(own)))


@pytest.mark.parametrize(("key", "name"), [("train", "trm"), ("val", "vall"), ("test", "val_subb")])
def test_a_wrong_name_is_told_by_its_key(key, name, tree, run, tmp_path):
    near = {"trm": "trn", "vall": "val, ", "val_subb": "val_sub, "}[name]
    said = refused(run, "score", *ega(tmp_path), f"graphs.{key}={name}")
    assert said.startswith(f"graphs.{key}: {name!r}; nearest valid: {near}")
    assert not list(tmp_path.glob("refused/stages/*"))


def test_images_of_test_are_not_trained_on(tree, run, tmp_path):
    for name in ("trn", "val_sub"):
        said = refused(run, "score", *ega(tmp_path), f"graphs.test={name}", f"graphs.train={name}")
        assert said.startswith(f"graphs.test: {name!r} shares 3 of 3 images (") and f"graphs.train={name}" in said
    tree.references_file("val_sub").unlink()
    share(tree, "trn", "val_sub")
    said = refused(run, "score", *ega(tmp_path))
    assert said.startswith("graphs.test: 'val_sub' shares 3 of 6 images (train2014/COCO_train2014_")
    assert not list(tmp_path.glob("refused/stages/*"))
    captions = pd.DataFrame(
        [("_".join(pair), "a dog") for pair in np.load(tree.samples_file("val_sub")).tolist()],
        columns=["name", "caption"],
    )
    captions.to_csv(tmp_path / "own.csv", index=False)
    ran(run, tmp_path, "score", *ega(tmp_path), f"captions={tmp_path / 'own.csv'}")  # nothing is trained


def test_images_that_val_and_test_share_are_counted_once_unless_no_epoch_is_chosen(tree, run, tmp_path):
    warning = "graphs.val=val has 3 of the 3 images of graphs.test=val_sub: the best epoch is chosen on test"
    _, said = ran(run, tmp_path, "score", *ega(tmp_path))
    assert "the best epoch" not in plain(said) and plain(said).count(NO_GRAMMAR) == 1
    tree.references_file("val_sub").unlink()
    share(tree, "val_sub", "val")
    _, said = ran(run, tmp_path, "score", *ega(tmp_path))
    assert plain(said).count(warning) == 1
    assert "training.monitor=last or another graphs.val= avoids that" in plain(said)
    _, said = ran(run, tmp_path, "score", *ega(tmp_path), "training.monitor=last")
    assert "the best epoch" not in plain(said)


def test_features_that_are_written_anew_are_another_set(tree, run, tmp_path):
    ran(run, tmp_path, "score", *ega(tmp_path))
    _, said = ran(run, tmp_path, "score", *ega(tmp_path))
    assert made(said) == []
    image = str(np.load(tree.samples_file("trn"))[0, 0])
    with h5py.File(region_path(tree, image), "r+") as file:
        (data,) = file.values()
        data[...] = data[...][::-1]
    _, said = ran(run, tmp_path, "score", *ega(tmp_path))
    assert [name for name in made(said) if name.startswith(("packed", "captioner"))] == ["packed trn", "captioner"]


def test_what_is_lost_in_reading_is_said_of_every_set_also_when_it_is_ready(tree, run, tmp_path):
    image = str(np.load(tree.samples_file("val_sub"))[0, 0])
    record = read_json(tree.regions / f"{image}.json")
    first = next(iter(record.values()))
    first["phrase"] = "gnus " * 30
    first["objects"] = [first["objects"][0] | {"x": 1, "y": 1, "w": 3, "h": 3}, *first["objects"][1:]]
    (tree.regions / f"{image}.json").write_text(json.dumps(record))
    lost = [
        "(on_missing_box=skip) in 1,",
        "30 words that are not in the vocabulary in 1,",
        "7 words beyond training.length=25 in 1",
    ]
    arguments = [*ega(tmp_path), "on_missing_box=skip", "score.diversity=0"]
    for stages in (True, False):
        _, said = ran(run, tmp_path, "score", *arguments)  # edits are of what the captioner is shown
        assert bool(made(said)) == stages
        assert plain(said).count("lost in reading val_sub, of 9 samples: ") == 1
        assert all(text in plain(said) for text in lost)


def test_nothing_is_said_of_graphs_whose_grammar_is_known_and_that_lose_nothing(run, tmp_path):
    _, said = ran(run, tmp_path, "score", *SHAPES)
    assert "lost in reading" not in said and "no grammar is known" not in plain(said)
    assert "the best epoch" not in plain(said)
