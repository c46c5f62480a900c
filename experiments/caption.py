"""The job `caption`: a captioner that follows scene graphs, trained, scored, explained, its annotations filtered."""

import sys

from aaca.runtime.app import run_job
from aaca.runtime.trial import Trial


def job(trial: Trial) -> float:
    """Do what `action` says; the objective for sweepers is the CIDEr of the captions, where there is one."""
    from .caption_run import CaptionRun  # heavy imports wait until there is something to do

    return CaptionRun(trial).run()


def main() -> int:
    """Entry point: `aaca caption`, `python -m experiments.caption`."""
    return run_job("caption", is_trial=True)


if __name__ == "__main__":
    sys.exit(main())
