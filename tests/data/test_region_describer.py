"""Vectors of regions: each image's own, standardised, the same after a round trip through JSON."""

import json

import numpy as np

from aaca.data.region_describer import RegionDescriber, Standard, crop, geometry, whole

SIZE = 4


def embed(crops):
    """Mean colour, and a number that never varies."""
    means = crops.reshape(len(crops), -1, 3).mean(1)
    return np.concatenate([means, np.full((len(crops), 1), 7.0)], axis=1)


def images(seed=0, sizes=((20, 30), (40, 16), (12, 12))):
    rng = np.random.default_rng(seed)
    boxes = [(0, 0, 8, 8), (2, 3, 12, 11)]
    return [
        (rng.integers(0, 256, (*size, 3), dtype=np.uint8), boxes[: 1 + number % 2]) for number, size in enumerate(sizes)
    ]


def test_every_image_gets_the_vectors_of_its_own_crops():
    given = images()
    describe = RegionDescriber.fit(embed, SIZE, given)
    for (rgb, boxes), (told, rows) in zip(given, describe(given), strict=True):
        own = embed(np.stack([crop(rgb, whole(rgb), SIZE), *(crop(rgb, box, SIZE) for box in boxes)]))
        assert np.allclose(told * describe.images.std + describe.images.mean, own[0])
        assert len(rows) == len(boxes)
        back = rows * describe.regions.std + describe.regions.mean
        assert np.allclose(back[:, :4], own[1:])
        assert np.allclose(back[:, 4:], [geometry(box, rgb) for box in boxes])
        [(alone, single)] = describe([(rgb, boxes)])
        assert np.allclose(alone, told) and np.allclose(single, rows)


def test_what_it_was_fitted_on_has_mean_0_and_deviation_1_and_constants_are_0():
    given = images(sizes=((20, 30),) * 12)
    rows = np.concatenate([rows for _, rows in RegionDescriber.fit(embed, SIZE, given)(given)])
    assert np.abs(rows.mean(axis=0)).max() < 1e-9
    assert np.allclose(rows.std(axis=0)[:3], 1)
    assert not rows[:, 3].any()


def test_json_keeps_it():
    given = images()
    describe = RegionDescriber.fit(embed, SIZE, given)
    again = RegionDescriber.from_json(embed, json.loads(json.dumps(describe.to_json())))
    for (one, rows), (other, others) in zip(describe(images(1)), again(images(1)), strict=True):
        assert np.array_equal(one, other) and np.array_equal(rows, others)


def test_an_image_without_boxes_has_no_rows():
    describe = RegionDescriber.fit(embed, SIZE, images())
    [(told, rows)] = describe([(images()[0][0], [])])
    assert told.shape == (4,) and rows.shape == (0, 9)


def test_deviation_is_that_of_numpy():
    rows = np.random.default_rng(0).normal(3, 2, (50, 4))
    standard = Standard.fit(rows)
    assert np.allclose(standard(rows), (rows - rows.mean(0)) / rows.std(0))
