"""Stages: made once, published whole or not at all, shared by processes, keyed by what influences them."""

import errno
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from aaca.runtime.errors import AacaError
from aaca.runtime.stages import StageCache


def write(folder: Path) -> None:
    (folder / "sub").mkdir()
    (folder / "sub" / "data.txt").write_text("made")


def test_a_stage_is_made_once_and_found_by_its_inputs(tmp_path):
    made: list[Path] = []

    def make(folder: Path) -> None:
        made.append(folder)
        write(folder)

    first = StageCache(tmp_path).stage("f0", {"seed": 0}, make)
    again = StageCache(tmp_path).stage("f0", {"seed": 0}, make)
    other = StageCache(tmp_path).stage("f0", {"seed": 1}, make)
    assert len(made) == 2
    assert (first.reused, again.reused, other.reused) == (False, True, False)
    assert again.folder == first.folder != other.folder
    manifest = json.loads((first.folder / "manifest.json").read_text())
    assert manifest["inputs"] == {"seed": 0}
    assert manifest["files"] == ["sub/data.txt"]
    assert manifest["versions"]["torch"]


def test_a_failure_publishes_nothing_and_the_next_try_starts_afresh(tmp_path):
    def half(folder: Path) -> None:
        write(folder)
        raise ValueError("half way")

    with pytest.raises(ValueError, match="half way"):
        StageCache(tmp_path).stage("f0", {}, half)
    assert [path for path in tmp_path.rglob("*") if path.is_file() and path.suffix != ".lock"] == []
    assert not StageCache(tmp_path).stage("f0", {}, write).reused


def test_a_full_disk_is_one_clear_line(tmp_path):
    def full(folder: Path) -> None:
        write(folder)
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(AacaError, match=r"stage f0: .*No space left on device.*nothing was published") as caught:
        StageCache(tmp_path).stage("f0", {}, full)
    assert "\n" not in str(caught.value)
    assert not list((tmp_path / "stages" / "f0").glob("[!.]*"))


def test_a_really_full_disk(tmp_path):
    mount = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(tmp_path)], capture_output=True)
    if mount.returncode:
        pytest.skip("no right to mount a small tmpfs")
    try:
        with pytest.raises(AacaError, match="No space left"):
            StageCache(tmp_path).stage("f0", {}, lambda folder: (folder / "big").write_bytes(bytes(4_000_000)))
        assert not list((tmp_path / "stages" / "f0").glob("[!.]*"))
        assert not StageCache(tmp_path).stage("f0", {}, write).reused
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)


def test_a_read_only_root_names_its_key(tmp_path):
    mount = subprocess.run(["mount", "-t", "tmpfs", "-o", "ro", "tmpfs", str(tmp_path)], capture_output=True)
    if mount.returncode:
        pytest.skip("no right to mount a read-only tmpfs")
    try:
        with pytest.raises(AacaError, match=r"paths\.root: cannot write .*Read-only file system"):
            StageCache(tmp_path).stage("f0", {}, write)
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)


def test_a_root_below_a_file_names_its_key(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(AacaError, match=r"paths\.root: cannot write"):
        StageCache(tmp_path / "file").stage("f0", {}, write)


def test_a_lost_file_is_noticed_and_the_stage_made_again(tmp_path):
    folder = StageCache(tmp_path).stage("f0", {}, write).folder
    (folder / "sub" / "data.txt").unlink()
    assert not StageCache(tmp_path).stage("f0", {}, write).reused
    assert (folder / "sub" / "data.txt").read_text() == "made"


def test_a_lost_or_torn_manifest_is_mended(tmp_path):
    folder = StageCache(tmp_path).stage("f0", {}, write).folder
    (folder / "manifest.json").unlink()
    assert not StageCache(tmp_path).stage("f0", {}, write).reused
    (folder / "manifest.json").write_text('{"key": ')
    assert not StageCache(tmp_path).stage("f0", {}, write).reused
    assert StageCache(tmp_path).stage("f0", {}, write).reused


def slowly(folder: Path) -> None:
    time.sleep(0.5)
    write(folder)


def race(root: Path, queue: "multiprocessing.Queue[bool]") -> None:
    queue.put(StageCache(root).stage("f0", {}, slowly).reused)


def test_two_processes_make_it_once(tmp_path):
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    workers = [context.Process(target=race, args=(tmp_path, queue)) for _ in range(2)]
    for worker in workers:
        worker.start()
    found = sorted(queue.get(timeout=30) for _ in workers)
    for worker in workers:
        worker.join()
    assert found == [False, True]


def test_a_killed_maker_leaves_nothing_in_the_way(tmp_path):
    script = (
        "import sys, time; from pathlib import Path; from aaca.runtime.stages import StageCache\n"
        "def make(folder):\n (folder / 'half').write_text('x'); print('in', flush=True); time.sleep(60)\n"
        "StageCache(Path(sys.argv[1])).stage('f0', {}, make)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", script, str(tmp_path)], stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.readline()
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    stage = StageCache(tmp_path).stage("f0", {}, write)
    assert not stage.reused
    assert sorted(path.name for path in stage.folder.iterdir()) == ["manifest.json", "sub"]
