"""One log on the terminal, in Rich's hand; other libraries speak only when something is wrong."""

import logging
import sys
import warnings

from rich.console import Console
from rich.logging import RichHandler

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
)

NOISE = (
    ".*does not have many workers.*",  # array files need none
    ".*is smaller than the logging interval.*",  # epochs are logged, not updates
    ".*`isinstance\\(treespec, LeafSpec\\)` is deprecated.*",
    "predict returned None if it was on purpose",  # features are written, not returned
)


def setup_logging(level: int = logging.INFO) -> None:
    """Send the log to standard error, one line a message; results go to standard output."""
    handler = RichHandler(
        console=console, show_path=False, show_level=False, log_time_format="%H:%M:%S", rich_tracebacks=False
    )
    logging.basicConfig(level=level, format="%(message)s", handlers=[handler], force=True)
    handler.addFilter(lambda record: record.levelno >= logging.WARNING or not record.name.startswith(QUIET))
    for text in NOISE:
        warnings.filterwarnings("ignore", message=text)
