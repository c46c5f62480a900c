import json
import pickle
import re

import h5py
import numpy as np
import pytest

from aaca.data.scenegraph.layout import Layout
from aaca.data.scenegraph.samples import GraphSet
from aaca.data.scenegraph.vocabulary import EOS, UNK, Words
from aaca.runtime.errors import ConfigError, DataError
from tests.graph_toys import (
    FOLDERS,
    HEIGHT,
    WIDTH,
    F,
    G,
    corners,
    image_feature,
    link,
    region_feature,
    region_path,
    thing,
    write_array,
    write_regions,
    write_tree,
)


def records_of(graphs: GraphSet, i: int) -> dict:
    return json.loads((graphs.layout.regions / f"{graphs.image_id(i)}.json").read_text())


def one_region(layout: Layout, record: dict, boxes: list | None = None) -> GraphSet:
    """The set val with a single sample: `record`, and the features of `boxes` (those it needs)."""
    image_id = GraphSet.open(layout, "val").image_id(0)
    (layout.regions / f"{image_id}.json").write_text(json.dumps({"1": record}))
    write_array(layout.samples_file("val"), [(image_id, "1")])
    extra = 1 if layout.box_mode == "inclusive" else 0
    write_regions(region_path(layout, image_id), image_id, corners(record, extra) if boxes is None else boxes)
    return GraphSet.open(layout, "val")


def test_released_paths(tmp_path):
    coco, genome, ega = Layout.coco(tmp_path), Layout.visual_genome(tmp_path), Layout.ega(tmp_path)

    def below(path):
        return str(path.relative_to(tmp_path))

    assert below(coco.samples_file("trn")) == "annotation/controllable/regionfiles/trn_names.npy"
    assert below(coco.images_file("tst")) == "annotation/controllable/public_split/tst_names.npy"
    assert below(coco.globals_file("val")) == "ordered_feature/MP/resnet101.ctrl/val_ft.npy"
    assert list(map(below, coco.objects)) == [
        "ordered_feature/SA/X_101_32x8d/objrels",
        "ordered_feature/SA/X_101_32x8d/o2/objrels",
    ]
    assert below(coco.references_file("tst")) == "annotation/controllable/cleaned_tst_region_descriptions.json"
    assert below(genome.images_file("trn")) == "public_split/trn_names.npy"
    assert below(genome.samples_file("trn")) == "annotation/regionfiles/trn_names.npy"
    assert (coco.box_mode, genome.box_mode, ega.box_mode) == ("inclusive", "exclusive", "inclusive")
    assert below(ega.globals_file("val_sub_opt")) == "features/MP/resnet101.ctrl/val_sub_opt_ft.npy"
    assert below(ega.references_file("val_sub")) == "annotation/cleaned_val_sub_region_descriptions.json"
    assert ega.sets == ("trn", "val", "val_sub", "val_sub_opt")


@pytest.mark.parametrize("kind", FOLDERS)
def test_every_layout_is_read_whole(tmp_path, kind):
    layout = write_tree(tmp_path, kind)
    extra = 0 if kind == "visual_genome" else 1
    for set_name in layout.sets:
        graphs = GraphSet.open(layout, set_name, limit=30)
        assert len(graphs) == 9
        assert (graphs.feature_size, graphs.global_size) == (F, G)
        for i in range(len(graphs)):
            image_id, region_id = graphs.samples[i].tolist()
            record, item = records_of(graphs, i)[region_id], graphs.item(i)
            assert graphs.name(i) == f"{image_id}_{region_id}"
            assert graphs.graph(i).to_region() == record
            assert graphs.phrase(i) == record["phrase"]
            assert graphs.words.decode(item.words) == record["phrase"]
            assert item.row == i
            np.testing.assert_array_equal(item.image, image_feature(image_id))
            things = record["objects"]
            boxes = corners(record, extra)
            own = [box for it, box in zip(things, boxes, strict=False) for _ in range(1 + len(it["attributes"]))]
            expected = [region_feature(image_id, box) for box in [*own, *boxes[len(things) :]]]
            np.testing.assert_array_equal(item.features, np.array(expected, np.float32))
            assert item.features.dtype == item.image.dtype == np.float32
    assert graphs.regions(0).size == (WIDTH, HEIGHT)


