"""What goes wrong at a terminal: Ctrl-C, a kill, corrupt files, a bad folder; every rerun works."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.toys import SMOKE, picture_folder

AACA = [sys.executable, "-u", "-c", "import sys; from aaca.runtime.cli import main; sys.exit(main())"]


def start(root: Path) -> subprocess.Popen[str]:
    arguments = ["debug", "method=s_random", *SMOKE, "recipe.epochs=300", f"paths.root={root}"]
    return subprocess.Popen([*AACA, *arguments], stderr=subprocess.PIPE, text=True, cwd=root)


def wait_for(process: subprocess.Popen[str], text: str) -> str:
    assert process.stderr is not None
    said = ""
    for line in process.stderr:
        said += line
        if text in line:
            return said
    raise AssertionError(f"{text!r} never came; it said: {said}")


@pytest.mark.parametrize(("sent", "status"), [(signal.SIGINT, 130), (signal.SIGKILL, -9)])
def test_an_interrupted_run_publishes_nothing_half_made(sent, status, tmp_path):
    process = start(tmp_path)
    wait_for(process, "stage f0")
    with subprocess.Popen(["sleep", "3"]) as pause:
        pause.wait()
    os.kill(process.pid, sent)
    _, rest = process.communicate(timeout=60)
    assert process.returncode == status
    if sent == signal.SIGINT:
        assert "interrupted; finished stages are kept" in rest
        assert "Traceback" not in rest
        assert not list(tmp_path.glob("stages/f0/.*.work"))
    assert len(list(tmp_path.glob("stages/benchmark/*/manifest.json"))) == 1
    assert not list(tmp_path.glob("stages/f0/*/manifest.json"))
    assert not list(tmp_path.glob("runs/*/outcome.json"))


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
    status, said = run(*arguments(one_class, tmp_path / "out"))
    assert status == 1
    assert "class" in said
    empty = picture_folder(tmp_path / "empty")
    (empty / "train" / "bird").mkdir()
    status, said = run(*arguments(empty, tmp_path / "out"))
    assert status == 1
    assert "bird" in said
    for text in (said,):
        assert len([line for line in text.splitlines() if "error" in line]) == 1
        assert "Traceback" not in text


def test_a_pool_that_overlaps_train_is_refused(tmp_path, run):
    root = picture_folder(tmp_path / "pictures")
    lines = ["path,label,split"]
    for split, folder in (("train", "train"), ("pool", "train"), ("audit", "val"), ("test", "val")):
        lines += [f"{folder}/{name}/{index}.png,{name},{split}" for name in ("cat", "dog") for index in range(6)]
    (root / "manifest.csv").write_text("\n".join(lines))
    status, said = run(*arguments(root, tmp_path / "out", "dataset.manifest=manifest.csv"))
    assert status == 1
    assert "disjoint" in said or "two splits" in said or "in the table" in said, said


def test_an_unwritable_root_is_one_line(tmp_path, run):
    (tmp_path / "file").write_text("")
    status, said = run("debug", *SMOKE, f"paths.root={tmp_path / 'file'}")
    assert status == 1
    assert str(tmp_path / "file") in said
    assert "Traceback" not in said
