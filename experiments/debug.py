"""The job `debug`: a classifier, its failures, a debug set, a repaired classifier, their difference on `test`."""

import sys

from aaca.runtime.app import run_job
from aaca.runtime.trial import Trial


def job(trial: Trial) -> float:
    """Run once; the objective for sweepers is the worst-group accuracy."""
    if trial.config.get("dry_run") is True:
        from .debug_plan import show_plan

        show_plan(trial)
        return 0.0
    from .debug_run import debug  # heavy imports wait until there is something to do

    return debug(trial).worst_group_accuracy


def main() -> int:
    """Entry point: `aaca debug`, `python -m experiments.debug`."""
    return run_job("debug", is_trial=True)


if __name__ == "__main__":
    sys.exit(main())