def test_references_are_the_cleaned_ones_where_there_are_any(tmp_path):
    layout = write_tree(tmp_path)
    plain, tested = GraphSet.open(layout, "val"), GraphSet.open(layout, "val_sub")
    assert plain.references() == {plain.name(i): [plain.phrase(i)] for i in range(9)}
    assert tested.references() == {tested.name(i): [f"{tested.phrase(i)} indeed"] for i in range(9)}
    write_array(layout.samples_file("val_sub"), tested.samples[:2])
    assert len(GraphSet.open(layout, "val_sub").references()) == 2
    layout.references_file("val_sub").write_text("{}")
    with pytest.raises(DataError, match="no phrase of region '7000'"):
        tested.references()


def path_json(layout: Layout, **changes) -> dict:
    return {
        "output_dir": "results",
        "word2int_file": str(layout.words / "word2int.json"),
        "int2word_file": str(layout.words / "int2word.npy"),
        "mp_ft_file": {one: str(layout.globals_file(one)) for one in layout.sets},
        "name_file": {one: str(layout.images_file(one)) for one in layout.sets},
        "region_anno_dir": dict.fromkeys(layout.sets, str(layout.regions)),
        "obj_ft_dir": {one: [str(folder) for folder in layout.objects] for one in layout.sets},
        **changes,
    }


@pytest.mark.parametrize("kind", FOLDERS)
def test_path_json_gives_the_same_layout(tmp_path, kind):
    layout = write_tree(tmp_path, kind)
    file = tmp_path / "path.json"
    file.write_text(json.dumps(path_json(layout)))
    assert Layout.from_path_json(file) == layout
    assert Layout.from_path_json(file, "exclusive").box_mode == "exclusive"
    relative = json.dumps(path_json(layout)).replace(f"{tmp_path}/", "")
    file.write_text(relative)
    assert Layout.from_path_json(file) == layout
    single = {one: str(layout.objects[0]) for one in layout.sets}
    file.write_text(json.dumps(path_json(layout, obj_ft_dir=single)))
    assert Layout.from_path_json(file).objects == layout.objects[:1]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name_file": {}}, "name_file has no sets"),
        ({"mp_ft_file": {"trn": "a/trn_ft.npy"}}, "mp_ft_file: nothing for set 'val'"),
        (
            {"mp_ft_file": dict.fromkeys(("trn", "val", "val_sub", "val_sub_opt"), "x.npy")},
            "x.npy; expected trn_ft.npy",
        ),
        ({"word2int_file": 3}, "word2int_file: 3; expected a path"),
        ({"int2word_file": "elsewhere/int2word.npy"}, "lie in different folders"),
        ({"region_anno_dir": {"trn": "a", "val": "b", "val_sub": "b", "val_sub_opt": "b"}}, "one folder for all sets"),
    ],
)
def test_a_wrong_path_json_is_named(tmp_path, changes, message):
    file = tmp_path / "path.json"
    file.write_text(json.dumps(path_json(Layout.ega(tmp_path), **changes)))
    with pytest.raises(DataError, match=message):
        Layout.from_path_json(file)
    file.write_text("{}")
    with pytest.raises(DataError, match="no word2int_file, int2word_file"):
        Layout.from_path_json(file)


def test_rows_that_do_not_fit_are_found(tmp_path):
    layout = write_tree(tmp_path)
    np.save(layout.globals_file("val"), np.load(layout.globals_file("val"))[:-1])
    with pytest.raises(DataError, match=r"val_ft.npy: 2 rows, but .*val_names.npy names 3 images; expected one row"):
        GraphSet.open(layout, "val")


def test_rows_follow_the_split_file(tmp_path):
    layout = write_tree(tmp_path)
    names = np.load(layout.images_file("val"))
    np.save(layout.images_file("val"), names[::-1])
    np.save(layout.globals_file("val"), np.load(layout.globals_file("val"))[::-1])
    graphs = GraphSet.open(layout, "val")
    for i in range(len(graphs)):
        np.testing.assert_array_equal(graphs.item(i).image, image_feature(graphs.image_id(i)))


def test_samples_without_an_image_or_twice_are_refused(tmp_path):
    layout = write_tree(tmp_path)
    samples = np.load(layout.samples_file("val"))
    write_array(layout.samples_file("val"), [*samples.tolist(), samples[3].tolist()])
    with pytest.raises(DataError, match=f"sample '{'_'.join(samples[3])}' comes twice"):
        GraphSet.open(layout, "val")
    write_array(layout.samples_file("val"), [("val2014/other", "1")])
    with pytest.raises(DataError, match="'val2014/other' is not among the 3 images"):
        GraphSet.open(layout, "val")
    names = np.load(layout.images_file("val"))
    write_array(layout.images_file("val"), [names[0], names[0], names[1]])
    with pytest.raises(DataError, match="comes twice; expected each image once"):
        GraphSet.open(layout, "val")


