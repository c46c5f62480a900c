"""Seconds that a process tree of its own adds to a trial: `python tests/bench/relaunch.py [TRIALS]`.

The same sweep of small trials three times: in the command's own process, in a process a trial, on two ranks a trial.
The stages of all are ready beforehand but for the refit, so that the start weighs as little as it can.
"""

import subprocess
import sys
import tempfile
import time
from pathlib import Path

SMALL = ("size=smoke", "dataset.image_size=32", "model.image_size=32", "method=none")
WAYS = {
    "own process": ("trainer=cpu",),
    "a process a trial": ("trainer=cpu", "trainer.isolate=true"),
    "two ranks a trial": ("trainer=ddp_cpu",),
}


def sweep(root: Path, ways: tuple[str, ...], seeds: range) -> float:
    """Wall seconds of one sweep."""
    command = [str(Path(sys.executable).parent / "aaca"), "debug", "-m", *SMALL, *ways, f"paths.root={root}"]
    began = time.perf_counter()
    subprocess.run([*command, "seed=" + ",".join(map(str, seeds))], check=True, capture_output=True)
    return time.perf_counter() - began


def main(trials: int) -> None:
    """Print seconds a trial; what every command pays once (imports, composing) is taken out by a sweep of one trial."""
    with tempfile.TemporaryDirectory() as folder:
        for name, ways in WAYS.items():
            root = Path(folder) / name.replace(" ", "-")
            one = sweep(root, ways, range(100, 101))
            many = sweep(root, ways, range(trials))
            each = (many - one) / (trials - 1)
            print(f"{name:<20}{each:6.2f} s a trial  (one trial with the command's start: {one:.2f} s)")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 5)
