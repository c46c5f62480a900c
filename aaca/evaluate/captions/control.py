"""Does a caption follow an edit of its graph, and only that edit: edit sensitivity and locality.

Judged on words alone, so that no parser is needed: the caption before, the caption after, the touched nodes' names.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from aaca.data.scenegraph.graph import SceneGraph
from aaca.evaluate.captions.structure import claim
from aaca.runtime.errors import DataError

ARTICLES = frozenset({"a", "an", "the"})
"""Words that come and go with the noun beside them and say nothing about an untouched node."""


@dataclass(frozen=True)
class CaptionEdit:
    """Captions of a graph and of its edited copy, with the names of the touched nodes as each graph has them.

    A node is touched if it was added, removed, renamed or turned round; see `touched_names`.
    """

    before: str
    after: str
    touched_before: tuple[str, ...]
    touched_after: tuple[str, ...]

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


def control_scores(edits: Sequence[CaptionEdit]) -> dict[str, float]:
    """`edit_sensitivity`: share of captions that change; `locality`: its mean; both ×100.

    Read together: a captioner that ignores its graph never changes a word, and is perfectly local when a node is added.
    Raises `DataError` without edits.
    """
    if not edits:
        raise DataError("control: no edited caption given; expected at least one")
    return {
        "edit_sensitivity": 100 * float(np.mean([edit.changed for edit in edits])),
        "locality": 100 * float(np.mean([locality(edit) for edit in edits])),
    }


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


def _sorted_names(nodes: Counter[tuple[object, str]]) -> tuple[str, ...]:
    return tuple(sorted(name for _, name in nodes.elements()))


def _rest(caption: str, names: Sequence[str]) -> Counter[str]:
    return Counter(word for word in claim(caption, names)[1] if word not in ARTICLES)
