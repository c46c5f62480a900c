from dataclasses import replace

import numpy as np
import pytest
import torch

from aaca.concepts.concept_sets import ConceptSets
from aaca.data.scenegraph.batch import GraphItem, collate
from aaca.data.scenegraph.edits import diff, facts_of
from aaca.data.scenegraph.graph import GraphObject, Relationship, SceneGraph
from aaca.data.scenegraph.layout import Layout
from aaca.data.scenegraph.nodes import nodes_of
from aaca.data.scenegraph.samples import GraphSet
from aaca.data.scenegraph.vocabulary import SPECIAL, Words
from aaca.data.shape_grammar import GRAMMAR, write_shapes
from aaca.discover.captions.attribution import occlusion
from aaca.discover.captions.diagnosis import (
    add_missing,
    concept_sets,
    diagnose,
    drop_irrelevant,
    fact_counts,
    item_of,
    united,
)
from aaca.discover.captions.ratings import (
    caption_ids,
    choice,
    features_of,
    hold,
    mentions_of,
    names_of_kinds,
    records_of,
    swap,
)
from aaca.evaluate.captions.structure import grammar_parser
from aaca.models.captioner.captioner import GraphCaptioner
from aaca.models.captioner.spec import CaptionerSpec
from aaca.runtime.errors import ConfigError, DataError

PARSE = grammar_parser(GRAMMAR)
HUMAN = SceneGraph(
    (
        GraphObject(4, "circle", ("red", "small"), (0, 0, 4, 4)),
        GraphObject(7, "square", ("blue",), (8, 0, 4, 4)),
    ),
    (Relationship(0, 4, 7, "left of"),),
    "a small red circle left of a blue square",
)


def scores_of(graph, below=()):
    nodes = nodes_of(graph)
    largest = [0.0 if name in below else 1.0 for name in nodes.names]
    return nodes, torch.stack([torch.tensor(largest), torch.full((len(nodes),), -2.0)])


def test_a_caption_that_uses_and_says_all_is_without_findings():
    nodes, scores = scores_of(HUMAN)
    for human in (None, HUMAN):
        found = diagnose("x", HUMAN, nodes, scores, HUMAN.phrase, PARSE, human)
        assert (found.irrelevant, found.missing, found.unused) == ((), (), frozenset())
        assert set(found.supported) == set(facts_of(HUMAN).values())
        assert drop_irrelevant(found) == add_missing(found) == HUMAN


def test_what_is_not_used_is_irrelevant_and_takes_its_relations_along():
    nodes, scores = scores_of(HUMAN, below=("square",))
    found = diagnose("x", HUMAN, nodes, scores, "a small red circle", PARSE)
    assert set(found.irrelevant) == {("square",), ("square", "blue"), ("circle", "left of", "square")}
    assert set(found.supported) == {("circle",), ("circle", "red"), ("circle", "small")}
    assert found.missing == ()
    left = drop_irrelevant(found)
    assert left == replace(HUMAN, objects=HUMAN.objects[:1], relationships=())


def test_what_only_the_caption_says_is_irrelevant_too():
    nodes, scores = scores_of(HUMAN)
    found = diagnose("x", HUMAN, nodes, scores, "a green triangle above a blue square", PARSE)
    assert set(found.irrelevant) == {("triangle",), ("triangle", "green"), ("triangle", "above", "square")}
    assert drop_irrelevant(found) == HUMAN  # nothing of it was given
    assert facts_of(found.model).keys() > facts_of(HUMAN).keys()


def test_a_human_graph_tells_what_is_missing():
    given = SceneGraph((*HUMAN.objects[:1], GraphObject(9, "triangle", (), (2, 9, 3, 3))), (), "")
    nodes, scores = scores_of(given, below=("small",))
    found = diagnose("x", given, nodes, scores, "a red circle and a triangle", PARSE, HUMAN)
    assert found.irrelevant == (("triangle",),)
    assert set(found.supported) == {("circle",), ("circle", "red")}
    # not given (square), or given and overlooked (small)
    wanted = {("circle", "small"), ("square",), ("square", "blue"), ("circle", "left of", "square")}
    assert set(found.missing) == wanted
    better = add_missing(found, drop_irrelevant(found))
    result = diff(HUMAN, better)
    assert (result.missing, result.irrelevant) == ((), ())
    assert [thing.box for thing in better.objects] == [(0, 0, 4, 4), (8, 0, 4, 4)]
    assert diff(HUMAN, add_missing(found)).irrelevant == (("object", 9, 0),)


