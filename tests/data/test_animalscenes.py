import pickle
from pathlib import Path

import numpy as np
import pytest

from aaca.data import animal_masks
from aaca.data.animal_masks import load_silhouettes, near_duplicates
from aaca.data.animalscenes import GROUNDS, AnimalScenes, compose
from aaca.data.benchmark import Benchmark
from aaca.runtime.errors import ConfigError, DataError
from aaca.world.pack import load_pack

SMALL = {"train": 40, "pool": 30, "audit": 12, "test": 12}


@pytest.fixture(scope="module", autouse=True)
def _package() -> None:
    pytest.importorskip("animal_mnist")


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Benchmark, Path]:
    folder = tmp_path_factory.mktemp("animals")
    return AnimalScenes(image_size=32, per_class=SMALL).build(folder), folder


def test_the_raw_bytes_are_the_array(monkeypatch: pytest.MonkeyPatch) -> None:
    """Against pickle's own reading of a stand-in file of the same make (the package's own is never unpickled)."""
    values = np.random.default_rng(0).integers(0, 256, (100, 28, 28), dtype=np.uint8)
    assert pickle.dumps(values, protocol=4).count(b"B" + values.nbytes.to_bytes(4, "little")) == 1

    def forbidden(*_: object, **__: object) -> None:
        raise AssertionError("unpickled")

    monkeypatch.setattr(pickle, "load", forbidden)
    monkeypatch.setattr(pickle, "loads", forbidden)
    load_silhouettes.cache_clear()
    found = load_silhouettes()
    kept = sum(len(one.rows) for one in found.values())
    assert kept + sum(one.dropped for one in found.values()) == 10_000
    assert {len(one.rows) + one.dropped for one in found.values()} == {1000}
    assert found["bird"].dropped == 188  # a fifth of the birds are copies


def iou(first: np.ndarray, second: np.ndarray) -> float:
    return float((first & second).sum() / (first | second).sum())


def test_no_near_duplicate_crosses_a_split(built: tuple[Benchmark, Path]) -> None:
    """By brute force over pixels, not through the groups."""
    frame, found = built[0].table.frame, load_silhouettes()
    for name in ("bird", "sheep"):
        rows, masks = found[name].rows.tolist(), found[name].masks > 127
        own = frame[frame["source"].str.startswith(f"animal/{name}/")]
        by_split = {
            split: [masks[rows.index(int(source.rsplit("/", 1)[1]))] for source in part["source"].unique()]
            for split, part in own.groupby("split")
        }
        worst = max(
            max(iou(mask, other), iou(mask, other[:, ::-1]))
            for mask in by_split["test"]
            for split in ("train", "pool", "audit")
            for other in by_split[split]
        )
        assert worst < 0.9


def test_groups_against_brute_force() -> None:
    masks = load_silhouettes()["cat"].masks[:60]
    noisy = np.concatenate([masks, masks[:10, :, ::-1], masks[10:14]])
    groups = near_duplicates(noisy)
    for first in range(len(noisy)):
        for second in range(len(noisy)):
            a, b = noisy[first] > 127, noisy[second] > 127
            if max(iou(a, b), iou(a, b[:, ::-1])) >= 0.9:
                assert groups[first] == groups[second]
    assert len(set(groups)) == len(set(near_duplicates(masks)))


def test_masks_are_disjoint_in_all_splits(built: tuple[Benchmark, Path]) -> None:
    frame = built[0].table.frame
    assert (frame.groupby("source")["split"].nunique() == 1).all()
    for seed in (0, 1):
        parts = [set(AnimalScenes(seed=seed)._masks(split, load_silhouettes()["bird"]).tolist()) for split in SMALL]
        assert sum(map(len, parts)) == len(set().union(*parts)) == 812


def test_textures_of_test_occur_nowhere_else() -> None:
    grounds = {
        split: {piece.source for piece in load_pack().pieces("scene", split=split)}
        for split in ("train", "val", "test")
    }
    assert not grounds["test"] & (grounds["train"] | grounds["val"])


def test_sizes_slices_and_groups(built: tuple[Benchmark, Path]) -> None:
    benchmark, _ = built
    frame = benchmark.table.frame
    assert benchmark.classes == tuple(GROUNDS)
    sizes = {key: len(rows) for key, rows in frame.groupby(["split", "slice"])}
    assert sizes == {
        ("train", "all"): 240,
        ("pool", "all"): 180,
        ("audit", "all"): 72,
        ("test", "aligned"): 72,
        ("test", "conflicting"): 72,
        ("test", "balanced"): 72,
    }
    own = np.array([GROUNDS[benchmark.classes[label]] for label in frame["label"]])
    aligned = frame["scene"].to_numpy() == own
    assert aligned[frame["slice"] == "aligned"].all() and not aligned[frame["slice"] == "conflicting"].any()
    assert frame["group"][aligned].str.endswith(tuple(GROUNDS.values())).all()
    assert frame["group"][~aligned].str.endswith(" on other").all()


