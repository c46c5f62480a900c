"""Contributions, concepts of classes, clusters and datasets, each against plain loops over dense codes."""

import numpy as np
import pandas as pd
import pytest
from scipy.sparse import csr_array

from aaca.evaluate import bottleneck, explain_tables
from aaca.evaluate.bottleneck import predict
from aaca.evaluate.explain import REST, class_contributions, global_contribution, global_strength, local
from aaca.evaluate.explain_sets import agnosticity, meta_clusters
from aaca.runtime.errors import ConfigError, DataError

N, H, C = 57, 20, 4
NAMES = ["bird", "bird", "bird", "lake", "lake", *(f"word {index}" for index in range(5, H))]


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch):
    for module in (bottleneck, explain_tables):
        monkeypatch.setattr(module, "CHUNK", 7)  # many chunks, the last not full


@pytest.fixture
def toy():
    rng = np.random.default_rng(0)
    dense = (rng.random((N, H)) * (rng.random((N, H)) < 0.4)).astype(np.float32)
    dense[11] = 0  # an image at which nothing fires
    labels = rng.integers(0, C - 1, N)  # the last class has no image
    weight = (rng.normal(size=(C, H)) * (rng.random((C, H)) < 0.7)).astype(np.float32)
    return csr_array(dense), dense.astype(np.float64), labels, weight.astype(np.float64)


def test_contributions_sum_to_the_logit_less_its_bias(toy):
    codes, dense, labels, weight = toy
    bias = np.array([0.5, -2.0, 1.0, 0.1])
    rows = np.random.default_rng(1).permutation(N)[:30]
    full = dense @ weight.T + bias
    np.testing.assert_array_equal(predict(codes, weight, bias), full.argmax(axis=1))
    for target, classes in (("predicted", full.argmax(axis=1)), ("true", labels), (2, np.full(N, 2))):
        found = local(codes, weight.astype(np.float32), NAMES, rows, 5, target, labels, bias)
        assert list(dict.fromkeys(found["image"])) == list(rows)  # in the order asked for
        for image, own in found.groupby("image"):
            label = classes[image]
            assert set(own["class"]) == {label}
            assert own["contribution"].sum() == pytest.approx(full[image, label] - bias[label], abs=1e-5)


def test_local_rows_are_the_largest_of_a_loop(toy):
    codes, dense, _, weight = toy
    found = local(codes, weight, NAMES, np.arange(N), top=3, target=1)
    for image, own in found.groupby("image"):
        loop = [(latent, dense[image, latent] * weight[1, latent]) for latent in range(H)]
        loop = [pair for pair in sorted(loop, key=lambda pair: -abs(pair[1])) if pair[1] != 0]
        concepts, rest = own[own["latent"] != REST], own[own["latent"] == REST]
        assert list(concepts["latent"]) == [latent for latent, _ in loop[:3]]
        np.testing.assert_allclose(concepts["contribution"], [value for _, value in loop[:3]], rtol=1e-6)
        assert list(own["rank"]) == list(range(1, len(own) + 1))
        assert len(rest) == 1 and own["latent"].iloc[-1] == REST
        assert rest["contribution"].item() == pytest.approx(sum(value for _, value in loop[3:]), abs=1e-9)
        for _, row in concepts.iterrows():
            assert row["name"] == NAMES[row["latent"]]
            assert row["strength"] == pytest.approx(dense[image, row["latent"]])
            assert row["weight"] == weight[1, row["latent"]]
    silent = found[found["image"] == 11]
    assert list(silent["latent"]) == [REST] and silent["contribution"].item() == 0