def test_a_united_graph_says_what_both_say():
    other = PARSE("a red circle above a triangle")
    both = united(HUMAN, other)
    assert set(facts_of(both).values()) == {*facts_of(HUMAN).values(), *facts_of(other).values()}
    assert united(both, other) == both == united(both, HUMAN)
    assert facts_of(both)["relationship", 1, 0] == ("circle", "above", "triangle")


def test_scores_have_to_be_those_of_the_nodes():
    nodes, scores = scores_of(HUMAN)
    with pytest.raises(DataError, match="6 nodes"):
        diagnose("x", HUMAN, nodes, scores[:, :3], "a circle", PARSE)


def test_nodes_that_the_limit_drops_were_not_given():
    nodes = nodes_of(HUMAN, limit=4)
    found = diagnose("x", HUMAN, nodes, torch.ones(2, 4), "a small red circle and a square", PARSE, HUMAN)
    assert set(found.missing) == {("square", "blue"), ("circle", "left of", "square")}
    assert len(found.scores) == 4


def test_findings_become_concept_sets(tmp_path):
    nodes, scores = scores_of(HUMAN, below=("square",))
    unused = diagnose("x", HUMAN, nodes, scores, "a small red circle", PARSE)
    nodes, scores = scores_of(HUMAN)
    wrong = diagnose("y", HUMAN, nodes, scores, "a blue circle left of a blue square", PARSE, HUMAN)
    assert set(wrong.irrelevant) == {("circle", "blue")} and wrong.missing == ()
    less = diagnose(
        "z", SceneGraph(HUMAN.objects[:1], ()), *scores_of(SceneGraph(HUMAN.objects[:1], ())), "", PARSE, HUMAN
    )
    counts = {row["name"]: row for row in fact_counts([unused, wrong, less])}
    expected = {"name": "blue", "kind": "attribute", "supported": 1, "irrelevant": 2, "missing": 1}
    assert counts["blue"] == expected
    assert counts["left of"]["kind"] == "relationship"
    sets = concept_sets([unused, wrong, less], {"x": "beach", "y": "beach", "z": "street"}, "simulated: test")
    beach = {(it.name, it.kind, it.votes, it.rival) for it in sets.of("beach").confounded}
    assert beach == {("blue", "attribute", 2, "*"), ("square", "object", 1, "*"), ("left of", "relation", 1, "*")}
    assert sets.of("beach").confounded[0].name == "blue"
    assert {it.name for it in sets.of("street").valid} == {"square", "blue", "left of"}
    together = concept_sets([unused, less], {"x": "beach", "z": "beach"}, "simulated: test").of("beach")
    assert {(it.name, it.votes) for it in together.contested} == {("square", 2), ("blue", 2), ("left of", 2)}
    sets.save(tmp_path / "concepts.yaml")
    assert ConceptSets.load(tmp_path / "concepts.yaml", ["beach", "street"]) == sets
    assert concept_sets([unused, wrong], {"x": "b", "y": "b"}, "t", least=2).names("confounded") == {("b", "blue")}
    with pytest.raises(DataError, match="no class of 'z'"):
        concept_sets([less], {}, "t")
    with pytest.raises(ConfigError, match="least: 0"):
        concept_sets([less], {}, "t", least=0)


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    root = tmp_path_factory.mktemp("shapes")
    write_shapes(root, {"trn": 6, "val": 2, "tst": 1}, regions=3)
    return GraphSet.open(Layout.ega(root), "trn")