@pytest.mark.parametrize(
    "name", ["../../secret.jpg", "/etc/passwd.jpg", "a/../../b.jpg", "a\\b.jpg", ".jpg", "c:x.jpg"]
)
def test_no_image_leads_out_of_its_folder(tmp_path, name):
    layout = write_tree(tmp_path)
    names = np.load(layout.images_file("val")).tolist()
    write_array(layout.images_file("val"), [*names[:2], name])
    with pytest.raises(DataError, match="leads out of its folder, or has no name"):
        GraphSet.open(layout, "val")


@pytest.mark.parametrize("name", ["../../secret", "/etc/passwd"])
def test_no_sample_leads_out_of_its_folder(tmp_path, name):
    layout = write_tree(tmp_path)
    write_array(layout.samples_file("val"), [(name, "1")])
    with pytest.raises(DataError, match=f"{name!r} is not among"):
        GraphSet.open(layout, "val")


@pytest.mark.parametrize("file", ["samples_file", "images_file", "globals_file"])
def test_arrays_of_objects_are_never_unpickled(tmp_path, file):
    class Trap:
        def __reduce__(self):
            return (tmp_path.joinpath("sprung").touch, ())

    layout = write_tree(tmp_path)
    np.save(getattr(layout, file)("val"), np.array([Trap()], dtype=object), allow_pickle=True)
    with pytest.raises(DataError, match="holds pickled Python objects"):
        GraphSet.open(layout, "val")
    getattr(layout, file)("val").write_bytes(pickle.dumps(Trap()))
    with pytest.raises(DataError, match="holds pickled Python objects"):
        GraphSet.open(layout, "val")
    assert not (tmp_path / "sprung").exists()


def test_wrong_arguments_are_named(tmp_path):
    layout = write_tree(tmp_path)
    with pytest.raises(ConfigError, match="set: 'val_sup'; nearest valid: val_sub"):
        GraphSet.open(layout, "val_sup")
    with pytest.raises(ConfigError, match="limit: 0; expected 1 or more"):
        GraphSet.open(layout, "val", limit=0)
    with pytest.raises(ConfigError, match="length: 2; expected 3 or more"):
        GraphSet.open(layout, "val", length=2)
    with pytest.raises(ConfigError, match="on_missing_box: 'nearest'; nearest valid: nearest_iou"):
        GraphSet.open(layout, "val", on_missing_box="nearest")
    with pytest.raises(DataError, match=r"nowhere/annotation: no such folder"):
        GraphSet.open(Layout.ega(tmp_path / "nowhere"), "val")


NEAR = {
    "objects": [
        thing(1, "boy", (10, 10, 20, 20), "red"),
        thing(2, "dog", (40, 10, 20, 20)),
        thing(3, "kite", (0, 60, 9, 9)),
    ],
    "relationships": [link(1, 1, "near", 2), link(2, 1, "on", 3)],
    "phrase": "a red boy near a dog",
}
NEAR_BOXES = [(10, 10, 29, 29), (40, 10, 59, 29), (0, 60, 8, 68), (10, 10, 59, 29), (0, 10, 29, 68)]


def test_a_box_that_is_off_by_one_is_one_clear_error(tmp_path):
    layout = write_tree(tmp_path)
    shifted = [(40, 10, 60, 29) if box == NEAR_BOXES[1] else box for box in NEAR_BOXES]
    graphs = one_region(layout, NEAR, shifted)
    with pytest.raises(DataError) as caught:
        graphs.item(0)
    message = str(caught.value)
    assert message.startswith(str(region_path(layout, graphs.image_id(0))))
    assert "no features of box [40, 10, 59, 29] ('dog' of val2014/" in message
    assert "nearest [40, 10, 60, 29], overlap 0.95" in message
    assert "box_mode" not in message
    assert "\n" not in message


def test_the_wrong_box_mode_is_recognised(tmp_path):
    layout = write_tree(tmp_path, "visual_genome")
    graphs = one_region(layout, NEAR, NEAR_BOXES)
    with pytest.raises(DataError, match="with box_mode=inclusive all are found"):
        graphs.item(0)


def test_nearest_iou_takes_the_box_that_overlaps_most(tmp_path):
    layout = write_tree(tmp_path)
    shifted = [(40, 10, 60, 29) if box == NEAR_BOXES[1] else box for box in NEAR_BOXES]
    graphs = one_region(layout, NEAR, shifted)
    graphs.on_missing_box = "nearest_iou"
    item = graphs.item(0)
    assert item.nodes.names == ("boy", "red", "dog", "kite", "near", "on")
    np.testing.assert_array_equal(
        item.features[2], region_feature(graphs.image_id(0), (40, 10, 60, 29)).astype(np.float32)
    )
    graphs.item(0)
    assert graphs.report.summary() == {"missing_boxes": {"total": 1, "samples": 1}}