def test_latents_of_one_name_stay_apart():
    codes = csr_array(np.array([[3.0, 2.0, 1.0, 0.5, 4.0, *[0.0] * 15]], dtype=np.float32))
    weight = np.zeros((2, H))
    weight[1, :5] = [1.0, 1.0, -2.0, 8.0, 0.0]
    found = local(codes, weight, NAMES, np.array([0]), top=5)
    assert list(found["name"]) == ["lake", "bird", "bird", "bird", "rest"]
    assert list(found["latent"]) == [3, 0, 1, 2, REST]
    assert list(found["contribution"]) == [4, 3, 2, -2, 0]
    labels = np.array([1])
    assert list(global_contribution(codes, labels, weight, NAMES)["latent"]) == [3, 0, 1, 2]
    words = meta_clusters(csr_array(np.concatenate([codes.toarray(), np.zeros((1, H))])), NAMES, 2, least=1).words
    assert list(words[words["name"] == "bird"]["latent"]) == [0, 1, 2]
    shared = agnosticity({"a": codes}, NAMES, np.zeros(H))
    assert list(shared["latent"]) == [0, 1, 2, 3, 4]


def test_global_strength_is_that_of_a_loop(toy):
    codes, dense, labels, _ = toy
    found = global_strength(codes, labels, NAMES, top=H)
    assert set(found["class"]) == set(range(C - 1))
    for _, row in found.iterrows():
        own = [dense[image, row["latent"]] for image in range(N) if labels[image] == row["class"]]
        everyone = [dense[image, row["latent"]] for image in range(N)]
        mean = sum(value - sum(everyone) / N for value in own) / len(own)
        assert row["difference"] == pytest.approx(mean, abs=1e-9)
        assert row["strength"] == pytest.approx(sum(own) / len(own), abs=1e-9)
        assert row["images"] == len(own) and row["name"] == NAMES[row["latent"]]
    for _, own in found.groupby("class"):
        assert sorted(own["latent"]) == list(range(H)) and own["difference"].is_monotonic_decreasing
    first = global_strength(codes, labels, NAMES, top=2)
    pd.testing.assert_frame_equal(first, found[found["rank"] <= 2].reset_index(drop=True))


def test_global_contribution_is_that_of_a_loop(toy):
    codes, dense, labels, weight = toy
    found = global_contribution(codes, labels, weight, NAMES, top=H)
    for label, own in found.groupby("class"):
        loop = {}
        for latent in range(H):
            values = [dense[image, latent] * weight[label, latent] for image in range(N) if labels[image] == label]
            loop[latent] = sum(values) / len(values)
        kept = sorted((latent for latent in loop if loop[latent]), key=lambda latent: -abs(loop[latent]))
        assert list(own["latent"]) == kept
        np.testing.assert_allclose(own["contribution"], [loop[latent] for latent in kept], atol=1e-9)
    assert (found["contribution"] < 0).any()
    assert len(global_contribution(codes, labels, weight, NAMES, top=3)) == 3 * (C - 1)


def test_class_contributions_are_those_of_a_loop(toy):
    _, dense, labels, weight = toy
    dense = dense - 0.3 * (dense > 0)  # the clamp is per image, which negative strengths show
    found = class_contributions(csr_array(dense.astype(np.float32)), labels, weight)
    expected = np.zeros((C, H))
    for image in range(N):
        for latent in range(H):
            expected[labels[image], latent] += max(dense[image, latent] * weight[labels[image], latent], 0)
    got = np.zeros((C, H))
    got[found["class"], found["latent"]] = found["contribution"]
    np.testing.assert_allclose(got, expected, atol=1e-5)
    assert (found["contribution"] > 0).all()


def planted_clusters():
    """Forty, thirty, twenty and five images, each kind with three latents of its own over a common one."""
    rng = np.random.default_rng(3)
    kind = rng.permutation(np.repeat(np.arange(4), [20, 40, 30, 5]))
    dense = np.zeros((95, H), dtype=np.float32)
    dense[:, 19] = 5.0
    for latent in range(3):
        dense[np.arange(95), 3 * kind + latent] = 3 - latent + 0.1 * rng.random(95)
    return csr_array(dense), kind


