"""Choosing latents, changing them, and the control: on a planted spurious concept it is the choice that counts."""

import numpy as np
import pytest
from scipy.sparse import csr_array
from sklearn.linear_model import LogisticRegression

from aaca.concepts.concept_sets import ClassConcepts, Concept, ConceptSets
from aaca.concepts.intervene import (
    NEIGHBOURS,
    Intervention,
    Selection,
    by_concepts,
    by_ids,
    by_name,
    by_text,
    keep_top,
    random_like,
)
from aaca.evaluate.bottleneck import group_outcome
from aaca.runtime.errors import ConfigError, DataError

NAMES = ("Water", "beak", "waterfall", "sand", "beak", "x[1]", "under water", "a wing")


def sparse(rows, columns, seed=0, density=0.3):
    rng = np.random.default_rng(seed)
    return csr_array((rng.random((rows, columns)) * (rng.random((rows, columns)) < density)).astype(np.float32))


def test_selection_by_ids_is_sorted_once_each_and_checked():
    assert by_ids([5, 2, 2], 8) == Selection((2, 5))
    assert by_ids([], 8) == Selection()
    for wrong in (-1, 8):
        with pytest.raises(ConfigError, match=rf"intervene.latents: {wrong}; expected 0…7"):
            by_ids([3, wrong], 8)


@pytest.mark.parametrize(
    ("patterns", "style", "expected"),
    [
        (("water*",), "shell", (0, 2)),
        (("BEAK",), "shell", (1, 4)),  # both latents of one name
        (("x[[]1]",), "shell", (5,)),
        (("sand", "*water"), "shell", (0, 3, 6)),
        (("water",), "regex", (0, 2, 6)),
        (("^water$|WING",), "regex", (0, 7)),
        ((), "shell", ()),
    ],
)
def test_selection_by_name(patterns, style, expected):
    assert by_name(NAMES, *patterns, style=style).latents == expected


def test_a_pattern_that_fits_nothing_names_the_nearest():
    with pytest.raises(ConfigError, match=r"'waterfal' fits no concept; nearest valid: .*waterfall"):
        by_name(NAMES, "beak", "waterfal")
    with pytest.raises(ConfigError, match=r"'\[a'; not a regular expression"):
        by_name(NAMES, "[a", style="regex")
    with pytest.raises(ConfigError, match=r"intervene.style: 'regx'; nearest valid: regex"):
        by_name(NAMES, "a", style="regx")


def test_selection_by_text_is_that_of_the_cosines():
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(8, 5)) * rng.uniform(0.1, 9, size=(8, 1))
    query, others = rng.normal(size=5), rng.normal(size=(2, 5))

    def cosine(a, b):
        return sum(x * y for x, y in zip(a, b, strict=True)) / (sum(x * x for x in a) * sum(y * y for y in b)) ** 0.5

    score = [cosine(vector, query) for vector in vectors]
    ranked = sorted(range(8), key=lambda latent: -score[latent])
    assert by_text(vectors, query, NAMES, top=3).latents == tuple(sorted(ranked[:3]))
    between = (score[ranked[3]] + score[ranked[4]]) / 2
    assert by_text(vectors, query, NAMES, threshold=between).latents == tuple(sorted(ranked[:4]))
    contrast = [
        own - max(cosine(vector, other) for other in others) for own, vector in zip(score, vectors, strict=True)
    ]
    expected = tuple(latent for latent in range(8) if contrast[latent] >= 0)
    assert expected != tuple(latent for latent in range(8) if score[latent] >= 0)
    assert by_text(vectors, query, NAMES, threshold=0, against=others).latents == expected


def test_selection_by_text_leaves_out_the_dead_and_says_what_would_do():
    vectors = np.eye(8, 4)  # the last four latents have no direction
    assert by_text(vectors, np.ones(4), NAMES, threshold=-1).latents == (0, 1, 2, 3)
    with pytest.raises(ConfigError, match=r"intervene.top: 5; expected 1…4"):
        by_text(vectors, np.ones(4), NAMES, top=5)
    with pytest.raises(
        ConfigError, match=r"intervene.least_cosine: 0.9 is above every concept; nearest valid: beak 0.8"
    ):
        by_text(vectors, np.array([0.6, 0.8, 0, 0]), NAMES, threshold=0.9)
    for both in ({}, {"top": 1, "threshold": 0.1}):
        with pytest.raises(ConfigError, match="expected one of least_cosine and top"):
            by_text(vectors, np.ones(4), NAMES, **both)
    with pytest.raises(DataError, match="length zero"):
        by_text(vectors, np.zeros(4), NAMES, top=1)
    with pytest.raises(DataError, match=r"expected \[h, D\]"):
        by_text(vectors, np.ones(3), NAMES, top=1)


