import json
import pickle
from dataclasses import fields

import numpy as np
import pytest

from aaca.data.scenegraph.batch import GraphItem, GraphLoader
from aaca.data.scenegraph.columns import ColumnWriter, read_columns
from aaca.data.scenegraph.packing import pack
from aaca.data.scenegraph.samples import GraphSet
from aaca.data.scenegraph.store import ABOUT, PackedGraphs
from aaca.runtime.errors import ConfigError, DataError
from aaca.runtime.files import file_sha256
from tests.graph_toys import FOLDERS, F, G, corners, region_path, write_array, write_regions, write_tree


def same_item(one: GraphItem, other: GraphItem, tolerance: float = 0.0) -> None:
    np.testing.assert_allclose(one.features, other.features, rtol=tolerance, atol=0)
    assert one.row == other.row
    for name in ("image", "words"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name), strict=True)
    assert one.features.dtype == other.features.dtype == np.float32
    for field in fields(one.nodes):
        mine, its = getattr(one.nodes, field.name), getattr(other.nodes, field.name)
        if isinstance(mine, np.ndarray):
            np.testing.assert_array_equal(mine, its, strict=True)
        else:
            assert mine == its


@pytest.mark.parametrize("kind", FOLDERS)
@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 0.0), ("float16", 2**-11)])
def test_a_packed_set_is_the_set(tmp_path, kind, dtype, tolerance):
    graphs = GraphSet.open(write_tree(tmp_path, kind), "val", limit=8, length=12)
    packed = pack(graphs, tmp_path / "packed", dtype)
    assert len(packed) == len(graphs) == 9
    assert (packed.feature_size, packed.global_size, packed.length) == (F, G, 12)
    assert packed.words == graphs.words
    assert packed.references() == graphs.references()
    for i in range(len(graphs)):
        same_item(packed.item(i), graphs.item(i), tolerance)
        assert packed.name(i) == graphs.name(i)
        assert packed.phrase(i) == graphs.phrase(i)
        assert packed.graph(i) == graphs.graph(i)
        assert packed.region(i) == graphs.region(i)
    packed.verify()


def test_the_cleaned_references_are_packed(tmp_path):
    graphs = GraphSet.open(write_tree(tmp_path), "val_sub")
    references = pack(graphs, tmp_path / "packed").references()
    assert references == graphs.references()
    assert references[graphs.name(0)] == [f"{graphs.phrase(0)} indeed"]


def test_samples_of_an_image_may_lie_apart(tmp_path):
    layout = write_tree(tmp_path)
    samples = np.load(layout.samples_file("val"))
    np.save(layout.samples_file("val"), samples[np.random.default_rng(3).permutation(9)])
    graphs = GraphSet.open(layout, "val")
    packed = pack(graphs, tmp_path / "packed", "float32")
    for i in range(9):
        same_item(packed.item(i), graphs.item(i))
        assert packed.name(i) == graphs.name(i)


def test_each_image_and_box_is_stored_once(tmp_path):
    graphs = GraphSet.open(write_tree(tmp_path, objects=5), "val", limit=40)
    packed = pack(graphs, tmp_path / "packed", "float32")
    boxes = {(graphs.image_id(i), box) for i in range(9) for box in corners(graphs.region(i), 1)}
    columns = packed.about["columns"]
    assert columns["features"]["shape"] == [len(boxes), F]
    assert columns["globals"]["shape"] == [3, G]
    assert sum(len(graphs.item(i).nodes.types) for i in range(9)) > len(boxes)


def test_what_is_odd_in_json_and_in_graphs_comes_back(tmp_path):
    layout = write_tree(tmp_path)
    graphs = GraphSet.open(layout, "val")
    image_id = graphs.image_id(0)
    box = {"x": 0, "y": 0, "w": 10, "h": 10}
    record = {
        "objects": [{"object_id": 2**60, "name": "café \ud800", "attributes": ["é"], **box, "score": 0.1}],
        "relationships": [],
        "phrase": "a café 🐕",
        "note": [1, None],
    }
    nothing = {"objects": [], "relationships": [], "phrase": ""}
    file = layout.regions / f"{image_id}.json"
    file.write_text(json.dumps({"1": record, "2": nothing}))
    write_regions(region_path(layout, image_id), image_id, [(0, 0, 9, 9)])
    write_array(layout.samples_file("val"), [(image_id, "1"), (image_id, "2")])
    graphs = GraphSet.open(layout, "val")
    packed = pack(graphs, tmp_path / "packed", "float32")
    assert packed.graph(0).to_region() == record
    assert packed.graph(1).to_region() == nothing
    for i in range(2):
        same_item(packed.item(i), graphs.item(i))
    assert packed.item(1).features.shape == (0, F)


