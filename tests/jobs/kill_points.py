"""Kills a small `debug` run at random moments, starts it again, and compares what it ends with.

`python -m tests.jobs.kill_points FOLDER POINTS SEED [OVERRIDES]` prints one JSON line a point. Imports are paid once:
every run is a fork of this process, which never computes anything itself. A point is one to three kills (SIGKILL or
SIGTERM) and a last start that is left alone. Every other point's first kill waits for a stage (each in turn, so that a
slow machine's points do not all fall into the same one); all other kills come at moments drawn over the whole run.
"""

import hashlib
import json
import os
import random
import shutil
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from tests.toys import SMOKE

MARK = "AACA_KILL_POINT"
SIGNALS = (signal.SIGKILL, signal.SIGTERM)
TIMES = ("started", "finished", "seconds", "seconds_total", "stage_seconds", "stage_reused", "peak_memory_mb")
JOB = ("debug", "method=s_similarity", *SMOKE, "recipe.epochs=12", "resume.every=0")  # what comes later wins


def start(root: Path, more: Sequence[str] = ()) -> int:
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

        status = main([*JOB, *more, f"paths.root={root}"])
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
    lines = [
        line[line.index("stage ") :].split() for line in text.splitlines() if "stage " in line and "at /" not in line
    ]
    if not lines:
        return "start"
    last = lines[-1]
    return " ".join(last[1:-2] if last[-1] == "…" else ["after", last[1]])


def stages_of(root: Path) -> list[str]:
    """The stages that the log says were begun, in order."""
    text = (root / "log.txt").read_text() if (root / "log.txt").is_file() else ""
    begun = [line[line.index("stage ") :].split() for line in text.splitlines() if "stage " in line and "…" in line]
    return [" ".join(words[1:-2]) for words in begun]


def interrupt(
    root: Path, more: Sequence[str], after: float, sent: signal.Signals, stage: str = ""
) -> list[object] | None:
    """Start, and kill so long after (the start of that stage); what was hit, or None where the run had ended."""
    child = start(root, more)
    ended, code = 0, 0
    while stage and stage not in stages_of(root) and not ended:
        time.sleep(0.002)
        ended, code = os.waitpid(child, os.WNOHANG)
    if ended:
        status = os.waitstatus_to_exitcode(code)
    else:
        time.sleep(after)
        os.kill(child, sent)
        status = wait(child)
    if status == 0:
        return None
    assert status in (-signal.SIGKILL, -signal.SIGTERM, 143), (root / "log.txt").read_text()  # not a failure of its own
    return [sent.name, stage_at(root), status]


def processes() -> list[str]:
    """Processes of these runs, other than this one, that are still there."""
    left = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if MARK.encode() in (process / "environ").read_bytes():
                left.append((process / "cmdline").read_bytes().replace(b"\0", b" ").decode())
        except OSError:
            continue  # it has just ended
    return left


def left_after(seconds: float) -> list[str]:
    """The same, when they have had so long to notice."""
    end = time.monotonic() + seconds
    while (left := processes()) and time.monotonic() < end:
        time.sleep(0.1)
    return left


def main(folder: Path, points: int, seed: int, more: Sequence[str] = ()) -> None:
    import experiments.debug_run  # noqa: F401  the imports that every fork would pay for

    os.environ[MARK] = "1"  # what forks and their children inherit; this process started without it
    dice = random.Random(seed)
    began = time.monotonic()
    assert wait(start(folder / "whole", more)) == 0, (folder / "whole" / "log.txt").read_text()
    duration = time.monotonic() - began
    whole, stages = result(folder / "whole"), list(dict.fromkeys(stages_of(folder / "whole")))
    dice.shuffle(stages)
    print(json.dumps({"seconds": round(duration, 2), "compared": len(whole)}), flush=True)
    for point in range(points):
        root, wanted, kills = folder / str(point), dice.choice([1, 1, 2, 3]), []
        for _ in range(wanted):
            share = 1 if not kills else 0.6  # what is ready already is not made again
            aim = stages[point // 2 % len(stages)] if not kills and point % 2 else ""
            after = dice.uniform(0, 0.05 if aim else share * duration)
            hit = interrupt(root, more, after, dice.choice(SIGNALS), aim)
            if hit is not None:
                kills.append(hit)
            elif not kills:
                shutil.rmtree(root)  # it was faster than the draw; the point has to hit something
        if not kills:
            kills.append(interrupt(root, more, duration / 3, signal.SIGKILL))
        orphans = left_after(10.0)
        status = wait(start(root, more))
        found = result(root) if status == 0 else {}
        differs = [name for name in {**whole, **found} if whole.get(name) != found.get(name)]
        left = [str(path) for path in root.glob("stages/*/.*.work")]
        line = {"point": point, "kills": kills, "status": status, "differs": differs, "left": left, "orphans": orphans}
        print(json.dumps(line), flush=True)
        shutil.rmtree(root)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), sys.argv[4:])