@pytest.mark.parametrize("mode", ["inclusive", "exclusive"])
def test_overlap_is_that_of_pixels(tmp_path, mode):
    graphs = one_region(write_tree(tmp_path), NEAR, [(0, 0, 9, 9), (5, 5, 14, 14), (0, 0, 30, 30)])
    extra = 1 if mode == "inclusive" else 0
    canvas = np.zeros((3, 40, 40), bool)
    for mask, (x1, y1, x2, y2) in zip(canvas, graphs.regions(0).boxes, strict=True):
        mask[y1 : y2 + extra, x1 : x2 + extra] = True
    wanted = np.zeros((40, 40), bool)
    wanted[4 : 12 + extra, 3 : 11 + extra] = True
    shares = [(mask & wanted).sum() / (mask | wanted).sum() for mask in canvas]
    row, share = graphs.regions(0).nearest((3, 4, 11, 12), mode)
    assert row == int(np.argmax(shares))
    assert share == pytest.approx(max(shares))


def test_nearest_iou_refuses_a_box_that_overlaps_nothing(tmp_path):
    graphs = one_region(write_tree(tmp_path), NEAR, [(100, 80, 110, 85)])
    graphs.on_missing_box = "nearest_iou"
    with pytest.raises(DataError, match=r"no features of box \[10, 10, 29, 29\].*overlap 0.00"):
        graphs.item(0)


def test_skip_leaves_out_what_has_no_box_and_all_it_holds(tmp_path):
    layout = write_tree(tmp_path)
    graphs = one_region(layout, NEAR, [box for box in NEAR_BOXES if box != NEAR_BOXES[0]])
    graphs.on_missing_box = "skip"
    item = graphs.item(0)
    assert item.nodes.names == ("dog", "kite")
    assert graphs.graph(0).counts().objects == 3
    assert graphs.report.summary()["missing_boxes"] == {"total": 1, "samples": 1}
    graphs = one_region(layout, NEAR, [box for box in NEAR_BOXES if box != NEAR_BOXES[3]])
    graphs.on_missing_box = "skip"
    assert graphs.item(0).nodes.names == ("boy", "red", "dog", "kite", "on")


def test_skip_can_leave_nothing(tmp_path):
    graphs = one_region(write_tree(tmp_path), NEAR, [(100, 80, 110, 85)])
    graphs.on_missing_box = "skip"
    item = graphs.item(0)
    assert item.features.shape == (0, F)
    assert graphs.report.summary()["missing_boxes"]["total"] == 3 + 2
    assert graphs.report.summary()["empty_graphs"] == {"total": 1, "samples": 1}


def test_an_empty_graph_is_read(tmp_path):
    graphs = one_region(write_tree(tmp_path), {"objects": [], "relationships": [], "phrase": "a dog"}, [(0, 0, 9, 9)])
    item = graphs.item(0)
    assert (len(item.nodes.types), item.features.shape) == (0, (0, F))


def test_a_file_is_found_in_any_folder(tmp_path):
    layout = write_tree(tmp_path, "coco")
    graphs = GraphSet.open(layout, "trn")
    assert {region_path(layout, graphs.image_id(i)).parent for i in range(9)} == set(layout.objects)
    assert len([graphs.item(i) for i in range(9)]) == 9


def test_a_missing_file_is_named_whatever_the_policy(tmp_path):
    layout = write_tree(tmp_path, "coco")
    graphs = GraphSet.open(layout, "val", on_missing_box="skip")
    file = region_path(layout, graphs.image_id(4))
    file.unlink()
    with pytest.raises(DataError, match=rf"{re.escape(file.name)}: no such file in .*objrels or .*o2/objrels"):
        graphs.item(4)


def test_a_region_that_its_json_lacks_is_named(tmp_path):
    layout = write_tree(tmp_path)
    samples = np.load(layout.samples_file("val")).tolist()
    write_array(layout.samples_file("val"), [(samples[0][0], "7009")])
    with pytest.raises(DataError, match=r"\.json: no region '7009'; nearest valid: 700"):
        GraphSet.open(layout, "val").item(0)


