"""Graphs of test that are made wrong in one object, and how much of that a diagnosis finds."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from aaca.data.scenegraph.batch import GraphItem
from aaca.data.scenegraph.edits import Fact, drop_node, facts_of, subgraph
from aaca.data.scenegraph.foreign import with_foreign
from aaca.data.scenegraph.graph import SceneGraph
from aaca.data.scenegraph.nodes import Policy, nodes_of
from aaca.data.scenegraph.samples import GraphSet
from aaca.data.scenegraph.store import FeatureType
from aaca.data.scenegraph.vocabulary import Words
from aaca.discover.captions.diagnosis import Diagnosis, item_of
from aaca.runtime.seeding import purpose_seed


@dataclass(frozen=True)
class Case:
    """A sample of test: its row, its own graph, the graph that the captioner is given, how that was made wrong."""

    row: int
    name: str
    image: str
    human: SceneGraph
    given: SceneGraph
    change: str  # lost | foreign | none


@dataclass
class Regraphed:
    """Samples of a set under other graphs, each read when it is asked for: what a captioner takes as a set."""

    source: GraphSet
    cases: Sequence[Case]
    graphs: Sequence[SceneGraph]
    dtype: FeatureType  # features are rounded as those that the captioner was trained on

    @property
    def words(self) -> Words:
        """The vocabulary."""
        return self.source.words

    def __len__(self) -> int:
        return len(self.cases)

    def name(self, i: int) -> str:
        """Of the sample that was edited."""
        return self.cases[i].name

    def phrase(self, i: int) -> str:
        """What was said of the sample before the edit."""
        return self.cases[i].human.phrase

    def graph(self, i: int) -> SceneGraph:
        """The edited graph."""
        return self.graphs[i]

    def references(self) -> dict[str, list[str]]:
        """Those of the samples before the edit."""
        known = self.source.references()
        return {case.name: known[case.name] for case in self.cases}

    def item(self, i: int) -> GraphItem:
        """The edited graph, each node with the feature of its box."""
        item = item_of(self.source, self.cases[i].row, self.graphs[i])
        return replace(item, features=item.features.astype(self.dtype).astype(np.float32), row=i)


def cases_of(source: GraphSet, wrong: float, samples: int, seed: int) -> list[Case]:
    """`samples` random samples (or all), of which a share `wrong` is made wrong; in the order of the set."""
    order = np.random.default_rng(purpose_seed(seed, "regraph")).permutation(len(source))[:samples].tolist()
    changed = set(order[: number_wrong(wrong, len(order))])
    of_image: dict[str, list[int]] = {}
    for row in range(len(source)):
        of_image.setdefault(source.image_id(row), []).append(row)
    cases = []
    for row in sorted(order):
        name, image, human = source.name(row), source.image_id(row), source.graph(row)
        given, change = human, "none"
        if row in changed:
            others = [source.graph(other) for other in of_image[image] if other != row]
            rng = np.random.default_rng(purpose_seed(seed, "regraph", name))
            given, change = made_wrong(human, others, source.limit, rng, source.layout.policy)
        cases.append(Case(row, name, image, human, given, change))
    return cases


def number_wrong(wrong: float, cases: int) -> int:
    """How many of the cases are to be made wrong."""
    return round(wrong * cases)


def made_wrong(
    graph: SceneGraph,
    others: Sequence[SceneGraph],
    limit: int,
    rng: np.random.Generator,
    policy: Policy = "objects_first",
) -> tuple[SceneGraph, str]:
    """The graph without one object (`lost`) or with one of other graphs of its image (`foreign`), by a coin.

    Where one cannot be, it is the other: an only object is not lost, nor one without which the graph says all that its
    `limit` shown nodes said (there is another like it); a foreign one needs room among them, and another graph of the
    image that has it. A graph that allows neither stays as it is (`none`).
    """
    for change in rng.permutation(["lost", "foreign"]).tolist():
        if change == "lost" and (without := _without_one(graph, limit, policy)):
            return without[int(rng.integers(len(without)))], change
        if change == "foreign" and graph.counts().total < limit:
            more = with_foreign(graph, others, 1, rng)
            if more != graph:
                return more, change
    return graph, "none"


def planted_and_found(
    cases: Sequence[Case], informed: Sequence[Diagnosis], alone: Sequence[Diagnosis]
) -> dict[str, dict[str, float | None]]:
    """How well the planted facts are found `of` all: numbers of facts, precision, recall (None where of nothing).

    Irrelevant are facts that were given: what edits take out. By the human graph these are the planted ones, always;
    `alone` goes by what is not used. Missing are facts that the human graph has and the captioner neither was given and
    used nor said: those that were given and overlooked are none of the planted, those that it guessed are not found.
    """
    given, human = [_facts(one.graph) for one in informed], [_facts(case.human) for case in cases]
    foreign = [own - asked for own, asked in zip(given, human, strict=True)]
    lost = [asked - _facts(case.given) for case, asked in zip(cases, human, strict=True)]
    unfit = {
        people: [set(one.irrelevant) & own for one, own in zip(found, given, strict=True)]
        for people, found in (("with people", informed), ("without people", alone))
    }
    return {
        **{f"irrelevant, {people}": _hits(given, foreign, found) for people, found in unfit.items()},
        "missing, with people": _hits(human, lost, [set(one.missing) for one in informed]),
    }


def right_ones(cases: Sequence[Case], informed: Sequence[Diagnosis]) -> list[bool]:
    """Whether each given graph, as far as the captioner saw it, says what the human graph does: the filter keeps it."""
    return [_facts(one.graph) == _facts(case.human) for case, one in zip(cases, informed, strict=True)]


def _without_one(graph: SceneGraph, limit: int, policy: Policy) -> list[SceneGraph]:
    # the graph without each object that makes a difference to what is shown
    if len(graph.objects) < 2:
        return []
    shown = _facts(subgraph(graph, nodes_of(graph, limit, policy).owners))
    ways = (drop_node(graph, ("object", thing.id, 0)) for thing in graph.objects)
    return [way for way in ways if shown - _facts(way)]


def _facts(graph: SceneGraph) -> set[Fact]:
    return set(facts_of(graph).values())


def _hits(
    facts: Sequence[set[Fact]], planted: Sequence[set[Fact]], found: Sequence[set[Fact]]
) -> dict[str, float | None]:
    hits = sum(len(own & told) for own, told in zip(planted, found, strict=True))
    there, told = sum(map(len, planted)), sum(map(len, found))
    return {
        "of": sum(map(len, facts)),
        "planted": there,
        "found": told,
        "precision": hits / told if told else None,
        "recall": hits / there if there else None,
    }
