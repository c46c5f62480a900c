"""The job `inspect`: which neurons a classifier's mistakes hang on: a report, a page, tasks for people."""

import sys

from aaca.runtime.app import run_job
from aaca.runtime.trial import Trial


def job(trial: Trial) -> None:
    """Make the stages that this needs, write its tables and print them."""
    from .neuron_run import NeuronRun  # heavy imports wait until there is something to do

    NeuronRun(trial).inspect()


def main() -> int:
    """Entry point: `aaca inspect`, `python -m experiments.inspect`."""
    return run_job("inspect", is_trial=True)


if __name__ == "__main__":
    sys.exit(main())
