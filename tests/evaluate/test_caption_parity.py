import numpy as np
import pytest

from aaca.evaluate.captions.bleu import bleu, bleu_counts, bleu_of
from aaca.evaluate.captions.cider import CiderIndex, cider
from aaca.evaluate.captions.external import java_score, missing
from aaca.evaluate.captions.rouge import rouge, rouge_l

REFERENCES = {
    "1_0": ["a small red car left of a tree", "a red car beside a big tree"],
    "1_1": ["two dogs play on the grass"],
    "2_0": ["a man rides a brown horse on the beach", "man on a horse", "a man is riding a horse near the sea"],
    "3_0": ["über den wolken 飛ぶ 鳥"],
    "4_0": ["a a a a a a a"],
    "5_0": ["dog"],
    "6_0": ["a white cat sleeps on a blue sofa in the sun"],
}
CAPTIONS = {
    "1_0": "a red car left of a big tree",
    "1_1": "two dogs on the grass play",
    "2_0": "a man rides a horse on the beach",
    "3_0": "über den wolken 鳥",
    "4_0": "a a a",
    "5_0": "dog",
    "6_0": "",
}
# What pycocoevalcap 1.2 gives for the captions above: Bleu(4), Rouge(), Cider(), Meteor() (Java 17), each
# `.compute_score(REFERENCES, {name: [caption]})`; corpus score, then one a caption.
BLEU = [0.5674136687591762, 0.5307668862651069, 0.4656343665002875, 0.3576775705319716]
BLEU_EACH = [
    [0.9999999997500004, 0.9999999997410718, 0.9410360286270985, 0.75983568543608],
    [0.9999999996666668, 0.7745966689703747, 0.5313292843935332, 8.408964149138525e-05],
    [0.8824969023639716, 0.882496902356092, 0.7709320540801662, 0.6341695316067912],
    [0.7788007826820048, 0.6358881762571986, 0.5399903030856679, 0.00010523157378387626],
    [0.26359713793999556, 0.26359713791802913, 0.26359713786677424, 0.00833567340487775],
    [0.999999998000002, 0.0009999999985000015, 9.999999986666685e-05, 3.162277656215536e-05],
    [0.0, 0.0, 0.0, 0.0],
]
ROUGE_EACH = [0.875, 0.8333333333333334, 0.931297709923664, 0.8714285714285713, 0.5596330275229358, 1.0, 0.0]
CIDER_EACH = [5.021866538883657, 4.492360991909359, 3.435263033925047, 4.635236937390528, 6.00553052187606, 2.5, 0.0]
METEOR = 0.32746431046996743

TOLERANCE = {"rtol": 0, "atol": 1e-9}


def each_bleu(captions, references):
    return bleu_of(np.array([bleu_counts(captions[name], references[name]) for name in captions]))


def random_set(seed):
    """Captions of few words, so that all n-gram lengths match; some empty, equal to a reference, or one word long."""
    rng = np.random.default_rng(seed)
    words = ["a", "red", "car", "left", "of", "über", "鳥"][: int(rng.integers(1, 8))]

    def text(least):
        return " ".join(rng.choice(words, rng.integers(least, 14)))

    references = {str(i): [text(1) for _ in range(rng.integers(1, 5))] for i in range(rng.integers(1, 10))}
    captions = {name: texts[0] if rng.random() < 0.2 else text(0) for name, texts in references.items()}
    return captions, references


def test_golden_values_of_the_coco_evaluation():
    np.testing.assert_allclose(bleu(CAPTIONS, REFERENCES), BLEU, **TOLERANCE)
    np.testing.assert_allclose(each_bleu(CAPTIONS, REFERENCES), BLEU_EACH, **TOLERANCE)
    np.testing.assert_allclose([rouge_l(CAPTIONS[n], REFERENCES[n]) for n in CAPTIONS], ROUGE_EACH, **TOLERANCE)
    assert rouge(CAPTIONS, REFERENCES) == pytest.approx(np.mean(ROUGE_EACH), abs=1e-9)
    np.testing.assert_allclose(CiderIndex.fit(REFERENCES).scores(CAPTIONS, REFERENCES), CIDER_EACH, **TOLERANCE)
    assert cider(CAPTIONS, REFERENCES) == pytest.approx(np.mean(CIDER_EACH), abs=1e-9)


@pytest.mark.parametrize("seed", range(25))
def test_parity_on_random_and_degenerate_captions(seed):
    for package in ("bleu.bleu", "rouge.rouge", "cider.cider"):
        pytest.importorskip(f"pycocoevalcap.{package}", reason="pycocoevalcap is not installed: golden values only")
    from pycocoevalcap.bleu.bleu import Bleu
    from pycocoevalcap.cider.cider import Cider
    from pycocoevalcap.rouge.rouge import Rouge

    captions, references = random_set(seed)
    said = {name: [caption] for name, caption in captions.items()}
    whole, each = Bleu(4).compute_score(references, said, verbose=0)
    np.testing.assert_allclose(bleu(captions, references), whole, **TOLERANCE)
    np.testing.assert_allclose(each_bleu(captions, references), np.array(each).T, **TOLERANCE)
    whole, each = Rouge().compute_score(references, said)
    assert rouge(captions, references) == pytest.approx(whole, abs=1e-9)
    np.testing.assert_allclose([rouge_l(captions[n], references[n]) for n in captions], each, **TOLERANCE)
    whole, each = Cider().compute_score(references, said)
    assert cider(captions, references) == pytest.approx(whole, abs=1e-9)
    np.testing.assert_allclose(CiderIndex.fit(references).scores(captions, references), each, **TOLERANCE)


@pytest.mark.slow
def test_meteor_is_that_of_its_own_jar():
    lack = missing("meteor")
    if lack is not None:
        pytest.skip(lack)
    assert java_score("meteor", CAPTIONS, REFERENCES) == pytest.approx(100 * METEOR, abs=1e-6)
