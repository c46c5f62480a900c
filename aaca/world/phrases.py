"""A small grammar of captions and its exact reader: what a scene graph says, in words, and back.

    caption  = phrase {link phrase}          link = "left of" | … | "and"
    phrase   = thing ["on" ground]           thing = [article] [size] [colour] noun

A link relates its phrase's thing to the thing before it; "and" relates nothing; "on" relates the thing next to it. A
ground that is named twice is one object. Sizes stand before colours in a caption, after them in a graph.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

from aaca.runtime.errors import DataError
from aaca.world.render import Box

ARTICLES = ("a", "an")
AND, ON = "and", "on"

Relation = tuple[int, str, int]
"""Position of the subject, word, position of the object."""
CONVERSE = {"left of": "right of", "in front of": "behind", "above": "below"}
CONVERSE |= {other: one for one, other in CONVERSE.items()}
"""What a relation is called from its other end."""


@dataclass(frozen=True)
class Thing:
    """An object of a graph: its noun and its attributes, colour first."""

    name: str
    attributes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Said:
    """What a caption says: things in the order of their first mention, relations in the order of theirs."""

    things: tuple[Thing, ...]
    relations: tuple[Relation, ...] = ()

    def counts(self) -> tuple[int, int, int]:
        """Objects, attributes, relations."""
        return len(self.things), sum(len(thing.attributes) for thing in self.things), len(self.relations)


@dataclass(frozen=True)
class Told:
    """A graph whose things have boxes in an image (left, top, right, bottom, the last two exclusive)."""

    said: Said
    boxes: tuple[Box, ...]


@dataclass(frozen=True)
class Reading:
    """What a reader made of a caption; `leftover` are the words that fit nowhere (none in a caption of the grammar)."""

    said: Said
    leftover: tuple[str, ...]


@dataclass(frozen=True)
class Grammar:
    """The words of a grammar. `mass` nouns and grounds take no article; `links` are words or pairs of words."""

    nouns: tuple[str, ...]
    colours: tuple[str, ...]
    sizes: tuple[str, ...]
    links: tuple[str, ...]
    grounds: tuple[str, ...] = ()
    mass: tuple[str, ...] = ()

    @cached_property
    def words(self) -> frozenset[str]:
        """Every word a caption of the grammar may hold."""
        phrases = (*self.nouns, *self.grounds, *self.colours, *self.sizes, *self.links, AND)
        ends = {article(word) for word in (*self.sizes, *self.colours, *(set(self.nouns) - set(self.mass)))}
        on = {ON} if self.grounds else set()
        return frozenset({word for phrase in phrases for word in phrase.split()} | ends | on)

    def to_json(self) -> dict[str, Any]:
        """For `from_json`."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: Mapping[str, Sequence[str]]) -> "Grammar":
        """The grammar that `to_json` wrote."""
        return cls(**{name: tuple(words) for name, words in value.items()})

    def say(self, said: Said) -> str:
        """The caption of a graph. Raises `DataError` for a graph that the grammar has no sentence for."""
        grounds = [index for index, thing in enumerate(said.things) if thing.name in self.grounds]
        things = [index for index in range(len(said.things)) if index not in grounds]
        if not things:
            raise DataError(f"caption grammar: no thing in {said}; expected one or more")
        words: list[str] = []
        open_ = {(subject, object_): word for subject, word, object_ in said.relations}
        for position, index in enumerate(things):
            if position:
                words.append(open_.pop((things[position - 1], index), AND))
            words.append(self._noun_phrase(said.things[index]))
            below = [ground for ground in grounds if open_.get((index, ground)) == ON]
            if below:
                open_.pop((index, below[0]))
                words += [ON, said.things[below[0]].name]
        if open_:
            raise DataError(f"caption grammar: no sentence says the relations {list(open_)} of {said}")
        return " ".join(words)

    def _noun_phrase(self, thing: Thing) -> str:
        sizes = [word for word in thing.attributes if word in self.sizes]
        words = [*sizes, *(word for word in thing.attributes if word not in self.sizes), thing.name]
        return " ".join(words if thing.name in self.mass else [article(words[0]), *words])

    def read(self, caption: str) -> Reading:
        """What a caption says: the inverse of `say`; in any other text, what can be made out from left to right."""
        return _Reader(self, caption.split()).read()


class _Reader:
    """One pass over the words of a caption."""

    def __init__(self, grammar: Grammar, tokens: list[str]) -> None:
        self.grammar, self.tokens = grammar, tokens
        self.things: list[Thing] = []
        self.relations: list[Relation] = []
        self.leftover: list[str] = []
        self.described: list[str] = []  # attributes that wait for their noun
        self.link: str | None = None  # a relation that waits for its object
        self.head: int | None = None  # the thing that was named last

    def read(self) -> Reading:
        """All words, one after the other."""
        position = 0
        while position < len(self.tokens):
            position += self._take(position)
        self.leftover += self.described + ([self.link] if self.link else [])
        return Reading(Said(tuple(self.things), tuple(self.relations)), tuple(self.leftover))

    def _take(self, position: int) -> int:
        """Take what begins here; how many words it has."""
        word, grammar = self.tokens[position], self.grammar
        for link in (*grammar.links, *((ON,) if grammar.grounds else ())):
            parts = link.split()
            if self.tokens[position : position + len(parts)] == parts and self.head is not None:
                self.leftover += [self.link] if self.link else []
                self.link = link
                return len(parts)
        if word in grammar.nouns:
            self._name(word)
        elif word in grammar.grounds:
            self._ground(word)
        elif word in grammar.colours or word in grammar.sizes:
            self.described.append(word)
        elif word not in (*ARTICLES, AND):
            self.leftover.append(word)
        return 1

    def _name(self, noun: str) -> None:
        sizes = [word for word in self.described if word in self.grammar.sizes]
        others = [word for word in self.described if word not in self.grammar.sizes]
        self.things.append(Thing(noun, tuple(others + sizes)))
        self._relate(len(self.things) - 1)
        self.described, self.head = [], len(self.things) - 1

    def _ground(self, word: str) -> None:
        known = [index for index, thing in enumerate(self.things) if thing.name == word]
        self.things += [] if known else [Thing(word)]
        self._relate(known[0] if known else len(self.things) - 1)

    def _relate(self, index: int) -> None:
        if self.link is not None and self.head is not None:
            self.relations.append((self.head, self.link, index))
        self.link = None


def article(word: str) -> str:
    """The article before this word."""
    return "an" if word[0] in "aeiou" else "a"
