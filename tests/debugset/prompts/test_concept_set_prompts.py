"""Prompts from concept sets: what each recipe asks for, shares, and what is refused."""

from collections import Counter

import pytest

from aaca.concepts.concept_sets import ClassConcepts, Concept, ConceptSets
from aaca.debugset.generators.base import shared_out
from aaca.debugset.generators.text_to_image import TextToImage
from aaca.debugset.prompts.base import thing
from aaca.debugset.prompts.concept_sets import FromConceptSets
from aaca.runtime.errors import ConfigError, DataError

CLASSES = ("bird", "mammal", "produce")
SAND, GRASS = Concept("sand", "background", score=2.0), Concept("grass", "background", score=4.0)
SETS = ConceptSets(
    {
        "bird": ClassConcepts((SAND,), (Concept("bird"), Concept("beak"), Concept("feathers"))),
        "mammal": ClassConcepts(
            (GRASS, Concept("sand", "background", rival="bird", score=3.0)),
            (Concept("mammal"), Concept("fur")),
            (Concept("snow", "background"), Concept("tool")),
        ),
        "produce": ClassConcepts((Concept("ball", score=1.0),), (Concept("produce"),)),
    },
    {"annotator": "simulated: oracle"},
)


def asked(label, **weights):
    prompts = FromConceptSets(weights).using(SETS).write(CLASSES, None)
    return [(prompt.text, prompt.negative) for prompt in prompts if prompt.label == label]


def test_valid_asks_for_the_class_with_what_belongs_to_it():
    assert asked(0, valid=1.0) == [("a photo of {class} with a beak", ""), ("a photo of {class} with feathers", "")]
    assert asked(2, valid=1.0) == [("a photo of {class}", "")]  # nothing but itself is valid


def test_decorrelate_gives_the_class_the_company_that_misleads():
    texts = asked(1, decorrelate=1.0)
    # sand makes mammals birds, and is what birds are known by: once; the ball of produce; never its own grass
    assert texts == [("a photo of {class} with fur on sand", ""), ("a photo of {class} with fur and a ball", "")]
    # the worst first, however many classes blame it
    assert asked(2, decorrelate=1.0) == [("a photo of {class} on sand", ""), ("a photo of {class} on grass", "")]


def test_rival_without_takes_the_crutch_away():
    assert asked(0, rival_without=1.0) == [
        ("a photo of {class} with a beak", "sand")
    ]  # once, not for each who blames it
    assert asked(1, rival_without=1.0) == [("a photo of {class} with fur", "grass")]
    assert asked(2, rival_without=1.0) == [("a photo of {class}", "ball")]


def test_elsewhere_uses_backgrounds_that_nobody_blames():
    assert asked(1, elsewhere=1.0) == [("a photo of {class} with fur on snow", "")]
    assert asked(2, elsewhere=1.0) == [("a photo of {class} on snow", "")]


def test_a_recipe_without_anything_to_ask_for_leaves_its_share_to_the_others():
    sets = ConceptSets({name: ClassConcepts(valid=(Concept("tail"),)) for name in CLASSES}, {"annotator": "me"})
    prompts = FromConceptSets({"valid": 0.5, "decorrelate": 0.5}).using(sets).write(CLASSES, None)
    assert [(prompt.recipe, prompt.weight) for prompt in prompts] == [("valid", 1.0)] * 3


def test_weights_decide_how_many_images_a_recipe_gets():
    writer = FromConceptSets({"valid": 0.5, "decorrelate": 0.35, "rival_without": 0.15}).using(SETS)
    requests = TextToImage().requests(writer.write(CLASSES, None), CLASSES, 100, 0, None)
    counts = Counter(request.recipe for request in requests if request.label == 1)
    assert counts == {"valid": 50, "decorrelate": 35, "rival_without": 15}
    assert {request.recipe for request in requests if request.concept == "sand"} == {"decorrelate"}
    assert {request.negative for request in requests if request.recipe == "rival_without"} == {"sand", "grass", "ball"}


def test_a_file_edited_by_hand_is_as_good(tmp_path):
    SETS.save(tmp_path / "concept_sets.yaml")
    weights = {"valid": 0.5, "decorrelate": 0.5}
    by_file = FromConceptSets(weights, file=str(tmp_path / "concept_sets.yaml"))
    assert not by_file.needs_concepts and FromConceptSets(weights).needs_concepts
    assert by_file.write(CLASSES, tmp_path) == FromConceptSets(weights).using(SETS).write(CLASSES, tmp_path)
    before = by_file.fingerprint()
    (tmp_path / "concept_sets.yaml").open("a").write("# changed\n")
    assert by_file.fingerprint() != before


def test_a_class_without_valid_concepts_is_named():
    sets = ConceptSets({"bird": ClassConcepts(valid=(Concept("beak"),))}, {"annotator": "me"})
    with pytest.raises(DataError, match="class 'mammal' by valid; expected valid concepts"):
        FromConceptSets({"valid": 1.0}).using(sets).write(CLASSES, None)


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ({"decorelate": 1.0}, "prompts.weights.decorelate: no such recipe; .*decorrelate"),
        ({"valid": -1.0}, "prompts.weights.valid: -1.0; expected 0 or more"),
        ({"valid": 0.0}, "prompts.weights: all 0"),
    ],
)
def test_shares_that_make_no_sense(weights, message):
    with pytest.raises(ConfigError, match=message):
        FromConceptSets(weights)


def test_nobody_is_left_out_as_long_as_there_is_enough():
    assert shared_out(10, [1, 1, 1]) == [4, 3, 3]
    assert shared_out(10, [0.98, 0.01, 0.01]) == [8, 1, 1]
    assert shared_out(2, [1, 1, 1]) == [1, 1, 0]
    assert sum(shared_out(97, [0.3, 0.5, 0.2, 0.001])) == 97


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("beak", "a beak"),
        ("ear", "an ear"),
        ("feathers", "feathers"),
        ("fur", "fur"),
        ("grass", "grass"),
        ("bus", "a bus"),
        ("glass", "a glass"),
        ("a peel", "a peel"),
        ("two legs", "two legs"),
    ],
)
def test_concepts_take_the_article_they_need(name, said):
    assert thing(name) == said
