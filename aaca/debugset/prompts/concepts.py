"""Concepts as a language model or a person lists them: how a list is read, what is let through, how one is written.

What comes here is not trusted: what is let through goes into a prompt as it is.
"""

import json
import re
import unicodedata
from collections.abc import Sequence
from typing import Any

from aaca.debugset.prompts.base import class_noun
from aaca.world.language import with_article

LONGEST = 40  # characters
MOST_WORDS = 3
SHOWN = 40  # characters of a refused concept in a message

_OF_NATURE = ("flesh", "fruit", "fur", "hair", "juice", "moss", "nectar", "plumage", "pollen", "pulp", "skin", "water")
_OF_ROOMS = ("artwork", "bedding", "chalk", "clay", "clothing", "cutlery", "furniture", "glassware", "paint", "paper")
MASS_NOUNS = frozenset({*_OF_NATURE, *_OF_ROOMS})
"""Last words that take no article; those of `aaca.world.language` are about grounds."""

ORDERS = frozenset({"ignore", "disregard", "instruction", "instructions", "prompt", "prompts", "sorry"})
"""Words of orders and excuses: no visible thing is called so."""

_FENCED = re.compile(r"```\w*\s*\n(.*?)```", re.DOTALL)
_MARKER = re.compile(r"^(?:[-*•–]|\(?\d{1,3}[.):])\s+")
_QUOTES = " \"'`“”‘’.,;"
_ARTICLE = re.compile(r"^(an?|the|some) +(?=\S)")
_LETTERS = re.compile(r"(?:[^\W_]|[ '-])+")


class RefusedError(Exception):
    """A list of concepts that is not let through; its text says why, to people and to the model."""


def read_answer(text: str) -> list[str]:
    """The entries of an answer: JSON (`{"concepts": [...]}` or a bare list), fenced or not, else one a line."""
    fenced = _FENCED.search(text)
    body = (fenced[1] if fenced else text).strip()
    try:
        value: Any = json.loads(body)
    except (ValueError, RecursionError):
        return [line for line in body.splitlines() if line.strip()]
    if isinstance(value, dict):
        value = value.get("concepts")
    if not isinstance(value, list) or not all(isinstance(entry, str) for entry in value):
        raise RefusedError('the JSON is neither {"concepts": [...]} nor a list of strings')
    return value


def accept(entries: Sequence[str], class_name: str, n: int) -> list[str]:
    """The first `n` entries, cleaned, each with its article. Raises `RefusedError` unless all of them are concepts."""
    if len(entries) < n:
        raise RefusedError(f"{len(entries)} concepts came, {n} are needed")
    accepted = [clean(entry) for entry in entries[:n]]
    class_words = _words(class_noun(class_name))
    seen: set[str] = set()
    for position, concept in enumerate(accepted, start=1):
        reason = _objection(bare(concept), class_words, seen)
        if reason:
            raise RefusedError(f"concept {position} ({concept[:SHOWN]!r}) {reason}")
        seen.add(bare(concept))
    return [written(concept) for concept in accepted]


def clean(entry: str) -> str:
    """An entry in small letters without list markers, quotes and trailing dots."""
    text = unicodedata.normalize("NFKC", entry).replace("’", "'").strip().lower()
    return re.sub(" +", " ", _MARKER.sub("", text).strip(_QUOTES))


def bare(concept: str) -> str:
    """A cleaned concept without its article: "a beak" → "beak"."""
    return _ARTICLE.sub("", concept)


def written(concept: str) -> str:
    """A cleaned concept as a prompt writes it: with the "a" or "an" it came with, else one where its kind needs it."""
    if re.match(r"an? +\S", concept):
        return concept
    noun = bare(concept)
    plural = noun.endswith("s") and not noun.endswith("ss")
    return noun if plural or noun.split()[-1] in MASS_NOUNS else with_article(noun)


def _objection(noun: str, class_words: set[str], seen: set[str]) -> str:
    if not _LETTERS.fullmatch(noun):
        return "has characters other than letters, digits, spaces, apostrophes and hyphens"
    if not any(character.isalpha() for character in noun) or noun in {"a", "an", "the", "some"}:
        return "names nothing"
    if len(noun) > LONGEST:
        return f"is longer than {LONGEST} characters"
    if len(noun.split()) > MOST_WORDS:
        return f"has more than {MOST_WORDS} words"
    if ORDERS & set(noun.split()):
        return "is not a visible thing"
    if noun in seen:
        return "came twice"
    return "only repeats the class" if _words(noun) <= class_words else ""


def _words(text: str) -> set[str]:
    # singular and plural count as one word
    return {word.removesuffix("s") for word in re.findall(r"\w+", text.lower())}
