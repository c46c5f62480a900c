"""The job `pretrain`: the small models that ship with aaca, trained on the embedded world."""

import sys

from aaca.runtime.app import run_job
from aaca.runtime.trial import Trial


def job(trial: Trial) -> None:
    """Train (or go on training) one of the models and write its files and its card."""
    from .pretrain_run import run  # heavy imports wait until there is something to do

    run(trial)


def main() -> int:
    """Entry point: `aaca pretrain`, `python -m experiments.pretrain`."""
    return run_job("pretrain", is_trial=True)


if __name__ == "__main__":
    sys.exit(main())
