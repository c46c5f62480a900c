"""Sources of graphs: arguments that are refused by their key, and which files of released data make another set."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from aaca.data import graph_writer
from aaca.data.scenegraph.layout import Layout
from aaca.models.graph_source import EmbeddedGraphs, ReleasedGraphs, ShapeGraphs
from aaca.runtime.errors import ConfigError
from aaca.runtime.files import read_json
from tests.data.test_graph_layout import path_json
from tests.graph_toys import FOLDERS, Kind, region_path, write_tree

SET = "val"
KINDS: list[tuple[str, Kind]] = [("ega", "ega"), ("coco", "coco")]


def later(file: Path) -> None:
    """As if written anew with the same content, or another of the same size."""
    old = file.stat()
    os.utime(file, ns=(old.st_atime_ns, old.st_mtime_ns + 1_000_000_000))


def keeping_its_time(file: Path, content: Callable[[], None]) -> None:
    old = file.stat()
    content()
    assert file.stat().st_size == old.st_size
    os.utime(file, ns=(old.st_atime_ns, old.st_mtime_ns))


def turned(file: Path) -> None:
    keeping_its_time(file, lambda: np.save(file, np.load(file)[::-1]))


def other_ending(file: Path) -> None:
    keeping_its_time(file, lambda: np.save(file, np.char.replace(np.load(file), ".jpg", ".png")))


def other_text(file: Path) -> None:
    text = file.read_text()
    at = text.index('": "' if "phrase" in text else '": ') + 4
    keeping_its_time(file, lambda: file.write_text(text[:at] + ("x" if text[at] != "x" else "y") + text[at + 1 :]))


def images_of(layout: Layout) -> list[str]:
    return [name.split(".")[0] for name in np.load(layout.images_file(SET)).tolist()]


CHANGES: dict[str, Callable[[Layout], object]] = {
    "samples": lambda layout: turned(layout.samples_file(SET)),
    "split": lambda layout: other_ending(layout.images_file(SET)),
    "split in another order": lambda layout: turned(layout.images_file(SET)),
    "references": lambda layout: other_text(layout.references_file(SET)),
    "references gone": lambda layout: layout.references_file(SET).unlink(),
    "int2word": lambda layout: turned(layout.words / "int2word.npy"),
    "word2int": lambda layout: other_text(layout.words / "word2int.json"),
    "globals": lambda layout: later(layout.globals_file(SET)),
    "graphs": lambda layout: later(layout.regions / f"{images_of(layout)[1]}.json"),
    "regions": lambda layout: later(region_path(layout, images_of(layout)[0])),
    "regions of another folder": lambda layout: later(region_path(layout, images_of(layout)[1])),
    "regions gone": lambda layout: region_path(layout, images_of(layout)[2]).unlink(),
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize(("option", "kind"), KINDS)
def test_every_file_of_a_set_tells_it_from_what_it_was(option, kind, change, tmp_path):
    layout = write_tree(tmp_path, kind, images=3)
    if not layout.references_file(SET).exists():
        layout.references_file(SET).write_text(json.dumps({"1": {"2": {"phrase": "a dog"}}}))

    def prints(name: str) -> object:
        return ReleasedGraphs(str(tmp_path / FOLDERS[kind]), option).set_fingerprint(name)

    before, other = prints(SET), prints("trn")
    assert prints(SET) == before
    CHANGES[change](layout)
    assert prints(SET) != before
    assert (prints("trn") == other) == (not change.endswith(("int2word", "word2int")))


def test_the_files_of_a_set_are_looked_at_once(tmp_path):
    layout = write_tree(tmp_path, "ega", images=2)
    source = ReleasedGraphs(str(tmp_path / "EGA"), "ega")
    before = source.set_fingerprint(SET)
    layout.globals_file(SET).unlink()
    assert source.set_fingerprint(SET) is before


def test_another_path_json_is_other_data_and_a_folder_is_none(tmp_path):
    layout = write_tree(tmp_path, "ega", images=2)
    file = tmp_path / "path.json"
    file.write_text(json.dumps(path_json(layout)))
    source = ReleasedGraphs(str(file), "path_json")
    before = source.fingerprint()
    assert source.set_fingerprint(SET)["regions"]["files"] == 2 and source.fingerprint() == before
    file.write_text(json.dumps({**read_json(file), "more": 1}))
    assert source.fingerprint() != before
    with pytest.raises(ConfigError, match=r"^graphs.root: .* is no file; expected path.json itself"):
        ReleasedGraphs(str(tmp_path), "path_json").fingerprint()


def test_images_of_given_sets_are_known_by_name(tmp_path):
    layout = write_tree(tmp_path, "coco", images=2)
    names = {image for image, _ in np.load(layout.samples_file("tst")).tolist()}
    assert ReleasedGraphs(str(tmp_path / "MSCOCO"), "coco").image_ids("tst") == names and len(names) == 2
    assert ShapeGraphs().image_ids("tst") == set()


@pytest.mark.parametrize(
    ("source", "arguments", "message"),
    [
        (ShapeGraphs, {"images": {"trn": 1, "val": 1}}, "graphs.images: {'trn': 1, 'val': 1}; expected 1 or more"),
        (ShapeGraphs, {"images": {"trn": 1, "val": 0, "tst": 1}}, "graphs.images: "),
        (ShapeGraphs, {"regions": 0}, "graphs.regions: 0; expected 1 or more"),
        (ShapeGraphs, {"seed": -1}, "graphs.seed: -1; expected 0 or more"),
        (EmbeddedGraphs, {"seed": -1}, "graphs.seed: -1; expected 0 or more"),
    ],
)
def test_arguments_are_refused_by_their_key_before_anything_is_drawn(source, arguments, message):
    with pytest.raises(ConfigError) as raised:
        source(**arguments)
    assert str(raised.value).startswith(message)


@pytest.mark.parametrize("source", [ShapeGraphs, EmbeddedGraphs])
def test_another_writer_makes_other_graphs(source, monkeypatch):
    before = source().fingerprint()
    assert before["writer"] == graph_writer.VERSION
    monkeypatch.setattr("aaca.models.graph_source.VERSION", graph_writer.VERSION + 1)
    monkeypatch.setattr("aaca.data.stamp_captions.WRITER", graph_writer.VERSION + 1)
    assert source().fingerprint() != before