def test_selection_by_concept_sets_class_by_class():
    sets = ConceptSets(
        {
            "bird": ClassConcepts(confounded=(Concept("the water"), Concept("palm")), valid=(Concept("beak"),)),
            "fish": ClassConcepts(confounded=(Concept("Sand"),), valid=(Concept("wing"),)),
            "cat": ClassConcepts(),
        }
    )
    found = by_concepts(sets, NAMES)
    assert found == {"bird": Selection((0,), ("palm",)), "fish": Selection((3,))}
    assert found["bird"] | found["fish"] == Selection((0, 3), ("palm",))
    assert by_concepts(sets, NAMES, "valid") == {"bird": Selection((1, 4)), "fish": Selection((7,))}
    lost = ConceptSets({"fish": ClassConcepts(confounded=(Concept("sands"), Concept("reef")))})
    with pytest.raises(ConfigError, match=r"concept_sets.fish.confounded: sands, reef; .*nearest valid: sand"):
        by_concepts(lost, NAMES)


@pytest.mark.parametrize(
    ("kind", "value"), [("zero", None), ("scale", 2.5), ("scale", 0.0), ("set", 0.7), ("set", 0.0)]
)
def test_codes_after_an_intervention_are_those_of_a_loop(kind, value):
    codes = sparse(9, 8)
    codes.indices = codes.indices[::-1].copy()  # rows in any order of latents
    codes.data = codes.data[::-1].copy()
    codes.indptr = (codes.nnz - codes.indptr)[::-1].copy()
    codes.has_sorted_indices = False
    before, chosen = codes.toarray(), (1, 4, 6)
    expected = before.copy()
    for image in range(9):
        for latent in chosen:
            old = before[image, latent]
            expected[image, latent] = {"zero": 0, "scale": old * (value or 0), "set": value}[kind]
    after = Intervention(kind, chosen, value).codes(codes)
    assert isinstance(after, csr_array) and after.dtype == np.float32
    np.testing.assert_array_equal(after.toarray(), expected)
    assert after.nnz == np.count_nonzero(expected)
    np.testing.assert_array_equal(codes.toarray(), before)  # untouched


def test_a_mask_is_at_the_weights_and_may_be_of_some_classes():
    weight = np.random.default_rng(0).normal(size=(3, 8)).astype(np.float32)
    given = weight.copy()
    everywhere = Intervention("mask", (1, 4)).weight(weight)
    own = Intervention("mask", (1, 4), classes=(2,)).weight(weight)
    for label in range(3):
        for latent in range(8):
            assert everywhere[label, latent] == (0 if latent in (1, 4) else given[label, latent])
            assert own[label, latent] == (0 if latent in (1, 4) and label == 2 else given[label, latent])
    assert everywhere.dtype == np.float32
    np.testing.assert_array_equal(weight, given)
    codes = sparse(9, 8)
    assert Intervention("mask", (1, 4)).codes(codes) is codes
    zeroed = Intervention("zero", (1, 4)).codes(codes)
    np.testing.assert_allclose(codes @ everywhere.T, zeroed @ weight.T, atol=1e-6)  # the two ways agree


@pytest.mark.parametrize(("kind", "value"), [("zero", None), ("scale", 3.0), ("set", 0.7), ("mask", None)])
def test_no_latents_is_the_identity(kind, value):
    codes, weight = sparse(9, 8), np.random.default_rng(0).normal(size=(3, 8))
    nothing = Intervention(kind, Selection().latents, value)
    np.testing.assert_array_equal(nothing.codes(codes).toarray(), codes.toarray())
    np.testing.assert_array_equal(nothing.weight(weight), weight)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("zeros", (1,)), "intervene.kind: 'zeros'; nearest valid: zero"),
        (("scale", (1,)), "intervene.value: None; expected a number ≥ 0"),
        (("set", (1,), -1.0), "intervene.value: -1.0; expected a number ≥ 0"),
        (("set", (1,), float("nan")), "intervene.value: nan"),
        (("zero", (1,), 2.0), "intervene.value: 2.0; expected none"),
        (("zero", (1,), None, (0,)), "intervene.classes: read by 'mask' alone"),
    ],
)
def test_an_intervention_that_is_none(arguments, message):
    with pytest.raises(ConfigError, match=message):
        Intervention(*arguments)


def test_latents_and_classes_out_of_range():
    with pytest.raises(ConfigError, match=r"intervene.latents: 8; expected 0…7"):
        Intervention("zero", (8,)).codes(sparse(3, 8))
    with pytest.raises(ConfigError, match=r"intervene.classes: -1; expected 0…2"):
        Intervention("mask", (1,), classes=(-1,)).weight(np.ones((3, 8)))


