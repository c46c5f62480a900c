"""The sets that a run of `caption` names, before anything is made: are they there, do they share images?"""

import logging
from pathlib import Path
from typing import Any

from aaca.runtime.errors import ConfigError, nearest
from aaca.runtime.ranks import current

from .caption_config import CaptionConfig

log = logging.getLogger(__name__)


def check_sets(options: CaptionConfig) -> dict[str, Any]:
    """{set: `set_fingerprint`} of all sets that the config names. Raises `ConfigError` with the key of a wrong name."""
    graphs = options.graphs
    asked = {f"graphs.{key}": getattr(graphs, key) for key in ("train", "val", "test")}
    if options.reference_index is not None:
        asked["reference_index"] = options.reference_index
    known = graphs.layout(Path()).sets
    for key, name in asked.items():
        if name not in known:
            raise ConfigError(f"{key}: {name!r}; {nearest(name, known)}")
    return {name: graphs.set_fingerprint(name) for name in asked.values()}


def check_shared(options: CaptionConfig) -> None:
    """Raise `ConfigError` where train holds images of test; say so where val does and chooses the epoch by them.

    Of a captioner that is trained here, and has a test set.
    """
    graphs = options.graphs
    if options.captions is not None or options.action == "image":
        return
    test, train, val = (graphs.image_ids(name) for name in (graphs.test, graphs.train, graphs.val))
    if both := test & train:
        raise ConfigError(
            f"graphs.test: {graphs.test!r} shares {len(both)} of {len(test)} images ({min(both)}, …) with "
            f"graphs.train={graphs.train}; expected a set that the captioner is not trained on"
        )
    both = test & val
    if both and options.training.monitor != "last" and current().rank == 0:
        log.warning(
            "graphs.val=%s has %d of the %d images of graphs.test=%s: the best epoch is chosen on test; "
            "training.monitor=last or another graphs.val= avoids that",
            graphs.val,
            len(both),
            len(test),
            graphs.test,
        )
