"""Selectors that weigh candidates against each other: core-set, BADGE, TypiClust."""

import numpy as np
import pytest
from skactiveml.base import SkactivemlClassifier
from skactiveml.pool import Badge as ReferenceBadge
from skactiveml.pool._core_set import k_greedy_center
from skactiveml.pool._typi_clust import _typicality

from aaca.debugset.selectors import distance as distance_module
from aaca.debugset.selectors.badge import Badge, draw
from aaca.debugset.selectors.clusters import kmeans
from aaca.debugset.selectors.coreset import CoreSet
from aaca.debugset.selectors.typiclust import TypiClust, round_robin, typicalities
from aaca.runtime.errors import ConfigError, DataError

SETS = [CoreSet(), CoreSet(l2_normalize=True), Badge(), TypiClust(), TypiClust(max_clusters=4, l2_normalize=False)]


@pytest.mark.parametrize("selector", SETS, ids=lambda s: f"{type(s).__name__}-{vars(s)}")
@pytest.mark.parametrize("duplicates", [False, True])
@pytest.mark.parametrize("k", [1, 12, 60, 99])
def test_k_different_candidates_whatever_the_row_order(selector, duplicates, k, make_case):
    case = make_case(seed=1, duplicates=duplicates)
    picked = selector.select(case.candidates, case.context, k)
    assert len(set(picked.positions.tolist())) == len(picked.scores) == min(k, 60)
    assert np.isfinite(picked.scores).all()
    again = selector.select(case.candidates, case.context, k)
    np.testing.assert_array_equal(picked.positions, again.positions)
    other = case.shuffled(seed=3)
    shuffled = selector.select(other.candidates, other.context, k)
    assert other.candidates.ids[shuffled.positions].tolist() == case.candidates.ids[picked.positions].tolist()
    np.testing.assert_array_equal(shuffled.scores, picked.scores)


@pytest.mark.parametrize("selector", SETS, ids=lambda s: type(s).__name__)
def test_no_candidates_give_an_empty_selection(selector, make_case):
    case = make_case()
    empty = case.candidates.take(np.empty(0, dtype=np.int64))
    assert len(selector.select(empty, case.context, 3).positions) == 0


@pytest.mark.parametrize("keep_bytes", [2**29, 0])
def test_coreset_equals_the_quadratic_greedy_and_scikit_activeml(keep_bytes, make_case, monkeypatch):
    monkeypatch.setattr(distance_module, "KEEP_BYTES", keep_bytes)
    monkeypatch.setattr("aaca.data.features.CHUNK_BYTES", 4 * 20 * 7)  # seven rows a chunk
    case = make_case(seed=2)
    pool, train = case.candidates.embeddings.astype(float), case.context.train.embeddings.astype(float)
    picked = CoreSet().select(case.candidates, case.context, 15)
    centres, expected, at_pick = list(train), [], []
    for _ in range(15):
        far = [min(((z - c) ** 2).sum() for c in centres) if i not in expected else -1.0 for i, z in enumerate(pool)]
        expected.append(int(np.argmax(far)))
        at_pick.append(max(far))
        centres.append(pool[expected[-1]])
    assert picked.positions.tolist() == expected
    np.testing.assert_allclose(picked.scores, at_pick, rtol=1e-10)
    y = np.r_[np.zeros(len(train)), np.full(len(pool), np.nan)]
    reference, _ = k_greedy_center(np.r_[train, pool], y, batch_size=15, random_state=0)
    assert (reference - len(train)).tolist() == expected


def test_coreset_without_training_images(make_case):
    context = make_case().context
    object.__setattr__(context, "train", None)
    with pytest.raises(DataError, match="class 'kitchen' has no training images"):
        CoreSet().select(make_case().candidates, context, 3)


def softmax(logits):
    powers = np.exp(logits.astype(float))
    return powers / powers.sum(axis=1, keepdims=True)


class Fixed(SkactivemlClassifier):
    """Gives the probabilities it was made with."""

    def __init__(self, probabilities=None, classes=None):
        super().__init__(classes=classes)
        self.probabilities = probabilities

    def fit(self, X, y, sample_weight=None):
        return self

    def predict_proba(self, X):
        return self.probabilities


@pytest.mark.parametrize("seed", range(5))
def test_badge_starts_where_scikit_activeml_starts(seed, make_case):
    """Only the start is comparable: from the second pick on, theirs takes the origin for a centre as well."""
    case = make_case(seed=seed)
    order = np.argsort(case.candidates.ids)
    values, probabilities = case.candidates.embeddings[order].astype(float), softmax(case.candidates.logits[order])
    reference = ReferenceBadge(random_state=seed).query(
        values,
        np.full(len(values), np.nan),
        clf=Fixed(probabilities, classes=range(5)),
        batch_size=1,
        fit_clf=False,
    )
    picked = Badge().select(case.candidates, case.context, 1)
    assert picked.positions.tolist() == order[reference].tolist()


