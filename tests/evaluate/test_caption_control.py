from dataclasses import replace

import pytest

from aaca.data.scenegraph.edits import (
    add_attribute,
    add_object,
    drop_node,
    move_first,
    reverse_relationship,
    strip_attributes,
)
from aaca.data.scenegraph.graph import GraphObject, Relationship, SceneGraph
from aaca.evaluate.captions.control import CaptionEdit, control_scores, locality, touched_names
from aaca.runtime.errors import DataError

BOX = (0, 0, 4, 4)
GRAPH = SceneGraph(
    (GraphObject(3, "circle", ("red",), BOX), GraphObject(5, "square", ("blue", "small"), BOX)),
    (Relationship(0, 3, 5, "left of"),),
)
CAPTION = "a red circle left of a small blue square"


def edit_to(graph, after, before=CAPTION):
    return CaptionEdit(before, after, *touched_names(GRAPH, graph))


def test_touched_names_of_each_edit():
    assert touched_names(GRAPH, GRAPH) == ((), ())
    assert touched_names(GRAPH, move_first(GRAPH, 5)) == ((), ())
    assert touched_names(GRAPH, add_attribute(GRAPH, 3, "large")) == ((), ("large",))
    assert touched_names(GRAPH, drop_node(GRAPH, ("object", 5, 0))) == (("blue", "left of", "small", "square"), ())
    assert touched_names(GRAPH, strip_attributes(GRAPH)) == (("blue", "red", "small"), ())
    assert touched_names(GRAPH, reverse_relationship(GRAPH, 0)) == (("left of",), ("left of",))
    assert touched_names(GRAPH, add_object(GRAPH, "cup", BOX, ("red",))) == ((), ("cup", "red"))
    renamed = replace(GRAPH, objects=(replace(GRAPH.objects[0], name="disc"), GRAPH.objects[1]))
    assert touched_names(GRAPH, renamed) == (("circle",), ("disc",))


def test_two_attributes_of_one_word_count_twice():
    doubled = add_attribute(GRAPH, 3, "red")
    assert touched_names(GRAPH, doubled) == ((), ("red",))
    assert touched_names(doubled, GRAPH) == (("red",), ())


def test_an_edit_that_is_followed_to_the_letter_is_local():
    followed = [
        edit_to(drop_node(GRAPH, ("object", 5, 0)), "a red circle"),
        edit_to(add_attribute(GRAPH, 3, "large"), "a large red circle left of a small blue square"),
        edit_to(reverse_relationship(GRAPH, 0), "a small blue square left of a red circle"),
        edit_to(strip_attributes(GRAPH), "a circle left of a square"),
    ]
    assert [locality(edit) for edit in followed] == [1.0] * 4
    assert control_scores(followed) == {"edit_sensitivity": 100.0, "locality": 100.0}


def test_words_that_change_without_cause_cost_locality():
    graph = add_attribute(GRAPH, 3, "large")
    # One of the seven words besides articles becomes another.
    assert locality(edit_to(graph, "a large green circle left of a small blue square")) == pytest.approx(12 / 14)
    # Nothing left of seven words.
    assert locality(edit_to(graph, "")) == 0.0
    # The square's words are still there though it is gone: two words were to stay, seven did.
    dropped = drop_node(GRAPH, ("object", 5, 0))
    assert locality(edit_to(dropped, CAPTION)) == pytest.approx(4 / 9)


def test_a_touched_word_leaves_room_for_its_double():
    before = SceneGraph((GraphObject(0, "cup", ("red",), BOX), GraphObject(1, "hat", ("blue",), BOX)), ())
    after = replace(before, objects=(before.objects[0], replace(before.objects[1], attributes=("red",))))
    edit = CaptionEdit("a red cup and a blue hat", "a red cup and a red hat", *touched_names(before, after))
    assert locality(edit) == 1.0


def test_sensitivity_counts_captions_that_change():
    same = edit_to(add_attribute(GRAPH, 3, "large"), CAPTION)
    spaced = edit_to(add_attribute(GRAPH, 3, "large"), "  " + CAPTION.replace(" ", "  "))
    other = edit_to(add_attribute(GRAPH, 3, "large"), "a large red circle left of a small blue square")
    order = edit_to(reverse_relationship(GRAPH, 0), "a small blue square left of a red circle")
    assert [edit.changed for edit in (same, spaced, other, order)] == [False, False, True, True]
    assert control_scores([same, spaced, other, order])["edit_sensitivity"] == 50.0


def test_empty_captions_and_no_edits():
    assert locality(CaptionEdit("", "", (), ())) == 1.0
    assert locality(CaptionEdit("a", "the", (), ())) == 1.0
    assert not CaptionEdit("", " ", (), ()).changed
    with pytest.raises(DataError, match="no edited caption"):
        control_scores([])
