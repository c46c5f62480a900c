"""An interrupted fit ends with the very weights of an uninterrupted one, wherever it was interrupted, however often."""

import csv
import json
import os
import pickle
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from aaca.data.transforms import BatchAugment, TimmAugment
from aaca.models.timm_model import TimmModel
from aaca.repair.base import start_classifier
from aaca.runtime.errors import AacaError, ConfigError, DataError
from aaca.runtime.files import read_json
from aaca.runtime.stages import PROGRESS
from aaca.training import checkpoints
from aaca.training.checkpoints import VerifiedCheckpoints, found, newest
from aaca.training.fit import SUMMARY, WEIGHTS, FitJob, fit_classifier
from aaca.training.resume import ResumeSpec
from aaca.training.trainer import TrainerSpec
from tests.toys import Killed, Stop, plain_recipe, square_table

EPOCHS, BATCHES = 3, 4
ALWAYS = ResumeSpec(every=0)


def network() -> TimmModel:
    """Batch norm, drop-path: state beside the weights, and chance in the forward pass."""
    return TimmModel("resnet18", 16, kwargs={"layers": [1, 1, 1, 1], "channels": [4, 4, 8, 8]})


def job(folder: Path, rule: str = "last", per_image: bool = False, accumulate: int = 1) -> FitJob:
    train, audit = square_table(folder, 8 * BATCHES + 3), square_table(folder, 15, "audit", seed=1)
    augment = TimmAugment(randaugment="rand-m5-n1") if per_image else BatchAugment(scale_min=0.6)
    recipe = plain_recipe(
        augment=augment, epochs=EPOCHS, drop_path=0.3, mixup=0.4, cutmix=0.4, smoothing=0.1, accumulate=accumulate
    )
    spec = TrainerSpec(accelerator="cpu", workers=1 if per_image else 0)
    return FitJob(train, audit, recipe, spec, rule, epoch_size=len(train), seed=3, label="f", resume=ALWAYS)  # type: ignore[arg-type]


def fit(this: FitJob, folder: Path, monkeypatch: pytest.MonkeyPatch | None = None, stop: Stop | None = None) -> dict:
    folder.mkdir(parents=True, exist_ok=True)
    if stop is not None:
        assert monkeypatch is not None
        make = TrainerSpec.make
        with monkeypatch.context() as patch:
            patch.setattr(
                TrainerSpec,
                "make",
                lambda self, label, callbacks=(), **more: make(self, label, callbacks=[*callbacks, stop], **more),
            )
            with pytest.raises(Killed):
                fit_classifier(start_classifier(network(), 2, this.recipe, 0), this, folder)
        return {}
    return fit_classifier(start_classifier(network(), 2, this.recipe, 0), this, folder)


def curves(folder: Path) -> list[dict[str, str]]:
    with (folder / "log" / "metrics.csv").open() as stream:
        return list(csv.DictReader(stream))


def assert_same(folder: Path, whole: Path) -> None:
    mine, theirs = load_file(folder / WEIGHTS), load_file(whole / WEIGHTS)
    for name in theirs:
        assert torch.equal(mine[name], theirs[name]), name
    assert read_json(folder / SUMMARY) == read_json(whole / SUMMARY)
    assert curves(folder) == curves(whole)


HOOKS = [
    *(("on_train_batch_start", count) for count in range(1, EPOCHS * BATCHES + 1)),
    *(("on_train_batch_end", count) for count in range(1, EPOCHS * BATCHES + 1)),
    *(("on_validation_start", count) for count in range(1, EPOCHS + 1)),
    *(("on_validation_epoch_end", count) for count in range(1, EPOCHS + 1)),
    *(("on_train_epoch_start", count) for count in range(1, EPOCHS + 1)),
    *(("on_train_epoch_end", count) for count in range(1, EPOCHS + 1)),
    ("on_train_end", 1),
]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    fit(job(folder / "data", rule="best"), folder)
    return folder


