"""The job `sae`: a sparse autoencoder on image vectors: concepts without names."""

import sys

from aaca.runtime.app import run_job
from aaca.runtime.trial import Trial


def job(trial: Trial) -> None:
    """Make the stages that this needs, write its tables and print them."""
    from .sae_run import SaeRun  # heavy imports wait until there is something to do

    SaeRun(trial).sae()


def main() -> int:
    """Entry point: `aaca sae`, `python -m experiments.sae`."""
    return run_job("sae", is_trial=True)


if __name__ == "__main__":
    sys.exit(main())
