"""Names judged by what latents do: similarities of the images they fire on, and concepts known to be in the images."""

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Literal, get_args

import numpy as np
import pandas as pd
from scipy.sparse import csc_array, csr_array
from scipy.special import logsumexp

from aaca.runtime.errors import ConfigError, DataError, nearest

CHUNK = 256
"""Words at a time: their scores for 8,192 latents take 16 MB."""
Score = Callable[[np.ndarray], np.ndarray]
"""Positions of words `[c]` in, their scores for each live latent `[L, c]` out."""
Purity = Literal["average_precision", "precision", "lift"]


def by_correlation(
    codes: csr_array, similarities: np.ndarray, words: Sequence[str], names: Sequence[str], chunk: int = CHUNK
) -> pd.DataFrame:
    """The word whose image similarity correlates most with each latent's activation, and how a given name fares.

    Pearson's correlation over images. Live are latents whose activation varies; a word alike on all images scores 0.

    Args:
        codes: activations `[N, h]`, not negative.
        similarities: image vectors times word vectors, `[N, V]`; may be memory-mapped.
        words: the V words.
        names: the name to judge of each latent, `[h]`, one of the words.
        chunk: words at a time.

    Returns a table of live latents: `latent`, `word` (best), `score`, `name`, `name_score`, `name_rank` (1: no word
    scores higher), `agrees` (rank 1). Raises `DataError` for arrays or names that do not fit.

    """
    _check(codes, similarities, words, names)
    n = codes.shape[0]
    by_latent = codes.astype(np.float64).T.tocsr()  # [h, N]
    mean = by_latent.sum(axis=1) / n
    spread = np.sqrt(np.maximum(by_latent.power(2).sum(axis=1) / n - mean**2, 0))
    live = np.flatnonzero(spread > 1e-6 * mean)
    active, scale = by_latent[live], n * spread[live, None]

    def score(columns: np.ndarray) -> np.ndarray:
        centred = similarities[:, columns].astype(np.float64)
        centred -= centred.mean(axis=0)
        deviation = centred.std(axis=0)
        return np.asarray(active @ (centred / np.where(deviation > 1e-9, deviation, np.inf)) / scale)

    return _judged(score, live, words, names, chunk)


