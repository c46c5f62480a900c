"""Names judged by images: correlation, soft WPMI and purity equal numpy, brute force and scikit-learn."""

import numpy as np
import pandas as pd
import pytest
from scipy.sparse import csr_array
from sklearn.metrics import average_precision_score

from aaca.concepts.naming_check import agreement, by_correlation, judge_names, purity, soft_wpmi
from aaca.runtime.errors import ConfigError, DataError


def scene(n=300, v=23, h=8, seed=0):
    """(codes [n, h], similarities [n, v], words, the word each latent fires with); latent h − 1 is dead."""
    rng = np.random.default_rng(seed)
    present = rng.random((n, v)) < 0.15
    similarities = (0.15 + 0.1 * present + 0.02 * rng.standard_normal((n, v))).astype(np.float32)
    own = rng.choice(v, h, replace=False)
    codes = present[:, own] * rng.uniform(0.5, 2, (n, h)) + 0.3 * (rng.random((n, h)) < 0.03)
    codes[:, -1] = 0
    words = [f"w{index}" for index in range(v)]
    return csr_array(codes.astype(np.float32)), similarities, words, [words[index] for index in own]


def ranks_of(scores: np.ndarray, own: list[int]) -> list[int]:
    return [1 + sum(other > row[column] for other in row) for row, column in zip(scores.tolist(), own, strict=True)]


def test_correlation_equals_numpy():
    codes, similarities, words, own = scene()
    claimed = own[::-1]
    found = by_correlation(codes, similarities, words, claimed, chunk=5)
    dense = codes.toarray()[:, :-1].astype(np.float64)
    scores = np.corrcoef(dense.T, similarities.T.astype(np.float64))[:7, 7:]
    assert found["latent"].tolist() == list(range(7))  # the dead one is not judged
    assert found["word"].tolist() == own[:7] == [words[best] for best in scores.argmax(axis=1)]
    columns = [words.index(name) for name in claimed[:7]]
    np.testing.assert_allclose(found["score"], scores.max(axis=1), atol=1e-9)
    np.testing.assert_allclose(found["name_score"], scores[np.arange(7), columns], atol=1e-9)
    assert found["name_rank"].tolist() == ranks_of(scores, columns)
    assert agreement(found) == np.mean([name == word for name, word in zip(claimed[:7], own[:7], strict=True)]) < 1
    assert agreement(by_correlation(codes, similarities, words, own)) == 1


def test_a_word_alike_on_all_images_scores_zero_and_a_constant_latent_is_not_judged():
    codes, similarities, words, own = scene()
    similarities[:, 0] = 0.3
    dense = codes.toarray()
    dense[:, 0] = 0.7
    names = ["w0", *own[1:-1], "w0"]
    names[1] = "w0"
    found = by_correlation(csr_array(dense), similarities, words, names).set_index("latent")
    assert 0 not in found.index and 7 not in found.index
    assert found.loc[1, "name_score"] == 0 and found.loc[1, "word"] == own[1]


@pytest.mark.parametrize(("top", "prior_weight"), [(10, 1.0), (40, 0.6), (200, 1.0)])
def test_soft_wpmi_equals_a_brute_force_loop(top, prior_weight):
    codes, similarities, words, own = scene()
    claimed = own[::-1]
    found = soft_wpmi(codes, similarities, words, claimed, top=top, prior_weight=prior_weight, chunk=4)
    dense, n_words = codes.toarray(), len(words)
    likelihood = np.zeros((7, n_words))
    for latent in range(7):
        firing = [image for image in range(len(dense)) if dense[image, latent] > 0]
        firing.sort(key=lambda image, latent=latent: (-dense[image, latent], image))
        used = firing[:top]
        for word in range(n_words):
            total = 0.0
            for place, image in enumerate(used):
                odds = np.exp(10 * similarities[image].astype(np.float64))
                member = 0.998 - place / top * (0.998 - 0.97)
                total += np.log(1 + member * (odds[word] / odds.sum() - 1) + 1e-7)
            likelihood[latent, word] = total * top / len(used)
    shift = likelihood.max()
    prior = np.log(np.exp(likelihood - shift).mean(axis=0)) + shift
    scores = likelihood - prior_weight * prior
    columns = [words.index(name) for name in claimed[:7]]
    np.testing.assert_allclose(found["score"], scores.max(axis=1), rtol=1e-6)
    np.testing.assert_allclose(found["name_score"], scores[np.arange(7), columns], rtol=1e-6)
    assert found["word"].tolist() == [words[best] for best in scores.argmax(axis=1)] == own[:7]
    assert found["name_rank"].tolist() == ranks_of(scores, columns)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"names": ["w0"] * 7}, "7 names; expected one for each of 8"),
        ({"names": ["w0"] * 7 + ["w99"]}, "'w99' is not among the words; nearest valid: w9"),
        ({"words": ["w0"]}, r"expected \[300, 1\]"),
        ({"codes": csr_array((300, 8), dtype=np.float32)}, "no latent fires"),
        ({"codes": csr_array(-np.ones((300, 8)))}, "negative"),
        ({"similarities": np.full((300, 23), np.nan)}, "NaN"),
    ],
)
@pytest.mark.parametrize("judge", [by_correlation, soft_wpmi])
def test_checks_of_arrays_that_do_not_fit_are_one_line(judge, change, message):
    codes, similarities, words, names = scene()
    given = {"codes": codes, "similarities": similarities, "words": words, "names": names, **change}
    with pytest.raises(DataError, match=message):
        judge(**given)


