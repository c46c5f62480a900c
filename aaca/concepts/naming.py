"""Names for the latents of a sparse autoencoder: the words whose text vectors lie nearest to their decoder columns."""

import csv
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal, NamedTuple, get_args

import numpy as np
import pandas as pd

from aaca.concepts.vocab_store import VocabStore
from aaca.runtime.errors import ConfigError, DataError, nearest
from aaca.runtime.files import atomic_path

CHUNK = 256
"""Latents at a time: their cosines with 20,000 words take 20 MB."""
Matching = Literal["hungarian", "greedy"]


def name_latents(
    decoder: np.ndarray,
    vocab: VocabStore,
    top: int = 5,
    center_words: bool = False,
    center_by: np.ndarray | None = None,
    density: np.ndarray | None = None,
    min_cosine: float | None = None,
    min_density: float | None = None,
    chunk: int = CHUNK,
) -> pd.DataFrame:
    """The `top` nearest words of each decoder column `[D, h]`, one row a (latent, rank), best first (rank 1).

    Columns: `latent`, `rank`, `word`, `cosine`, `margin` (cosine minus that of the next word; of rank 1: best minus
    second), `z` (cosine against mean and standard deviation of this latent's cosines with all words), `density`, `dead`
    (density 0; missing without densities), `named` (the latent's best word passes the gates).

    The score is the plain cosine, as in Discover-then-Name (Rao et al. 2024): no bias, no centring. For the gap between
    images and texts there are two corrections, after SpLiCE (Bhalla et al. 2024), both scaled to length 1 again.
    `center_words` takes the mean word vector off the words. `center_by` `[D]`, the mean of unit image vectors, comes
    off the unit columns; without it they stay as they are, for a column is a direction, a difference of images, from
    which the mean has gone already.

    Args:
        decoder: `[D, h]`, one concept a column, of any length but 0.
        vocab: words and their unit vectors `[V, D]`.
        top: words a latent, fewer than V.
        center_words: centre the words.
        center_by: what to take off the unit columns.
        density: share of images on which each latent fires, `[h]`; a latent with 0 is dead and never named.
        min_cosine: gate on the best cosine.
        min_density: gate on the density.
        chunk: latents at a time; h · V cosines never exist at once.

    Raises `DataError` for arrays that do not fit, `ConfigError` for a `top` or a gate that nothing can meet.

    """
    if not 1 <= top < len(vocab):
        raise ConfigError(f"naming.top: {top}; expected 1 … {len(vocab) - 1}, fewer than the vocabulary's words")
    if min_density is not None and density is None:
        raise ConfigError(f"naming.least_density: {min_density}; expected null where no densities are known")
    columns = _columns(decoder, vocab.vectors.shape[1], center_by)
    words = _centred(vocab.vectors) if center_words else vocab.vectors
    n = len(columns)
    if density is not None and np.shape(density) != (n,):
        raise DataError(f"naming: densities are {np.shape(density)}; expected [{n}], one a latent")
    blocks = list(_nearest_words(columns, words, top, chunk))
    index, cosine, margin, z = (np.concatenate(parts) for parts in zip(*blocks, strict=True))  # [h, top] each
    shares = np.full(n, np.nan) if density is None else np.asarray(density, dtype=np.float64)
    dead = pd.array([pd.NA] * n if density is None else shares == 0, dtype="boolean")
    named = np.asarray(shares != 0)  # true of NaN: not known to be dead
    if min_cosine is not None:
        named &= cosine[:, 0] >= min_cosine
    if min_density is not None:
        named &= shares >= min_density
    return pd.DataFrame(
        {
            "latent": np.repeat(np.arange(n), top),
            "rank": np.tile(np.arange(1, top + 1), n),
            "word": np.asarray(vocab.words, dtype=object)[index.ravel()],
            "cosine": cosine.ravel(),
            "margin": margin.ravel(),
            "z": z.ravel(),
            "density": np.repeat(shares, top),
            "dead": dead.repeat(top),
            "named": np.repeat(named, top),
        }
    )


def _nearest_words(columns: np.ndarray, words: np.ndarray, top: int, chunk: int) -> Iterator[tuple[np.ndarray, ...]]:
    # (word index, cosine, margin, z), [chunk, top] each; one word more than asked for gives the last margin
    for start in range(0, len(columns), chunk):
        cosines = columns[start : start + chunk] @ words.T
        mean = cosines.mean(axis=1, keepdims=True, dtype=np.float64)
        spread = cosines.std(axis=1, keepdims=True, dtype=np.float64)
        found = np.sort(np.argpartition(-cosines, top, axis=1)[:, : top + 1], axis=1)  # ties: the earlier word first
        values = np.take_along_axis(cosines, found, axis=1)
        order = np.argsort(-values, axis=1, kind="stable")
        index, best = np.take_along_axis(found, order, axis=1), np.take_along_axis(values, order, axis=1)
        best = best.astype(np.float64)
        yield index[:, :top], best[:, :top], best[:, :top] - best[:, 1:], (best[:, :top] - mean) / spread


def _columns(decoder: np.ndarray, dim: int, center_by: np.ndarray | None) -> np.ndarray:
    if decoder.ndim != 2 or decoder.shape[0] != dim:
        raise DataError(f"naming: the decoder is {decoder.shape}; expected [{dim}, h], as wide as the word vectors")
    columns = _unit(decoder.T, "decoder column")
    if center_by is None:
        return columns
    if np.shape(center_by) != (dim,) or not np.linalg.norm(center_by) <= 1 + 1e-3:
        raise DataError(f"naming: center_by is no mean of unit image vectors [{dim}]; expected a length of at most 1")
    return _unit(columns - center_by, "centred decoder column")


