"""The page of neurons: which ones are behind a class's mistakes, what they respond to, what an edit of them changed."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined

from aaca.evaluate.explain_figures import plain
from aaca.evaluate.neuron_tiles import SIDE, tile_context
from aaca.evaluate.neuron_view import Change, ClassView, NeuronCard, NeuronView, Tile
from aaca.runtime.files import write_text

FILE = "neurons.html"
MOST_CLASSES = 10  # with pictures of their neurons, those edited and those with the lowest accuracy
MOST_CARDS = 10  # with pictures, a list of a class; those edited first
MOST_TILES, MOST_WEIGHTS, MOST_ROWS, MOST_CHANGED, MOST_EDITED = 8, 8, 12, 24, 12
LONG = 40  # letters of a name
LISTS = {
    "insufficient": "Insufficient: the mistakes lack what these neurons respond to",
    "excessive": "Excessive: the mistakes have too much of what these neurons respond to",
}
FATES = {(False, True): "repaired", (True, False): "broken", (False, False): "wrong", (True, True): "right"}


def write_neurons(folder: Path, view: NeuronView) -> Path:
    """Write `neurons.html`, one file with everything in it."""
    environment = Environment(loader=PackageLoader("aaca.evaluate", "."), autoescape=True, undefined=StrictUndefined)
    environment.filters.update(percent=percent, short=lambda name: plain(name, LONG))
    environment.globals["points_of"] = points
    order = sorted(view.classes, key=lambda one: (not any(card.chosen for card in one.cards), one.accuracy))
    classes = [_class(one, f"c{number}", number < MOST_CLASSES) for number, one in enumerate(order)]
    html = environment.get_template("neurons.html.j2").render(
        view=view,
        classes=classes,
        change=None if view.change is None else _change(view.change, classes),
        shades=_shades(view, classes),
        most={"rows": MOST_ROWS, "edited": MOST_EDITED},
        side=SIDE,
    )
    write_text(folder / FILE, html)
    return folder / FILE


def percent(value: float | None) -> str:
    """A share in [0, 1] as per cent with one place; a dash where there is none."""
    return "–" if value is None or math.isnan(value) else f"{100 * value:.1f}"


def points(before: float, after: float | None) -> dict[str, str]:
    """The change of a share in points and the way it goes (up, down or ""), judged as it is printed."""
    if after is None or math.isnan(before) or math.isnan(after):
        return {"text": "", "way": ""}
    step = round(100 * (after - before), 1) + 0.0  # no −0.0
    return {"text": minus(f"{step:+.1f}"), "way": "up" if step > 0 else "down" if step < 0 else ""}


def minus(text: str) -> str:
    """With a real minus sign."""
    return text.replace("-", "−")


def _class(one: ClassView, anchor: str, drawn: bool) -> dict[str, Any]:
    lists = []
    for kind, heading in LISTS.items():
        own = [card for card in one.cards if card.list == kind]
        first = sorted(own, key=lambda card: not card.chosen)[:MOST_CARDS] if drawn else []
        shown = {id(card) for card in first}
        lists.append(
            {
                "kind": kind,
                "heading": heading,
                "cards": [_card(card, one.name, anchor) for card in own if id(card) in shown],
                "rest": [_numbers(card) for card in own if id(card) not in shown],
            }
        )
    edited = [_numbers(card) for card in one.cards if card.chosen]
    return {"view": one, "anchor": anchor, "drawn": drawn, "lists": lists, "edited": edited}


def _numbers(card: NeuronCard) -> dict[str, Any]:
    return {
        "neuron": card.neuron,
        "name": plain(card.name, LONG),
        "prec": f"{card.prec:.1f}",
        "importance": number(card.importance, 3),
        "means": [number(value, _digits(card.means)) for value in card.means],
        "chosen": card.chosen,
        "dead": card.dead,
    }


def _card(card: NeuronCard, owner: str, anchor: str) -> dict[str, Any]:
    names = ("mistakes", "right images")
    return {
        **_numbers(card),
        "anchor": f"{anchor}-{card.list}-{card.neuron}",
        "second": plain(card.second, LONG),
        "score": "" if card.name_score is None else number(card.name_score, 2),
        "quantile": "" if card.quantile is None else number(card.quantile, _digits([card.quantile])),
        "activity": _bars(dict(zip(names, card.means, strict=True)), None, signed=False),
        "weights": _bars(*_first_weights(card, owner)),
        "owned": owner in card.weights,
        "more_weights": max(0, len(card.weights) - MOST_WEIGHTS),
        "strips": [
            {"heading": heading, "tiles": [tile_context(tile) for tile in tiles[:MOST_TILES]], "kind": kind}
            for kind, heading, tiles in (
                ("top", "fires most on", card.top),
                ("mistakes", f"mistakes of {plain(owner, LONG)}", card.mistakes),
                ("illusions", "made up to excite it", card.illusions),
            )
        ],
    }


def _first_weights(card: NeuronCard, owner: str) -> tuple[dict[str, float], dict[str, float] | None]:
    # the class whose mistakes these are comes first
    keys = sorted(card.weights, key=lambda name: name != owner)[:MOST_WEIGHTS]
    after = card.weights_after
    return {key: card.weights[key] for key in keys}, None if after is None else {key: after[key] for key in keys}


def _bars(before: dict[str, float], after: dict[str, float] | None, signed: bool = True) -> list[dict[str, Any]]:
    # places in per cent of one track for all bars of the list, zero where the longest negative one ends
    values = [*before.values(), *(after or {}).values()]
    finite = [value for value in values if math.isfinite(value)]
    low, high = min([0.0, *finite]), max([0.0, *finite])
    span, digits = (high - low) or 1.0, _digits(values)

    def bar(value: float) -> dict[str, Any]:
        held = value if math.isfinite(value) else 0.0
        return {
            "left": f"{100 * (min(held, 0) - low) / span:.2f}",
            "width": f"{100 * abs(held) / span:.2f}",
            "kind": "plain" if not signed else "good" if held >= 0 else "bad",
            "text": number(value, digits, signed),
        }

    return [
        {
            "name": plain(name, LONG),
            "zero": f"{-100 * low / span:.2f}",
            "before": bar(value),
            "after": None if after is None else bar(after[name]),
        }
        for name, value in before.items()
    ]


def _digits(values: Sequence[float]) -> int:
    # three of the largest, two if it is below 1, and as many places for all
    reach = max([abs(value) for value in values if math.isfinite(value)], default=0.0)
    power = math.floor(math.log10(reach)) if reach else 0
    return int(np.clip((2 if power >= 0 else 1) - power, 0, 6))


def number(value: float, digits: int, signed: bool = False) -> str:
    """With so many places, −0 as 0; in powers of ten from 10,000 on; a dash for NaN."""
    if math.isnan(value):
        return "–"
    if abs(value) >= 1e4:
        return minus(f"{value:+.1e}" if signed else f"{value:.1e}")
    held = round(value, digits) + 0.0
    return minus(f"{held:+.{digits}f}" if signed else f"{held:.{digits}f}")


def _change(change: Change, classes: list[dict[str, Any]]) -> dict[str, Any]:
    edited = {}
    for one in classes:
        drawn = {card["neuron"]: card["anchor"] for own in one["lists"] for card in own["cards"]}
        for card in one["edited"]:
            edited[card["neuron"], one["view"].name] = {**card, "anchor": drawn.get(card["neuron"], "")}
    return {
        "rows": [
            {"name": name, "before": before, "after": after, "track": _track(before, after)}
            for name, before, after in change.rows
        ],
        "edited": [{**card, "class": name} for (_, name), card in edited.items()],
        "images": [
            {
                **tile_context(tile),
                "true": plain(true, LONG),
                "before": plain(before, LONG),
                "after": plain(after, LONG),
                "kind": FATES[before == true, after == true],
            }
            for tile, true, before, after in change.images[:MOST_CHANGED]
        ],
        "more": max(0, len(change.images) - MOST_CHANGED),
    }


def _track(before: float, after: float | None) -> dict[str, str] | None:
    # a line from the old place to the new one, in per cent of the track
    if after is None or math.isnan(before) or math.isnan(after):
        return None
    low, high = sorted((before, after))
    return {
        "left": f"{100 * low:.2f}",
        "width": f"{100 * (high - low):.2f}",
        "before": f"{100 * before:.2f}",
        "after": f"{100 * after:.2f}",
        "way": points(before, after)["way"],
    }


def _shades(view: NeuronView, classes: list[dict[str, Any]]) -> bool:
    # is there a picture with a spotlight on the page?
    cards = (card for one in classes for own in one["lists"] for card in own["cards"])
    changed: Sequence[tuple[Tile, str, str, str]] = [] if view.change is None else view.change.images[:MOST_CHANGED]
    return any(tile["shade"] for card in cards for strip in card["strips"] for tile in strip["tiles"]) or any(
        tile.mask is not None for tile, *_ in changed
    )