def test_purity_of_planted_codes_equals_scikit_learn():
    rng = np.random.default_rng(8)
    n, g = 200, 5
    truth = rng.random((n, g)) < [0.1, 0.2, 0.3, 0.05, 0.5]
    codes = np.zeros((n, g + 2), dtype=np.float32)
    codes[:, :g] = truth[:, ::-1] * rng.integers(1, 4, (n, g)) + (rng.random((n, g)) < 0.05)  # tied activations, noise
    codes[::3, :g] = 0  # every latent misses images of its concept
    codes[:, g + 1] = rng.random(n)
    names = ["a", "b", "c", "d", "e"]
    found = purity(csr_array(codes), truth, names, top=15).set_index("latent")
    assert found.index.tolist() == [0, 1, 2, 3, 4, 6]  # latent 5 is dead
    assert found["concept"].tolist()[:g] == names[::-1]
    for latent, row in found.iterrows():
        expected = [average_precision_score(truth[:, concept], codes[:, latent]) for concept in range(g)]
        assert row["average_precision"] == pytest.approx(max(expected), abs=1e-12)
        assert row["concept"] == names[int(np.argmax(expected))]
        concept = names.index(row["concept"])
        firing = np.flatnonzero(codes[:, latent])
        best = firing[np.argsort(-codes[firing, latent], kind="stable")][:15]
        assert row["precision"] == pytest.approx(truth[best, concept].mean())
        assert row["base_rate"] == truth[:, concept].mean()
        assert row["lift"] == pytest.approx(row["precision"] / row["base_rate"])
        assert row["images"] == len(firing)


def test_the_score_that_chooses_the_concept():
    # the latent's images hold `common` always and `rare` half the time
    truth = np.zeros((100, 2), dtype=bool)
    truth[:80, 0] = True
    truth[:5, 1] = True
    codes = np.zeros((100, 1))
    codes[:10, 0] = np.arange(10, 0, -1)
    args = (csr_array(codes), truth, ["common", "rare"])
    by_precision, by_lift = (purity(*args, by=by, top=10).iloc[0] for by in ("precision", "lift"))
    assert (by_precision["concept"], by_precision["precision"], by_precision["lift"]) == ("common", 1.0, 1.25)
    assert (by_lift["concept"], by_lift["precision"], by_lift["lift"]) == ("rare", 0.5, 10.0)
    assert purity(*args).iloc[0]["concept"] == "rare"  # its five images come first: average precision 1


def test_names_are_right_by_their_concept_or_a_synonym():
    pure = pd.DataFrame({"latent": [0, 2, 3], "concept": ["dog", "sea", "sea"]})
    judged = judge_names(pure, ["dog", "x", "ocean", "dog"], {"sea": {"ocean"}})
    assert judged["name"].tolist() == ["dog", "ocean", "dog"] and judged["right"].tolist() == [True, True, False]
    assert judge_names(pure, ["dog", "x", "ocean", "dog"])["right"].tolist() == [True, False, False]


def test_purity_of_what_does_not_fit_is_one_line():
    codes, truth = csr_array(np.eye(4)), np.eye(4, dtype=bool)[:, :2]
    with pytest.raises(DataError, match="'a' is true of no images"):
        purity(codes, truth & [False, True], ["a", "b"])
    with pytest.raises(DataError, match="'b' is true of all images"):
        purity(codes, truth | [False, True], ["a", "b"])
    with pytest.raises(DataError, match=r"expected bool \[4, 2\]"):
        purity(codes, truth.astype(int), ["a", "b"])
    with pytest.raises(ConfigError, match=r"naming_check\.by: 'recall'"):
        purity(codes, truth, ["a", "b"], by="recall")