@pytest.mark.parametrize(("hook", "count"), HOOKS)
def test_a_fit_killed_at_any_hook_ends_with_the_same_bits(hook, count, tmp_path, monkeypatch, whole):
    this = job(tmp_path / "data", rule="best")
    fit(this, tmp_path, monkeypatch, Stop(hook, count))
    assert not (tmp_path / WEIGHTS).exists()
    fit(this, tmp_path)
    assert_same(tmp_path, whole)


@pytest.mark.parametrize("variant", ["per_image", "accumulate"])
def test_killed_twice_in_one_epoch_and_once_more_later(variant, tmp_path, monkeypatch):
    kind = {"per_image": True} if variant == "per_image" else {"accumulate": 2}
    this = job(tmp_path / "data", **kind)  # type: ignore[arg-type]
    fit(this, tmp_path / "whole")
    for hook, count in (("on_train_batch_start", 3), ("on_train_batch_end", 1), ("on_train_batch_start", 4)):
        fit(this, tmp_path / "cut", monkeypatch, Stop(hook, count))
    fit(this, tmp_path / "cut")
    assert_same(tmp_path / "cut", tmp_path / "whole")


def cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[FitJob, list[Path]]:
    this = job(tmp_path / "data", rule="best")
    fit(this, tmp_path, monkeypatch, Stop("on_train_batch_start", 8))
    return this, found(tmp_path / PROGRESS)


def test_the_last_two_checkpoints_are_kept_and_a_damaged_one_gives_way_to_the_one_before(
    tmp_path, monkeypatch, whole, caplog
):
    this, files = cut(tmp_path, monkeypatch)
    assert [int(file.stem) for file in files] == [7, 6]
    files[0].write_bytes(files[0].read_bytes()[:-100])
    assert newest(tmp_path / PROGRESS, this.fingerprint()) == files[1]
    assert f"{files[0]}: damaged" in caplog.text
    fit(this, tmp_path)
    assert_same(tmp_path, whole)


