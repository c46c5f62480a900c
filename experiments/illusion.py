"""The job `illusion`: what neurons would like to see, with the eyes of a class."""

import sys

from aaca.runtime.app import run_job
from aaca.runtime.trial import Trial


def job(trial: Trial) -> None:
    """Make the stages that this needs, write its tables and print them."""
    from .neuron_run import NeuronRun  # heavy imports wait until there is something to do

    NeuronRun(trial).illusion()


def main() -> int:
    """Entry point: `aaca illusion`, `python -m experiments.illusion`."""
    return run_job("illusion", is_trial=True)


if __name__ == "__main__":
    sys.exit(main())