def test_the_bug_has_its_strength() -> None:
    source, n = AnimalScenes(), 600
    for split, p in (("train", 0.95), ("pool", 0.8), ("audit", 0.8)):
        scenes = [source._scene(split, "all", name, k) for name in GROUNDS for k in range(n)]
        share = np.mean(
            [scene == GROUNDS[name] for scene, name in zip(scenes, np.repeat(list(GROUNDS), n), strict=True)]
        )
        assert abs(share - p) < 4 * np.sqrt(p * (1 - p) / (6 * n))
    balanced = [source._scene("test", "balanced", "bird", k) for k in range(n)]
    shares = np.unique(balanced, return_counts=True)[1] / n
    assert len(shares) == 6 and np.abs(shares - 1 / 6).max() < 0.07


def test_a_test_mask_has_the_same_pose_in_every_slice(built: tuple[Benchmark, Path]) -> None:
    frame = built[0].table.frame.query("split == 'test'")
    assert (
        frame.groupby("source")["slice"]
        .apply(lambda slices: sorted(slices))
        .apply(lambda slices: slices == ["aligned", "balanced", "conflicting"])
    ).all()


def test_two_builds_are_equal_and_another_seed_is_not(built: tuple[Benchmark, Path], tmp_path: Path) -> None:
    again, other = tmp_path / "again", tmp_path / "other"
    AnimalScenes(image_size=32, per_class=SMALL).build(again)
    AnimalScenes(image_size=32, per_class=SMALL, seed=1).build(other)
    for split in ("train", "test"):
        expected = np.load(built[1] / f"{split}.npy")
        assert np.array_equal(np.load(again / f"{split}.npy"), expected)
        assert not np.array_equal(np.load(other / f"{split}.npy"), expected)


def test_what_is_built_can_be_loaded_and_moved(built: tuple[Benchmark, Path], tmp_path: Path) -> None:
    benchmark = AnimalScenes(image_size=16, per_class=SMALL).build(tmp_path / "a")
    images = np.load(tmp_path / "a" / "train.npy")
    assert images.shape == (240, 16, 16, 3) and images.dtype == np.uint8
    moved = Benchmark.load((tmp_path / "a").rename(tmp_path / "b"))
    assert np.array_equal(moved.split("train").image(7), images[7])
    assert moved.confounders[0] == {"class": "bird", "kind": "scene", "value": "sand", "p": 0.95}
    assert moved.table.ids.tolist() == benchmark.table.ids.tolist()


def test_more_images_than_masks_repeats_masks_in_new_poses() -> None:
    source = AnimalScenes(per_class={"train": 1000, "test": None})
    birds = load_silhouettes()["bird"]
    rows = list(source._plan("train", "bird", birds))
    counts = np.unique([row["source"] for row in rows], return_counts=True)[1]
    assert len(rows) == 1000 and counts.min() >= 2 and counts.max() <= 3
    assert len(list(source._plan("test", "bird", birds))) == 3 * len(source._masks("test", birds))


def test_the_silhouette_shows_whatever_the_ground() -> None:
    """Inside and outside of the mask differ in brightness on white, black and grey grounds."""
    mask = np.zeros((28, 28), dtype=np.uint8)
    mask[6:22, 6:22] = 255
    for level in (0, 60, 127, 128, 200, 255):
        ground = np.full((64, 64, 3), level, dtype=np.uint8)
        image = compose(mask, ground, ground, np.full(8, 0.5), 64).astype(float).mean(axis=2)
        assert abs(image[32, 32] - level) > 40 and image[2, 2] == level


def test_missing_package_and_damaged_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    load_silhouettes.cache_clear()
    monkeypatch.setattr(animal_masks, "find_spec", lambda _: None)
    with pytest.raises(DataError, match=r"pip install 'aaca\[animals\]'"):
        AnimalScenes().build(tmp_path)
    assert list(tmp_path.iterdir()) == []
    folder = tmp_path / "animal_mnist"
    (folder / "data" / "Animal_MNIST").mkdir(parents=True)
    monkeypatch.setattr(animal_masks, "find_spec", lambda _: type("Spec", (), {"origin": str(folder / "__init__.py")}))
    with pytest.raises(DataError, match="is missing"):
        load_silhouettes()
    (folder / "data" / "Animal_MNIST" / animal_masks.MASKS_FILE[0]).write_bytes(b"other")
    with pytest.raises(DataError, match="SHA-256 differs"):
        load_silhouettes()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"grounds": {"brid": "sand", "cat": "snow"}}, r"dataset\.grounds\.brid: .*nearest valid: bird"),
        ({"grounds": {"bird": "sadn", "cat": "snow"}}, r"dataset\.grounds\.bird: .*nearest valid: sand"),
        ({"grounds": {"bird": "sand"}}, r"dataset\.grounds: expected at least 2"),
        ({"p_pool": 1.5}, r"dataset\.p_pool"),
        ({"image_size": 8}, r"dataset\.image_size"),
        ({"per_class": {"trian": 1}}, r"dataset\.per_class\.trian: .*nearest valid: train"),
    ],
)
def test_impossible_arguments(arguments: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        AnimalScenes(**arguments)


def test_the_fingerprint_covers_every_argument() -> None:
    changes = [
        {},
        {"image_size": 32},
        {"grounds": {"cat": "brick", "bird": "sand"}},
        {"grounds": {"bird": "sand", "cat": "brick"}},
        {"per_class": {"train": 5}},
        {"p_train": 0.9},
        {"p_pool": 0.9},
        {"p_audit": 0.9},
        {"seed": 1},
    ]
    assert len({str(AnimalScenes(**change).fingerprint()) for change in changes}) == len(changes)
