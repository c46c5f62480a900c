"""Boxes of a graph that no region has: an error, the nearest one, or none."""

import numpy as np
import pytest

from aaca.runtime.errors import DataError
from tests.graph_toys import (
    NEAR,
    NEAR_BOXES,
    F,
    one_region,
    region_feature,
    region_path,
    write_tree,
)


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
