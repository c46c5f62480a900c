"""Scenes with graphs: what is said can be seen, and what is said can be read."""

import itertools
import re
from collections import Counter

import numpy as np
import pytest

from aaca.runtime.errors import DataError
from aaca.world.colours import colour_of
from aaca.world.pack import load_pack
from aaca.world.phrases import CONVERSE, Grammar, Said, Thing
from aaca.world.render import BOX_COVER, LAYERS, render
from aaca.world.scenes import stream
from aaca.world.stamp_graphs import COLOURS, draw_scene, grammar, parse
from aaca.world.stamp_regions import draw_regions, sub_graph

SIZE = 96


@pytest.fixture(scope="module")
def scenes():
    return [draw_scene(0, "trn", index, SIZE) for index in range(60)]


def test_whatever_the_grammar_says_is_read_back(scenes):
    for index, scene in enumerate(scenes):
        told = [*draw_regions(scene, stream(1, index), 6), sub_graph(scene, (0, 1), (2, 2), (True, True), linked=True)]
        for graph in told:
            text = grammar().say(graph.said)
            reading = parse(text)
            assert reading.said == graph.said, text
            assert not reading.leftover
            assert set(text.split()) <= grammar().words
            assert grammar().say(reading.said) == text


def test_every_graph_of_the_grammar_has_a_caption_of_its_own():
    nouns, said = ("bird", "produce", "ball"), {}
    attributes = ((), ("red",), ("orange", "large"))
    for names in itertools.permutations(nouns, 2):
        for first, second in itertools.product(attributes, repeat=2):
            for link, on in itertools.product((*grammar().links, None), itertools.product((False, True), repeat=2)):
                things, relations = [Thing(names[0], first)], []
                if on[0]:
                    things.append(Thing("sand"))
                    relations.append((0, "on", 1))
                things.append(Thing(names[1], second))
                here = len(things) - 1
                relations += [(0, link, here)] if link else []
                if on[1] and not on[0]:
                    things.append(Thing("sand"))
                relations += [(here, "on", 1 if on[0] else here + 1)] if on[1] else []
                graph = Said(tuple(things), tuple(relations))
                text = grammar().say(graph)
                assert parse(text).said == graph, text
                assert text not in said
                said[text] = graph
    assert len(said) == 6 * 9 * 5 * 4


def test_captions_read_as_the_specification_shows_them():
    graph = Said((Thing("bird", ("red", "small")), Thing("sand"), Thing("ball")), ((0, "on", 1), (0, "left of", 2)))
    assert grammar().say(graph) == "a small red bird on sand left of a ball"
    assert graph.counts() == (3, 2, 2)
    assert grammar().say(Said((Thing("produce", ("orange",)),))) == "orange produce"
    assert len(grammar().words) < 60


def test_a_reader_makes_the_best_of_a_bad_caption():
    reading = parse("a red a bird on on snow left of left of car the red")
    assert reading.said == Said(
        (Thing("bird", ("red",)), Thing("snow"), Thing("car")), ((0, "on", 1), (0, "left of", 2))
    )
    assert reading.leftover == ("on", "left of", "the", "red")
    assert parse("").said == Said((), ())
    assert parse("sand").said.counts() == (1, 0, 0)


@pytest.mark.parametrize(
    "graph",
    [
        Said((Thing("sand"),)),
        Said((Thing("bird"), Thing("ball")), ((1, "left of", 0),)),
        Said((Thing("bird"), Thing("car"), Thing("ball")), ((0, "left of", 2),)),
    ],
)
def test_graphs_without_a_sentence_are_refused(graph):
    with pytest.raises(DataError, match="caption grammar"):
        grammar().say(graph)


def test_boxes_are_tight_around_what_is_seen(scenes):
    for scene in scenes:
        for layer, thing in zip(("object", "concept"), scene.things, strict=True):
            mask = scene.rendered.masks[LAYERS.index(layer)] >= BOX_COVER
            left, top, right, bottom = thing.box
            inside = mask[top:bottom, left:right]
            assert inside.sum() == mask.sum()
            assert inside[0].any() and inside[-1].any() and inside[:, 0].any() and inside[:, -1].any()
        left, top, right, bottom = scene.ground.box
        assert (left, right, bottom) == (0, SIZE, SIZE)
        assert abs(top - scene.spec.horizon * SIZE) <= 1


