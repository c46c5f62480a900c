from math import exp, log

import numpy as np
import pytest

from aaca.data.scenegraph.graph import GraphObject, Relationship, SceneGraph
from aaca.evaluate.captions.bleu import bleu
from aaca.evaluate.captions.cider import CiderIndex, cider
from aaca.evaluate.captions.diversity import div_n, diversity, self_cider
from aaca.evaluate.captions.rouge import rouge_l
from aaca.evaluate.captions.scores import caption_table, figures_of, score_captions
from aaca.evaluate.captions.structure import (
    claim,
    grammar_parser,
    node_recall,
    relation_directions,
    structure_error,
)
from aaca.runtime.errors import DataError
from aaca.world.phrases import Grammar

BOX = (0, 0, 4, 4)


GRAMMAR = Grammar(("circle", "square", "triangle"), ("red", "blue"), ("small", "large"), ("left of", "above"))


PARSE = grammar_parser(GRAMMAR)


TEXTS = [
    "a small red circle left of a blue square",
    "a large blue triangle above a red circle",
    "a red square left of a triangle",
    "a blue circle above a small red square",
]


REFERENCES = {f"{i // 2}_{i % 2}": [text] for i, text in enumerate(TEXTS)}


SELVES = {name: texts[0] for name, texts in REFERENCES.items()}


GRAPHS = {name: PARSE(caption) for name, caption in SELVES.items()}


def test_references_against_themselves_are_perfect():
    scores = score_captions(SELVES, REFERENCES, GRAPHS, parse=PARSE)
    for name in (
        "bleu1",
        "bleu2",
        "bleu3",
        "bleu4",
        "rouge_l",
        "node_recall",
        "direction_accuracy",
        "direction_judged",
    ):
        assert scores[name] == pytest.approx(100, abs=1e-6), name
    assert scores["cider"] == pytest.approx(1000)
    assert [scores[f"g_{part}"] for part in ("objects", "attributes", "relationships", "sum", "total")] == [0] * 5
    assert scores["length"] == np.mean([len(text.split()) for text in TEXTS])
    assert scores["vocabulary"] == len({word for text in TEXTS for word in text.split()})


def test_cider_of_references_is_ten_unless_an_n_gram_length_has_no_weight():
    assert cider(SELVES, REFERENCES) == pytest.approx(10)
    short = {"a": ["one two three"], "b": ["four five six"]}
    assert cider({"a": "one two three", "b": "four five six"}, short) == pytest.approx(7.5)  # no 4-gram
    everywhere = {"a": ["w w w w x"], "b": ["w w w w y"]}
    index = CiderIndex.fit(everywhere)
    assert index.score("w w w w x", everywhere["a"]) == pytest.approx(10)
    assert index.score("w w w w", everywhere["a"]) == 0.0  # all its n-grams are in every document


def test_cider_with_one_document_is_zero():
    assert cider({"a": TEXTS[0]}, {"a": [TEXTS[0]]}) == 0.0


def test_cider_by_hand():
    references = {"a": ["x y"], "b": ["z"], "c": ["x w"]}
    # Unigrams of "x x y" against "x y": weights 2·log(3/2), log 3 against log(3/2), log 3; bigram x y against x x, x y.
    one, two = log(3 / 2), log(3)
    unigram = (one * one + two * two) / (np.hypot(2 * one, two) * np.hypot(one, two))
    bigram = two * two / (np.hypot(two, two) * two)
    expected = 10 * (unigram + bigram) / 4 * exp(-1 / 72)
    assert CiderIndex.fit(references).score("x x y", references["a"]) == pytest.approx(expected, abs=1e-12)


def test_frozen_frequencies_keep_a_caption_s_score_in_a_subset():
    captions = {**SELVES, "0_0": TEXTS[3], "1_0": "a red square above a circle"}
    index = CiderIndex.fit(REFERENCES)
    full = dict(zip(captions, index.scores(captions, REFERENCES), strict=True))
    some = {name: captions[name] for name in ("0_0", "1_0")}
    references = {name: REFERENCES[name] for name in some}
    frozen = index.scores(some, references)
    np.testing.assert_array_equal(frozen, [full["0_0"], full["1_0"]])
    refitted = CiderIndex.fit(references).scores(some, references)
    assert np.abs(refitted - frozen).min() > 0.1
    assert score_captions(some, references, index=index)["cider"] == pytest.approx(100 * frozen.mean())
    assert score_captions(some, references)["cider"] == pytest.approx(100 * refitted.mean())


