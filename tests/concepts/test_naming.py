"""Names of latents: planted ones are found, numbers equal scipy's, dictionaries match, files of names come back."""

import numpy as np
import pandas as pd
import pytest
from scipy.spatial.distance import cdist

from aaca.concepts.naming import (
    best_words,
    duplicates,
    name_agreement,
    name_latents,
    read_csv,
    seed_stability,
    write_csv,
)
from aaca.concepts.vocab_store import VocabStore
from aaca.runtime.errors import ConfigError, DataError

V, D, H = 400, 48, 60


def unit(rows: np.ndarray) -> np.ndarray:
    return (rows / np.linalg.norm(rows, axis=-1, keepdims=True)).astype(np.float32)


def vocabulary(seed: int = 0, offset: float = 0.0) -> VocabStore:
    rng = np.random.default_rng(seed)
    return VocabStore([f"#w{row}" for row in range(V)], unit(rng.standard_normal((V, D)) + offset))


def planted(vocab: VocabStore, noise: float, seed: int = 1) -> tuple[np.ndarray, list[str]]:
    """(decoder [D, H] of noisy word vectors of any length, the words)."""
    rng = np.random.default_rng(seed)
    rows = rng.choice(V, H, replace=False)
    columns = vocab.vectors[rows] + noise * unit(rng.standard_normal((H, D)))
    return (columns * rng.uniform(0.1, 5, (H, 1))).T, [vocab.words[row] for row in rows]


def test_a_planted_dictionary_gets_all_its_names():
    vocab = vocabulary()
    decoder, words = planted(vocab, noise=0.7)
    assert best_words(name_latents(decoder, vocab)) == words
    noisy = np.mean(
        [a == b for a, b in zip(best_words(name_latents(*planted(vocab, 6.0)[:1], vocab)), words, strict=True)]
    )
    assert noisy < 0.5  # names depend on the dictionary at all


def test_every_number_equals_scipy():
    vocab = vocabulary()
    decoder = np.random.default_rng(2).standard_normal((D, H))
    names = name_latents(decoder, vocab, top=3, chunk=7)
    cosines = 1 - cdist(decoder.T, vocab.vectors.astype(np.float64), "cosine")
    order = np.argsort(-cosines, axis=1)[:, :4]
    best = np.take_along_axis(cosines, order, axis=1)
    assert names["latent"].tolist() == np.repeat(np.arange(H), 3).tolist()
    assert names["rank"].tolist() == [1, 2, 3] * H
    assert names["word"].tolist() == [vocab.words[row] for row in order[:, :3].ravel()]
    np.testing.assert_allclose(names["cosine"], best[:, :3].ravel(), atol=1e-6)
    np.testing.assert_allclose(names["margin"], (best[:, :3] - best[:, 1:]).ravel(), atol=1e-6)
    z = (best[:, :3] - cosines.mean(1, keepdims=True)) / cosines.std(1, keepdims=True)
    np.testing.assert_allclose(names["z"], z.ravel(), rtol=1e-4)
    pd.testing.assert_frame_equal(names, name_latents(decoder, vocab, top=3, chunk=1000), rtol=1e-5, atol=1e-6)


def test_names_move_with_their_latents_and_do_not_depend_on_the_order_of_words():
    vocab, rng = vocabulary(), np.random.default_rng(3)
    decoder = rng.standard_normal((D, H))
    words, order = best_words(name_latents(decoder, vocab)), rng.permutation(H)
    assert best_words(name_latents(decoder[:, order], vocab)) == [words[latent] for latent in order]
    shuffled = rng.permutation(V)
    other = VocabStore([vocab.words[row] for row in shuffled], vocab.vectors[shuffled])
    assert best_words(name_latents(decoder, other)) == words


def test_centring_closes_a_gap_between_images_and_words():
    # words and images sit at different offsets; a latent is its word's own part beside the images' offset
    rng = np.random.default_rng(4)
    own, word_gap, image_gap = rng.standard_normal((V, D)), 3 * rng.standard_normal(D), 3 * rng.standard_normal(D)
    vocab = VocabStore([f"w{row}" for row in range(V)], unit(own + word_gap))
    images = unit(own + image_gap + 0.3 * rng.standard_normal((V, D)))
    mean = images.astype(np.float64).mean(axis=0)
    right = {}
    for words in (False, True):
        for by in ("none", "mean"):
            names = name_latents(images.T, vocab, 1, center_words=words, center_by=mean if by == "mean" else None)
            right[words, by] = np.mean(np.array(best_words(names)) == np.array(vocab.words))
    assert right[True, "mean"] > 0.95 > 0.8 > right[False, "none"]
    centred = vocab.vectors - vocab.vectors.mean(axis=0)
    names = name_latents(images.T, vocab, 1, center_words=True, center_by=mean)
    expected = 1 - cdist(images - mean, centred, "cosine")
    np.testing.assert_allclose(names["cosine"], expected.max(axis=1), atol=1e-5)


def test_gates_and_dead_latents():
    vocab = vocabulary()
    decoder = np.random.default_rng(5).standard_normal((D, 4))
    names = name_latents(decoder, vocab, 2)
    assert names["dead"].isna().all() and names["density"].isna().all() and names["named"].all()
    density = np.array([0.0, 0.001, 0.1, 0.2])
    names = name_latents(decoder, vocab, 2, density=density)
    assert names["dead"].tolist() == [True] * 2 + [False] * 6
    assert names["named"].tolist() == [False] * 2 + [True] * 6
    names = name_latents(decoder, vocab, 2, density=density, min_density=0.01)
    assert names["named"].tolist() == [False] * 4 + [True] * 4
    cosine = names.loc[names["rank"] == 1, "cosine"].to_numpy()
    names = name_latents(decoder, vocab, 2, min_cosine=float(np.sort(cosine)[2]))
    assert names["named"].tolist() == np.repeat(cosine >= np.sort(cosine)[2], 2).tolist()


