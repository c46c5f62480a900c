"""Does a caption follow an edit of its graph, and only that edit: edit sensitivity, structure, locality, words kept.

Judged on words: the caption before, the caption after, names of nodes. Whether the structure follows needs a parser.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from math import nan

import numpy as np

from aaca.data.scenegraph.graph import SceneGraph
from aaca.evaluate.captions.structure import Parse, claim
from aaca.runtime.errors import DataError

ARTICLES = frozenset({"a", "an", "the"})
"""Words that come and go with the noun beside them and say nothing about an untouched node."""

CountChange = tuple[int, int, int]
"""How many more objects, attributes and relationships."""


@dataclass(frozen=True)
class CaptionEdit:
    """Captions of a graph and of its edited copy, with the names of the touched nodes as each graph has them.

    A node is touched if it was added, removed, renamed or turned round; see `touched_names`. `untouched`: names of the
    nodes that both graphs have; `asked`: how many more nodes the edited graph has.
    """

    before: str
    after: str
    touched_before: tuple[str, ...]
    touched_after: tuple[str, ...]
    untouched: tuple[str, ...] = ()
    asked: CountChange = (0, 0, 0)

    @classmethod
    def of(cls, before: str, after: str, graph: SceneGraph, edited: SceneGraph) -> "CaptionEdit":
        """What is said of a graph, and of its edited copy."""
        shared = _nodes(graph) & _nodes(edited)
        return cls(before, after, *touched_names(graph, edited), _sorted_names(shared), _change(graph, edited))

    @property
    def changed(self) -> bool:
        """Whether the two captions differ in any word."""
        return self.before.split() != self.after.split()


def locality(edit: CaptionEdit) -> float:
    """Share of the untouched nodes' words that stayed, in [0, 1]; 1 means that only touched words came or went.

    From each caption the names of its touched nodes (once a node) and articles are taken out; the score is the overlap
    of the two bags of words that are left, 2·shared / (before + after), 1 where both are empty. A word that is new
    though no node calls for it counts against, and so does the name of a removed node that is still there.
    """
    left = [_rest(edit.before, edit.touched_before), _rest(edit.after, edit.touched_after)]
    total = left[0].total() + left[1].total()
    return 2 * (left[0] & left[1]).total() / total if total else 1.0


def content_kept(edit: CaptionEdit) -> tuple[Counter[str], Counter[str]]:
    """Words of untouched nodes that were right before, and those of them that the caption after says too.

    Right: the caption before holds the node's whole name (`claim`) after the touched nodes' names have taken theirs.
    A word that was wrong before is not counted, whatever becomes of it. In the caption after, untouched names come
    first: a relationship that was turned may be told by its converse word ("right of") and need its own no more.
    """
    right = _claimed(edit.before, edit.touched_before, edit.untouched)
    return right, right & _claimed(edit.after, (), edit.untouched)


def structure_change(edit: CaptionEdit, parse: Parse) -> CountChange:
    """How many more objects, attributes and relationships the caption after has, as parsed; see `asked`."""
    return _change(parse(edit.before), parse(edit.after))


def control_scores(edits: Sequence[CaptionEdit], parse: Parse | None = None) -> dict[str, float]:
    """Figures of edits of one kind, all ×100.

    `edit_sensitivity`: share of captions that change. `follows`, with a parser alone: share of captions whose numbers
    of objects, attributes and relationships change by exactly what the edit did, whatever the words; an edit that turns
    a relationship asks that they stay. `locality`: its mean. `content_kept`: of all words of untouched nodes that were
    right before, the share that is still said; NaN where none was right.

    `locality` counts a captioner's doubt about content as spill-over, and the converse word of a relationship that was
    turned; `content_kept` only what was right and got lost.
    Read together: a captioner that ignores its graph never changes a word, keeps all of them, and follows a turned
    relationship. Raises `DataError` without edits.
    """
    if not edits:
        raise DataError("control: no edited caption given; expected at least one")
    found = {"edit_sensitivity": 100 * float(np.mean([edit.changed for edit in edits]))}
    if parse is not None:
        found["follows"] = 100 * float(np.mean([structure_change(edit, parse) == edit.asked for edit in edits]))
    found["locality"] = 100 * float(np.mean([locality(edit) for edit in edits]))
    right, kept = (sum(words.total() for words in part) for part in zip(*map(content_kept, edits), strict=True))
    return {**found, "content_kept": 100 * kept / right if right else nan}


def touched_names(before: SceneGraph, after: SceneGraph) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Names of the nodes that only the first graph has, and of those that only the second has; once a node.

    Objects and relationships agree by id: the same id with another name, or a relationship with other ends, is touched
    in both. Attributes agree by object id and word. The order of lists does not matter.
    """
    first, second = _nodes(before), _nodes(after)
    return _sorted_names(first - second), _sorted_names(second - first)


def _nodes(graph: SceneGraph) -> Counter[tuple[object, str]]:
    things: list[tuple[object, str]] = [(("object", thing.id), thing.name) for thing in graph.objects]
    things += [(("attribute", thing.id), word) for thing in graph.objects for word in thing.attributes]
    things += [(("relationship", it.id, it.subject, it.object), it.name) for it in graph.relationships]
    return Counter(things)


def _change(before: SceneGraph, after: SceneGraph) -> CountChange:
    one, two = before.counts(), after.counts()
    return two.objects - one.objects, two.attributes - one.attributes, two.relationships - one.relationships


def _claimed(caption: str, first: Sequence[str], names: Sequence[str]) -> Counter[str]:
    # the words that names take once the first ones have taken theirs
    return _rest(caption, first) - _rest(caption, [*first, *names])


def _sorted_names(nodes: Counter[tuple[object, str]]) -> tuple[str, ...]:
    return tuple(sorted(name for _, name in nodes.elements()))


def _rest(caption: str, names: Sequence[str]) -> Counter[str]:
    return Counter(word for word in claim(caption, names)[1] if word not in ARTICLES)