@pytest.mark.parametrize("seed", range(5))
def test_badge_equals_gradients_written_out(seed, make_case):
    case = make_case(seed=seed, duplicates=seed % 2 == 1)
    order = np.argsort(case.candidates.ids)
    p = softmax(case.candidates.logits[order])
    a = p - np.eye(5)[p.argmax(axis=1)]
    gradients = (a[:, :, None] * case.candidates.embeddings[order].astype(float)[:, None, :]).reshape(len(p), -1)
    generator = np.random.default_rng(case.context.seed)
    chosen, scores = [], []
    for turn in range(20):
        if turn == 0:
            far = (gradients**2).sum(axis=1)
            chosen.append(int(far.argmax()))
        else:
            far = np.array([min(((g - gradients[c]) ** 2).sum() for c in chosen) for g in gradients])
            chosen.append(int(np.searchsorted(np.cumsum(far), generator.random() * far.sum(), side="right")))
        scores.append(far[chosen[-1]])
    picked = Badge().select(case.candidates, case.context, 20)
    assert picked.positions.tolist() == order[chosen].tolist()
    np.testing.assert_allclose(picked.scores, scores, rtol=1e-8)


def test_badge_takes_equal_gradients_last_and_by_id(make_case):
    case = make_case(n=40, duplicates=True)
    picked = Badge().select(case.candidates, case.context, 40)
    assert sorted(picked.positions[:20] % 20) == list(range(20))  # one of each pair first
    rest = case.candidates.ids[picked.positions[20:]].tolist()
    assert rest == sorted(rest)
    assert (picked.scores[20:] == 0).all()


def test_draw_follows_the_weights_and_skips_zeros():
    generator = np.random.default_rng(0)
    counts = np.bincount([draw(np.array([0.0, 1.0, 0.0, 3.0, -1.0]), generator) for _ in range(4000)], minlength=5)
    assert counts[[0, 2, 4]].sum() == 0
    assert abs(counts[3] - 3000) < 5 * np.sqrt(4000 * 0.75 * 0.25)
    assert draw(np.array([-1.0, 0.0, 0.0]), generator) == 1


def test_typicality_equals_the_loop_and_scikit_activeml():
    values = np.random.default_rng(0).normal(size=(30, 4))
    got = typicalities(values, 7)
    for i in range(30):
        distances = sorted(np.linalg.norm(values[i] - values[j]) for j in range(30) if j != i)
        assert got[i] == pytest.approx(1 / (np.mean(distances[:7]) + 1e-5), rel=1e-9)
    np.testing.assert_allclose(got, _typicality(values, np.arange(30), 7), rtol=1e-4)
    assert typicalities(values[:1], 7).tolist() == [0.0]
    assert np.isfinite(typicalities(np.zeros((3, 4)), 7)).all()


def test_typiclust_takes_the_middle_of_each_blob_largest_first(make_case):
    case = make_case(n=60)
    rng = np.random.default_rng(0)
    sizes, start = [30, 16, 10, 4], 0
    for blob, size in enumerate(sizes):  # the blob's first row sits in its middle
        around = rng.normal(size=(size, 6)) * 0.5
        around[0] = 0.0
        case.candidates.embeddings_all[start : start + size] = around + 40 * np.eye(6)[blob]
        start += size
    selector = TypiClust(max_clusters=4, l2_normalize=False)
    four = selector.select(case.candidates, case.context, 4).positions.tolist()
    assert four[:3] == [0, 30, 46]  # blob 4 is smaller than min_cluster_size: it waits
    assert four[3] < 30
    every = selector.select(case.candidates, case.context, 60).positions.tolist()
    assert every[-4] == 56
    assert sorted(every[-4:]) == [56, 57, 58, 59]
    assert TypiClust(20, 4, 1, False).select(case.candidates, case.context, 4).positions.tolist() == [0, 30, 46, 56]


def test_kmeans_makes_no_more_clusters_than_distinct_points():
    centres, labels = kmeans(np.repeat(np.eye(3), 4, axis=0), 8, seed=0, n_init=1)
    assert len(centres) == 3
    assert len(set(labels.tolist())) == 3


def test_round_robin():
    assert round_robin([[1, 2, 3], [4], [5, 6]]) == [1, 4, 5, 2, 6, 3]


@pytest.mark.parametrize("name", ["neighbours", "max_clusters", "min_cluster_size"])
def test_impossible_arguments_are_named(name):
    with pytest.raises(ConfigError, match=f"selector.{name}: 0; expected 1 or more"):
        TypiClust(**{name: 0})
