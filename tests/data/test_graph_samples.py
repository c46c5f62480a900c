"""The samples of a set: files that do not fit, names that lead elsewhere, graphs and captions as read."""

import json
import pickle
import re

import numpy as np
import pytest

from aaca.data.scenegraph.layout import Layout
from aaca.data.scenegraph.samples import GraphSet
from aaca.data.scenegraph.vocabulary import EOS, UNK, Words
from aaca.runtime.errors import ConfigError, DataError
from tests.graph_toys import (
    NEAR,
    NEAR_BOXES,
    F,
    image_feature,
    link,
    one_region,
    thing,
    write_array,
    write_tree,
)


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


def test_an_empty_graph_is_read(tmp_path):
    graphs = one_region(write_tree(tmp_path), {"objects": [], "relationships": [], "phrase": "a dog"}, [(0, 0, 9, 9)])
    item = graphs.item(0)
    assert (len(item.nodes.types), item.features.shape) == (0, (0, F))


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


def test_a_set_is_pickled_without_what_it_has_read(tmp_path):
    graphs = GraphSet.open(write_tree(tmp_path), "val")
    before = len(pickle.dumps(graphs))
    wanted = graphs.item(5)
    assert len(pickle.dumps(graphs)) <= before + 200
    again = pickle.loads(pickle.dumps(graphs))
    np.testing.assert_array_equal(again.item(5).features, wanted.features)
