"""What goes wrong at a terminal: Ctrl-C, a kill, corrupt files, a bad folder; every rerun works."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest
from PIL import Image

from tests.data.test_scan import BAD
from tests.toys import SMOKE, picture_folder

AACA = [sys.executable, "-u", "-c", "import sys; from aaca.runtime.cli import main; sys.exit(main())"]


COMMAND = ("debug", "method=s_random", *SMOKE, "recipe.epochs=25")


def hear_ctrl_c() -> None:
    """A shell that starts pytest in the background makes it and its children ignore Ctrl-C; the child must not."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def start(root: Path) -> subprocess.Popen[str]:
    command = [*AACA, *COMMAND, f"paths.root={root}"]
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True, cwd=root, preexec_fn=hear_ctrl_c)


def wait_for(process: subprocess.Popen[str], text: str) -> None:
    assert process.stderr is not None
    said = ""
    for line in process.stderr:
        said += line
        if text in line:
            return
    raise AssertionError(f"{text!r} never came; it said: {said}")


@pytest.mark.parametrize(("sent", "status"), [(signal.SIGINT, 130), (signal.SIGKILL, -9)])
def test_an_interrupted_run_publishes_nothing_half_made_and_goes_on_where_it_was(sent, status, tmp_path, run):
    process = start(tmp_path)
    wait_for(process, "stage f0")
    while not list(tmp_path.glob("stages/f0/.*.work/log")):  # inside the training loop, not merely on the way to it
        time.sleep(0.05)
        assert process.poll() is None
    os.kill(process.pid, sent)
    _, rest = process.communicate(timeout=60)
    assert process.returncode == status
    if sent == signal.SIGINT:
        assert "interrupted; finished stages are kept" in rest
        assert "Traceback" not in rest
        assert not list(tmp_path.glob("stages/f0/.*.work"))
    (benchmark,) = tmp_path.glob("stages/benchmark/*/manifest.json")
    made = benchmark.stat().st_mtime_ns
    assert not list(tmp_path.glob("stages/f0/*/manifest.json"))
    assert not list(tmp_path.glob("runs/*/outcome.json"))
    assert run(*COMMAND, f"paths.root={tmp_path}")[0] == 0
    assert benchmark.stat().st_mtime_ns == made
    assert len(list(tmp_path.glob("stages/f0/*/manifest.json"))) == 1
    assert len(list(tmp_path.glob("runs/*/outcome.json"))) == 1
    assert not list(tmp_path.glob("stages/*/.*.work"))


