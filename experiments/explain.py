"""The job `explain`: what a concept bottleneck looks at: tables, figures, a page."""

import sys

from aaca.runtime.app import run_job
from aaca.runtime.trial import Trial


def job(trial: Trial) -> None:
    """Make the stages that this needs, write its tables and print them."""
    from .sae_run import SaeRun  # heavy imports wait until there is something to do

    SaeRun(trial, labels=True, text=True).explain()


def main() -> int:
    """Entry point: `aaca explain`, `python -m experiments.explain`."""
    return run_job("explain", is_trial=True)


if __name__ == "__main__":
    sys.exit(main())