@pytest.mark.parametrize("harm", ["flip", "pickle", "no note", "note", "both"])
def test_every_kind_of_damage_is_seen_and_the_result_is_still_the_same(harm, tmp_path, monkeypatch, whole, caplog):
    this, files = cut(tmp_path, monkeypatch)
    first = files[0]
    if harm == "flip":
        data = bytearray(first.read_bytes())
        data[len(data) // 2] ^= 1
        first.write_bytes(bytes(data))
    elif harm == "pickle":
        first.write_bytes(pickle.dumps(Bomb(tmp_path / "owned")))
    elif harm == "no note":
        first.with_suffix(".json").unlink()
    elif harm == "note":
        first.with_suffix(".json").write_text("{")
    else:
        for file in files:
            file.write_bytes(b"")
    fit(this, tmp_path)
    assert harm == "no note" or "damaged" in caplog.text
    assert not (tmp_path / "owned").exists()
    assert_same(tmp_path, whole)


class Bomb:
    """Unpickling it makes a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.folder),)


def test_a_bomb_with_a_matching_note_is_not_executed_either(tmp_path, monkeypatch):
    this, files = cut(tmp_path, monkeypatch)
    torch.save({"state_dict": Bomb(tmp_path / "owned")}, files[0])
    note = read_json(files[0].with_suffix(".json"))
    size, sha = files[0].stat().st_size, checkpoints.file_sha256(files[0])
    files[0].with_suffix(".json").write_text(json.dumps({**note, "size": size, "sha256": sha}))
    assert newest(tmp_path / PROGRESS, this.fingerprint()) == files[1]
    with pytest.raises(pickle.UnpicklingError):
        VerifiedCheckpoints({}).load_checkpoint(files[0])
    assert not (tmp_path / "owned").exists()


def test_a_checkpoint_of_other_settings_is_refused_and_of_other_versions_unless_forced(tmp_path, monkeypatch):
    this, files = cut(tmp_path, monkeypatch)
    with pytest.raises(ConfigError, match=r"other seed; expected {'seed': 4}, got {'seed': 3}; resume=never"):
        fit(replace(this, seed=4), tmp_path)
    monkeypatch.setattr(checkpoints, "versions", lambda: {"torch": "9.9"})
    with pytest.raises(ConfigError, match=r"resume\.force: .*'torch': '9\.9'"):
        fit(this, tmp_path)
    assert newest(tmp_path / PROGRESS, this.fingerprint(), force=True) == files[0]


def test_a_save_that_fails_fails_loudly_and_keeps_the_older_ones(tmp_path, monkeypatch):
    this, files = cut(tmp_path, monkeypatch)
    kept = {file: file.read_bytes() for file in files}
    sync = checkpoints.sync

    def lose(path: Path) -> None:
        sync(path)
        path.write_bytes(path.read_bytes()[:-1])  # a disk that acknowledges and forgets

    with monkeypatch.context() as patch:
        patch.setattr(checkpoints, "sync", lose)
        with pytest.raises(AacaError, match=r"000000000008\.ckpt: the checkpoint did not reach the disk whole"):
            fit(this, tmp_path)
    assert {file: file.read_bytes() for file in found(tmp_path / PROGRESS)} == kept
    assert not list(tmp_path.rglob("*.writing"))


def test_a_full_disk_while_saving_is_one_line(tmp_path, monkeypatch):
    this, files = cut(tmp_path, monkeypatch)

    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoints._Hashing, "write", full)
    with pytest.raises(AacaError, match="could not be saved"):
        fit(this, tmp_path)
    assert found(tmp_path / PROGRESS) == files


@pytest.mark.parametrize("stop", [SystemExit(143), KeyboardInterrupt()])
def test_a_signal_in_the_middle_of_a_save_is_no_failure_of_the_disk(tmp_path, monkeypatch, stop):
    write, calls = checkpoints._Hashing.write, []

    def interrupted(self: object, data: bytes) -> int:
        calls.append(data)
        if len(calls) == 5:
            raise stop
        return write(self, data)

    monkeypatch.setattr(checkpoints._Hashing, "write", interrupted)
    with pytest.raises(type(stop)) as caught:
        VerifiedCheckpoints({}).save_checkpoint({"weights": torch.ones(10_000)}, tmp_path / "1.ckpt")
    assert caught.value is stop and list(tmp_path.iterdir()) == []


def test_a_finished_fit_is_not_trained_again(tmp_path, monkeypatch, whole):
    shutil.copytree(whole, tmp_path / "copy")
    monkeypatch.setattr(TrainerSpec, "make", lambda *_, **__: pytest.fail("trained again"))
    this = job(whole / "data", rule="best")
    assert fit(this, tmp_path / "copy") == read_json(whole / SUMMARY)


def test_a_missing_checkpoint_file_is_a_data_error(tmp_path, monkeypatch):
    _, files = cut(tmp_path, monkeypatch)
    files[0].write_bytes(b"")
    with pytest.raises(DataError, match="0 bytes, expected"):
        VerifiedCheckpoints({}).load_checkpoint(files[0])


def test_the_clock_decides_when_to_save_not_the_wall(tmp_path, monkeypatch):
    """`every` seconds of a monotonic clock; a wall clock that jumps changes nothing."""
    now = [100.0]
    monkeypatch.setattr("aaca.training.resume.time.monotonic", lambda: now[0])
    monkeypatch.setattr("aaca.training.resume.time.time", lambda: pytest.fail("asked the wall clock"))
    saved: list[int] = []

    class Trainer:
        accumulate_grad_batches, is_last_batch, global_step, strategy = 1, False, 0, None
        is_global_zero = False

        def broadcast(self, value: object) -> object:
            return value

        def save_checkpoint(self, path: Path, weights_only: bool) -> None:
            saved.append(self.global_step)

    from aaca.training.resume import SaveProgress

    trainer = Trainer()
    trainer.strategy = trainer  # type: ignore[assignment]
    progress = SaveProgress(tmp_path, every=60, label="f")
    progress.on_train_start(trainer, None)  # type: ignore[arg-type]
    for batch in range(2000):
        now[0] += 0.5
        trainer.global_step += 1
        progress.on_train_batch_end(trainer, None, None, None, batch)  # type: ignore[arg-type]
    waits = [(b - a) * 0.5 for a, b in zip([0, *saved], saved, strict=False)]
    assert 14 <= len(saved) <= 17
    assert all(60 <= wait <= 70 for wait in waits), waits
