"""Discoveries that ask nobody: a planted concept in a toy image-text space, the mathematics, what they refuse."""

from itertools import pairwise

import numpy as np
import pandas as pd
import pytest

from aaca.data.table import ImageTable
from aaca.discover.concepts.table import ConceptTable
from aaca.discover.rivals.b2t import B2T
from aaca.discover.rivals.base import Findings, Suspect, as_sets
from aaca.discover.rivals.conbias import ConBias
from aaca.discover.rivals.domino import Domino, fit_mixture
from aaca.discover.rivals.failure_direction import FailureDirection
from aaca.runtime.errors import ConfigError, DataError

CLASSES = ("bird", "mammal")
WORDS = ("bird", "mammal", "sand", "grass", "ball", "beak")
AXES = np.eye(len(WORDS))
RIVALS = {
    "b2t": lambda words: B2T(vocabulary=words),
    "domino": lambda words: Domino(slices=6, components=6, vocabulary=words),
    "failure_direction": lambda words: FailureDirection(c=1.0, vocabulary=words),
    "conbias": lambda words: ConBias(),
}


class Eye:
    """Images are sums of the axes of what they show, with noise; a text's vector is the axes of its words."""

    def __init__(self, shown):
        rng = np.random.default_rng(0)
        vectors = np.array([sum(AXES[WORDS.index(word)] for word in words) for words in shown])
        self.vectors = unit(vectors + 0.15 * rng.standard_normal(vectors.shape))

    def reference(self):
        return self.vectors

    def images(self, table):
        return self.vectors

    def crops(self, crops):
        raise AssertionError

    def texts(self, texts):
        return unit(
            [sum((AXES[at] for at, word in enumerate(WORDS) if word in text.split()), AXES[0] * 0) for text in texts]
        )


def unit(vectors):
    values = np.asarray(vectors, dtype=np.float64)
    return values / np.linalg.norm(values, axis=1, keepdims=True)


@pytest.fixture
def words(tmp_path):
    (tmp_path / "words.yaml").write_text("background: [sand, grass]\nobject: [bird, mammal, ball]\nattribute: [beak]\n")
    return str(tmp_path / "words.yaml")


def world(bug=True, n=150):
    """Birds and mammals. With the bug a mammal on sand is called a bird; else one image in five is misjudged."""
    rng = np.random.default_rng(1)
    labels = np.arange(2 * n) % 2
    ground = np.where(rng.random(2 * n) < 0.5, "sand", "grass")
    ball = rng.random(2 * n) < 0.5
    wrong = (labels == 1) & (ground == "sand") if bug else rng.random(2 * n) < 0.2
    predictions = np.where(wrong, 1 - labels, labels)
    shown = [
        [CLASSES[label], str(place), *(["ball"] if has else []), *(["beak"] if label == 0 else [])]
        for label, place, has in zip(labels, ground, ball, strict=True)
    ]
    captions = [
        f"a photo of a {words[0]} on {words[1]}" + (" with a ball" if "ball" in words else "") for words in shown
    ]
    frame = pd.DataFrame(
        {
            "id": [str(row) for row in range(2 * n)],
            "label": labels,
            "path": "none.npy",
            "row": range(2 * n),
            "caption": captions,
        }
    )
    train = [
        (label, place)
        for label in (0, 1)
        for place in ["sand"] * (9 if label == 0 and bug else 2) + ["grass"] * 2 + ["ball"] * 6
    ]
    rows = [(at, name) for at, (label, place) in enumerate(train) for name in (CLASSES[label], place)]
    table = ConceptTable.build(
        [at for at, _ in rows], [name for _, name in rows], ["object"] * len(rows), None, len(train), (1, 1)
    )
    return Findings(
        classes=CLASSES,
        nouns=CLASSES,
        audit=ImageTable.build(frame, CLASSES),
        probabilities=np.eye(2)[predictions] * 0.8 + 0.1,
        train_labels=np.array([label for label, _ in train]),
        look=Eye(shown),
        in_train=table,
        seed=3,
    )


@pytest.mark.parametrize("name", RIVALS)
def test_the_planted_concept_is_blamed_first(name, words):
    sets = as_sets(RIVALS[name](words).suspects(world()), CLASSES, CLASSES, 5, {"annotator": "simulated: nobody"})
    first = sets.of("mammal").confounded[0]
    assert (first.name, first.rival) == ("sand", "bird")
    assert [concept.name for concept in sets.of("mammal").valid] == ["mammal"]