def test_the_pack_says_what_it_was_made_from(tmp_path):
    layout = write_tree(tmp_path, "visual_genome")
    graphs = GraphSet.open(layout, "tst", limit=5, on_missing_box="skip")
    about = pack(graphs, tmp_path / "packed").about
    assert (about["box_mode"], about["limit"], about["on_missing_box"]) == ("exclusive", 5, "skip")
    assert about["report"] == graphs.report.summary()
    assert about["report"]["dropped_objects"]["total"] > 0
    for file in (layout.globals_file("tst"), layout.samples_file("tst"), layout.references_file("tst")):
        assert about["inputs"][str(file)] == file_sha256(file)


def test_packed_graphs_pickle_cheaply(tmp_path):
    packed = pack(GraphSet.open(write_tree(tmp_path), "val"), tmp_path / "packed")
    wanted = packed.item(4)
    packed.references()
    text = pickle.dumps(packed)
    assert len(text) < 10_000
    assert set(vars(pickle.loads(text))) == {"folder", "about"}
    same_item(pickle.loads(text).item(4), wanted)


def test_workers_read_a_pack(tmp_path):
    packed = pack(GraphSet.open(write_tree(tmp_path), "val"), tmp_path / "packed")
    rows = [batch.rows.tolist() for batch in GraphLoader(packed, 4, shuffle=False, workers=1)]
    assert rows == [[0, 1, 2, 3], [4, 5, 6, 7], [8]]


def test_nothing_half_written_stays(tmp_path):
    layout = write_tree(tmp_path)
    graphs = GraphSet.open(layout, "val")
    region_path(layout, graphs.image_id(8)).unlink()
    with pytest.raises(DataError, match="no such file"):
        pack(graphs, tmp_path / "packs" / "packed")
    assert list((tmp_path / "packs").iterdir()) == []
    (tmp_path / "packs" / "packed").mkdir()
    with pytest.raises(DataError, match="exists; expected a new folder"):
        pack(graphs, tmp_path / "packs" / "packed")
    with pytest.raises(ConfigError, match="dtype: 'float8'; nearest valid"):
        pack(graphs, tmp_path / "other", "float8")


def test_a_number_that_does_not_fit_is_refused(tmp_path):
    writer = ColumnWriter(tmp_path, {"half": ("float16", (2,)), "small": ("int16", ())})
    assert writer.add("half", np.array([[1.0, 2.0], [3.0, 4.0]])) == (0, 2)
    assert writer.add("small", [32767, -32768]) == (0, 2)
    with pytest.raises(DataError, match=r"half: 70000\.0 does not fit float16"):
        writer.add("half", np.array([1.0, 70000.0]))
    with pytest.raises(DataError, match="small: 32768 does not fit int16"):
        writer.add("small", [32768])
    columns = read_columns(tmp_path, writer.close())
    assert columns["half"].tolist() == [[1.0, 2.0], [3.0, 4.0]]
    assert columns["small"].tolist() == [32767, -32768]


def test_a_damaged_pack_is_found(tmp_path):
    packed = pack(GraphSet.open(write_tree(tmp_path), "val"), tmp_path / "packed")
    file = packed.folder / "features.bin"
    whole = file.read_bytes()
    file.write_bytes(b"\x01" + whole[1:])
    with pytest.raises(DataError, match=r"features.bin: its bytes have changed"):
        packed.verify()
    file.write_bytes(whole[:-1])
    with pytest.raises(DataError, match=rf"features.bin: {len(whole) - 1} bytes; expected {len(whole)} bytes"):
        PackedGraphs.open(packed.folder)
    file.unlink()
    with pytest.raises(DataError, match=r"features.bin: missing"):
        PackedGraphs.open(packed.folder)
    file.write_bytes(whole)
    (packed.folder / "node_names.json").write_text("[]")
    with pytest.raises(DataError, match=r"node_names.json: its bytes have changed"):
        PackedGraphs.open(packed.folder).verify()


@pytest.mark.parametrize("change", ["dtype", "name", "none"])
def test_a_description_cannot_name_other_files_or_types(tmp_path, change):
    packed = pack(GraphSet.open(write_tree(tmp_path), "val"), tmp_path / "packed")
    columns = packed.about["columns"]
    if change == "dtype":
        columns["nodes"]["dtype"] = "object"
    elif change == "name":
        columns["../../secret"] = columns.pop("words")
    else:
        del packed.about["columns"]
    (packed.folder / ABOUT).write_text(json.dumps(packed.about))
    with pytest.raises(DataError, match=r"graphs.json: (describes other columns|not the description)"):
        PackedGraphs.open(packed.folder)
    (packed.folder / ABOUT).write_text('{"schema": 9}')
    with pytest.raises(DataError, match="schema 9; expected 1"):
        PackedGraphs.open(packed.folder)