@pytest.mark.parametrize("megabytes", [1, 2, 3])
def test_a_disk_that_fills_up_is_one_line_and_the_rerun_works(megabytes, tmp_path, run):
    """Smaller and larger disks fill up in different stages: images, weights, features, the run's own files."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", str(disk)]
    if subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("no right to mount a small tmpfs")
    try:
        small = ("debug", "method=s_similarity", *SMOKE, f"paths.root={disk}")
        status, said = run(*small)
        if status == 0:
            pytest.fail(f"{megabytes} MB were enough; choose a smaller disk")
        assert "Traceback" not in said
        assert len([line for line in said.splitlines() if line.startswith("error")]) == 1, said
        assert not list(disk.glob("stages/*/.*.work"))
        subprocess.run(["mount", "-o", "remount,size=200m", str(disk)], check=True)
        assert run(*small)[0] == 0
    finally:
        subprocess.run(["umount", "--lazy", str(disk)], check=True)  # arrays stay mapped in this process


def arguments(root: Path, out: Path, *more: str) -> tuple[str, ...]:
    return (
        "debug",
        "dataset=imagefolder",
        f"dataset.root={root}",
        "size=smoke",
        "~dataset.per_class",
        "trainer=cpu",
        "model.image_size=32",
        "recipe.batch_size=8",
        "debugset.per_class=3",
        f"paths.root={out}",
        *more,
    )


def test_corrupt_files_are_counted_named_and_left_out(tmp_path, run):
    root = picture_folder(tmp_path / "pictures")
    (root / "train" / "cat" / "zero.png").write_bytes(b"")
    whole = (root / "train" / "cat" / "0.png").read_bytes()
    (root / "train" / "dog" / "cut.png").write_bytes(whole[: len(whole) // 2])
    (root / "val" / "dog" / "text.jpg").write_text("not an image")
    status, said = run(*arguments(root, tmp_path / "out"))
    assert status == 0, said
    assert "3 files are left out" in said
    for name in ("zero.png", "cut.png", "text.jpg"):
        assert name in said
    status, said = run(
        "data", "verify", "dataset=imagefolder", f"dataset.root={root}", f"paths.root={tmp_path / 'out'}"
    )
    assert status == 1
    assert "3 of" in said
    assert next((tmp_path / "out" / "data").glob("*/findings.csv")).is_file()


def test_bad_folders_are_one_line(tmp_path, run):
    one_class = picture_folder(tmp_path / "one", classes=("cat",))
    empty = picture_folder(tmp_path / "empty")
    (empty / "train" / "bird").mkdir()
    for root, wanted in ((one_class, "1 class"), (empty, "bird")):
        status, said = run(*arguments(root, tmp_path / "out"))
        assert status == 1
        assert wanted in said
        assert len([line for line in said.splitlines() if line.startswith("error")]) == 1
        assert "Traceback" not in said


def test_a_pool_that_overlaps_train_is_refused(tmp_path, run):
    root = picture_folder(tmp_path / "pictures")
    lines = ["path,label,split"]
    for split, folder in (("train", "train"), ("pool", "train"), ("audit", "val"), ("test", "val")):
        lines += [f"{folder}/{name}/{index}.png,{name},{split}" for name in ("cat", "dog") for index in range(6)]
    (root / "manifest.csv").write_text("\n".join(lines))
    status, said = run(*arguments(root, tmp_path / "out", "dataset.manifest=manifest.csv"))
    assert status == 1
    assert "disjoint" in said or "two splits" in said or "in the table" in said, said


def test_a_trial_that_fails_does_not_stop_its_sweep(tmp_path, run):
    status, said = run("debug", "-m", "method=none", *SMOKE, "selection_rule=last,best,lst", f"paths.root={tmp_path}")
    assert status == 1
    assert "selection_rule: 'lst' is not a choice; nearest valid: last" in said
    assert len(list(tmp_path.glob("runs/*/outcome.json"))) == 2


def test_a_read_only_cache_serves_what_it_has_and_refuses_the_rest_in_one_line(tmp_path, run):
    small = ("debug", *SMOKE, f"paths.root={tmp_path}")
    assert run(*small, "method=none")[0] == 0
    stages = tmp_path / "stages"
    before = {path: path.stat().st_mtime_ns for path in stages.rglob("*")}
    if subprocess.run(["mount", "--bind", str(stages), str(stages)], capture_output=True).returncode:
        pytest.skip("no right to mount")
    try:
        subprocess.run(["mount", "-o", "remount,bind,ro", str(stages)], check=True)
        (outcome,) = tmp_path.glob("runs/*/outcome.json")
        outcome.unlink()
        assert run(*small, "method=none")[0] == 0  # all its stages are there
        assert outcome.is_file()
        status, said = run(*small, "method=s_random")
        assert status == 1
        assert "paths.root: cannot write to" in said
        assert "Traceback" not in said
        assert {path: path.stat().st_mtime_ns for path in stages.rglob("*")} == before
    finally:
        subprocess.run(["umount", "--lazy", str(stages)], check=True)


def test_a_stage_folder_deleted_by_hand_is_made_again_when_it_is_needed(tmp_path, run):
    small = ("debug", *SMOKE, f"paths.root={tmp_path}")
    assert run(*small, "method=none")[0] == 0
    (f0,) = tmp_path.glob("stages/f0/*/")
    weights = (f0 / "model.safetensors").read_bytes()
    shutil.rmtree(f0)
    status, said = run(*small, "method=none")
    assert status == 0
    assert "finished before" in said  # a finished run needs no stage any more
    assert run(*small, "method=s_random")[0] == 0
    assert (f0 / "model.safetensors").read_bytes() == weights
    (f0 / "model.safetensors").unlink()
    status, said = run(*small, "method=duplicate")
    assert status == 0
    assert "lost model.safetensors" in said
    assert (f0 / "model.safetensors").read_bytes() == weights


def test_an_outcome_of_other_images_does_not_count_also_after_an_attempt_that_failed(tmp_path, run, monkeypatch):
    root = picture_folder(tmp_path / "pictures")
    command = arguments(root, tmp_path / "out", "method=none")
    assert run(*command)[0] == 0
    (outcome,) = tmp_path.glob("out/runs/*/outcome.json")
    old = json.loads(outcome.read_text())
    Image.new("RGB", (40, 36), (9, 9, 9)).save(root / "train" / "cat" / "new.png")
    with monkeypatch.context() as patch:
        patch.setattr("experiments.debug_run.predictions_of", lambda *_: 1 / 0)
        patch.setattr("aaca.experiments.debug_run.predictions_of", lambda *_: 1 / 0)
        assert run(*command)[0] == 1
    assert json.loads(outcome.read_text()) == old  # what was published stays
    assert json.loads((outcome.parent / "failed.json").read_text())["reason"].startswith("ZeroDivisionError")
    status, said = run(*command)
    assert status == 0
    assert "finished before" not in said
    assert json.loads(outcome.read_text())["n_train"] >= old["n_train"]
    assert json.loads(outcome.read_text())["identity"] != old["identity"]
    assert not (outcome.parent / "failed.json").exists()


def test_a_clock_that_goes_backwards_changes_nothing(tmp_path, run, monkeypatch):
    """Wall time jumps back by an hour at every look at it."""
    looks, real, form = [0], time.time, time.strftime

    def back() -> float:
        looks[0] += 1
        return real() - 3600.0 * looks[0]

    monkeypatch.setattr(time, "time", back)
    monkeypatch.setattr(time, "strftime", lambda format, *given: form(format, *(given or (time.gmtime(back()),))))
    small = ("debug", "method=s_random", *SMOKE, f"paths.root={tmp_path}", "resume.every=0")
    assert run(*small)[0] == 0
    assert looks[0] > 3
    (outcome,) = tmp_path.glob("runs/*/outcome.json")
    found = json.loads(outcome.read_text())
    assert all(seconds >= 0 for seconds in found["stage_seconds"].values())
    assert "finished before" in run(*small)[1]
    assert run("compare", f"paths.root={tmp_path}")[0] == 0


def test_a_thousand_images_of_which_fifty_are_bad_in_nine_ways(tmp_path, run):
    root = tmp_path / "pictures"
    kinds = [
        "cut.jpg",
        "cut.png",
        "cut.webp",
        "zero.jpg",
        "text.jpg",
        "script.png",
        "bomb.png",
        "broken.png",
        "pipe.jpg",
    ]
    for split, count in (("train", 380), ("val", 95)):
        for label, name in enumerate(("cat", "dog")):
            folder = root / split / name
            folder.mkdir(parents=True)
            for index in range(count):
                shade, step = index % 190, 40 * (index // 190) + (100 if split == "val" else 0)  # no two are equal
                colour = (200, shade, step) if label else (shade, 200, step)
                Image.new("RGB", (40, 36), colour).save(folder / f"{index}.png")
    for index in range(50):
        kind = kinds[index % 9]
        stem, _, suffix = kind.partition(".")
        BAD[kind][1](root / ("train" if index % 5 else "val") / ("cat", "dog")[index % 2] / f"{stem}{index}.{suffix}")
    status, said = run(*arguments(root, tmp_path / "out"))
    assert status == 0, said
    assert "50 files are left out" in said
    (file,) = tmp_path.glob("out/stages/benchmark/*/table.parquet")
    assert len(pd.read_parquet(file)) == 950
    assert not [path for path in pd.read_parquet(file)["path"] if not path.rpartition("/")[2][0].isdigit()]


def test_an_unwritable_root_is_one_line(tmp_path, run):
    (tmp_path / "file").write_text("")
    status, said = run("debug", *SMOKE, f"paths.root={tmp_path / 'file'}")
    assert status == 1
    assert str(tmp_path / "file") in said
    assert "Traceback" not in said
