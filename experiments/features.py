"""The job `features`: embed a dataset's images into a store that autoencoders learn from."""

import sys

from aaca.runtime.app import run_job
from aaca.runtime.trial import Trial


def job(trial: Trial) -> None:
    """Make the stages that this needs, write its tables and print them."""
    from .sae_run import SaeRun  # heavy imports wait until there is something to do

    SaeRun(trial).features()


def main() -> int:
    """Entry point: `aaca features`, `python -m experiments.features`."""
    return run_job("features", is_trial=True)


if __name__ == "__main__":
    sys.exit(main())