def test_an_edited_graph_can_be_captioned_again(source):
    for row in range(len(source)):
        graph, own = source.graph(row), source.item(row)
        again = item_of(source, row, graph)
        assert again.nodes.owners == own.nodes.owners
        np.testing.assert_array_equal(again.features, own.features)
        smaller = item_of(source, row, replace(graph, objects=graph.objects[:1], relationships=()))
        kept = 1 + len(graph.objects[0].attributes)
        np.testing.assert_array_equal(smaller.features, own.features[:kept])
        np.testing.assert_array_equal(smaller.words, own.words)


# automatic ratings

VOCABULARY = Words([*SPECIAL, *sorted(set(HUMAN.phrase.split()) | {"green", "triangle", "right", "above"})])


def rated_item():
    nodes = nodes_of(HUMAN)
    features = np.random.default_rng(0).normal(size=(6, 5)).astype(np.float32)
    features[1:3], features[4] = features[0], features[3]
    return GraphItem(nodes, np.zeros(4, np.float32), features, VOCABULARY.encode(HUMAN.phrase, 25), 0)


@pytest.fixture(scope="module")
def model():
    spec = CaptionerSpec(words=len(VOCABULARY), features=5, global_features=4, hidden=8, attention=8)
    model = GraphCaptioner(spec, seed=3)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter *= 2
    return model


def test_mentions_are_found_in_the_own_caption():
    item = rated_item()
    found = {item.nodes.names[one.node]: (one.start, one.end) for one in mentions_of(item, VOCABULARY)}
    assert found == {
        "circle": (3, 4),
        "red": (2, 3),
        "small": (1, 2),
        "square": (8, 9),
        "blue": (7, 8),
        "left of": (4, 6),
    }
    assert VOCABULARY.decode(caption_ids(item)) == HUMAN.phrase
    records = list(records_of(dict.fromkeys(mentions_of(item, VOCABULARY), 2.5), item, "val2014/im_1", "3"))
    assert [row.parts for row in records] == [
        ("circle", "small"),
        ("circle", "red"),
        ("circle",),
        ("circle", "left of", "square"),
        ("square", "blue"),
        ("square",),
    ]
    assert {(row.image, row.region, row.sample, row.rating) for row in records} == {("im_1", "3", "im_1_3", 2.5)}
    assert [row.word for row in records] == [1, 2, 3, 4, 7, 8]


def test_two_nodes_of_a_name_take_two_mentions():
    things = tuple(GraphObject(k, "circle", (), (k, 0, 1, 1)) for k in range(2))
    nodes = nodes_of(SceneGraph(things, (Relationship(0, 0, 1, "left of"),)))
    words = VOCABULARY.encode("a circle left of a circle", 25)
    item = GraphItem(nodes, np.zeros(4, np.float32), np.zeros((3, 5), np.float32), words, 0)
    assert [(one.node, one.start) for one in mentions_of(item, VOCABULARY)] == [(0, 1), (1, 5), (2, 2)]


def test_hold_is_the_share_of_attribution_on_the_named_nodes(model):
    # circle 0, red 1, small 2 in one box, square 3, blue 4 in another, left of 5 in the box of both
    mass = torch.zeros(9, 6)
    mass[1] = torch.tensor([1.0, 0.0, 3.0, 0.0, 0.0, -9.0])  # small
    mass[2] = torch.tensor([0.0, 0.0, 0.0, 2.0, 0.0, 2.0])  # red, by the square and by the union
    mass[4] = torch.tensor([0.0, 0.0, 0.0, 0.0, 0.0, 1.0])  # left
    mass[5] = torch.tensor([1.0, 0.0, 0.0, 0.0, 0.0, 1.0])  # of
    item = rated_item()
    names = {one: item.nodes.names[one.node] for one in mentions_of(item, VOCABULARY)}

    def rated(within):
        found = hold(model, item, VOCABULARY, lambda *_: mass, within)
        return {names[one]: rating for one, rating in found.items()}

    nodes = {"circle": 1, "red": 1, "small": 1 + 4 * 0.75, "square": 1, "blue": 1, "left of": 1 + 4 * 0.75}
    assert rated("nodes") == pytest.approx(nodes)
    # boxes 4 wide in a union of 12; the circle lies in the union of "left of"
    boxes = nodes | {"small": 5, "red": 1 + 4 * 0.5 / 3, "left of": 5}
    assert rated("boxes") == pytest.approx(boxes)
    with pytest.raises(ConfigError, match="within"):
        rated("box")