def test_an_index_survives_its_file(tmp_path):
    references = {"a": ["über den 鳥", "b b"], "b": ["den b"]}
    index = CiderIndex.fit(references)
    assert index.frequencies[("den",)] == 2 and index.frequencies[("b", "b")] == 1  # documents, not occurrences
    index.save(tmp_path / "index.json")
    assert CiderIndex.load(tmp_path / "index.json") == index


@pytest.mark.parametrize(
    "text",
    [
        "[]",
        "{",
        '{"documents": 2}',
        '{"documents": 2, "frequencies": {"a": 3}}',
        '{"documents": 2, "frequencies": {"a": 0}}',
        '{"documents": 0, "frequencies": {}}',
        '{"documents": 2, "frequencies": {"a b c d e": 1}}',
    ],
)
def test_a_broken_index_is_refused(tmp_path, text):
    (tmp_path / "index.json").write_text(text)
    with pytest.raises(DataError, match=r"index\.json: not an index"):
        CiderIndex.load(tmp_path / "index.json")


def test_bleu_and_rouge_by_hand():
    # Clipping: "the" occurs twice in one reference at most; closest length of 5 and 7 to 6 is the shorter.
    scores = bleu({"a": "the the the the the the"}, {"a": ["the cat the mat sat", "on the mat here we are now"]})
    assert scores[0] == pytest.approx(2 / 6, abs=1e-8)
    shorter = bleu({"a": "x y"}, {"a": ["x y z w"]})
    assert shorter[0] == pytest.approx(exp(1 - 4 / 2), abs=1e-8)
    # Longest common subsequence x y w of 3 in 4 and 5 words.
    precision, recall = 3 / 4, 3 / 5
    f = (1 + 1.44) * precision * recall / (recall + 1.44 * precision)
    assert rouge_l("x y q w", ["x a y b w"]) == pytest.approx(f)
    assert rouge_l("x y", ["x y z z", "q x"]) == pytest.approx(2.44 * 0.5 / (0.5 + 1.44))  # P of the first, R = 1/2


def test_diversity_by_hand():
    captions = ["a red car", "a red bus", "a"]
    assert div_n(captions, 1) == pytest.approx(4 / 7)
    assert div_n(captions, 2) == pytest.approx(3 / 7)
    assert div_n(["", " "], 1) == 0.0


def test_self_cider_closed_forms():
    index = CiderIndex(100, {("a",): 50})
    same = ["one two three four five"] * 4
    apart = ["one two three four", "five six seven eight", "nine ten eleven twelve"]
    assert self_cider(same, index) == 0.0
    assert self_cider(["w"] * 3, index) == 0.0
    assert self_cider(apart, index) == pytest.approx(1, abs=1e-12)
    assert self_cider(["", ""], index) == 0.0
    # Two pairs of equal captions: eigenvalues 2, 2, 0, 0 give log_4 2.
    assert self_cider([apart[0], apart[0], apart[1], apart[1]], index) == pytest.approx(0.5, abs=1e-12)
    # Two captions with cosine c: eigenvalues 1 ± c; unigrams share one of two words, no bigram is shared.
    c = index.similarities(["x y", "x z"])[0, 1] * 4
    assert c == pytest.approx(0.5)
    ratio = np.sqrt(0.5 + c / 4) / (np.sqrt(0.5 + c / 4) + np.sqrt(0.5 - c / 4))
    assert self_cider(["x y", "x z"], index) == pytest.approx(-np.log2(ratio), abs=1e-12)


def test_diversity_is_a_mean_over_images():
    index = CiderIndex(10, {})
    one, two = ["p q r s"] * 2, ["p q r s", "t u v w"]
    assert diversity({"a": one, "b": two}, index) == pytest.approx(
        {"div1": (4 / 8 + 1) / 2, "div2": (3 / 8 + 6 / 8) / 2, "self_cider": 0.5}
    )
    with pytest.raises(DataError, match="at least two"):
        diversity({"a": ["p"]}, index)
    with pytest.raises(DataError, match="no image"):
        diversity({}, index)


def test_structure_error_by_hand():
    graph = PARSE("a small red circle left of a blue square")  # 2 objects, 3 attributes, 1 relationship
    assert structure_error(PARSE("a red circle"), graph).tolist() == [1, 2, 1, 4, 4]
    assert structure_error(PARSE("a circle left of a square above a triangle"), graph).tolist() == [1, 3, 1, 5, 1]
    assert structure_error(PARSE(""), graph).tolist() == [2, 3, 1, 6, 6]
    assert structure_error(PARSE("foo of bar"), graph).tolist() == [2, 3, 1, 6, 6]
    assert structure_error(PARSE("a circle and a circle"), PARSE("a circle")).tolist()[0] == 1  # each occurrence counts


