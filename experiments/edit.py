"""The job `edit`: the head edited so that some neurons stop mattering: before, after, a page."""

import sys

from aaca.runtime.app import run_job
from aaca.runtime.trial import Trial


def job(trial: Trial) -> float:
    """Run once; the objective for sweepers is the worst-group accuracy."""
    from .neuron_run import NeuronRun  # heavy imports wait until there is something to do

    return NeuronRun(trial).edit()


def main() -> int:
    """Entry point: `aaca edit`, `python -m experiments.edit`."""
    return run_job("edit", is_trial=True)


if __name__ == "__main__":
    sys.exit(main())
