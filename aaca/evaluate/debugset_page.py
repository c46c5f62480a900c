"""The page of a generated debug set: what was asked for, what came, what was dropped and why, how good the rest is."""

import base64
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined
from PIL import Image

from aaca.data.table import ImageTable
from aaca.evaluate.examples import contact_sheet
from aaca.runtime.files import write_text

FILE = "debugset.html"
COLUMNS, ROWS = 10, 3
TILE = 72


def write_page(
    folder: Path,
    method: str,
    table: ImageTable,
    funnel: Mapping[str, Mapping[str, int]],
    quality: Mapping[str, Mapping[str, float]],
    settings: Mapping[str, Any],
) -> Path:
    """Write `debugset.html`, one file with everything in it.

    `table`: all images that a generator made, with the columns prompt, concept, seed, dropped ("" or the reason) and
    taken. `quality`: class → score → value.
    """
    frame, sections = table.frame, []
    for label, name in enumerate(table.classes):
        own = (frame["label"] == label).to_numpy()
        dropped = frame[own & (frame["dropped"] != "").to_numpy()]
        sections.append(
            {
                "name": name,
                "taken": _sheet(table, np.flatnonzero(own & frame["taken"].to_numpy())),
                "dropped": [
                    {"reason": reason, "count": len(rows), "sheet": _sheet(table, rows.index.to_numpy(), lines=1)}
                    for reason, rows in dropped.groupby("dropped", sort=True)
                ],
                "prompts": _prompts(frame[own]),
                "funnel": dict(funnel[name]),
                "quality": dict(quality.get(name, {})),
            }
        )
    environment = Environment(loader=PackageLoader("aaca.evaluate", "."), autoescape=True, undefined=StrictUndefined)
    html = environment.get_template("debugset.html.j2").render(method=method, sections=sections, settings=settings)
    write_text(folder / FILE, html)
    return folder / FILE


def _prompts(frame: pd.DataFrame) -> list[dict[str, Any]]:
    groups = frame.groupby(["prompt", "negative"], sort=False)
    return [
        {
            "prompt": prompt,
            "negative": negative,
            "images": len(rows),
            "taken": int(rows["taken"].sum()),
            "seeds": ", ".join(map(str, rows["seed"].head(3))) + (" …" if len(rows) > 3 else ""),
        }
        for (prompt, negative), rows in groups
    ]


def _sheet(table: ImageTable, rows: np.ndarray, lines: int = ROWS) -> str:
    # a data URI of the first images of these rows, or "" where there are none
    shown = [table.image(int(row)) for row in rows[: COLUMNS * lines]]
    if not shown:
        return ""
    sheet = contact_sheet([shown[start : start + COLUMNS] for start in range(0, len(shown), COLUMNS)], TILE)
    return data_uri(sheet)


def data_uri(image: Image.Image) -> str:
    """A PNG inside a page."""
    stream = io.BytesIO()
    image.save(stream, format="PNG")
    return "data:image/png;base64," + base64.b64encode(stream.getvalue()).decode()