def test_a_graph_that_makes_no_sense_is_named(tmp_path):
    record = {"objects": [thing(1, "boy", (1, 1, 9, 9))], "relationships": [], "phrase": "a boy"}
    graphs = one_region(write_tree(tmp_path), record)
    broken = {**record, "relationships": [link(1, 1, "on", 8)]}
    file = graphs.layout.regions / f"{graphs.image_id(0)}.json"
    file.write_text(json.dumps({"1": broken}))
    with pytest.raises(DataError, match=rf"{re.escape(graphs.name(0))}.*unknown object"):
        GraphSet.open(graphs.layout, "val").item(0)


def test_the_end_of_a_caption_stays_and_losses_are_counted(tmp_path):
    layout = write_tree(tmp_path)
    Words.from_counts(["a dog near"], 1).save(layout.words)
    graphs = one_region(layout, NEAR, NEAR_BOXES)
    graphs = GraphSet.open(layout, "val", limit=4, length=6)
    item = graphs.item(0)
    assert graphs.words.decode(item.words) == "a <UNK> <UNK> near"
    assert item.words[-1] == EOS
    assert (item.words == UNK).sum() == 2
    assert graphs.survey() == {
        "cut_words": {"total": 2, "samples": 1},
        "dropped_relationships": {"total": 2, "samples": 1},
        "unknown_words": {"total": 2, "samples": 1},
    }


def test_features_that_are_not_finite_are_refused(tmp_path):
    layout = write_tree(tmp_path)
    graphs = GraphSet.open(layout, "val")
    values = np.load(layout.globals_file("val"))
    values[0, 0] = np.nan
    np.save(layout.globals_file("val"), values)
    with pytest.raises(DataError, match=r"val_ft.npy: features of .* not finite"):
        graphs.item(0)
    with h5py.File(region_path(layout, graphs.image_id(3)), "r+") as opened:
        next(iter(opened.values()))[0, 0] = np.inf
    with pytest.raises(DataError, match=r"hdf5: features that are not finite"):
        graphs.item(3)


def test_region_files_that_are_something_else_are_named(tmp_path):
    layout = write_tree(tmp_path)
    graphs = GraphSet.open(layout, "val")
    file = region_path(layout, graphs.image_id(0))
    whole = file.read_bytes()

    def message() -> str:
        with pytest.raises(DataError) as caught:
            graphs.item(0)
        assert str(file) in str(caught.value)
        return str(caught.value)

    file.write_bytes(whole[: len(whole) // 2])
    assert "not a readable HDF5 file" in message()
    file.write_bytes(whole)
    with h5py.File(file, "r+") as opened:
        opened["more"] = np.zeros((1, F))
    assert "2 datasets; expected one" in message()
    file.write_bytes(whole)
    with h5py.File(file, "r+") as opened:
        dataset = next(iter(opened.values()))
        dataset.attrs["boxes"] = dataset.attrs["boxes"][1:]
    assert "expected integers" in message()
    with h5py.File(file, "r+") as opened:
        del next(iter(opened.values())).attrs["boxes"]
    assert "no attribute boxes" in message()


@pytest.mark.parametrize("way", ["link", "storage", "virtual"])
def test_region_files_cannot_read_other_files(tmp_path, way):
    layout = write_tree(tmp_path)
    graphs = GraphSet.open(layout, "val")
    file = region_path(layout, graphs.image_id(0))
    with h5py.File(file) as opened:
        name, (rows, width) = next(iter(opened)), next(iter(opened.values())).shape
        attributes = dict(next(iter(opened.values())).attrs)
    secret = tmp_path / "secret.hdf5"
    file.rename(secret)
    with h5py.File(file, "w") as opened:
        if way == "link":
            opened[name] = h5py.ExternalLink(str(secret), name)
        elif way == "storage":
            external = [(str(secret), 0, h5py.h5f.UNLIMITED)]
            opened.create_dataset(name, (rows, width), np.float64, external=external).attrs.update(attributes)
        else:
            virtual = h5py.VirtualLayout((rows, width), np.float64)
            virtual[:] = h5py.VirtualSource(str(secret), name, (rows, width))
            opened.create_virtual_dataset(name, virtual).attrs.update(attributes)
    with pytest.raises(DataError, match="expected a dataset in the file itself"):
        graphs.item(0)


def test_a_set_is_pickled_without_what_it_has_read(tmp_path):
    graphs = GraphSet.open(write_tree(tmp_path), "val")
    before = len(pickle.dumps(graphs))
    wanted = graphs.item(5)
    assert len(pickle.dumps(graphs)) <= before + 200
    again = pickle.loads(pickle.dumps(graphs))
    np.testing.assert_array_equal(again.item(5).features, wanted.features)