def test_the_control_is_as_many_live_latents_none_of_them_selected():
    live, chosen = [latent for latent in range(60) if latent % 2], Selection((1, 3, 4))
    drawn = [random_like(chosen, live, seed) for seed in range(200)]
    for own in drawn:
        assert len(own.latents) == 3 and set(own.latents) <= set(live) - {1, 3}
    assert random_like(chosen, live, 7) == drawn[7] and len(set(drawn)) > 150
    assert set().union(*(own.latents for own in drawn)) == set(live) - {1, 3}
    with pytest.raises(ConfigError, match="3 latents selected, 2 others live"):
        random_like(chosen, [1, 3, 5, 7], 0)


def test_the_control_may_be_as_dense_as_what_was_chosen():
    density = np.exp(-np.arange(200) / 20)
    chosen = Selection((20, 100, 180))
    for seed in range(30):
        own = random_like(chosen, np.arange(200), seed, density)
        assert len(own.latents) == 3 and not set(own.latents) & set(chosen.latents)
        for drawn, latent in zip(own.latents, chosen.latents, strict=True):
            assert abs(drawn - latent) <= NEIGHBOURS / 2


def test_keep_top_keeps_k_a_class():
    weight = np.array([[3.0, -5, 0.5, 1], [2, 2, 2, -1]])
    np.testing.assert_array_equal(keep_top(weight, 2), [[3, -5, 0, 0], [2, 2, 0, 0]])
    np.testing.assert_array_equal(keep_top(weight, 4), weight)
    for k in (0, 5):
        with pytest.raises(ConfigError, match=rf"probe.keep: {k}; expected 1…4"):
            keep_top(weight, k)


def birds(n, agreement, seed):
    """Codes of landbirds and waterbirds on land and water, and (label, group): the background says more than the bird.

    Two latents of birds and two of backgrounds among 30 that fire by chance.
    """
    rng = np.random.default_rng(seed)
    label = rng.integers(0, 2, n)
    water = np.where(rng.random(n) < agreement, label, 1 - label)
    dense = np.maximum(rng.normal(0, 1, (n, 34)), 0) * (rng.random((n, 34)) < 0.4)
    for latent, fires in ((0, label == 0), (1, label == 1)):
        dense[:, latent] = np.maximum(rng.normal(np.where(fires, 1.2, 0.0), 0.8), 0)
    for latent, fires in ((2, water == 0), (3, water == 1)):
        dense[:, latent] = np.maximum(rng.normal(np.where(fires, 2.0, 0.0), 0.4), 0)
    return csr_array(dense.astype(np.float32)), label, 2 * label + water


def test_zeroing_the_planted_background_lifts_the_worst_group_and_a_random_choice_does_not():
    codes, label, _ = birds(4000, 0.95, 0)
    probe = LogisticRegression(C=1.0).fit(codes, label)
    weight = np.concatenate([-probe.coef_, probe.coef_]) / 2
    bias = np.concatenate([-probe.intercept_, probe.intercept_]) / 2
    test, truth, group = birds(4000, 0.5, 1)
    names = ["songbird", "duck", "Forest", "Lake", *["word"] * 30]
    chosen = by_name(names, "forest", "lake")

    def worst(latents, kind="zero"):
        change = Intervention(kind, latents)
        return group_outcome(change.codes(test), change.weight(weight), bias, truth, group)["worst_group_accuracy"]

    before = worst(())
    assert worst(chosen.latents) > before + 0.2
    assert worst(chosen.latents, "mask") == worst(chosen.latents)
    for seed in range(5):
        control = random_like(chosen, range(34), seed)
        assert worst(control.latents) < before + 0.05
    assert worst(by_name(names, "songbird", "duck").latents) < before  # the bird is what it should look at


def test_mean_ablation_takes_what_varies_and_leaves_the_average():
    rng = np.random.default_rng(0)
    dense = np.maximum(rng.normal(size=(40, 6)), 0).astype(np.float32)
    weight, bias, off = rng.normal(size=(3, 6)), rng.normal(size=3), (1, 4)
    act = Intervention("mean", off)
    ablated = dense.copy()
    ablated[:, off] = dense[:, off].mean(axis=0)  # as if every image showed them as strongly as the average one
    expected = ablated @ weight.T + bias
    changed = act.bias(weight, bias, dense.mean(axis=0))
    found = act.codes(csr_array(dense)) @ act.weight(weight).T + changed
    np.testing.assert_allclose(found, expected, atol=1e-6)
    assert np.abs(expected - (dense @ weight.T + bias)).max() > 0.1
    np.testing.assert_allclose(expected.mean(axis=0), (dense @ weight.T + bias).mean(axis=0), atol=1e-6)
    assert Intervention("zero", off).bias(weight, bias, dense.mean(axis=0)) is bias
    np.testing.assert_allclose(act.bias(weight, None, dense.mean(axis=0)), changed - bias)
