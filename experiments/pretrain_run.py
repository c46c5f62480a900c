"""One run of the job `pretrain`: the stages of one model, and its files where they are wanted."""

import logging
from pathlib import Path

import torch

from aaca.runtime.config import load_config
from aaca.runtime.ranks import current
from aaca.runtime.stages import Stage
from aaca.runtime.trial import Trial

from .debug_config import without_size_presets
from .pretrain_config import PretrainConfig
from .pretrain_export import Export
from .pretrain_stages import PretrainStages

log = logging.getLogger(__name__)


def run(trial: Trial) -> None:
    """Make the model that `network` names and what it needs."""
    options = load_config(without_size_presets(trial.config), PretrainConfig)
    if options.threads is not None:
        torch.set_num_threads(options.threads)
    stages = PretrainStages(options)
    stage: Stage = getattr(stages, options.network)()
    log.info("%s: %s", options.network, stage.folder)
    if options.into is not None and current().rank == 0:
        Export(stages, Path(options.into).absolute()).write(options.network)