def spoken(model, item, words):
    # Σ log p, one step after another
    model.eval()
    state, last, total = model.start(model.encode(collate([item]))), 0, []
    for word in words:
        logits, state = model.step(torch.tensor([last]), state)
        total.append(logits[0].double().log_softmax(0)[word])
        last = word
    return torch.stack(total).detach().numpy()


def test_choice_is_the_probability_among_names_of_the_kind(model):
    item, ids = rated_item(), caption_ids(rated_item())
    names = {
        "object": ["circle", "square", "triangle"],
        "attribute": ["red", "green", "purple"],
        "relationship": ["above", "left of", "right of"],
    }
    found = {item.nodes.names[one.node]: rating for one, rating in choice(model, item, VOCABULARY, names).items()}
    for name, at, rivals in (
        ("circle", 3, names["object"]),
        ("blue", 7, ["blue", "red", "green"]),
        ("left of", 4, names["relationship"]),
    ):
        ways = {way: [VOCABULARY.ids[word] for word in way.split()] for way in rivals}
        p = {way: np.exp(spoken(model, item, [*ids[:at], *end])[at:].sum()) for way, end in ways.items()}
        assert found[name] == pytest.approx(1 + 4 * p[name] / sum(p.values()), rel=1e-4), name


def test_swap_is_the_share_of_nodes_that_make_the_words_less_likely(model):
    item, ids = rated_item(), caption_ids(rated_item())
    rng = np.random.default_rng(5)
    others = {kind: rng.normal(size=(7, 5)).astype(np.float32) for kind in range(3)}
    others[0][0] = item.features[0]  # a tie for the circle
    found = {item.nodes.names[one.node]: rating for one, rating in swap(model, item, VOCABULARY, others).items()}
    own = spoken(model, item, ids)
    for name, node, span, region in (
        ("circle", 0, slice(3, 4), [0, 1, 2]),
        ("left of", 5, slice(4, 6), [5]),
        ("blue", 4, slice(7, 8), [3, 4]),
    ):
        wins = 0.0
        for feature in others[int(item.nodes.types[node])]:
            features = item.features.copy()
            features[region] = feature
            gap = own[span].sum() - spoken(model, replace(item, features=features), ids)[span].sum()
            wins += 0.5 if abs(gap) < 1e-6 else float(gap > 0)
        assert found[name] == pytest.approx(1 + 4 * wins / 7), name
    assert len({round(value, 6) for value in found.values()}) > 1


def test_pools_for_the_ratings_come_from_other_items():
    items = [rated_item(), rated_item()]
    pool = features_of(items, 3, seed=0)
    assert {kind: len(rows) for kind, rows in pool.items()} == {0: 3, 1: 3, 2: 2}
    assert all(any(np.array_equal(row, feature) for feature in items[0].features[[0, 3]]) for row in pool[0])
    assert names_of_kinds(items) == {
        "object": ["circle", "square"],
        "attribute": ["red", "small", "blue"],
        "relationship": ["left of"],
    }
    with pytest.raises(DataError, match="no items"):
        features_of([], 3, seed=0)


def test_diagnosis_takes_the_scores_of_a_captioner(model):
    item = rated_item()
    scores = occlusion(model, item, caption_ids(item))
    found = diagnose("x", HUMAN, item.nodes, scores, HUMAN.phrase, PARSE, HUMAN, threshold=-1e9)
    assert found.unused == frozenset() and found.missing == ()
    assert found.scores["object", 4, 0] == pytest.approx(float(scores[:, 0].max()))
    assert len(diagnose("x", HUMAN, item.nodes, scores, "", PARSE, threshold=1e9).irrelevant) == 6