def _centred(words: np.ndarray) -> np.ndarray:
    return _unit(words - words.mean(axis=0, dtype=np.float64), "centred word")


def _unit(rows: np.ndarray, what: str) -> np.ndarray:
    exact = rows.astype(np.float64)
    lengths = np.linalg.norm(exact, axis=1, keepdims=True)
    wrong = np.flatnonzero(~(np.isfinite(lengths) & (lengths > 1e-12)))
    if len(wrong):
        raise DataError(f"naming: {what} {wrong[0]} is zero or not finite; expected a direction")
    return np.asarray(exact / lengths, dtype=np.float32)


def best_words(names: pd.DataFrame) -> list[str]:
    """The word of rank 1 of each latent, in the order of latents."""
    first = names[names["rank"] == 1].sort_values("latent")
    return [str(word) for word in first["word"]]


def duplicates(names: pd.DataFrame) -> pd.DataFrame:
    """Words that are the best of several latents, most shared first: `word`, `count`, `latents` (a list of numbers).

    Of the rows given: `names[names.named]` leaves out latents that the gates refuse.
    """
    first = names[names["rank"] == 1]
    found = [
        (word, len(part), sorted(part["latent"].tolist())) for word, part in first.groupby("word") if len(part) > 1
    ]
    found.sort(key=lambda row: (-row[1], row[0]))
    return pd.DataFrame(found, columns=["word", "count", "latents"])


class Stability(NamedTuple):
    """How alike two dictionaries are: the mean matched cosine, the cosines `[h]`, and whom each was matched with `[h]`.

    Where the second dictionary is smaller, what is left over has cosine NaN and partner −1; the mean is of the rest.
    """

    mean: float
    cosines: np.ndarray
    partner: np.ndarray


def seed_stability(first: np.ndarray, second: np.ndarray, method: Matching = "hungarian") -> Stability:
    """Match the columns of two decoders `[D, h]` and `[D, k]`, say of two seeds, by cosine (signed: codes are ≥ 0).

    `hungarian`: one to one, the largest sum (Paulo & Belrose 2025). `greedy`: the nearest for each of `first`, so
    that several may share a partner; an upper bound, much cheaper. Both hold `[h, k]` cosines in memory.
    """
    if method not in get_args(Matching):
        raise ConfigError(f"naming.matching: {method!r}; {nearest(method, get_args(Matching))}")
    if first.ndim != 2 or second.ndim != 2 or len(first) != len(second):
        raise DataError(f"seed stability: decoders are {first.shape} and {second.shape}; expected [D, h] and [D, k]")
    cosines = _unit(first.T, "decoder column") @ _unit(second.T, "decoder column").T
    if method == "greedy":
        rows, columns = np.arange(len(cosines)), cosines.argmax(axis=1)
    else:
        from scipy.optimize import linear_sum_assignment

        rows, columns = linear_sum_assignment(cosines, maximize=True)
    matched, partner = np.full(len(cosines), np.nan), np.full(len(cosines), -1)
    matched[rows], partner[rows] = cosines[rows, columns], columns
    return Stability(float(matched[rows].mean()), matched, partner)


def name_agreement(first: pd.DataFrame, second: pd.DataFrame, partner: np.ndarray) -> float:
    """Share of matched latents whose best word is that of their partner; `partner` as of `seed_stability`."""
    words, others = best_words(first), best_words(second)
    if len(words) != len(partner) or partner.max(initial=-1) >= len(others):
        raise DataError(f"name agreement: {len(words)} and {len(others)} names do not fit {len(partner)} matches")
    matched = np.flatnonzero(partner >= 0)
    return float(np.mean([words[latent] == others[partner[latent]] for latent in matched]))


def write_csv(names: pd.DataFrame, file: Path) -> None:
    """Write `latent,word` of rank 1 without a header, the published form of Discover-then-Name."""
    first = names[names["rank"] == 1]
    with atomic_path(file) as temporary, temporary.open("w", encoding="utf-8", newline="") as stream:
        csv.writer(stream, lineterminator="\n").writerows(zip(first["latent"], first["word"], strict=True))


def read_csv(file: Path) -> list[str]:
    """Names by latent of a `latent,word` file without a header; words may hold commas and quotes, quoted or not.

    Raises `DataError` for a line without a number, or latents that are not 0, 1, 2, … in any order.
    """
    try:
        lines = [line for line in file.read_bytes().decode("utf-8").replace("\r\n", "\n").split("\n") if line]
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{file}: no list of names in UTF-8 ({error})") from error
    found: dict[int, str] = {}
    for number, line in enumerate(lines, start=1):
        latent, comma, word = line.partition(",")
        if not comma or not latent.strip().isdecimal() or int(latent) in found:
            raise DataError(f"{file}: line {number} is {line!r}; expected `latent,word`, every latent once")
        found[int(latent)] = _unquoted(word)
    if sorted(found) != list(range(len(found))):
        raise DataError(f"{file}: latents are not 0 … {len(found) - 1}; expected a name for each")
    return [found[latent] for latent in range(len(found))]


def _unquoted(word: str) -> str:
    # a cell counts as quoted only where all of it is: `"a" b` and `a, b` stand for themselves
    try:
        cells: Sequence[str] = next(csv.reader([word], strict=True)) if word.startswith('"') else []
    except csv.Error:
        cells = []
    return cells[0] if len(cells) == 1 else word
