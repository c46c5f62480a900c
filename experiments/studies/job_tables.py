"""`python -m experiments.studies.job_tables ROOT/JOB NAME FOLDER [AS [COLUMNS]]`: tables of runs as one.

The tables are those of a job's runs, NAME.csv in their folders. ROOT may be a pattern, in quotes.

One row a configuration (what varies between the runs, but for the seed) and a row of their tables: mean and standard
deviation over seeds. Written to FOLDER/AS.csv (AS: NAME unless given), and into FOLDER/README.md below `<!-- AS -->`,
there of all numbers the COLUMNS alone, where they are named (with commas).
"""

import sys
from collections.abc import Iterator
from glob import glob
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from aaca.runtime.files import atomic_path, write_text
from aaca.runtime.trial import IMMATERIAL

TABLE_END = "<!-- end -->"


def runs(root: str, name: str) -> pd.DataFrame:
    """All rows of all tables, with the settings that vary. Raises `SystemExit` where there is none."""
    files = sorted(Path(file) for file in glob(f"{root}/*/{name}.csv"))  # noqa: PTH207
    if not files:
        raise SystemExit(f"{root}: no run with {name}.csv; expected folders with it below {root}")
    settings = [dict(_flat(yaml.safe_load((file.parent / "config.yaml").read_text()))) for file in files]
    keys = sorted({key for setting in settings for key in setting})
    varying = [key for key in keys if _varies(key, settings) and _counts(key)]
    frames = []
    for file, setting in zip(files, settings, strict=True):
        said = " ".join(_said(key, setting[key]) for key in varying if setting.get(key) is not None)
        frames.append(pd.read_csv(file).assign(setting=said))
    return pd.concat(frames, ignore_index=True)


def _varies(key: str, settings: list[dict[str, Any]]) -> bool:
    # an argument counts where it differs between runs of one class; else the class's name says it
    owner = f"{key.rpartition('.')[0]}._target_"
    classes = {None} if key == owner else {setting.get(owner) for setting in settings}
    return any(
        len({str(setting.get(key)) for setting in settings if cls is None or setting.get(owner) == cls}) > 1
        for cls in classes
    )


def over_seeds(frame: pd.DataFrame) -> pd.DataFrame:
    """Mean and standard deviation a setting and row."""
    frame = frame.drop(columns=[name for name in ("seed", "folder", "content") if name in frame])
    texts = [name for name in frame.columns if not pd.api.types.is_numeric_dtype(frame[name])]
    groups = frame.groupby(texts, sort=False)
    numbers = [name for name in frame.columns if name not in texts]
    found = groups[numbers].agg(["mean", "std"])
    found.columns = [name if kind == "mean" else f"{name}_sd" for name, kind in found.columns]
    found.insert(0, "runs", groups.size())
    return found.reset_index().round(4)


def markdown(table: pd.DataFrame) -> str:
    """Means ± standard deviations."""
    shown = [name for name in table.columns if not name.endswith("_sd")]
    lines = ["| " + " | ".join(shown) + " |", "|" + "---|" * len(shown)]
    for row in table.to_dict("records"):
        lines.append("| " + " | ".join(_cell(row, str(name)) for name in shown) + " |")
    return "\n".join(lines)


def _cell(row: dict[Any, Any], name: str) -> str:
    value, spread = row[name], row.get(f"{name}_sd")
    if not isinstance(value, float):
        return str(value)
    if pd.isna(value):
        return ""
    text = f"{value:.3f}"
    return text if spread is None or pd.isna(spread) or not spread else f"{text} ± {spread:.3f}"


def _flat(node: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(node, dict):
        for name, value in node.items():
            yield from _flat(value, f"{key}.{name}" if key else str(name))
    else:
        yield key, node


def _counts(key: str) -> bool:
    return key != "seed" and key.partition(".")[0] not in IMMATERIAL


def _said(key: str, value: Any) -> str:
    if key.endswith("_target_"):
        return str(value).rpartition(".")[2]
    return f"{key.rpartition('.')[2]}={value}"


def main(root: str, name: str, folder: str, saved: str | None = None, columns: str | None = None) -> None:
    """See the module."""
    table = over_seeds(runs(root, name))
    saved = saved or name
    with atomic_path(Path(folder) / f"{saved}.csv") as temporary:
        table.to_csv(temporary, index=False)
    if columns is not None:
        texts = [column for column in table.columns if not pd.api.types.is_numeric_dtype(table[column])]
        shown = [*texts, "runs", *columns.split(",")]
        table = table[[*shown, *(f"{column}_sd" for column in shown if f"{column}_sd" in table)]]
    page = Path(folder) / "README.md"
    text, mark = page.read_text(encoding="utf-8"), f"<!-- {saved} -->"
    before, _, after = text.partition(mark)
    _, _, rest = after.partition(TABLE_END)
    write_text(page, f"{before}{mark}\n{markdown(table)}\n{TABLE_END}{rest}")
    print(markdown(table))


if __name__ == "__main__":
    main(*sys.argv[1:])
