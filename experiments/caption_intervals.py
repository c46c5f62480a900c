"""How sure the figures of a filter are: tables of differences with intervals over the images of the test set.

The intervals say what other test images would change, taken as independent: scenes of the embedded world share
cut-outs. Another seed of training changes figures too, and is not in them.
"""

from collections.abc import Mapping

import pandas as pd

from aaca.data.scenegraph.store import PackedGraphs
from aaca.evaluate.captions.intervals import FilterEffect, difference, filter_effect
from aaca.evaluate.captions.scores import caption_table
from aaca.evaluate.statistics import Interval
from aaca.runtime.seeding import purpose_seed

from .caption_run import SHOWN, CaptionRun

FIGURES = ("cider", "structure", "g_objects", "g_attributes", "g_relationships")


def table_of(run: CaptionRun, test: PackedGraphs, said: dict[str, str]) -> pd.DataFrame:
    """The `caption_table` of captions of a whole set; the document frequencies are the same for all of the set."""
    graphs = {test.name(row): test.graph(row) for row in range(len(test))}
    return caption_table(said, test.references(), graphs, run.index(), run.stages.parse())


def differences(run: CaptionRun, pairs: Mapping[str, tuple[pd.DataFrame, pd.DataFrame]]) -> pd.DataFrame:
    """Of each pair of tables of one set, by name, the first less the second: difference, figure, value, low, high."""
    rows = []
    for name, (first, second) in pairs.items():
        found = difference(first, second, _images(first), seed=_seed(run))
        rows += [(name, SHOWN[key], *_three(found[key])) for key in FIGURES if key in found]
    return pd.DataFrame(rows, columns=["difference", "figure", "value", "low", "high"])


def effects(run: CaptionRun, table: pd.DataFrame, kept: tuple[str, ...]) -> pd.DataFrame:
    """What keeping these captions of a table does to each figure, beside random filters of that size."""
    found = filter_effect(table, kept, _images(table), seed=_seed(run))
    rows = [_effect(key, found[key]) for key in FIGURES if key in found]
    return pd.DataFrame(rows)


def in_words(value: float, low: float, high: float, sign: str = "+") -> str:
    """A value and its interval, as tables show it."""
    return f"{value:{sign}.2f} [{low:{sign}.2f}, {high:{sign}.2f}]"


def over_images(run: CaptionRun) -> str:
    """What intervals are over, as titles of tables say it."""
    return "95 % intervals over images" + "; scenes share cut-outs" * run.options.graphs.embeds


def _effect(key: str, effect: FilterEffect) -> dict[str, object]:
    gain, random = (
        dict(zip(("value", "low", "high"), _three(one), strict=True)) for one in (effect.gain, effect.random)
    )
    return {
        "figure": SHOWN[key],
        "all": effect.all,
        "kept": effect.kept,
        **{f"gain_{part}": value for part, value in gain.items()},
        **{f"random_{part}": value for part, value in random.items()},
        "p": effect.p,
    }


def _three(interval: Interval) -> tuple[float, float, float]:
    return interval.value, interval.low, interval.high


def _images(table: pd.DataFrame) -> dict[str, str]:
    return {name: name.rpartition("_")[0] for name in table.index}


def _seed(run: CaptionRun) -> int:
    return purpose_seed(run.options.seed, "filter intervals") % 2**31
