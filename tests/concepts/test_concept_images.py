"""Concept sets as images: what they show, the same again, and what is refused."""

import numpy as np
import pytest
from PIL import Image

from aaca.concepts.cav import fit_cav
from aaca.concepts.images import ConceptPair, blobs, flat, from_folder, generate, grey, masked, textured
from aaca.runtime.errors import ConfigError, DataError


@pytest.mark.parametrize(
    "make", [lambda n, seed: flat((255, 0, 0), n, 28, seed), lambda n, seed: grey(90, n, 28, seed),
             lambda n, seed: blobs(n, 28, seed), lambda n, seed: textured(3, n, 28, seed)]
)  # fmt: skip
def test_sets_are_images_that_vary_and_come_again(make):
    first, again, other = make(6, 0), make(6, 0), make(6, 1)
    assert first.images.shape == (6, 28, 28, 3) and first.images.dtype == np.uint8 and first.name and first.origin
    np.testing.assert_array_equal(first.images, again.images)
    assert (first.images != other.images).any() and len(np.unique(first.images, axis=0)) > 1
    np.testing.assert_array_equal(make(3, 0).images, first.images[:3])  # more images change none of the first


def test_what_each_set_shows():
    red = flat((255, 0, 0), 5, 16).images
    assert (red[..., 1:] == 0).all() and (red[..., 0] >= 190).all() and np.ptp(red[0, ..., 0]) == 0
    patch = grey(90, 5, 28).images
    assert set(np.unique(patch)) == {0, 90} and ((patch[..., 0] == 90).sum(axis=(1, 2)) == 25).all()
    black_or_white = blobs(5, 28).images
    assert set(np.unique(black_or_white)) == {0, 255} and (black_or_white[..., 0] == black_or_white[..., 2]).all()
    assert (np.abs(black_or_white.mean(axis=(1, 2, 3)) / 255 - 0.4) < 0.21).all()


def test_a_colour_s_vector_points_to_the_colour():
    positive, negative = (
        part.images.reshape(40, -1, 3).mean(axis=1) for part in (flat((0, 114, 170), 40, 14), blobs(40, 14))
    )
    cav = fit_cav(positive - positive.mean(axis=1, keepdims=True), negative - negative.mean(axis=1, keepdims=True))
    assert cav.direction[2] > 0 > cav.direction[0] and cav.balanced_accuracy == 1.0


def test_crops_show_what_the_mask_covers_and_nothing_else():
    image = np.zeros((20, 30, 3), dtype=np.uint8)
    image[5:15, 10:20] = (200, 50, 50)
    mask = np.zeros((20, 30))
    mask[5:15, 10:20] = 1.0
    (crop,) = masked("square", [image], [mask], 8).images
    assert (crop == (200, 50, 50)).all()
    mask[14, 29] = 1.0  # a pixel far away widens the crop; between them all is grey
    (crop,) = masked("square", [image], [mask], 20).images
    assert (crop[0, -1] == 128).all() and tuple(crop[0, 0]) == (200, 50, 50)
    with pytest.raises(DataError, match="a mask that covers nothing"):
        masked("square", [image], [np.zeros((20, 30))], 8)


def test_a_folder_of_images(tmp_path):
    for name, level in (("b.png", 50), ("a.jpg", 200)):
        Image.new("RGB", (12, 20), (level,) * 3).save(tmp_path / name)
    (tmp_path / "notes.txt").write_text("no image")
    found = from_folder(tmp_path, 8)
    assert found.images.shape == (2, 8, 8, 3) and found.images[0].mean() == 200 and found.name == tmp_path.name
    assert len(from_folder(tmp_path, 8, most=1).images) == 1
    for folder in (tmp_path / "none", tmp_path / "empty"):
        (tmp_path / "empty").mkdir(exist_ok=True)
        with pytest.raises(DataError, match="no concept images"):
            from_folder(folder, 8)


def test_what_makes_no_sense_is_one_line():
    with pytest.raises(ConfigError, match="concept images: 'blob'; nearest valid: blobs"):
        generate("blob", n=3, size=8)
    assert generate("blobs", n=3, size=8).images.shape == (3, 8, 8, 3)
    with pytest.raises(ConfigError, match="texture 10; expected 0…9"):
        textured(10, 3, 8)
    with pytest.raises(ConfigError, match="weight 0"):
        ConceptPair(blobs(3, 8), blobs(3, 8, 1), weight=0)
    with pytest.raises(DataError, match="expected one size"):
        ConceptPair(blobs(3, 8), blobs(3, 9))
