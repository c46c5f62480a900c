"""Files of region features that lack something or are something else."""

import re

import h5py
import numpy as np
import pytest

from aaca.data.scenegraph.samples import GraphSet
from aaca.runtime.errors import DataError
from tests.graph_toys import (
    F,
    region_path,
    write_tree,
)


def test_a_missing_file_is_named_whatever_the_policy(tmp_path):
    layout = write_tree(tmp_path, "coco")
    graphs = GraphSet.open(layout, "val", on_missing_box="skip")
    file = region_path(layout, graphs.image_id(4))
    file.unlink()
    with pytest.raises(DataError, match=rf"{re.escape(file.name)}: no such file in .*objrels or .*o2/objrels"):
        graphs.item(4)


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
