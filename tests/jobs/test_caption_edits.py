"""Which graphs are edited, and how: what a captioner is shown, by the embedded grammar's rules where it is known."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from aaca.data.scenegraph.edits import owners_of
from aaca.data.scenegraph.graph import SceneGraph
from aaca.data.scenegraph.packing import pack
from aaca.data.scenegraph.samples import GraphSet
from experiments.caption_edits import (
    CHANGES,
    EditedGraphs,
    edited_captions,
    shown_graphs,
    turned_round,
    without_an_object,
)
from tests.graph_toys import NEAR, one_region, write_tree

GRAPH = SceneGraph.from_region(NEAR, "test")  # a boy near a dog, on a kite
DRAWS = [np.random.default_rng(seed) for seed in range(40)]


def test_a_ground_is_kept_with_what_stands_on_it_where_the_grammar_has_grounds():
    left = {tuple(thing.name for thing in without_an_object(GRAPH, rng, ("on",)).objects) for rng in DRAWS}
    assert left == {("boy", "kite"), ("boy", "dog")}  # the kite does not stay without the boy
    left = {tuple(thing.name for thing in without_an_object(GRAPH, rng, ()).objects) for rng in DRAWS}
    assert left == {("boy", "kite"), ("boy", "dog"), ("dog", "kite")}


def test_what_stands_on_a_ground_is_turned_round_where_the_grammar_has_none():
    def turned(rules):
        known = {(it.subject, it.object): it.name for it in GRAPH.relationships}
        made = [turned_round(GRAPH, rng, rules).relationships for rng in DRAWS]
        return {known[it.object, it.subject] for some in made for it in some if (it.subject, it.object) not in known}

    assert turned(("on",)) == {"near"} and turned(()) == {"near", "on"}


@pytest.fixture
def skipped(tmp_path):
    """A set with one graph, of which the first object has no features."""
    layout = write_tree(tmp_path, "ega", images=2)
    boxes = [(40, 10, 59, 29), (0, 60, 8, 68), (40, 10, 60, 30)]
    one_region(layout, NEAR, boxes)
    source = GraphSet.open(layout, "val", on_missing_box="skip")
    return layout, pack(source, tmp_path / "packed")


def test_edits_are_of_the_nodes_that_a_captioner_is_shown(skipped):
    layout, packed = skipped
    (shown,) = shown_graphs(packed).values()
    assert [thing.name for thing in shown.objects] == ["dog", "kite"] and not shown.relationships
    assert owners_of(shown) == packed.item(0).nodes.owners
    graph = CHANGES["drop_object"](shown, np.random.default_rng(0), ())
    item = EditedGraphs(packed, [0], [graph], layout, 10).item(0)
    (owner,) = item.nodes.owners
    row = packed.item(0).nodes.owners.index(owner)
    assert (item.features == packed.item(0).features[row]).all()


def test_a_graph_that_is_shown_whole_is_edited_as_it_is_and_a_cut_one_is_not(tmp_path):
    layout = write_tree(tmp_path, "ega", images=2)
    whole = pack(one_region(layout, NEAR), tmp_path / "packed")
    assert shown_graphs(whole) == {0: whole.graph(0)} and len(owners_of(whole.graph(0))) == 6
    cut = pack(GraphSet.open(layout, "val", limit=5), tmp_path / "cut")
    assert shown_graphs(cut) == {}


class Stages:
    """A captioner that says nothing, of graphs whose grammar is known or not."""

    def __init__(self, layout, known):
        self.layout, self.known = layout, known
        self.options = SimpleNamespace(seed=0, training=SimpleNamespace(nodes=10), graphs=SimpleNamespace(test="val"))

    def graphs(self):
        return None, self.layout

    def parse(self):
        return (lambda caption: SceneGraph((), (), caption)) if self.known else None

    def captions(self, fitted, model, name, graphs, what):
        return pd.DataFrame([(graphs.name(i), "") for i in range(len(graphs))], columns=["name", "caption"])


def test_rules_of_the_embedded_grammar_hold_where_it_is_known_alone(tmp_path):
    layout = write_tree(tmp_path, "ega", images=2)
    stands = {**NEAR, "objects": [NEAR["objects"][0], NEAR["objects"][2]], "relationships": NEAR["relationships"][1:]}
    packed = pack(one_region(layout, stands), tmp_path / "packed")
    said = {packed.name(0): ""}
    kinds = {
        known: [one.kind for one in edited_captions(Stages(layout, known), None, None, packed, said)]
        for known in (True, False)
    }
    assert kinds == {True: ["drop_object", "drop_attribute"], False: ["drop_object", "drop_attribute", "reverse"]}
