"""The job `intervene`: switch concepts off and see what that does to the groups."""

import sys

from aaca.runtime.app import run_job
from aaca.runtime.trial import Trial


def job(trial: Trial) -> None:
    """Make the stages that this needs, write its tables and print them."""
    from .sae_run import SaeRun  # heavy imports wait until there is something to do

    SaeRun(trial, labels=True, text=True, choice=True).intervene()


def main() -> int:
    """Entry point: `aaca intervene`, `python -m experiments.intervene`."""
    return run_job("intervene", is_trial=True)


if __name__ == "__main__":
    sys.exit(main())
