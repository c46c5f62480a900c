"""Explanations in pictures (matplotlib, object-oriented: no global state, no display). Names are never mathematics."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.text import Text

from aaca.evaluate.examples import contact_sheet
from aaca.evaluate.explain import REST
from aaca.evaluate.explain_sets import Clusters
from aaca.evaluate.style import LIGHT, dress, label_rows, shorten
from aaca.runtime.errors import DataError
from aaca.runtime.files import atomic_path

Images = Callable[[int], np.ndarray]
TILES = 9  # example images of a class or cluster


def plain(name: str, limit: int = 28) -> str:
    """A name from a file as one short line: nothing in it breaks a line or turns the direction of writing."""
    return shorten("".join(sign if sign.isprintable() else " " for sign in name), limit)


def local_figure(bars: pd.DataFrame, image: np.ndarray, predicted: str, true: str) -> Figure:
    """One image `[S, S, 3]` and the concepts behind a logit of it: `bars`, its rows of `explain.local` for a class."""
    figure = Figure(figsize=(7.2, 0.32 * len(bars) + 1.2), layout="constrained")
    picture, axes = figure.subplots(1, 2, width_ratios=[1, 2.4])
    _show(picture, image)
    _bars(axes, bars, "contribution")
    axes.set_xlabel("contribution to the logit", fontsize=8, color=LIGHT.muted)
    right = predicted == true
    title = f"predicted {plain(predicted)}" + (", which is right" if right else f", in truth {plain(true)}")
    _title(figure, title, LIGHT.ink if right else LIGHT.bad)
    return figure


def class_figure(bars: pd.DataFrame, value: str, images: Sequence[np.ndarray], label: str) -> Figure:
    """The concepts of one class and images of it.

    `bars`: its rows of `explain.global_contribution` (`value`: contribution) or `global_strength` (difference).
    """
    figure = Figure(figsize=(7.6, max(2.6, 0.26 * len(bars) + 1.0)), layout="constrained")
    axes, picture = figure.subplots(1, 2, width_ratios=[1.7, 1])
    _bars(axes, bars, value)
    meaning = {"contribution": "mean contribution to its logit", "difference": "mean strength above that of all images"}
    axes.set_xlabel(meaning[value], fontsize=8, color=LIGHT.muted)
    columns = int(np.ceil(np.sqrt(len(images))))
    _show(picture, np.asarray(contact_sheet([list(images[i : i + columns]) for i in range(0, len(images), columns)])))
    _title(figure, plain(label, 60))
    return figure


def clusters_figure(clusters: Clusters, image: Images, most: int = 6, seed: int = 0) -> Figure:
    """The first `most` clusters: their own concepts beside nine random images of theirs."""
    numbers = list(clusters.words["cluster"].unique()[:most])
    figure = Figure(figsize=(9.6, 1.75 * len(numbers) + 0.5), layout="constrained")
    grid = figure.subplots(len(numbers), 2, squeeze=False, width_ratios=[1, 1.55])
    for (axes, picture), number in zip(grid, numbers, strict=True):
        words = clusters.words[clusters.words["cluster"] == number]
        _bars(axes, words, "difference")
        axes.set_title(f"{words['images'].iloc[0]} images", fontsize=8.5, color=LIGHT.muted, loc="left")
        _show(picture, np.asarray(contact_sheet([[image(row) for row in cluster_images(clusters, number, seed)]])))
    grid[-1, 0].set_xlabel("mean strength above that of all images", fontsize=8, color=LIGHT.muted)
    return figure


def cluster_images(clusters: Clusters, number: int, seed: int = 0) -> list[int]:
    """At most nine random members of a cluster: the figure and the page show the same ones."""
    members = clusters.members.loc[clusters.members["cluster"] == number, "image"].to_numpy()
    return sorted(int(row) for row in np.random.default_rng((seed, number)).permutation(members)[:TILES])


def agnosticity_figure(frame: pd.DataFrame, images: Mapping[str, Images], latents: int = 4, columns: int = 4) -> Figure:
    """The strongest images of a concept in each dataset, one row a concept, the first of `explain.agnosticity`.

    A dataset in which a concept is silent says so. Raises `DataError` where there is no concept to show.
    """
    first = list(dict.fromkeys(frame["latent"]))[:latents]
    if not first:
        raise DataError("agnosticity sheet: no concept fires in any dataset")
    figure = Figure(figsize=(0.62 * columns * len(images) + 1.6, 0.8 * len(first) + 0.4), layout="constrained")
    grid = figure.subplots(len(first), len(images), squeeze=False)
    for latent, row in zip(first, grid, strict=True):
        for (dataset, image), axes in zip(images.items(), row, strict=True):
            own = frame[(frame["latent"] == latent) & (frame["dataset"] == dataset)].head(columns)
            blank = np.full((8, 8, 3), 255, dtype=np.uint8)
            tiles = [image(int(index)) for index in own["image"]]
            _show(axes, np.asarray(contact_sheet([tiles + [blank] * (columns - len(tiles))])))
            if not tiles:
                axes.text(0.5, 0.5, "silent", transform=axes.transAxes, ha="center", va="center", color=LIGHT.muted)
            if latent == first[0]:
                axes.set_title(plain(dataset), fontsize=9, color=LIGHT.muted, parse_math=False)
        named = frame[frame["latent"] == latent].iloc[0]
        label = f"{plain(named['name'], 18)}\n#{latent}, cos {named['cosine']:.2f}"
        row[0].set_ylabel(
            label, rotation=0, ha="right", va="center", fontsize=8.5, color=LIGHT.ink, labelpad=6, parse_math=False
        )
    return figure


def cosine_histogram(cosines: np.ndarray, live: np.ndarray) -> Figure:
    """How well names fit: cosines `[h]` of latents with their names, live ones (`live` `[h]`, bool) against dead."""
    figure = Figure(figsize=(6.4, 2.8), layout="constrained")
    axes = figure.subplots()
    dress(axes, LIGHT)
    edges = np.histogram_bin_edges(cosines, bins=40)
    for kept, colour, label in ((live, LIGHT.good, "live"), (~live, LIGHT.muted, "dead")):
        if kept.any():
            axes.hist(cosines[kept], edges.tolist(), color=colour, alpha=0.75, label=f"{kept.sum():,} {label}")
    mean = float(cosines[live].mean()) if live.any() else np.nan
    axes.axvline(mean, color=LIGHT.ink, linestyle=(0, (4, 2)), linewidth=1.2, label=f"mean of the live {mean:.3f}")
    axes.legend(frameon=False, fontsize=8.5, labelcolor=LIGHT.ink)
    axes.set_xlabel("cosine of a concept's direction with its name", fontsize=8.5, color=LIGHT.muted)
    axes.set_ylabel("concepts", fontsize=8.5, color=LIGHT.muted)
    return figure


def save(figure: Figure, path: Path) -> Path:
    """Write the figure as PNG, atomically; no text goes through TeX, whatever the machine's matplotlib is set to."""
    for text in figure.findobj(Text):
        text.set(usetex=False, parse_math=False)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format="png", dpi=160, facecolor=LIGHT.paper)
    return path


