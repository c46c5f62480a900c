"""One log on the terminal, in Rich's hand; other libraries speak only when something is wrong."""

import logging
import sys
import warnings

from rich.console import Console
from rich.logging import RichHandler

from aaca.runtime.secrets import redact

console = Console(stderr=True, width=None if sys.stderr.isatty() else 200)
QUIET = (
    "pytorch_lightning",
    "lightning.pytorch",
    "lightning_utilities",
    "matplotlib",
    "PIL",
    "wandb",
    "filelock",
    "timm",
    "diffusers",
    "transformers",
    "huggingface_hub",
    "httpx",
    "openai",
    "root",  # open_clip says everything to the root logger
)

NOISE = (
    ".*does not have many workers.*",  # array files need none
    ".*is smaller than the logging interval.*",  # epochs are logged, not updates
    ".*`isinstance\\(treespec, LeafSpec\\)` is deprecated.*",
    ".*your dataloader is not resumable.*",  # ours is: ImageDataModule counts its batches
    ".*when logging on epoch level in distributed setting.*",  # WorstGroupAccuracy has gathered all rows itself
    ".*You passed in a `val_dataloader` but have no.*",  # pretraining validates nothing
    "predict returned None if it was on purpose",  # features are written, not returned
)


def _redacted(record: logging.LogRecord) -> bool:
    record.msg, record.args = redact(record.getMessage()), ()
    return True


def setup_logging(level: int = logging.INFO, prefix: str = "") -> None:
    """Send the log to standard error, a line a message after `prefix`, secrets masked; results go to standard out."""
    handler = RichHandler(
        console=console, show_path=False, show_level=False, log_time_format="%H:%M:%S", rich_tracebacks=False
    )
    logging.basicConfig(level=level, format=f"{prefix}%(message)s", handlers=[handler], force=True)
    handler.addFilter(lambda record: record.levelno >= logging.WARNING or not record.name.startswith(QUIET))
    handler.addFilter(_redacted)
    for text in NOISE:
        warnings.filterwarnings("ignore", message=text)
