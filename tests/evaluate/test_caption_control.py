from dataclasses import replace
from math import isnan

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
from aaca.evaluate.captions.control import (
    CaptionEdit,
    content_kept,
    control_scores,
    locality,
    structure_change,
    touched_names,
)
from aaca.evaluate.captions.structure import grammar_parser
from aaca.runtime.errors import DataError
from aaca.world.phrases import Grammar

BOX = (0, 0, 4, 4)
GRAPH = SceneGraph(
    (GraphObject(3, "circle", ("red",), BOX), GraphObject(5, "square", ("blue", "small"), BOX)),
    (Relationship(0, 3, 5, "left of"),),
)
CAPTION = "a red circle left of a small blue square"
COLOURS, SHAPES = ("red", "blue", "green"), ("circle", "square")
PARSE = grammar_parser(Grammar(SHAPES, COLOURS, ("small", "large"), ("left of", "right of")))
NO_SQUARE, TURNED = drop_node(GRAPH, ("object", 5, 0)), reverse_relationship(GRAPH, 0)


def edit_to(graph, after, before=CAPTION):
    return CaptionEdit.of(before, after, GRAPH, graph)


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
    full = {"edit_sensitivity": 100.0, "follows": 100.0, "locality": 100.0, "content_kept": 100.0}
    assert control_scores(followed, PARSE) == full
    assert control_scores(followed) == {name: value for name, value in full.items() if name != "follows"}


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


def test_an_edit_knows_what_it_asks_for_and_what_it_leaves_alone():
    edit = edit_to(NO_SQUARE, "")
    assert edit.asked == (-1, -2, -1) and edit.untouched == ("circle", "red")
    assert (edit.touched_before, edit.touched_after) == touched_names(GRAPH, NO_SQUARE)
    assert edit_to(TURNED, "").asked == (0, 0, 0)
    assert edit_to(TURNED, "").untouched == ("blue", "circle", "red", "small", "square")
    assert edit_to(add_attribute(GRAPH, 3, "large"), "").asked == (0, 1, 0)


@pytest.mark.parametrize(
    ("graph", "before", "after", "follows"),
    [
        (NO_SQUARE, CAPTION, "a red circle", True),
        (NO_SQUARE, CAPTION, "a green square", True),  # other words, the structure that was asked for
        (NO_SQUARE, CAPTION, CAPTION, False),
        (NO_SQUARE, CAPTION, "a circle", False),  # one attribute more is gone than was asked for
        (NO_SQUARE, CAPTION, "a red circle left of a square", False),
        (NO_SQUARE, "a circle left of a small blue square", "a circle", True),  # wrong before: the change counts
        (NO_SQUARE, "a circle left of a small blue square", "a red circle", False),
        (TURNED, CAPTION, "a small blue square right of a red circle", True),
        (TURNED, CAPTION, "a red circle and a small blue square", False),
        (add_attribute(GRAPH, 3, "large"), CAPTION, "a large red circle left of a small blue square", True),
        (add_attribute(GRAPH, 3, "large"), CAPTION, CAPTION, False),
    ],
)
def test_the_structure_follows_where_numbers_change_by_what_the_edit_did(graph, before, after, follows):
    edit = edit_to(graph, after, before)
    assert (structure_change(edit, PARSE) == edit.asked) is follows
    assert control_scores([edit], PARSE)["follows"] == 100 * follows


def counted(edit):
    return [dict(words) for words in content_kept(edit)]


def test_doubt_about_content_costs_locality_but_no_right_word():
    doubt = edit_to(NO_SQUARE, "a blue circle", "a green circle left of a small blue square")
    assert locality(doubt) < 1 and counted(doubt) == [{"circle": 1}, {"circle": 1}]
    spill = edit_to(NO_SQUARE, "a blue circle")
    assert locality(spill) < 1 and counted(spill) == [{"circle": 1, "red": 1}, {"circle": 1}]
    scores = control_scores([doubt, spill])
    assert scores["content_kept"] == pytest.approx(100 * 2 / 3)  # of three words, not the mean of two edits
    assert "follows" not in scores


def test_words_of_touched_nodes_and_articles_are_no_content_to_keep():
    assert counted(edit_to(NO_SQUARE, "")) == [{"circle": 1, "red": 1}, {}]
    assert counted(edit_to(NO_SQUARE, "", "a small blue square"))[0] == {}
    assert isnan(control_scores([edit_to(NO_SQUARE, "", "a green square")])["content_kept"])
    # "left of" is turned, and its converse is no loss
    kept = counted(edit_to(TURNED, "a small blue square right of a red circle"))
    assert kept[0] == kept[1] and sum(kept[0].values()) == 5


def test_a_double_of_a_touched_name_is_right_only_if_it_is_said_twice():
    two = SceneGraph((GraphObject(0, "cup", ("red",), BOX), GraphObject(1, "hat", ("red",), BOX)), ())
    one = drop_node(two, ("object", 1, 0))
    assert counted(CaptionEdit.of("a red cup and a hat", "a cup", two, one)) == [{"cup": 1}, {"cup": 1}]
    assert counted(CaptionEdit.of("a red cup and a red hat", "a cup", two, one))[0] == {"cup": 1, "red": 1}
    # of two relationships of one name the one that stays is told by it, the turned one by its converse
    three = replace(two, objects=(*two.objects, GraphObject(2, "mat", (), BOX)))
    chain = replace(three, relationships=(Relationship(0, 0, 1, "left of"), Relationship(1, 1, 2, "left of")))
    edit = CaptionEdit.of(
        "cup left of hat left of mat", "hat right of cup left of mat", chain, reverse_relationship(chain, 0)
    )
    assert counted(edit)[0] == counted(edit)[1] == {"cup": 1, "hat": 1, "mat": 1, "left": 1, "of": 1}
