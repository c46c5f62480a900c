"""A tree of ranks: they know each other, fail together with the right reason, and never outlive who started them."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from aaca.runtime.launch import GRACE, TreeFailed, launch

TASKS = "tests.runtime.rank_tasks"
ROOT = Path(__file__).parents[2]


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def wait_until_gone(pids: list[int], seconds: float) -> list[int]:
    end = time.monotonic() + seconds
    while (left := [pid for pid in pids if alive(pid)]) and time.monotonic() < end:
        time.sleep(0.02)
    return left


def test_ranks_know_each_other_share_and_leave_nothing_behind():
    before = dict(os.environ)
    found = launch(f"{TASKS}:who", {"text": "frozen"}, 2)
    assert found["world"] == 2
    assert [mine["rank"] for mine in found["everyone"]] == [0, 1]
    assert {mine["parent"] for mine in found["everyone"]} == {os.getpid()}
    assert found["shared"] == [{"from": 0, "text": "frozen"}] * 2
    assert not [mine for mine in found["everyone"] if alive(mine["pid"])]
    assert dict(os.environ) == before


def test_ranks_that_hold_different_things_say_both():
    with pytest.raises(TreeFailed, match=r"disagree about the config \(rank 0: value of 0, rank 1: value of 1\)"):
        launch(f"{TASKS}:disagree", {}, 2)


@pytest.mark.parametrize(
    ("how", "rank", "wait", "said", "trace"),
    [
        ("user", 1, "collective", r"^rank 1: dataset\.root: not there$", False),
        ("defect", 1, "collective", r"^rank 1: ZeroDivisionError: planted$", True),
        ("memory", 0, "exchange", r"^out of memory .*lower recipe\.batch_size", False),
        ("exit", 1, "sleep", r"^rank 1 of 2 ended with status 3 and no word$", False),
        ("kill", 0, "exchange", r"^rank 0 of 2 was ended by SIGKILL \(the system's out-of-memory killer", False),
    ],
)
def test_one_rank_that_fails_ends_all_with_its_reason(how, rank, wait, said, trace):
    with pytest.raises(TreeFailed, match=said) as caught:
        launch(f"{TASKS}:fail", {"how": how, "rank": rank, "wait": wait}, 2)
    assert (caught.value.trace is not None) == trace
    if trace:
        assert "rank_tasks.py" in str(caught.value.trace)


PARENT = (
    "from aaca.runtime.launch import launch; "
    "launch('tests.runtime.rank_tasks:sleep_with_a_child', {{'folder': {!r}}}, 2)"
)


@pytest.mark.parametrize("sent", [signal.SIGKILL, signal.SIGINT])
def test_ranks_and_their_children_die_with_the_parent(sent, tmp_path):
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT.format(str(tmp_path))],
        cwd=ROOT,
        stderr=subprocess.DEVNULL,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    files = [tmp_path / "0", tmp_path / "1"]
    end = time.monotonic() + 100
    while not all(file.is_file() and " " in file.read_text() for file in files):
        assert time.monotonic() < end
        assert parent.poll() is None
        time.sleep(0.05)
    pids = [int(pid) for file in files for pid in file.read_text().split()]
    assert all(alive(pid) for pid in pids)
    parent.send_signal(sent)
    parent.wait(timeout=30)
    assert wait_until_gone(pids, GRACE) == []
