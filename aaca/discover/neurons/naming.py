"""What neurons are called: by what they answer to, or by an image-text model; and the neurons of given concepts."""

from collections.abc import Mapping, Sequence
from typing import Literal, get_args

import numpy as np
import pandas as pd
from scipy.sparse import csr_array

from aaca.concepts.concept_sets import ConceptKind, normal
from aaca.concepts.naming_check import by_correlation, soft_wpmi
from aaca.discover.neurons.responses import Responses, score
from aaca.runtime.errors import ConfigError, DataError, nearest

Judge = Literal["soft_wpmi", "correlation"]
COLUMNS = {
    "neuron": "input of the last layer",
    "concept": "its name; empty where nothing reaches the least score",
    "kind": "what kind of thing that is",
    "score": "how much the neuron is for the concept that scores highest",
    "effect": "see Responses; NaN where unknown",
    "contrast": "see Responses; NaN where unknown",
    "second": "the concept that comes next; empty where unknown or for nothing",
    "second_score": "its score; NaN where unknown",
}
"""The columns of names of neurons, in words."""


def by_masks(responses: Responses, kinds: Mapping[str, ConceptKind], least_score: float) -> pd.DataFrame:
    """Names of all D neurons, with the columns of `COLUMNS`, by `score`. `kinds`: of every concept."""
    scores = score(responses)
    neurons = np.arange(len(scores))
    order = np.argsort(-scores, axis=1, kind="stable")
    best = order[:, 0]
    top = scores[neurons, best].astype(np.float64)
    named = (top >= least_score) & (top > 0)
    frame = _frame(neurons, [responses.names[at] if has else "" for at, has in zip(best, named, strict=True)], top)
    frame["kind"] = [kinds[name] if name else "" for name in frame["concept"]]
    frame["effect"], frame["contrast"] = responses.effect[neurons, best], responses.contrast[neurons, best]
    if len(responses.names) > 1:
        frame["second_score"] = scores[neurons, order[:, 1]].astype(np.float64)
        frame["second"] = [
            responses.names[at] if scores[neuron, at] > 0 else "" for neuron, at in enumerate(order[:, 1])
        ]
    return frame


def by_clip(
    features: np.ndarray,
    similarities: np.ndarray,
    words: Sequence[str],
    kinds: Sequence[ConceptKind],
    judge: Judge = "soft_wpmi",
    least_score: float = 0.0,
) -> pd.DataFrame:
    """Names of all D neurons of features `[N, D]`, by an image-text model (CLIP-Dissect, Oikarinen & Weng 2023).

    Args:
        features: pooled, of audit images.
        similarities: image vectors times word vectors, `[N, V]`.
        words: the V words.
        kinds: of each word.
        judge: see `aaca.concepts.naming_check`. Features below zero are moved up to it: neither judge sees it.
        least_score: of a name, in the judge's units.

    Effect, contrast and the second word stay unknown: the judges say the best word alone.

    """
    if judge not in get_args(Judge):
        raise ConfigError(f"neuron_names.judge: {judge!r}; {nearest(judge, get_args(Judge))}")
    codes = csr_array(features - np.minimum(features.min(axis=0), 0))
    given = [words[0]] * features.shape[1]  # the judges also rate names; none are given yet
    if judge == "soft_wpmi":
        judged = soft_wpmi(codes, similarities, words, given)
    else:
        judged = by_correlation(codes, similarities, words, given)
    named = np.full(features.shape[1], "", dtype=object)
    scores = np.full(features.shape[1], np.nan)
    scores[judged["latent"]] = judged["score"]
    enough = judged[judged["score"] >= least_score]
    named[enough["latent"]] = enough["word"]
    frame = _frame(np.arange(len(named)), named.tolist(), scores)
    known = dict(zip(words, kinds, strict=True))
    return frame.assign(kind=[known[name] if name else "" for name in named])


def neurons_for(responses: Responses, concepts: Sequence[str], top: int, least_score: float) -> list[int]:
    """The neurons of given concepts: the `top` of each with at least that score, best first, none twice.

    Raises `DataError` for a concept that is none of the responses'.
    """
    places = {normal(name): column for column, name in enumerate(responses.names)}
    scores, best = score(responses), dict[int, float]()
    for concept in concepts:
        if normal(concept) not in places:
            raise DataError(f"neurons: no responses to concept {concept!r}; {nearest(concept, responses.names)}")
        own = scores[:, places[normal(concept)]]
        for neuron in np.argsort(-own, kind="stable")[:top].tolist():
            if own[neuron] > 0 and own[neuron] >= least_score:
                best[neuron] = max(best.get(neuron, 0.0), float(own[neuron]))
    return sorted(best, key=lambda neuron: (-best[neuron], neuron))


def _frame(neurons: np.ndarray, concepts: Sequence[str], scores: np.ndarray) -> pd.DataFrame:
    # every column, with what is not known of any neuron
    unknown = {"kind": "", "effect": np.nan, "contrast": np.nan, "second": "", "second_score": np.nan}
    frame = pd.DataFrame({"neuron": neurons, "concept": concepts, "score": scores}).assign(**unknown)
    return frame[list(COLUMNS)]