def test_names_survive_parquet(tmp_path):
    names = name_latents(*planted(vocabulary(), 0.5)[:1], vocabulary(), density=np.linspace(0, 1, H))
    names.to_parquet(tmp_path / "names.parquet")
    pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / "names.parquet"), names, check_dtype=False)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"decoder": np.ones((D + 1, 3))}, DataError, rf"expected \[{D}, h\]"),
        ({"decoder": np.zeros((D, 3))}, DataError, "decoder column 0 is zero"),
        ({"decoder": np.full((D, 3), np.nan)}, DataError, "decoder column 0 is zero or not finite"),
        ({"top": V}, ConfigError, r"naming\.top: 400"),
        ({"top": 0}, ConfigError, r"naming\.top: 0"),
        ({"min_density": 0.1}, ConfigError, r"naming\.least_density: 0\.1; expected null"),
        ({"density": np.ones(2)}, DataError, r"expected \[3\]"),
        ({"center_by": np.full(D, 1.0)}, DataError, "a length of at most 1"),
        ({"center_by": np.ones(3)}, DataError, "no mean of unit image vectors"),
    ],
)
def test_what_does_not_fit_is_one_line(change, error, message):
    with pytest.raises(error, match=message):
        name_latents(**{"decoder": np.ones((D, 3)), "vocab": vocabulary(), **change})


def test_duplicates_count_best_words_only():
    vocab = vocabulary()
    names = name_latents(vocab.vectors[[3, 7, 3, 9, 7, 3]].T, vocab, density=np.array([1, 1, 0, 1, 1, 1]))
    found = duplicates(names)
    assert found.to_dict("records") == [
        {"word": "#w3", "count": 3, "latents": [0, 2, 5]},
        {"word": "#w7", "count": 2, "latents": [1, 4]},
    ]
    assert duplicates(names[names["named"]])["latents"].tolist() == [[0, 5], [1, 4]]
    assert duplicates(names.iloc[:5]).empty


def test_seeds_that_are_permutations_match_and_share_names():
    vocab, rng = vocabulary(), np.random.default_rng(6)
    decoder, _ = planted(vocab, 0.7)
    order = rng.permutation(H)
    other = decoder[:, order] * rng.uniform(0.5, 2, H)
    mean, cosines, partner = seed_stability(decoder, other)
    assert mean == pytest.approx(1, abs=1e-5) and cosines.min() > 1 - 1e-5
    np.testing.assert_array_equal(order[partner], np.arange(H))
    first, second = name_latents(decoder, vocab), name_latents(other, vocab)
    assert name_agreement(first, second, partner) == 1
    assert name_agreement(first, second, np.roll(partner, 1)) == 0
    half = partner.copy()
    half[: H // 2] = -1  # unmatched latents do not count
    assert name_agreement(first, second, half) == 1


def test_matchings_one_to_one_and_greedy():
    # both of the first lie nearest to the second's first column; one to one, the sum decides
    first = np.array([[1.0, 0.9], [0.0, 0.1]])
    second = np.array([[1.0, 0.0], [0.0, 1.0]])
    by_hand = (first / np.linalg.norm(first, axis=0)).T @ second
    one = seed_stability(first, second)
    assert one.partner.tolist() == [0, 1]
    np.testing.assert_allclose(one.cosines, [by_hand[0, 0], by_hand[1, 1]], atol=1e-6)
    greedy = seed_stability(first, second, "greedy")
    assert greedy.partner.tolist() == [0, 0] and greedy.mean > one.mean
    assert seed_stability(first, -first).mean < 0  # the sign of a direction matters
    fewer = seed_stability(np.eye(3), np.eye(3)[:, [2, 0]])
    assert fewer.partner.tolist() == [1, -1, 0] and np.isnan(fewer.cosines[1]) and fewer.mean == 1
    with pytest.raises(ConfigError, match=r"naming\.matching: 'hungary'; nearest valid: hungarian"):
        seed_stability(first, second, "hungary")
    with pytest.raises(DataError, match="decoders are"):
        seed_stability(first, np.eye(3))


def test_csv_of_any_word_comes_back(tmp_path):
    words = ["#tag", "salt, pepper", 'say "hi"', '"', '"all"', "", "a b", "ü", '"x", y']
    names = pd.DataFrame({"latent": range(len(words)), "rank": 1, "word": words})
    write_csv(names.sample(frac=1, random_state=0), tmp_path / "names.csv")
    assert read_csv(tmp_path / "names.csv") == words
    assert pd.read_csv(tmp_path / "names.csv", header=None, keep_default_na=False).set_index(0)[1].to_dict() == dict(
        enumerate(words)
    )


def test_csv_that_others_wrote_without_quotes(tmp_path):
    (tmp_path / "names.csv").write_bytes(b'1,salt, pepper\r\n0,"loose\r\n2,"quoted, well"\r\n3,say "hi"\r\n')
    assert read_csv(tmp_path / "names.csv") == ['"loose', "salt, pepper", "quoted, well", 'say "hi"']


@pytest.mark.parametrize(
    ("text", "message"),
    [("0,a\nb\n", "line 2"), ("0,a\n0,b\n", "every latent once"), ("0,a\n2,b\n", "0 … 1"), ("index,word\n", "line 1")],
)
def test_csv_without_a_name_for_each_latent_is_one_line(tmp_path, text, message):
    (tmp_path / "names.csv").write_text(text)
    with pytest.raises(DataError, match=message):
        read_csv(tmp_path / "names.csv")
