"""The table of the job `intrinsic`: means and intervals over seeds, and each row against the control."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from rich import box
from rich.table import Table
from scipy.stats import t as student

METRICS = {
    "mse_r": "MSE R",
    "mse_s": "MSE S",
    "ssim_r": "SSIM R",
    "ssim_s": "SSIM S",
    "si_mse_r": "SI-MSE R",
    "sensitivity_r": "light → R",
    "sensitivity_s": "albedo → S",
}
"""Columns on the terminal; the files hold every metric. The last two are the concept-sensitivity ratios."""


def interval(values: Sequence[float], level: float = 0.95) -> tuple[float, float, float]:
    """Mean and Student's interval over seeds; NaN for the interval of a single one."""
    array = np.asarray(values, dtype=np.float64)
    if len(array) < 2:
        return float(array.mean()), np.nan, np.nan
    half = float(student.ppf((1 + level) / 2, len(array) - 1)) * float(array.std(ddof=1)) / len(array) ** 0.5
    return float(array.mean()), float(array.mean()) - half, float(array.mean()) + half


def by_row(scores: pd.DataFrame) -> pd.DataFrame:
    """One line a row and metric: mean, low, high, and how many seeds."""
    return _intervals(scores)


def changes(scores: pd.DataFrame) -> pd.DataFrame:
    """The same of each seed's relative change against its own control: −0.1 is a tenth less. Errors: less is better."""
    numbers = scores.set_index(["row", "seed"])
    control = numbers.loc["control"]
    relative = numbers.drop(index="control", level="row").groupby(level="row", sort=False, group_keys=False)
    found = relative.apply(lambda rows: rows.droplevel("row").div(control).sub(1).assign(row=rows.index[0][0]))
    return _intervals(found.drop(columns=["collapsed", "floor"]).reset_index())


def _intervals(scores: pd.DataFrame) -> pd.DataFrame:
    lines = []
    for row, group in scores.groupby("row", sort=False):
        for metric in group.columns.drop(["row", "seed"]):
            mean, low, high = interval(group[metric].tolist())
            lines.append({"row": row, "metric": metric, "mean": mean, "low": low, "high": high, "seeds": len(group)})
    return pd.DataFrame(lines)


def terminal_table(scores: pd.DataFrame) -> Table:
    """Rows by columns, mean with its interval below; a row that a constant R could match is marked."""
    frame = by_row(scores).set_index(["row", "metric"])
    table = Table(
        title="intrinsic images",
        caption=f"mean and 95 % interval over {frame['seeds'].max()} seed(s); light → R: variance of R across lights "
        "over variance across albedos, albedo → S the reverse (0 is perfect); * no better than a constant R",
        box=box.SIMPLE_HEAD,
    )
    for heading in ("row", *METRICS.values()):
        table.add_column(heading, justify="left" if heading == "row" else "right", no_wrap=True)
    for row in scores["row"].unique():
        mark = "*" if frame.loc[(row, "collapsed"), "mean"] else ""
        table.add_row(f"{row}{mark}", *(_cell(frame.loc[(row, metric)]) for metric in METRICS))
    return table


def _cell(found: pd.Series) -> str:
    return f"{found['mean']:.4f}" + ("" if np.isnan(found["low"]) else f"\n[{found['low']:.4f}, {found['high']:.4f}]")
