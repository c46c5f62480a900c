"""The job `bottleneck`: a sparse linear classifier on named concepts."""

import sys

from aaca.runtime.app import run_job
from aaca.runtime.trial import Trial


def job(trial: Trial) -> None:
    """Make the stages that this needs, write its tables and print them."""
    from .sae_run import SaeRun  # heavy imports wait until there is something to do

    SaeRun(trial, labels=True).bottleneck()


def main() -> int:
    """Entry point: `aaca bottleneck`, `python -m experiments.bottleneck`."""
    return run_job("bottleneck", is_trial=True)


if __name__ == "__main__":
    sys.exit(main())