@pytest.mark.parametrize("name", ["failure_direction", "conbias", "domino"])
def test_errors_by_chance_blame_nothing(name, words):
    assert as_sets(RIVALS[name](words).suspects(world(bug=False)), CLASSES, CLASSES, 5, {}).names("confounded") == set()


def test_the_score_of_b2t_is_a_difference_of_mean_cosines(words):
    findings = world()
    found = {suspect.concept: suspect.score for suspect in B2T(vocabulary=words).suspects(findings)}
    failed = (findings.labels == 1) & (findings.predictions == 0)
    right = (findings.labels == 1) & (findings.predictions == 1)
    for word in ("sand", "ball"):
        text = AXES[WORDS.index(word)]
        gap = np.mean([v @ text for v in findings.look.vectors[failed]]) - np.mean(
            [v @ text for v in findings.look.vectors[right]]
        )
        assert found[word] == pytest.approx(gap, abs=1e-12)
    assert "grass" not in found  # no failure's caption says so


def test_conbias_counts():
    (entry,) = ConBias().suspects(world())
    bird, mammal = (9 + 1) / (17 + 2), (2 + 1) / (10 + 2)  # add-one smoothed shares of training images with sand
    assert (entry.class_, entry.concept) == ("mammal", "sand")
    assert entry.score == pytest.approx(bird * np.log(bird / mammal))
    assert not ConBias(ratio=bird / mammal + 0.01).suspects(world())


def test_a_mixture_s_likelihood_never_falls_and_planted_slices_are_found():
    rng = np.random.default_rng(0)
    centres = np.array([[0, 0], [6, 0], [0, 6]])
    planted = np.repeat(np.arange(3), 40)
    vectors = centres[planted] + rng.standard_normal((120, 2))
    truth = np.eye(2)[(planted == 2).astype(int)]
    predicted = np.eye(2)[(planted != 0).astype(int)] * 0.9 + 0.05  # slice 1: label 0, called 1
    memberships, history = fit_mixture(vectors, truth, predicted, 3, 1.0, 200, seed=0)
    np.testing.assert_allclose(memberships.sum(axis=1), 1, atol=1e-9)
    assert all(later >= earlier - 1e-3 for earlier, later in pairwise(history))
    assert len({tuple(np.unique(memberships[planted == part].argmax(axis=1))) for part in range(3)}) == 3


def test_the_best_of_each_class_without_its_own_name():
    suspects = [
        Suspect("bird", "mammal", "sand", "background", 0.2),
        Suspect("bird", "mammal", "Sand", "background", 0.5),
        Suspect("bird", "mammal", "bird", "object", 0.9),
        Suspect("bird", "mammal", "Mammal", "object", 0.8),
        Suspect("bird", "mammal", "grass", "background", -0.1),
        Suspect("bird", "mammal", "ball", "object", 0.3),
        Suspect("bird", "mammal", "beak", "attribute", 0.1),
    ]
    own = as_sets(suspects, CLASSES, CLASSES, 2, {}).of("bird")
    assert [(concept.name, concept.score) for concept in own.confounded] == [("Sand", 0.5), ("ball", 0.3)]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: B2T(least=0), "discovery.least: 0"),
        (lambda: B2T(most=0), "discovery.most: 0"),
        (lambda: Domino(slices=0), "discovery.slices: 0"),
        (lambda: Domino(gamma=-1.0), "discovery.gamma: -1.0"),
        (lambda: Domino(vocabulary="none.yaml"), "discovery.vocabulary: none.yaml"),
        (lambda: FailureDirection(c=0.0), "discovery.c: 0.0"),
        (lambda: FailureDirection(balanced=0.4), "discovery.balanced: 0.4"),
        (lambda: ConBias(ratio=1.0), "discovery.ratio: 1.0"),
    ],
)
def test_impossible_settings_are_one_line(make, message):
    with pytest.raises(ConfigError, match=message):
        make()


def test_without_captions_b2t_says_so(words):
    findings = world()
    frame = findings.audit.frame.assign(caption="")
    bare = Findings(**{**vars(findings), "audit": ImageTable.build(frame, CLASSES)})
    with pytest.raises(DataError, match="discovery: 300 of 300 images have no caption"):
        B2T(vocabulary=words).suspects(bare)
