"""Killed at random moments of any stage, started again: the same weights, features and outcome, to the bit."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def kill_points(folder: Path, points: int, seed: int, *more: str) -> list[dict]:
    command = [sys.executable, "-m", "tests.jobs.kill_points", str(folder), str(points), str(seed), *more]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    first, *lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert first["compared"] >= 20
    assert len(lines) == points
    for line in lines:
        print(line)
        assert line["kills"], line
        assert line["status"] == 0, line
        assert line["differs"] == line["left"] == line["orphans"] == [], line
    return lines


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_ten_kill_points_ten_identical_outcomes(tmp_path):
    lines = kill_points(tmp_path, 10, 1, "recipe.epochs=4")
    assert len({stage for line in lines for _, stage, _ in line["kills"]}) >= 4


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_fifty_kill_points_fifty_identical_outcomes(tmp_path):
    lines = kill_points(tmp_path, 50, 2)
    assert len({stage for line in lines for _, stage, _ in line["kills"]}) >= 7


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_ten_kill_points_of_two_ranks(tmp_path):
    kill_points(tmp_path, 10, 4, "trainer=ddp_cpu")