def test_names_are_claimed_longest_first_and_once():
    assert claim("a circle left of a left circle", ["left", "circle", "left of", "circle"]) == (4, ["a", "a"])
    assert claim("a circle", ["circle", "circle"]) == (1, ["a"])
    assert claim("left a of", ["left of"]) == (0, ["left", "a", "of"])
    assert claim("", ["x"]) == (0, [])
    assert claim("x", ["", " "]) == (0, ["x"])


def test_node_recall_by_hand():
    graph = SceneGraph(
        (GraphObject(0, "traffic light", ("red", ""), BOX), GraphObject(1, "鳥", (), BOX)),
        (Relationship(0, 1, 0, "sit on"),),
    )
    assert node_recall("鳥 sit on a red traffic light", graph) == (4, 4)  # the abstract attribute asks for no word
    assert node_recall("a red light of traffic", graph) == (1, 4)
    assert node_recall("", graph) == (0, 4)


def test_relation_directions_by_hand():
    graph = PARSE("a circle left of a square above a triangle")
    assert relation_directions(PARSE("a circle left of a square above a triangle"), graph) == (2, 2)
    assert relation_directions(PARSE("a square left of a circle"), graph) == (0, 1)
    assert relation_directions(PARSE("a circle above a square"), graph) == (0, 0)
    assert relation_directions(PARSE(""), graph) == (0, 0)
    alike = PARSE("a red circle left of a blue circle")
    assert relation_directions(alike, alike) == (0, 0)
    both = SceneGraph(graph.objects[:2], (Relationship(0, 0, 1, "left of"), Relationship(1, 1, 0, "left of")))
    assert relation_directions(PARSE("a circle left of a square"), both) == (1, 1)


def test_figures_are_ratios_of_sums():
    captions = {**SELVES, "0_0": "a red circle", "1_1": ""}
    table = caption_table(captions, REFERENCES, GRAPHS, parse=PARSE)
    figures = figures_of(table)
    found, nodes = zip(*(node_recall(captions[name], GRAPHS[name]) for name in captions), strict=True)
    assert figures["node_recall"] == pytest.approx(100 * sum(found) / sum(nodes))
    errors = np.array([structure_error(PARSE(captions[name]), GRAPHS[name]) for name in captions])
    assert [figures[f"g_{part}"] for part in ("objects", "attributes", "relationships", "sum", "total")] == (
        errors.mean(axis=0).tolist()
    )
    assert figures["direction_accuracy"] == 100 and figures["direction_judged"] == 50
    np.testing.assert_allclose([figures[f"bleu{n}"] for n in range(1, 5)], 100 * bleu(captions, REFERENCES))
    assert set(figures_of(caption_table(captions, REFERENCES))).isdisjoint({"g_total", "node_recall"})


def test_structure_is_right_with_as_many_nodes_of_every_kind():
    other = "a small blue square left of a red circle"  # other words for the same numbers
    less = "a small circle left of a blue square"  # an attribute less
    apart = "a small red circle and a blue square"  # no relationship
    for caption, right in ((SELVES["0_0"], 1), (other, 1), (less, 0), (apart, 0), ("a red circle", 0), ("", 0)):
        table = caption_table({"0_0": caption}, {"0_0": REFERENCES["0_0"]}, GRAPHS, parse=PARSE)
        assert figures_of(table)["structure"] == 100 * right, caption


def test_all_captions_empty():
    scores = score_captions(dict.fromkeys(SELVES, ""), REFERENCES, GRAPHS, parse=PARSE)
    for name in ("bleu1", "bleu4", "rouge_l", "cider", "node_recall", "length", "vocabulary"):
        assert scores[name] == 0, name
    assert np.isnan(scores["direction_accuracy"])


@pytest.mark.parametrize(
    ("captions", "references", "message"),
    [
        ({}, {"a": ["x"]}, "no caption given"),
        ({"a": "x"}, {"b": ["x"]}, "references: none for 'a'"),
        ({"a": "x"}, {"a": ["x"], "b": ["x"]}, "no caption for 'b'"),
        ({"a": "x"}, {"a": []}, "'a'"),
        ({"a": "x"}, {"a": ["x", " "]}, "'a'"),
        ({"a": "x"}, {"a": "x"}, "list of captions"),
    ],
)
def test_captions_and_references_must_pair(captions, references, message):
    with pytest.raises(DataError, match=message):
        score_captions(captions, references)


def test_graphs_must_be_there():
    with pytest.raises(DataError, match="graphs: none for '1_1'"):
        caption_table(SELVES, REFERENCES, {name: GRAPHS[name] for name in list(GRAPHS)[:3]})
    with pytest.raises(DataError, match="without graphs"):
        caption_table(SELVES, REFERENCES, parse=PARSE)
