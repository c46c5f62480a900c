"""The job `name`: names for an autoencoder's concepts, and whether they are right."""

import sys

from aaca.runtime.app import run_job
from aaca.runtime.trial import Trial


def job(trial: Trial) -> None:
    """Make the stages that this needs, write its tables and print them."""
    from .sae_run import SaeRun  # heavy imports wait until there is something to do

    SaeRun(trial, text=True).name()


def main() -> int:
    """Entry point: `aaca name`, `python -m experiments.name`."""
    return run_job("name", is_trial=True)


if __name__ == "__main__":
    sys.exit(main())
