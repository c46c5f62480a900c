"""What a captioner made of a graph, against what people put into one: supported, irrelevant and missing facts.

The model's graph holds the nodes that its caption hangs on, and what the caption says beyond them (EGA's Model ASG).
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

from aaca.concepts.concept_sets import ANY, ClassConcepts, Concept, ConceptKind, ConceptSets, normal
from aaca.data.scenegraph.batch import GraphItem
from aaca.data.scenegraph.edits import Fact, add_attribute, add_object, add_relationship, drop_node, facts_of, subgraph
from aaca.data.scenegraph.graph import GraphObject, SceneGraph
from aaca.data.scenegraph.nodes import Nodes, Owner
from aaca.data.scenegraph.placing import place
from aaca.data.scenegraph.samples import GraphSet
from aaca.discover.captions.mentions import kind_of, plain, word_of
from aaca.evaluate.captions.structure import Parse
from aaca.runtime.errors import ConfigError, DataError

THRESHOLD = 1.0
"""Nats: a node has no part in a caption of which every word is at least 1/e as likely without it (for `occlusion`)."""
CONCEPT_KINDS: dict[str, ConceptKind] = {"object": "object", "attribute": "attribute", "relationship": "relation"}


@dataclass(frozen=True)
class Diagnosis:
    """One caption's case. Facts are (object), (object, attribute), (subject, relation, object); two alike count once.

    graph: what the captioner was given; human: what people put into it, or `graph` itself where nothing else is known;
    model: the captioner's own graph, in which what only the caption says has empty boxes; scores: each node's, of
    `graph`, the largest over words; unused: its nodes below the threshold.
    """

    name: str
    caption: str
    graph: SceneGraph
    human: SceneGraph
    model: SceneGraph
    scores: dict[Owner, float]
    unused: frozenset[Owner]
    supported: tuple[Fact, ...]
    irrelevant: tuple[Fact, ...]
    missing: tuple[Fact, ...]


def diagnose(
    name: str,
    graph: SceneGraph,
    nodes: Nodes,
    scores: Tensor,
    caption: str,
    parse: Parse,
    human: SceneGraph | None = None,
    threshold: float = THRESHOLD,
) -> Diagnosis:
    """Hold what the captioner used and said against what people put into the graph.

    With a `human` graph, `missing` is what it has and the model's graph lacks (not given, or given and overlooked),
    `irrelevant` what the model was given or says and people did not name. Without one nobody tells what is missing:
    `irrelevant` is then what was given and not used, or said and not given. `supported` is what both graphs have.

    Args:
        name: of the sample.
        graph: what the captioner was given.
        nodes: its nodes; what the limit had dropped counts as not given.
        scores: `[T, n]` of the caption's words (`NodeAttribution`).
        caption: what the captioner says.
        parse: what a caption says as a graph.
        human: what people put into it.
        threshold: of a node's largest score. A node that hangs on an object below it is below it too.

    Raises `DataError` where scores do not fit the nodes.

    """
    if scores.shape[1] != len(nodes.owners) or not len(scores):
        raise DataError(
            f"diagnosis of {name}: scores {list(scores.shape)} of {len(nodes.owners)} nodes; expected [T, n]"
        )
    given = subgraph(graph, nodes.owners)
    largest = dict(zip(nodes.owners, scores.amax(dim=0).tolist(), strict=True))
    unused = _below(given, largest, threshold)
    model = united(subgraph(given, [owner for owner in nodes.owners if owner not in unused]), parse(caption))
    offered, own = list(facts_of(given).values()), list(facts_of(model).values())
    wanted = own if human is None else list(facts_of(human).values())
    unfit = [fact for fact in offered if fact not in own] if human is None else []
    if human is None:
        unfit += [fact for fact in own if fact not in offered]
        supported = [fact for fact in own if fact in offered]
    else:
        unfit += [fact for fact in (*offered, *own) if fact not in wanted]
        supported = [fact for fact in own if fact in wanted]
    missing = [fact for fact in wanted if fact not in own]
    parts = [tuple(dict.fromkeys(facts)) for facts in (supported, unfit, missing)]
    return Diagnosis(name, caption, given, human or given, model, largest, unused, *parts)


def united(graph: SceneGraph, other: SceneGraph) -> SceneGraph:
    """The graph with every fact of `other` that it lacks; objects are taken for the same by name, boxes come along.

    Of several of one name, those whose boxes agree find each other first.
    """
    at: dict[int, int] = {}
    free = list(graph.objects)
    for anywhere in (False, True):
        for thing in other.objects:
            alike = [own for own in free if plain(own.name) == plain(thing.name) and (anywhere or own.box == thing.box)]
            if alike and thing.id not in at:
                free.remove(alike[0])
                at[thing.id] = alike[0].id
    for thing in other.objects:
        if thing.id not in at:
            graph = add_object(graph, thing.name, thing.box)
            at[thing.id] = graph.objects[-1].id
        for attribute in thing.attributes:
            if (plain(thing.name), plain(attribute)) not in facts_of(graph).values():
                graph = add_attribute(graph, at[thing.id], attribute)
    names = {thing.id: plain(thing.name) for thing in other.objects}
    for it in other.relationships:
        if (names[it.subject], plain(it.name), names[it.object]) not in facts_of(graph).values():
            graph = add_relationship(graph, at[it.subject], at[it.object], it.name)
    return graph


def drop_irrelevant(diagnosis: Diagnosis) -> SceneGraph:
    """The graph that was given, without what is irrelevant in it; an object takes what hangs on it along."""
    graph, unfit = diagnosis.graph, set(diagnosis.irrelevant)
    for owner, fact in facts_of(graph).items():
        if fact in unfit and owner in facts_of(graph):
            graph = drop_node(graph, owner)
    return graph


def add_missing(diagnosis: Diagnosis, graph: SceneGraph | None = None) -> SceneGraph:
    """The graph that was given (or an edit of it), with what is missing, boxes and all, from the human graph.

    What was given and overlooked is there already, and stays once. What the caption got right without having been given
    it comes, too: every fact of the human graph is in the result. Objects and attributes stand in the human graph's
    order, which a captioner follows; what the human graph lacks comes last.
    """
    start, human = graph or diagnosis.graph, facts_of(diagnosis.human)
    given = set(facts_of(diagnosis.graph).values())
    wanted = [owner for owner, fact in human.items() if fact in diagnosis.missing or fact not in given]
    if not wanted:
        return start
    there = {(plain(thing.name), thing.box) for thing in start.objects}
    held = [thing.id for thing in diagnosis.human.objects if (plain(thing.name), thing.box) in there]
    whole = united(start, subgraph(diagnosis.human, [*wanted, *(("object", name, 0) for name in held)]))
    return _ordered(whole, diagnosis.human)


def _ordered(graph: SceneGraph, human: SceneGraph) -> SceneGraph:
    things = list(human.objects)

    def place(thing: GraphObject) -> int:
        boxed = [i for i, own in enumerate(things) if plain(own.name) == plain(thing.name) and own.box == thing.box]
        named = [i for i, own in enumerate(things) if plain(own.name) == plain(thing.name)]
        return (boxed or named or [len(things)])[0]

    def attributes(thing: GraphObject) -> tuple[str, ...]:
        at = place(thing)
        known = [] if at == len(things) else [plain(word) for word in things[at].attributes]
        rank = {word: i for i, word in enumerate(known)}
        return tuple(sorted(thing.attributes, key=lambda word: rank.get(plain(word), len(rank))))

    objects = sorted((replace(thing, attributes=attributes(thing)) for thing in graph.objects), key=place)
    return replace(graph, objects=tuple(objects))


def item_of(source: GraphSet, row: int, graph: SceneGraph) -> GraphItem:
    """Sample `row` with an edited graph, ready to be captioned; its own caption stays as the reference.

    Raises `DataError` for a node whose box has no feature (see `GraphSet.on_missing_box`).
    """
    layout, regions = source.layout, source.regions(row)
    placed = place(
        graph, regions, source.limit, layout.policy, layout.box_mode, source.on_missing_box, source.name(row)
    )
    words = source.words.encode(source.phrase(row), source.length)
    return GraphItem(placed.nodes, source.image(row), regions.features[placed.rows], words, row)


def fact_counts(diagnoses: Iterable[Diagnosis]) -> list[dict[str, Any]]:
    """In how many captions each concept (name, kind) is `supported`, `irrelevant` and `missing`: rows, the worst first.

    A concept is the name of a node by itself: an attribute or relation counts whatever it is of. A caption counts once.
    """
    found: dict[tuple[str, str], Counter[str]] = {}
    for one in diagnoses:
        for verdict in ("supported", "irrelevant", "missing"):
            for concept in dict.fromkeys((normal(word_of(fact)), kind_of(fact)) for fact in getattr(one, verdict)):
                found.setdefault(concept, Counter())[verdict] += 1
    rows = [
        {"name": name, "kind": kind, **{verdict: count[verdict] for verdict in ("supported", "irrelevant", "missing")}}
        for (name, kind), count in found.items()
    ]
    return sorted(rows, key=lambda row: (-row["irrelevant"] - row["missing"], row["name"], row["kind"]))


def concept_sets(
    diagnoses: Sequence[Diagnosis], classes: Mapping[str, str], annotator: str, least: int = 1
) -> ConceptSets:
    """Concepts as a classifier's repair takes them: irrelevant ones confound, missing ones are valid, both: contested.

    Args:
        diagnoses: of captions.
        classes: the class of each sample's image, by name.
        annotator: who put the human graphs together, or what simulated them.
        least: captions of a class in which a concept has to be so.

    Raises `DataError` for a sample without a class, `ConfigError` for `least` below 1. Votes are numbers of captions.

    """
    if least < 1:
        raise ConfigError(f"least: {least}; expected 1 or more")
    of_class: dict[str, list[Diagnosis]] = {}
    for one in diagnoses:
        if one.name not in classes:
            raise DataError(f"diagnosis: no class of {one.name!r}")
        of_class.setdefault(classes[one.name], []).append(one)
    return ConceptSets({name: _class_concepts(own, least) for name, own in of_class.items()}, {"annotator": annotator})


def _class_concepts(diagnoses: Sequence[Diagnosis], least: int) -> ClassConcepts:
    verdicts: dict[str, list[Concept]] = {"confounded": [], "valid": [], "contested": []}
    for row in fact_counts(diagnoses):
        wrong, lacking = row["irrelevant"] >= least, row["missing"] >= least
        if not wrong and not lacking:
            continue
        votes = row["irrelevant"] * wrong + row["missing"] * lacking
        concept = Concept(row["name"], CONCEPT_KINDS[row["kind"]], votes=votes)
        if wrong and lacking:
            verdicts["contested"].append(concept)
        else:
            verdicts["confounded" if wrong else "valid"].append(replace(concept, rival=ANY) if wrong else concept)
    ranked = {name: tuple(sorted(own, key=lambda it: -(it.votes or 0))) for name, own in verdicts.items()}
    return ClassConcepts(**ranked)


def _below(graph: SceneGraph, scores: Mapping[Owner, float], threshold: float) -> frozenset[Owner]:
    below = {owner for owner, score in scores.items() if score < threshold}
    ends = {it.id: (it.subject, it.object) for it in graph.relationships}
    for owner in scores:
        held = ends[owner[1]] if owner[0] == "relationship" else (owner[1],)
        if any(("object", end, 0) in below for end in held):
            below.add(owner)
    return frozenset(below)
