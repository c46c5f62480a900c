"""What a concept bottleneck says with: contributions to logits, concepts of classes.

Codes are `scipy.sparse.csr_array` `[N, h]`, each entry once, weights `[C, h]`; a latent is known by its id, for names
repeat. Definitions of Rao et al. 2024 (Discover-then-Name) as in the released code, unless said otherwise.
"""

from collections.abc import Iterator, Sequence
from typing import Literal

import numpy as np
import pandas as pd
from scipy.sparse import csr_array

from aaca.evaluate.bottleneck import predict
from aaca.evaluate.explain_tables import check_codes, check_positive, chunks, mean_strength, ranked, ranks_within
from aaca.runtime.errors import ConfigError

REST = -1  # the latent id of "all others together"


def local(
    codes: csr_array,
    weight: np.ndarray,
    names: Sequence[str],
    rows: np.ndarray,
    top: int = 5,
    target: Literal["predicted", "true"] | int = "predicted",
    labels: np.ndarray | None = None,
    bias: np.ndarray | None = None,
) -> pd.DataFrame:
    """The concepts that contribute most, by magnitude, to a logit of the images `rows`; one row a latent, and the rest.

    Columns: image, class, latent, name, strength (z), weight (w), contribution (z · w, signed), rank from 1. The last
    row of an image has latent `REST` and what all others contribute together: contributions sum to the logit less its
    bias. Concepts that contribute nothing have no row. `target`: the class of `predict`, the true one of `labels`
    `[N]`, or an index.
    """
    check_codes(codes, names, labels, weight)
    check_positive("explain.top", top)
    rows = np.asarray(rows, dtype=np.int64)
    if target == "predicted":
        classes = predict(codes[rows], weight, bias) if len(rows) else rows
    elif target == "true" and labels is not None:
        classes = np.asarray(labels)[rows]
    elif not isinstance(target, str) and 0 <= target < len(weight):
        classes = np.full(len(rows), target)
    else:
        raise ConfigError(f"explain.target: {target!r}; expected predicted, true (with labels), 0…{len(weight) - 1}")
    parts = zip(chunks(rows), chunks(classes), strict=True)
    return pd.concat([_local(codes[part], weight, names, part, own, top) for part, own in parts], ignore_index=True)


def _local(
    part: csr_array, weight: np.ndarray, names: Sequence[str], rows: np.ndarray, classes: np.ndarray, top: int
) -> pd.DataFrame:
    image = np.repeat(np.arange(len(rows)), np.diff(part.indptr))
    weights = weight[classes[image], part.indices].astype(np.float64)
    contribution = part.data * weights
    totals = np.bincount(image, contribution, minlength=len(rows))
    order = np.lexsort((part.indices, -np.abs(contribution), image))
    order = order[contribution[order] != 0]
    rank = ranks_within(image[order], len(rows))
    order, rank = order[rank <= top], rank[rank <= top]
    shown = np.bincount(image[order], contribution[order], minlength=len(rows))
    count = np.bincount(image[order], minlength=len(rows))
    frame = pd.DataFrame(
        {
            "image": np.concatenate([rows[image[order]], rows]),
            "class": np.concatenate([classes[image[order]], classes]),
            "latent": np.concatenate([part.indices[order], np.full(len(rows), REST)]),
            "name": [names[latent] for latent in part.indices[order]] + ["rest"] * len(rows),
            "strength": np.concatenate([part.data[order].astype(np.float64), np.full(len(rows), np.nan)]),
            "weight": np.concatenate([weights[order], np.full(len(rows), np.nan)]),
            "contribution": np.concatenate([contribution[order], totals - shown]),
            "rank": np.concatenate([rank, count + 1]),
        }
    )
    place = np.lexsort((frame["rank"], np.concatenate([image[order], np.arange(len(rows))])))
    return frame.iloc[place].reset_index(drop=True)


def global_strength(codes: csr_array, labels: np.ndarray, names: Sequence[str], top: int = 10) -> pd.DataFrame:
    """The concepts that stand out in a class: mean over its images of (z − mean z of all images), the highest.

    The published definition; the classifier plays no part in it. Columns: class, images, latent, name, strength (class
    mean), difference, rank. Classes without images have no rows.
    """
    check_codes(codes, names, labels)
    check_positive("explain.top", top)
    overall = mean_strength(codes)
    found = []
    for label, own in _by_class(codes, labels):
        strength = mean_strength(own)
        difference = strength - overall
        order = np.argsort(-difference, kind="stable")[:top]
        values = {"strength": strength[order], "difference": difference[order]}
        found.append(ranked(label, own.shape[0], order, names, values))
    return pd.concat(found, ignore_index=True)


def global_contribution(
    codes: csr_array, labels: np.ndarray, weight: np.ndarray, names: Sequence[str], top: int = 10
) -> pd.DataFrame:
    """The concepts a class is told by: mean over its images of z · w of that class, the largest in magnitude.

    Ours, for the published one does not ask the classifier. Columns: class, images, latent, name, strength (class
    mean), weight, contribution (signed), rank. Concepts that contribute nothing, and classes without images, have no
    rows.
    """
    check_codes(codes, names, labels, weight)
    check_positive("explain.top", top)
    found = []
    for label, own in _by_class(codes, labels):
        strength = mean_strength(own)
        contribution = strength * weight[label]
        order = np.argsort(-np.abs(contribution), kind="stable")[:top]
        order = order[contribution[order] != 0]
        values = {
            "strength": strength[order],
            "weight": weight[label][order].astype(np.float64),
            "contribution": contribution[order],
        }
        found.append(ranked(label, own.shape[0], order, names, values))
    return pd.concat(found, ignore_index=True)


def class_contributions(codes: csr_array, labels: np.ndarray, weight: np.ndarray) -> pd.DataFrame:
    """Sum over a class's images of max(z · w of that class, 0). Columns: class, latent, contribution; no zeros."""
    check_codes(codes, None, labels, weight)
    found = []
    for label, own in _by_class(codes, labels):
        positive = np.maximum(own.data * weight[label][own.indices].astype(np.float64), 0)
        total = np.bincount(own.indices, positive, minlength=own.shape[1])
        latents = np.flatnonzero(total)
        found.append(pd.DataFrame({"class": label, "latent": latents, "contribution": total[latents]}))
    return pd.concat(found, ignore_index=True)


def _by_class(codes: csr_array, labels: np.ndarray) -> Iterator[tuple[int, csr_array]]:
    # one class in memory at a time
    for label in np.unique(labels):
        yield int(label), codes[np.flatnonzero(labels == label)]
