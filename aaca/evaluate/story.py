"""The story of one class in pictures: how it fails, why, who decided what, what was drawn, and what became of it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from PIL import Image

from aaca.evaluate.debugset_page import data_uri
from aaca.runtime.files import write_text

FILE = "story.html"
SIDE = 128  # pixels of a picture's side
DARKEST = 0.2  # what is shown of the irrelevant


@dataclass(frozen=True)
class Sight:
    """One failure: uint8 `[H, W, 3]`, what the classifiers say of it, where they look (`[h, w]` each)."""

    image: np.ndarray
    said: str
    says: str
    looked: np.ndarray
    looks: np.ndarray


@dataclass(frozen=True)
class Drawn:
    """A prompt, how many of its images were taken, and some of them."""

    prompt: str
    recipe: str
    taken: int
    images: Sequence[np.ndarray]


@dataclass(frozen=True, kw_only=True)
class Story:
    """All that the page says. Counts are of audit images of the class; `evidence` and `again`: rows of tables."""

    method: str
    name: str
    rival: str
    annotator: str
    images: int
    wrong_before: int
    wrong_after: int
    repaired: int
    broken: int
    sights: Sequence[Sight]
    evidence: Sequence[Mapping[str, Any]]
    meanings: Mapping[str, str]
    confounded: Sequence[str]
    valid: Sequence[str]
    drawn: Sequence[Drawn]
    again: Sequence[Mapping[str, Any]]
    again_meanings: Mapping[str, str]
    tests: Sequence[Mapping[str, Any]]  # slice, n, before, after


def write_story(folder: Path, story: Story) -> Path:
    """Write `story.html`, one file with everything in it."""
    environment = Environment(loader=PackageLoader("aaca.evaluate", "."), autoescape=True, undefined=StrictUndefined)
    sights = [
        {
            "image": _uri(sight.image),
            "looked": _uri(spotlight(sight.image, sight.looked)),
            "looks": _uri(spotlight(sight.image, sight.looks)),
            "said": sight.said,
            "says": sight.says,
        }
        for sight in story.sights
    ]
    drawn = [{"entry": entry, "uris": [_uri(image) for image in entry.images]} for entry in story.drawn]
    template = environment.get_template("story.html.j2")
    write_text(folder / FILE, template.render(story=story, sights=sights, drawn=drawn))
    return folder / FILE


def spotlight(image: np.ndarray, relevance: np.ndarray) -> np.ndarray:
    """The image uint8 `[H, W, 3]`, dark where the map `[h, w]` is low."""
    values = np.asarray(relevance, dtype=np.float32).clip(min=0)
    strength = values / values.max() if values.max() > 0 else values
    size = (image.shape[1], image.shape[0])
    weight = np.asarray(Image.fromarray(strength).resize(size, Image.Resampling.BILINEAR))
    return np.asarray((image * (DARKEST + (1 - DARKEST) * weight[..., None])).round().astype(np.uint8))


def _uri(image: np.ndarray) -> str:
    picture = Image.fromarray(image).convert("RGB")
    scale = max(1, round(SIDE / max(picture.size)))  # small ones enlarged by whole pixels
    picture = picture.resize((picture.width * scale, picture.height * scale), Image.Resampling.NEAREST)
    picture.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
    return data_uri(picture)