def test_every_cluster_shows_its_own_words():
    codes, kind = planted_clusters()
    found = meta_clusters(codes, NAMES, 4, top=6)
    members = {number: set(own["image"]) for number, own in found.members.groupby("cluster")}
    assert members == {number: set(np.flatnonzero(kind == own)) for number, own in enumerate((1, 2, 0))}
    for number, own in enumerate((1, 2, 0)):  # the largest first; five images are too few
        words = found.words[found.words["cluster"] == number]
        assert list(words["latent"]) == [3 * own, 3 * own + 1, 3 * own + 2]  # what all share is no word of any
        assert set(words["images"]) == {len(members[number])}
        dense = codes.toarray().astype(np.float64)
        difference = dense[kind == own].mean(axis=0) - dense.mean(axis=0)
        np.testing.assert_allclose(words["difference"], difference[words["latent"]], atol=1e-9)
    assert set(meta_clusters(codes, NAMES, 4, most=2).members["cluster"]) == {0, 1}
    assert len(meta_clusters(codes, NAMES, 4, least=1).members) == 95


def test_clusters_are_those_of_the_seed(toy):
    codes = toy[0]
    first, again = (meta_clusters(codes, NAMES, 5, least=1, seed=4) for _ in range(2))
    pd.testing.assert_frame_equal(first.members, again.members)
    pd.testing.assert_frame_equal(first.words, again.words)
    assert not first.members.equals(meta_clusters(codes, NAMES, 5, least=1, seed=5).members)


def test_clusters_that_cannot_be():
    codes, _ = planted_clusters()
    with pytest.raises(ConfigError, match=r"explain.clusters: 96; expected 1…95"):
        meta_clusters(codes, NAMES, 96)
    with pytest.raises(DataError, match=r"none of 4 has 50 images \(largest: 40\)"):
        meta_clusters(codes, NAMES, 4, least=50)


def test_agnosticity_is_that_of_a_loop(toy):
    codes = {"one": toy[0], "two": csr_array(toy[0].toarray()[::-1][:9] * 2)}
    cosines = np.random.default_rng(2).random(H)
    found = agnosticity(codes, NAMES, cosines, top=4)
    expected = []
    for latent in sorted(range(H), key=lambda latent: -cosines[latent]):
        for dataset, own in codes.items():
            strength = own.toarray()[:, latent]
            images = [image for image in sorted(range(len(strength)), key=lambda i: -strength[i]) if strength[image]]
            for rank, image in enumerate(images[:4], start=1):
                expected.append((latent, NAMES[latent], cosines[latent], dataset, image, strength[image], rank))
    assert [tuple(row) for row in found.itertuples(index=False)] == expected
    assert (found["image"] >= 0).all() and (found["strength"] > 0).all()


def test_tables_go_to_parquet(toy, tmp_path):
    codes, _, labels, weight = toy
    clusters = meta_clusters(codes, NAMES, 3, least=1)
    tables = {
        "local": local(codes, weight, NAMES, np.arange(5)),
        "none": local(codes, weight, NAMES, np.arange(0)),
        "strength": global_strength(codes, labels, NAMES),
        "contribution": global_contribution(codes, labels, weight, NAMES),
        "sums": class_contributions(codes, labels, weight),
        "words": clusters.words,
        "members": clusters.members,
        "agnosticity": agnosticity({"a": codes}, NAMES, np.zeros(H)),
    }
    assert len(tables["none"]) == 0
    for name, table in tables.items():
        table.to_parquet(tmp_path / name)
        pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / name), table, check_dtype=False)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"names": NAMES[:-1]}, "19 names of 20 latents"),
        ({"weight": np.ones((C, H - 1))}, r"weights \(4, 19\); expected \[C, 20\]"),
        ({"labels": np.zeros(3, dtype=int)}, "3 labels of 57 images"),
        ({"labels": np.full(N, C)}, "labels 4…4; expected 0…3"),
        ({"codes": np.ones((N, H))}, "codes ndarray"),
        ({"target": "true"}, r"explain.target: 'true'; expected predicted, true \(with labels\), 0…3"),
        ({"target": C}, "explain.target: 4"),
        ({"top": 0}, "explain.top: 0; expected 1 or more"),
    ],
)
def test_what_does_not_fit_together_is_refused(toy, change, message):
    given = {"codes": toy[0], "weight": toy[3], "names": NAMES, "rows": np.arange(3), **change}
    with pytest.raises((DataError, ConfigError), match=message):
        local(**given)
