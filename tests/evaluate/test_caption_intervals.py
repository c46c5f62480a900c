"""Intervals of differences between captioners, and filters against random ones."""

import numpy as np
import pytest

from aaca.evaluate.captions.cider import CiderIndex
from aaca.evaluate.captions.intervals import difference, filter_effect
from aaca.evaluate.captions.scores import caption_table, figures_of
from aaca.runtime.errors import DataError


def noisy_tables(rng, rates, images=30, each=3):
    """A table for each rate of word errors, of the same references; three captions an image."""
    references = {f"{i}_{k}": [" ".join(rng.choice(list("abcdefgh"), 8))] for i in range(images) for k in range(each)}
    index = CiderIndex.fit(references)
    tables = []
    for rate in rates:
        captions = {
            name: " ".join("?" if rng.random() < rate else word for word in texts[0].split())
            for name, texts in references.items()
        }
        tables.append(caption_table(captions, references, index=index))
    return tables, {name: name.split("_")[0] for name in references}


def test_interval_of_a_planted_difference_covers_it():
    # BLEU-1 of a caption with errors at rate r is 100·(1 − r) on average: the true difference is 20.
    rng = np.random.default_rng(0)
    inside = 0
    for repeat in range(60):
        (good, bad), images = noisy_tables(rng, (0.1, 0.3), images=15, each=2)
        interval = difference(good, bad, images, resamples=200, seed=repeat)["bleu1"]
        inside += interval.low <= 20 <= interval.high
        assert interval.low <= interval.value <= interval.high
    assert 50 <= inside <= 60  # of 95 %; three standard deviations


def test_difference_by_hand_and_its_order():
    (good, bad), images = noisy_tables(np.random.default_rng(1), (0.1, 0.4))
    found = difference(good, bad.iloc[::-1], images, resamples=100)
    assert found == difference(good, bad, images, resamples=100)
    one, two = figures_of(good), figures_of(bad)
    for name, interval in found.items():
        assert interval.value == pytest.approx(one[name] - two[name]), name
    assert found["cider"].low > 0 and found["bleu4"].low > 0
    same = difference(good, good, images, resamples=50)["cider"]
    assert (same.value, same.low, same.high) == (0, 0, 0)


def test_difference_draws_images_not_captions():
    # All captions of an image are alike: with captions as units the interval would be about √8 times narrower.
    rng = np.random.default_rng(2)
    references = {f"{i}_{k}": ["p q r s"] for i in range(20) for k in range(8)}
    wrong = {str(i): rng.random() < 0.5 for i in range(20)}
    images = {name: name.split("_")[0] for name in references}
    first = caption_table({name: "p q r s" for name in references}, references)
    second = caption_table({n: "t" if wrong[images[n]] else "p q r s" for n in references}, references)
    by_image = difference(first, second, images, resamples=500)["rouge_l"]
    by_caption = difference(first, second, {name: name for name in references}, resamples=500)["rouge_l"]
    widths = [interval.high - interval.low for interval in (by_image, by_caption)]
    assert widths[0] / widths[1] == pytest.approx(np.sqrt(8), rel=0.25)


def test_a_filter_that_drops_bad_images_beats_random_filters():
    rng = np.random.default_rng(3)
    (good, bad), images = noisy_tables(rng, (0.1, 0.5))
    hard = {str(i) for i in range(10)}
    mixed = good.copy()
    rows = [name for name in mixed.index if images[name] in hard]
    mixed.loc[rows] = bad.loc[rows]
    kept = {name for name, image in images.items() if image not in hard}
    effect = filter_effect(mixed, kept, images, resamples=400)["cider"]
    chosen = mixed[[name in kept for name in mixed.index]]
    assert effect.kept == pytest.approx(figures_of(chosen)["cider"])
    assert effect.all == pytest.approx(figures_of(mixed)["cider"])
    assert effect.gain.value == pytest.approx(effect.kept - effect.all) and effect.gain.low > 0
    assert effect.kept > effect.random.high and effect.p == pytest.approx(1 / 401)
    assert effect.random.value == pytest.approx(effect.all, rel=0.02)


def test_a_random_filter_is_one_of_the_random_filters():
    rng = np.random.default_rng(4)
    p, covered = [], 0
    for repeat in range(40):
        (table,), images = noisy_tables(rng, (0.3,), images=16, each=1)
        kept = set(rng.permutation(sorted(images))[:8])
        effect = filter_effect(table, kept, images, resamples=100, seed=repeat)["bleu1"]
        p.append(effect.p)
        covered += effect.gain.low <= 0 <= effect.gain.high
    assert 0.3 < np.mean(p) < 0.7  # uniform when the filter knows nothing
    assert covered >= 32


def test_random_filters_choose_what_the_filter_chooses():
    # All captions of an image are alike: of whole images, random choices spread about √8 times wider.
    references = {f"{i}_{k}": ["p q r s"] for i in range(20) for k in range(8)}
    images = {name: name.split("_")[0] for name in references}
    table = caption_table({n: "p q r s" if int(images[n]) % 2 else "t" for n in references}, references)
    whole = {name for name in references if int(images[name]) < 10}
    parts = {name for name in references if int(name.split("_")[1]) < 4}  # half of every image: nothing is gained
    one, two = (filter_effect(table, kept, images, resamples=400)["rouge_l"] for kept in (whole, parts))
    widths = [effect.random.high - effect.random.low for effect in (one, two)]
    assert widths[0] / widths[1] == pytest.approx(np.sqrt(8), rel=0.25)
    assert (two.kept, two.gain.value, two.gain.low, two.gain.high) == (two.all, 0, 0, 0)


def test_gain_draws_images_with_what_is_kept_of_each():
    # kept is right and dropped is wrong in each of the two halves: the gain varies as the number of images that lose
    references = {f"{i}_{k}": ["p q r s"] for i in range(40) for k in range(2)}
    images = {name: name.split("_")[0] for name in references}
    wrong = {name for name in references if name.endswith("_1") and int(images[name]) < 20}
    table = caption_table({name: "t" if name in wrong else "p q r s" for name in references}, references)
    gain = filter_effect(table, set(references) - wrong, images, resamples=2000)["rouge_l"].gain
    sd = 50 * np.sqrt(0.5 * 0.5 / 40)  # 100 per cent of half of an image's captions, of as many images as are drawn
    assert gain.value == pytest.approx(25)
    assert (gain.high - gain.low) / (2 * 1.96) == pytest.approx(sd, rel=0.1)


def test_keeping_all_images_gains_nothing():
    (table,), images = noisy_tables(np.random.default_rng(5), (0.3,), images=6)
    for effect in filter_effect(table, set(images), images, resamples=20).values():
        assert (effect.gain.value, effect.gain.low, effect.gain.high) == (0, 0, 0)
        assert effect.p == 1


def test_intervals_refuse_what_does_not_fit():
    (table,), images = noisy_tables(np.random.default_rng(6), (0.3,), images=3)
    with pytest.raises(DataError, match="1 names in one only"):
        difference(table, table.iloc[1:], images)
    with pytest.raises(DataError, match="images: none for '0_0'"):
        difference(table, table, {})
    with pytest.raises(DataError, match="kept: no caption"):
        filter_effect(table, set(), images)
    with pytest.raises(DataError, match="'nowhere' is no caption"):
        filter_effect(table, {"nowhere"}, images)