def _bars(axes: Axes, frame: pd.DataFrame, value: str) -> None:
    dress(axes, LIGHT)
    labels = [
        "all others" if latent == REST else f"{plain(name, 20)}  #{latent}"
        for latent, name in zip(frame["latent"], frame["name"], strict=True)
    ]
    label_rows(axes, labels, LIGHT)
    values = frame[value].to_numpy()
    colours = [
        LIGHT.muted if latent == REST else LIGHT.good if number >= 0 else LIGHT.bad
        for latent, number in zip(frame["latent"], values, strict=True)
    ]
    axes.barh(np.arange(len(values)), values, height=0.66, color=colours)
    reach = np.abs(values).max(initial=0) or 1.0
    digits = max(0, 2 - int(np.floor(np.log10(reach))))  # three of the largest, and as many places for all
    for y, number in enumerate(values):
        axes.annotate(
            f"{number:+.{digits}f}".replace("-", "−"),
            (number, y),
            xytext=(4 if number >= 0 else -4, 0),
            textcoords="offset points",
            va="center",
            ha="left" if number >= 0 else "right",
            fontsize=7.5,
            color=LIGHT.muted,
        )
    low, high = min(values.min(initial=0), 0), max(values.max(initial=0), 0)
    axes.set_xlim(low - (0.3 * reach if low < 0 else 0), high + (0.3 * reach if high > 0 or low == 0 else 0.05 * reach))
    axes.axvline(0, color=LIGHT.ink, linewidth=0.8)
    axes.locator_params(axis="x", nbins=5)


def _show(axes: Axes, image: np.ndarray) -> None:
    axes.imshow(image)
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_visible(False)


def _title(figure: Figure, text: str, colour: str = LIGHT.ink) -> None:
    figure.suptitle(text, x=0.01, ha="left", fontsize=10.5, fontweight="bold", color=colour, parse_math=False)
