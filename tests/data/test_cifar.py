"""CIFAR: small fakes in torchvision's layout; splits that keep apart; files that are not the published ones."""

import hashlib
import pickle

import numpy as np
import pytest
from torchvision.datasets import CIFAR10, CIFAR100

from aaca.data.benchmark import Benchmark
from aaca.data.cifar import Cifar
from aaca.runtime.errors import ConfigError, DataError

EACH = {10: 20, 100: 10}  # training images a class


def lay(root, monkeypatch, classes: int):
    """Files as published but with few images, whose sums the reader is made to expect; (images, labels) a part."""
    official = {10: CIFAR10, 100: CIFAR100}[classes]
    base, rng = root / official.base_folder, np.random.default_rng(classes)
    base.mkdir(parents=True)
    names = {"filename": official.meta["filename"]}
    content = {official.meta["key"]: [f"class {number}" for number in range(classes)]}
    sums = {"meta": {**official.meta, "md5": dump(base / names["filename"], content)}}
    truth = {}
    for part, files, each in (("train", official.train_list, EACH[classes]), ("test", official.test_list, 2)):
        count = classes * each // len(files)
        labels = rng.permutation(np.arange(len(files) * count) % classes).reshape(len(files), count)
        pixels = rng.integers(0, 256, (len(files), count, 3, 32, 32), dtype=np.uint8)
        key = "labels" if classes == 10 else "fine_labels"
        sums[f"{part}_list"] = [
            [name, dump(base / name, {"data": data.reshape(count, -1), key: own.tolist()})]
            for (name, _), data, own in zip(files, pixels, labels, strict=True)
        ]
        truth[part] = pixels.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1), labels.ravel()
    for name, value in sums.items():
        monkeypatch.setattr(official, name, value)
    return base, truth


def dump(path, content) -> str:
    path.write_bytes(pickle.dumps(content))
    return hashlib.md5(path.read_bytes()).hexdigest()


@pytest.mark.parametrize("classes", [10, 100])
def test_images_and_labels_are_those_of_the_files(tmp_path, monkeypatch, classes):
    _, truth = lay(tmp_path / "raw", monkeypatch, classes)
    Cifar(str(tmp_path / "raw"), classes=classes, seed=1).build(tmp_path / "out")
    benchmark = Benchmark.load(tmp_path / "out")
    assert benchmark.classes[3] == "class 3" and len(benchmark.classes) == classes
    each = EACH[classes]
    shares = {"train": each - 2 * each // 10, "pool": each // 10, "audit": each // 10, "test": 2}
    for split, count in shares.items():
        table = benchmark.split(split)
        assert np.bincount(table.labels).tolist() == [count] * classes
        pixels, labels = truth["test" if split == "test" else "train"]
        for position in (0, len(table) - 1):
            row = int(table.ids[position].rsplit("/", 1)[1])
            np.testing.assert_array_equal(table.image(position), pixels[row])
            assert table.labels[position] == labels[row]
    frame = benchmark.table.frame
    assert frame["id"].is_unique and len(frame) == classes * (each + 2)


def test_the_division_follows_the_seed_and_the_shares(tmp_path, monkeypatch):
    lay(tmp_path, monkeypatch, 10)

    def split_of(**arguments) -> dict[str, str]:
        frame = Cifar(str(tmp_path), **arguments).build(tmp_path / "out").table.frame
        return dict(zip(frame["id"], frame["split"], strict=True))

    first, again, other = (split_of(seed=seed) for seed in (0, 0, 1))
    assert first == again != other
    wide = list(split_of(pool_share=0.5, audit_share=0.25).values())
    assert [wide.count(split) for split in ("train", "pool", "audit", "test")] == [50, 100, 50, 20]
    few = list(split_of(per_class={"train": 3, "test": 1}).values())
    assert [few.count(split) for split in ("train", "pool", "audit", "test")] == [30, 20, 20, 10]


def test_the_fingerprint_says_what_influences_the_result(tmp_path):
    one = Cifar(str(tmp_path)).fingerprint()
    assert one == Cifar("elsewhere").fingerprint()
    others = [{"classes": 100}, {"seed": 1}, {"pool_share": 0.2}, {"audit_share": 0.2}, {"per_class": {"train": 5}}]
    assert all(Cifar(str(tmp_path), **arguments).fingerprint() != one for arguments in others)
    assert Cifar(str(tmp_path), per_class={"train": 5}).at_most("train") == 5


@pytest.mark.parametrize("name", ["data_batch_3", "test_batch", "batches.meta"])
def test_a_file_that_is_missing_or_another_is_named_and_not_opened(tmp_path, monkeypatch, name):
    base, _ = lay(tmp_path, monkeypatch, 10)

    class Hostile:
        def __reduce__(self):
            return (exec, ("raise SystemExit('ran')",))

    (base / name).write_bytes(pickle.dumps(Hostile()))
    with pytest.raises(DataError, match=rf"dataset\.root: \S+{name} is not as published \(its MD5 sum differs\)"):
        Cifar(str(tmp_path)).build(tmp_path / "out")
    (base / name).unlink()
    with pytest.raises(DataError, match=rf"dataset\.root: no \S+{name}; expected CIFAR-10 as unpacked"):
        Cifar(str(tmp_path)).build(tmp_path / "out")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"classes": 20}, r"dataset\.classes: 20; "),
        ({"pool_share": 0}, r"dataset\.pool_share: 0; expected a number between 0 and 1"),
        ({"pool_share": 0.6, "audit_share": 0.4}, r"dataset\.audit_share: 0\.4; expected less than 0\.4"),
        ({"per_class": {"tain": 1}}, r"dataset\.per_class\.tain"),
    ],
)
def test_impossible_arguments_are_one_line(arguments, message):
    with pytest.raises(ConfigError, match=message):
        Cifar("x", **arguments)
