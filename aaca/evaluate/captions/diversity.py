"""How different several captions of one image are (one a graph): Div-1, Div-2, SelfCIDEr."""

from collections.abc import Mapping, Sequence

import numpy as np

from aaca.evaluate.captions.cider import CiderIndex
from aaca.evaluate.captions.texts import ngrams
from aaca.runtime.errors import DataError


def div_n(captions: Sequence[str], n: int) -> float:
    """Distinct n-grams of all captions together, divided by all their words; 0 where no caption has a word.

    The words, not the n-grams, are counted below the line (ASG2Caption), so Div-2 of single words is 0.
    """
    texts = [caption.split() for caption in captions]
    words = sum(len(text) for text in texts)
    return len({gram for text in texts for gram in ngrams(text, [n])}) / words if words else 0.0


def self_cider(captions: Sequence[str], index: CiderIndex) -> float:
    """SelfCIDEr in [0, 1] of m captions: −log_m(√λ_max / Σ√λ) over the eigenvalues of their CIDEr matrix.

    0 for equal captions, 1 for captions that share no weighted n-gram (Wang & Chan, CVPR 2019). 0 too where no n-gram
    has a weight: to the index such captions are all alike. Raises `DataError` with fewer than two captions.
    """
    m = len(captions)
    if m < 2:
        raise DataError(f"SelfCIDEr: {m} captions of an image; expected at least two")
    values = np.linalg.eigvalsh(index.similarities(captions))
    # Rounding leaves about 1e-16 where an eigenvalue is 0, and a root makes 1e-8 of it.
    roots = np.sqrt(np.where(values > values[-1] * m * np.finfo(float).eps * 8, values, 0.0))
    if not roots.any():
        return 0.0
    return float(-np.log(roots[-1] / roots.sum()) / np.log(m)) + 0.0  # + 0.0: no negative zero


def diversity(captions: Mapping[str, Sequence[str]], index: CiderIndex) -> dict[str, float]:
    """Means over images of `div1`, `div2`, `self_cider`, as fractions (not ×100). Raises `DataError` without images.

    Values of sets with different numbers of captions an image do not compare: Div-n falls as captions are added.
    """
    if not captions:
        raise DataError("diversity: no image given; expected at least one")
    rows = [(div_n(texts, 1), div_n(texts, 2), self_cider(texts, index)) for texts in captions.values()]
    return dict(zip(("div1", "div2", "self_cider"), np.mean(rows, axis=0).tolist(), strict=True))
