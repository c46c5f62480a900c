"""The HTML report: one file that opens from disk anywhere (inline style, images inside, no server, no network)."""

import base64
import io
import shlex
from collections.abc import Sequence
from importlib.resources import files
from typing import Any
from urllib.parse import quote

import numpy as np
from jinja2 import Environment, StrictUndefined
from PIL import Image

from aaca import __version__
from aaca.evaluate.debugset_page import FILE as PAGE
from aaca.evaluate.examples import SIZE, Kind, read_examples
from aaca.evaluate.figures import FIGURES, MAX_GROUPS, TITLES, group_matrix, svg
from aaca.evaluate.runs import Run
from aaca.evaluate.setting import REFERENCE, Setting
from aaca.evaluate.statistics import LEVEL, RESAMPLES
from aaca.evaluate.story import FILE as STORY
from aaca.evaluate.style import DARK, LIGHT
from aaca.evaluate.terminal import SPLITS, percent, points, slice_groups
from aaca.evaluate.verdict import failure, images_of, price, repair
from aaca.runtime.errors import DataError
from aaca.runtime.failures import Failure


def _uri(data: bytes, kind: str) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"


def _tile(image: np.ndarray) -> str:
    stream = io.BytesIO()
    Image.fromarray(image).save(stream, format="WEBP", quality=88)
    return _uri(stream.getvalue(), "webp")


def _figure(setting: Setting, name: str) -> dict[str, str]:
    title, caption = TITLES[name]
    light, dark = (_uri(svg(FIGURES[name](setting, theme)).encode(), "svg+xml") for theme in (LIGHT, DARK))
    return {"title": title, "caption": caption, "light": light, "dark": dark}


def _strips(runs: Sequence[Run], kind: Kind, notes: list[str]) -> list[dict[str, Any]]:
    """Example strips of the first run that has some; a note for a run whose examples cannot be read."""
    for run in runs:
        try:
            examples = read_examples(run.folder, kind)
        except DataError as error:
            notes.append(str(error))
            continue
        if examples:
            return [
                {
                    "label": example.label,
                    "tiles": [
                        {"uri": _tile(image), "caption": caption}
                        for image, caption in zip(example.images, example.captions, strict=True)
                    ],
                }
                for example in examples
            ]
    return []


def _forest(setting: Setting) -> dict[str, dict[str, float]]:
    """Where each method's interval of the difference lies on one shared scale, in an 84 px wide strip."""
    changes = {summary.name: summary.differences["accuracy"] for summary in setting.methods if summary.differences}
    reach = max([abs(bound) for change in changes.values() for bound in (change.low, change.high)], default=0) or 1.0

    def place(value: float) -> float:
        return round(42 + 37 * value / reach, 2)

    return {
        name: {"low": place(change.low), "high": place(change.high), "value": place(change.value)}
        for name, change in changes.items()
    }


def _groups(setting: Setting) -> dict[str, Any]:
    names, columns, values = group_matrix(setting)
    cells = {row["group"]: row for run in setting.runs for row in run.outcome.groups if row["split"] == "test"}
    rows = [
        {
            "name": name,
            "n": cells[name]["n"],
            "n_train": cells[name]["n_train"],
            "values": [None if np.isnan(value) else float(value) for value in line],
        }
        for name, line in zip(names, values, strict=True)
    ]
    return {"columns": columns, "rows": rows[:MAX_GROUPS], "hidden": max(0, len(rows) - MAX_GROUPS)}


def _stages(setting: Setting) -> list[dict[str, Any]]:
    """Seconds really spent in each stage: how often it was computed, how often reused, mean seconds when computed."""
    stages: dict[str, list[tuple[float, bool]]] = {}
    for run in setting.runs:
        for name, seconds in run.outcome.stage_seconds.items():
            stages.setdefault(name, []).append((seconds, run.outcome.stage_reused.get(name, False)))
    rows = []
    for name, found in stages.items():
        spent = [seconds for seconds, reused in found if not reused]
        mean = float(np.mean(spent)) if spent else None
        rows.append({"name": name, "computed": len(spent), "reused": len(found) - len(spent), "seconds": mean})
    return rows


def _page(runs: Sequence[Run], file: str) -> str:
    """Where the first page of that name lies, seen from the report (`<root>/runs/<run>`); or ""."""
    for run in runs:
        if (run.folder / file).is_file():
            return quote(f"{run.folder.parent.name}/{run.folder.name}/{file}")
    return ""


def _command(run: Run) -> str:
    return " ".join(["aaca debug", *(shlex.quote(text) for text in run.outcome.overrides)])


def _section(setting: Setting, number: int) -> dict[str, Any]:
    notes = list(setting.notes)
    by_seed = sorted(setting.runs, key=lambda run: (run.outcome.seed, run.name))
    of_method = {name: [run for run in by_seed if run.name == name] for name in dict.fromkeys(r.name for r in by_seed)}
    debug = {summary.name: _strips(of_method[summary.name], "debug", notes) for summary in setting.methods}
    return {
        "id": f"setting-{number}",
        "setting": setting,
        "outcome": by_seed[0].outcome,
        "failure": failure(setting),
        "repair": repair(setting),
        "price": price(setting),
        "images_of": images_of(setting),
        "slices": slice_groups(setting),
        "rows": [setting.before, *setting.methods],
        "forest": _forest(setting),
        "groups": _groups(setting),
        "figures": {name: _figure(setting, name) for name in ("slices", "repairs", "cost")},
        "benchmark": _strips(by_seed, "benchmark", notes),
        "failures": _strips(by_seed, "failure", notes),
        "debug": {name: strips for name, strips in debug.items() if strips},
        "pages": {name: page for name, runs in of_method.items() if (page := _page(runs, PAGE))},
        "stories": {name: page for name, runs in of_method.items() if (page := _page(runs, STORY))},
        "stages": _stages(setting),
        "commands": [(run.folder.name, _command(run)) for run in setting.runs],
        "shortfalls": {
            run.folder.name: run.outcome.shortfalls for run in setting.runs if any(run.outcome.shortfalls.values())
        },
        "notes": list(dict.fromkeys(notes)),
    }


def render(settings: Sequence[Setting], notes: Sequence[str], failed: Sequence[Failure] = ()) -> str:
    """The report's HTML. Every name from data is escaped; the page loads nothing from outside."""
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters |= {"percent": percent, "points": points}
    template = environment.from_string(files("aaca.evaluate").joinpath("report.html.j2").read_text(encoding="utf-8"))
    return template.render(
        sections=[_section(setting, number) for number, setting in enumerate(settings, start=1)],
        notes=notes,
        failed=failed,
        reference=REFERENCE,
        splits=SPLITS,
        tile_size=SIZE,
        resamples=RESAMPLES,
        level=round(100 * LEVEL),
        version=__version__,
    )
