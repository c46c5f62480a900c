"""Kills a small `debug` run at random moments, starts it again, and compares what it ends with.

`python -m tests.jobs.kill_points FOLDER POINTS SEED` prints one JSON line a point. Imports are paid once: every run is
a fork of this process, which never computes anything itself.
"""

import hashlib
import json
import os
import random
import signal
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd

from tests.toys import SMOKE

TIMES = ("started", "finished", "seconds", "seconds_total", "stage_seconds", "stage_reused", "peak_memory_mb")
JOB = ("debug", "method=s_similarity", *SMOKE, "recipe.epochs=6", "resume.every=0")


def start(root: Path) -> int:
    """Fork a process that runs the job below `root`; its id."""
    root.mkdir(parents=True, exist_ok=True)
    child = os.fork()
    if child:
        return child
    status = 70
    try:
        log = os.open(root / "log.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(log, 1)
        os.dup2(log, 2)
        os.chdir(root)
        from aaca.runtime.cli import main

        status = main([*JOB, f"paths.root={root}"])
    except SystemExit as stop:
        status = int(stop.code or 0)
    finally:
        os._exit(status)


def wait(child: int) -> int:
    """Exit status; negative for a signal."""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def result(root: Path) -> dict[str, str]:
    """Hashes of everything the run ended with: outcome, predictions, weights, features, debug set."""
    (run,) = root.glob("runs/*/outcome.json")
    outcome = {name: value for name, value in json.loads(run.read_text()).items() if name not in TIMES}
    found = {"outcome": sha(json.dumps(outcome, sort_keys=True).encode())}
    predictions = pd.read_parquet(run.parent / "predictions.parquet")
    found["predictions"] = sha(predictions.to_csv(index=False, float_format="%.17g").encode())
    for file in sorted(root.glob("stages/*/*/*")):
        name = "/".join(file.relative_to(root).parts[1:])
        if file.suffix == ".safetensors":
            found[name] = sha(file.read_bytes())
        elif file.suffix == ".npy":
            found[name] = sha(np.load(file).tobytes())
    found["curves"] = sha(b"".join(file.read_bytes() for file in sorted(root.glob("stages/*/*/log/metrics.csv"))))
    return found


def sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:16]


def stage_at(root: Path) -> str:
    """The stage that the log speaks of last, and whether it was under way."""
    text = (root / "log.txt").read_text() if (root / "log.txt").is_file() else ""
    lines = [line[line.index("stage ") :].split() for line in text.splitlines() if "stage " in line and "at /" not in line]
    if not lines:
        return "start"
    last = lines[-1]
    return " ".join(last[1:-2] if last[-1] == "…" else ["after", last[1]])


def main(folder: Path, points: int, seed: int) -> None:
    import experiments.debug_run  # noqa: F401  the imports that every fork would pay for

    dice = random.Random(seed)
    began = time.monotonic()
    assert wait(start(folder / "whole")) == 0, (folder / "whole" / "log.txt").read_text()
    duration = time.monotonic() - began
    whole = result(folder / "whole")
    print(json.dumps({"seconds": round(duration, 2), "compared": len(whole)}), flush=True)
    for point in range(points):
        root = folder / str(point)
        kills = []
        for _ in range(dice.choice([1, 1, 2, 3])):
            child, sent = start(root), dice.choice([signal.SIGKILL, signal.SIGTERM])
            time.sleep(dice.uniform(0, duration))
            os.kill(child, sent)
            status = wait(child)
            kills.append([sent.name, stage_at(root), status])
        status = wait(start(root))
        same = status == 0 and result(root) == whole
        left = [str(path) for path in root.glob("stages/*/.*.work")]
        print(json.dumps({"point": point, "kills": kills, "status": status, "same": same, "left": left}), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
