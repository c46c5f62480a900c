"""The job `intrinsic`: images taken apart into albedo and shading, with Concept Distillation and without."""

import sys

from aaca.runtime.app import run_job
from aaca.runtime.trial import Trial


def job(trial: Trial) -> None:
    """Train the variants from one base, score them, write and print the table."""
    from .intrinsic_run import run  # heavy imports wait until there is something to do

    run(trial)


def main() -> int:
    """Entry point: `aaca intrinsic`, `python -m experiments.intrinsic`."""
    return run_job("intrinsic", is_trial=True)


if __name__ == "__main__":
    sys.exit(main())
