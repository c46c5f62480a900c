"""The page of controllability examples: pictures with their graphs, what is said of them, and of edited graphs."""

import base64
import io
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from difflib import SequenceMatcher
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined

from aaca.data.scenegraph.graph import SceneGraph
from aaca.evaluate.captions.control import ARTICLES, CaptionEdit, CountChange, content_kept
from aaca.evaluate.captions.structure import claim, names_of
from aaca.evaluate.graph_picture import draw_graph
from aaca.runtime.files import write_text
from aaca.world.phrases import AND

FILE = "examples.html"
QUALITY = 85  # of WEBP
SILENT = ARTICLES | {AND}
"""Words that no node stands for."""

Mark = Literal["", "left", "came"]


@dataclass(frozen=True)
class ExampleEdit:
    """One edit of a graph: its kind, the edited node in words, and both captions.

    `names`: what the caption after may say. `said`: how many more objects, attributes and relationships it has; None
    without a parser.
    """

    kind: str
    node: str
    names: tuple[str, ...]
    edit: CaptionEdit
    said: CountChange | None


@dataclass(frozen=True)
class Example:
    """A sample: its image uint8 `[H, W, 3]`, its graph, what people say of it and what the captioner says."""

    name: str
    image: np.ndarray
    graph: SceneGraph
    reference: str
    caption: str
    edits: tuple[ExampleEdit, ...]


@dataclass(frozen=True)
class Word:
    """A word of a caption. `wrong`: no node of the graph calls for it; `mark`: whether it came or left."""

    text: str
    wrong: bool
    mark: Mark = ""


def write_examples(
    folder: Path, title: str, figures: Mapping[str, float], kinds: pd.DataFrame, examples: Sequence[Example]
) -> Path:
    """Write `examples.html`, one file with everything in it.

    `figures`: those of all captions, by the name that is shown; `kinds`: one row a kind of edit, its first column names
    it, the others are per cent.
    """
    environment = Environment(loader=PackageLoader("aaca.evaluate", "."), autoescape=True, undefined=StrictUndefined)
    html = environment.get_template("caption_page.html.j2").render(
        title=title,
        figures={name: _number(value) for name, value in figures.items()},
        columns=list(kinds.columns),
        kinds=[[str(kind).replace("_", " "), *map(_number, values)] for kind, *values in kinds.itertuples(index=False)],
        examples=[_example(example) for example in examples],
    )
    write_text(folder / FILE, html)
    return folder / FILE


def judged(caption: str, names: Iterable[str]) -> list[Word]:
    """The words of a caption; a word of content that none of the nodes' names takes is wrong.

    Word by word: a colour that some other object has is not noticed, nor is a wrong order.
    """
    rest = claim(caption, names)[1]
    words = []
    for text in reversed(caption.split()):
        # a name takes the first place it finds, so that of a word's doubles the last ones are over
        over = bool(rest) and rest[-1] == text
        if over:
            rest.pop()
        words.append(Word(text, over and text not in SILENT))
    return words[::-1]


def compared(before: Sequence[Word], after: Sequence[Word]) -> list[Word]:
    """The words after, those that came and, where they stood, those that left marked as such."""
    one, two = ([word.text for word in words] for words in (before, after))
    found: list[Word] = []
    for kind, i, j, k, m in SequenceMatcher(None, one, two, autojunk=False).get_opcodes():
        if kind == "equal":
            found += after[k:m]
        else:
            found += [replace(word, mark="left") for word in before[i:j]]
            found += [replace(word, mark="came") for word in after[k:m]]
    return found


def told(graph: SceneGraph) -> str:
    """A graph in words, objects numbered as in its picture: `1 circle (red) · 2 square · 1 left of 2`."""
    number = {thing.id: k + 1 for k, thing in enumerate(graph.objects)}
    things = [
        f"{number[thing.id]} {thing.name}" + (f" ({', '.join(thing.attributes)})" if thing.attributes else "")
        for thing in graph.objects
    ]
    return " · ".join([*things, *(f"{number[it.subject]} {it.name} {number[it.object]}" for it in graph.relationships)])


def count_text(change: CountChange) -> str:
    """A change of numbers in words: `−1 object, −2 relationships`, or `as many`."""
    kinds = zip(change, ("object", "attribute", "relationship"), strict=True)
    parts = [f"{step:+d} {kind}{'s' * (abs(step) > 1)}".replace("-", "−") for step, kind in kinds if step]
    return ", ".join(parts) or "as many"


def _example(example: Example) -> dict[str, Any]:
    before = judged(example.caption, names_of(example.graph))
    return {
        "name": example.name,
        "picture": _picture(example),
        "graph": told(example.graph),
        "reference": example.reference,
        "caption": before,
        "wrong": sum(word.wrong for word in before),
        "edits": [
            {
                "kind": one.kind.replace("_", " "),
                "node": one.node,
                "caption": compared(before, judged(one.edit.after, one.names)),
                "changed": one.edit.changed,
                **_verdict(one),
            }
            for one in example.edits
        ],
    }


def _verdict(one: ExampleEdit) -> dict[str, Any]:
    right, kept = content_kept(one.edit)
    return {
        "follows": None if one.said is None else one.said == one.edit.asked,
        "said": "" if one.said is None else count_text(one.said),
        "asked": count_text(one.edit.asked),
        "right": right.total(),
        "kept": kept.total(),
        "lost": ", ".join(sorted((right - kept).elements())),
    }


def _picture(example: Example) -> dict[str, Any]:
    # without the heading: the page has it in words
    picture = draw_graph(example.image, replace(example.graph, phrase=""))
    stream = io.BytesIO()
    picture.save(stream, format="WEBP", quality=QUALITY, method=4)
    uri = "data:image/webp;base64," + base64.b64encode(stream.getvalue()).decode()
    return {"uri": uri, "width": picture.width, "height": picture.height}


def _number(value: float) -> str:
    return "–" if math.isnan(value) else f"{value:.2f}".replace("-", "−")
