"""Captions as words: plain text split at spaces, n-grams counted, and the check that each caption has references."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from aaca.runtime.errors import DataError, nearest

LONGEST = 4
"""BLEU and CIDEr count n-grams of 1 to 4 words."""

NGram = tuple[str, ...]
Candidates = Mapping[str, str]
"""One caption a name."""
References = Mapping[str, Sequence[str]]
"""One or more human captions a name."""


def ngrams(words: Sequence[str], lengths: Iterable[int] = range(1, LONGEST + 1)) -> Counter[NGram]:
    """How often each n-gram of the given lengths occurs."""
    return Counter(tuple(words[i : i + n]) for n in lengths for i in range(len(words) - n + 1))


def paired(candidates: Candidates, references: References) -> list[str]:
    """The names, in the order of `candidates`.

    Raises `DataError` where a caption lacks references or references lack a caption (a set that is silently smaller
    would look better or worse than it is), and where a reference has no word. A caption may be empty.
    """
    if not candidates:
        raise DataError("candidates: no caption given; expected at least one")
    without = [name for name in candidates if name not in references]
    if without:
        raise DataError(
            f"references: none for {without[0]!r} ({len(without)} in all); {nearest(without[0], references)}"
        )
    unused = [name for name in references if name not in candidates]
    if unused:
        raise DataError(f"candidates: no caption for {unused[0]!r} ({len(unused)} in all); expected one a reference")
    check_references(references)
    return list(candidates)


def check_references(references: References) -> None:
    """Raises `DataError` where there is no name at all, a name has no reference, or a reference has no word."""
    if not references:
        raise DataError("references: none given; expected at least one name")
    for name, texts in references.items():
        if isinstance(texts, str) or not texts or not all(text.split() for text in texts):
            raise DataError(f"references: {name!r}: {texts!r}; expected a list of captions with at least one word each")