def test_relations_hold_in_the_pixels(scenes):
    found = Counter()
    for scene in scenes:
        object_, concept = (scene.rendered.masks[LAYERS.index(layer)] / 255 for layer in ("object", "concept"))
        x1, x2 = (centre_of(mask) for mask in (object_, concept))
        found[scene.pairing] += 1
        if scene.pairing in ("left of", "right of"):
            assert (x1 < x2) == (scene.pairing == "left of")
        else:
            first, second = (thing.box[3] for thing in scene.things)
            assert (first > second) == (scene.pairing == "in front of")
            front = scene.spec.object.foot > scene.spec.concept.foot
            assert front == (scene.pairing == "in front of")
    assert len(found) == 4


def centre_of(mask):
    return (mask * np.arange(mask.shape[1])).sum() / mask.sum()


def test_graphs_are_parts_of_the_whole_in_the_captions_order(scenes):
    for index, scene in enumerate(scenes):
        told = draw_regions(scene, stream(2, index), 5)
        assert len({grammar().say(graph.said) for graph in told}) == len(told) == 5
        names = {thing.name: thing for thing in (*scene.things, scene.ground)}
        for graph in told:
            for thing, box in zip(graph.said.things, graph.boxes, strict=True):
                seen = names[thing.name]
                assert box == seen.box
                assert thing.attributes == (seen.colour, seen.size)[: len(thing.attributes)]
            for subject, word, object_ in graph.said.relations:
                pair = graph.said.things[subject].name, graph.said.things[object_].name
                if word == "on":
                    assert pair[1] == scene.spec.scene
                else:
                    forward = pair == tuple(thing.name for thing in scene.things)
                    assert word == (scene.pairing if forward else CONVERSE[scene.pairing])


def test_turning_the_order_turns_the_relation(scenes):
    scene = scenes[0]
    forth, back = (
        sub_graph(scene, order, (0, 0), (False, False), linked=True).said.relations[0][1] for order in ((0, 1), (1, 0))
    )
    assert {forth, back} in ({"left of", "right of"}, {"in front of", "behind"})


def test_colours_and_sizes_are_those_of_the_recipe_and_of_the_words_people_used(scenes):
    told = 0
    for scene in scenes:
        for placed, thing in zip((scene.spec.object, scene.spec.concept), scene.things, strict=True):
            assert thing.colour in (None, colour_of(placed.piece))
            assert thing.size in (None, "large" if placed.size > 0.4 else "small")
            words = set(re.findall(r"[a-z]+", placed.piece.text.lower())) & set(COLOURS)
            if words and thing.colour:
                told += 1
                assert thing.colour in words
    sizes = [thing.size for scene in scenes for thing in scene.things]
    assert sizes.count(None) < 0.05 * len(sizes)
    assert told >= 5


def test_a_scene_depends_on_its_name_only_and_keeps_to_its_sources_and_to_what_is_wanted():
    one, other = (draw_scene(3, "trn", 7, SIZE) for _ in range(2))
    assert (one.rendered.rgb == other.rendered.rgb).all()
    assert one.things == other.things
    assert (render(one.spec, SIZE).rgb == one.rendered.rgb).all()
    assert (draw_scene(3, "trn", 8, SIZE).rendered.rgb != one.rendered.rgb).any()
    held_out = draw_scene(3, "trn", 7, SIZE, "test")
    split = {piece.source: piece.split for piece in load_pack().all}
    assert {split[source] for source in held_out.spec.sources} == {"test"}
    scene = draw_scene(3, "trn", 7, SIZE, wanted=lambda first, second, ground: (second, ground) == ("car", "snow"))
    assert (scene.things[1].name, scene.ground.name) == ("car", "snow")
    with pytest.raises(DataError, match="none of"):
        draw_scene(3, "trn", 7, SIZE, wanted=lambda *_: False)


def test_a_grammar_without_grounds_knows_no_on():
    small = Grammar(("bird", "cat"), ("red",), ("small",), ("left of",))
    assert small.words == {"bird", "cat", "red", "small", "left", "of", "and", "a"}
    assert small.read("a bird on a cat").leftover == ("on",)
    assert Grammar.from_json(grammar().to_json()) == grammar()