def soft_wpmi(
    codes: csr_array,
    similarities: np.ndarray,
    words: Sequence[str],
    names: Sequence[str],
    top: int = 100,
    temperature: float = 10.0,
    prior_weight: float = 1.0,
    p_first: float = 0.998,
    p_last: float = 0.97,
    chunk: int = CHUNK,
) -> pd.DataFrame:
    """The same table by CLIP-Dissect's SoftWPMI (Oikarinen & Weng 2023; defaults of its code).

    log p(B_j | t) − λ log p(t): how likely the word t is for the `top` images of latent j, against how likely it is for
    the images of any latent. p(t | x) is the softmax over words of `temperature` times the similarity; the membership
    of the r-th image falls in a line from `p_first` to `p_last`. Live are latents that fire at all. Images on which a
    latent does not fire are none of its images; where fewer than `top` remain, their log-likelihood is scaled up to
    `top`, or such latents would rule p(t). Both are ours: the paper's latents are dense.
    """
    _check(codes, similarities, words, names)
    if top < 1:
        raise ConfigError(f"naming_check.top: {top}; expected at least 1")
    live, images, counts = _top_images(codes, top)
    member = p_first - np.arange(top) / top * (p_first - p_last)
    rows = max(1, 2**23 // len(words))  # 64 MB of float64
    normaliser = np.concatenate(
        [
            logsumexp(temperature * similarities[start : start + rows].astype(np.float64), axis=1)
            for start in range(0, len(similarities), rows)
        ]
    )

    def score(columns: np.ndarray) -> np.ndarray:
        chances = np.exp(temperature * similarities[:, columns].astype(np.float64) - normaliser[:, None])
        likelihood = np.zeros((len(live), len(columns)))
        for place in range(top):
            has = counts > place
            likelihood[has] += np.log(1 + member[place] * (chances[images[has, place]] - 1) + 1e-7)
        likelihood *= (top / counts)[:, None]
        prior = logsumexp(likelihood, axis=0) - np.log(len(live))
        return np.asarray(likelihood - prior_weight * prior)

    return _judged(score, live, words, names, chunk)


def agreement(judged: pd.DataFrame) -> float:
    """Share of live latents whose name is also the best word by their images."""
    return float(judged["agrees"].mean())


def _judged(score: Score, live: np.ndarray, words: Sequence[str], names: Sequence[str], chunk: int) -> pd.DataFrame:
    # the scores of the names first, so that one more pass can both find the best word and count those above the name
    place = {word: column for column, word in enumerate(words)}
    own = np.array([place[names[latent]] for latent in live], dtype=np.int64)
    own_score = np.empty(len(live))
    claimed = np.unique(own)
    for start in range(0, len(claimed), chunk):
        columns = claimed[start : start + chunk]
        rows = np.flatnonzero((own >= columns[0]) & (own <= columns[-1]))
        own_score[rows] = score(columns)[rows, np.searchsorted(columns, own[rows])]
    best, best_score, above = own.copy(), np.full(len(live), -np.inf), np.zeros(len(live), dtype=np.int64)
    for start in range(0, len(words), chunk):
        columns = np.arange(start, min(start + chunk, len(words)))
        scores = score(columns)
        if not np.isfinite(scores).all():
            raise DataError("naming check: similarities or codes hold NaN or infinity")
        # the name itself does not count: in another chunk its score may differ in the last bit
        above += ((scores > own_score[:, None]) & (columns != own[:, None])).sum(axis=1)
        highest = scores.argmax(axis=1)
        value = scores[np.arange(len(live)), highest]
        better = value > best_score
        best[better], best_score[better] = columns[highest[better]], value[better]
    return pd.DataFrame(
        {
            "latent": live,
            "word": [words[column] for column in best],
            "score": best_score,
            "name": [names[latent] for latent in live],
            "name_score": own_score,
            "name_rank": above + 1,
            "agrees": above == 0,
        }
    )


def purity(
    codes: csr_array, truth: np.ndarray, concepts: Sequence[str], by: Purity = "average_precision", top: int = 20
) -> pd.DataFrame:
    """The known concept that each live latent of codes `[N, h]` finds best, of `truth` `[N, G]` and its G names.

    Columns: `latent`, `concept`, `average_precision` (of the activation as a score, scikit-learn's), `precision` (among
    the `top` most active images, or as many as fire), `base_rate`, `lift` (precision / base rate), `images` (on which
    it fires).
    `by` says which of the scores chooses the concept; average precision and precision favour frequent ones, lift rare
    ones. Live are latents that fire at all. Raises `DataError` for a concept that is true of no image or of all.
    """
    if by not in get_args(Purity):
        raise ConfigError(f"naming_check.by: {by!r}; {nearest(by, get_args(Purity))}")
    if top < 1:
        raise ConfigError(f"naming_check.top: {top}; expected at least 1")
    _check_codes(codes)
    if truth.dtype != np.bool_ or truth.shape != (codes.shape[0], len(concepts)) or not len(concepts):
        raise DataError(
            f"purity: truth is {truth.dtype} {truth.shape}; expected bool [{codes.shape[0]}, {len(concepts)}]"
        )
    base = truth.mean(axis=0)
    for share, concept in zip(base, concepts, strict=True):
        if share in (0, 1):
            raise DataError(f"purity: {concept!r} is true of {'all' if share else 'no'} images; expected some of them")
    columns, found = codes.tocsc(), []
    for latent in range(codes.shape[1]):
        rows, values = _by_activation(columns, latent)
        if not len(rows):
            continue
        precision = truth[rows[:top]].mean(axis=0)
        scores = {
            "average_precision": _average_precision(values, truth[rows], base, len(truth)),
            "precision": precision,
            "lift": precision / base,
        }
        best = int(scores[by].argmax())
        chosen = {name: float(part[best]) for name, part in scores.items()}
        found.append(
            {"latent": latent, "concept": concepts[best], **chosen, "base_rate": base[best], "images": len(rows)}
        )
    order = ["latent", "concept", "average_precision", "precision", "base_rate", "lift", "images"]
    return pd.DataFrame(found, columns=order)


def judge_names(
    pure: pd.DataFrame, names: Sequence[str], synonyms: Mapping[str, Collection[str]] | None = None
) -> pd.DataFrame:
    """The table of `purity` with the `name` of each latent (of `[h]`) and whether it is `right`.

    Right is the name of the latent's concept, or one of the concept's `synonyms`.
    """
    own = [names[latent] for latent in pure["latent"]]
    also = synonyms or {}
    right = [
        name == concept or name in also.get(concept, ()) for name, concept in zip(own, pure["concept"], strict=True)
    ]
    return pure.assign(name=own, right=np.array(right, dtype=bool))


def _average_precision(values: np.ndarray, hits: np.ndarray, base: np.ndarray, n: int) -> np.ndarray:
    # [G]; `values` fall, `hits` [active, G] in their order; equal values are one step, and so are all images at zero
    last = np.flatnonzero(np.append(values[1:] < values[:-1], True))
    found = np.cumsum(hits, axis=0, dtype=np.int64)[last]
    precision = found / (last + 1)[:, None]
    positives = base * n
    gained = np.diff(found, axis=0, prepend=0) / positives
    return np.asarray((gained * precision).sum(axis=0) + (1 - found[-1] / positives) * base)


def _top_images(codes: csr_array, top: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    # live latents [L], their most active images [L, top] (padded with 0), and how many of these count [L]
    columns = codes.tocsc()
    found = [_by_activation(columns, latent)[0][:top] for latent in range(codes.shape[1])]
    counts = np.array([len(rows) for rows in found])
    live = np.flatnonzero(counts)
    images = np.zeros((len(live), top), dtype=np.int64)
    for place, latent in enumerate(live):
        images[place, : counts[latent]] = found[latent]
    return live, images, counts[live]


def _by_activation(columns: csc_array, latent: int) -> tuple[np.ndarray, np.ndarray]:
    # images on which a latent fires and its activations, most active first; ties: the earlier image first
    part = slice(columns.indptr[latent], columns.indptr[latent + 1])
    rows, values = columns.indices[part], columns.data[part]
    order = np.lexsort((rows, -values))
    order = order[values[order] > 0]
    return rows[order], values[order]


def _check(codes: csr_array, similarities: np.ndarray, words: Sequence[str], names: Sequence[str]) -> None:
    _check_codes(codes)
    if similarities.shape != (codes.shape[0], len(words)):
        raise DataError(
            f"naming check: similarities are {similarities.shape}; expected [{codes.shape[0]}, {len(words)}]"
        )
    if len(names) != codes.shape[1]:
        raise DataError(f"naming check: {len(names)} names; expected one for each of {codes.shape[1]} latents")
    unknown = set(names) - set(words)
    if unknown:
        name = min(unknown)
        raise DataError(f"naming check: {name!r} is not among the words; {nearest(name, words)}")


def _check_codes(codes: csr_array) -> None:
    if codes.nnz and not (np.isfinite(codes.data).all() and codes.data.min() >= 0):
        raise DataError("naming check: codes are negative or not finite; expected activations of at least 0")
    if not codes.nnz or not (codes.data > 0).any():
        raise DataError("naming check: no latent fires on any image")
