"""Which words of a caption name which nodes of its graph: one rule for training, attribution and ratings."""

from collections.abc import Sequence


def spans(words: Sequence[str], name: str) -> list[range]:
    """Where all words of a name stand side by side in a caption, in any case; nowhere for a name without words."""
    span, said = name.lower().split(), [word.lower() for word in words]
    starts = range(len(said) - len(span) + 1) if span else ()
    return [range(at, at + len(span)) for at in starts if said[at : at + len(span)] == span]


def mentions(words: Sequence[str], names: Sequence[str]) -> list[frozenset[int]]:
    """The nodes that each of T words names, by spelling, in any case; nodes of one name are named together.

    Where names overlap, the longer one counts: the word of `left of` does not name a node `left`.
    """
    found: list[set[int]] = [set() for _ in words]
    length = [0] * len(words)
    for node in sorted(range(len(names)), key=lambda node: -len(names[node].split())):
        for span in spans(words, names[node]):
            if all(length[at] in (0, len(span)) for at in span):
                for at in span:
                    found[at].add(node)
                    length[at] = len(span)
    return [frozenset(own) for own in found]
