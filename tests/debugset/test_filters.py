"""Filters against loops: each alone with planted cases, all together on chance, and the funnel they add up to."""

from dataclasses import replace

import numpy as np
import pytest

from aaca.data.table import ImageTable
from aaca.debugset.filters import (
    REASONS,
    FilterChain,
    Looks,
    below_real,
    confident_third,
    funnel,
    reasons_to_drop,
    repeats,
    rivals_of,
    thumbnails_of,
)
from tests.toys import square_table

OFF = FilterChain(clip_class=None, clip_concept=None, third_class=None, near_duplicate=None)
CLASSES, CONCEPTS = 4, ("", "sand", "snow")


def unit(rng, *shape):
    values = rng.normal(size=shape)
    return (values / np.linalg.norm(values, axis=-1, keepdims=True)).astype(np.float32)


def looks_of(seed, n=60, real=50, known=12):
    """Chance, with planted repeats: some thumbnails almost those of another image, or of a known one."""
    rng = np.random.default_rng(seed)
    thumbnails, old, labels = unit(rng, n, 9), unit(rng, known, 9), rng.integers(CLASSES, size=n)
    for row in rng.choice(n, n // 2, replace=False):
        near = thumbnails[rng.choice(np.flatnonzero(labels == labels[row]))]
        if rng.random() < 0.3:
            near = old[rng.integers(known)]
        value = near + 0.05 * rng.normal(size=9)
        thumbnails[row] = value / np.linalg.norm(value)
    probabilities = rng.dirichlet([0.15] * CLASSES, n)
    return Looks(
        labels=labels,
        concepts=rng.choice(np.array(CONCEPTS, dtype=object), n),
        probabilities=probabilities,
        thumbnails=thumbnails,
        rivals={0: {1}, 1: set(), 2: {0, 3}},  # nothing is known of class 3
        known=old,
        vectors=unit(rng, n, 5),
        real_vectors=unit(rng, real, 5),
        real_labels=rng.integers(CLASSES - 1, size=real),  # no real image of class 3
        class_vectors=unit(rng, CLASSES, 5),
        concept_vectors=dict(zip(CONCEPTS[1:], unit(rng, 2, 5), strict=True)),
    )


def by_loop(chain, looks):
    """One image after the other, in plain Python."""
    reasons, kept = [], []
    for row in range(len(looks.labels)):
        label, concept = int(looks.labels[row]), looks.concepts[row]
        real = [looks.real_vectors[i] for i in range(len(looks.real_labels)) if looks.real_labels[i] == label]

        def unlike(vector, percentile, row=row, real=real):
            if percentile is None or not real:
                return False
            limit = np.percentile([float(other @ vector) for other in real], percentile)
            return float(looks.vectors[row] @ vector) < limit

        said = int(np.argmax(looks.probabilities[row]))
        third = said != label and said not in looks.rivals.get(label, ())
        limit = chain.near_duplicate
        close = [float(looks.thumbnails[row] @ other) for other in looks.known]
        mine = [float(looks.thumbnails[row] @ looks.thumbnails[i]) for i in kept if looks.labels[i] == label]
        if unlike(looks.class_vectors[label], chain.clip_class):
            reasons.append("clip_class")
        elif concept and unlike(looks.concept_vectors[concept], chain.clip_concept):
            reasons.append("clip_concept")
        elif chain.third_class is not None and third and looks.probabilities[row, said] >= chain.third_class:
            reasons.append("third_class")
        elif limit is not None and max(close) >= limit:
            reasons.append("leak")
        elif limit is not None and max(mine, default=-1) >= limit:
            reasons.append("near_duplicate")
        else:
            reasons.append("")
            kept.append(row)
    return reasons


@pytest.mark.parametrize("off", [None, "clip_class", "clip_concept", "third_class", "near_duplicate"])
@pytest.mark.parametrize("seed", range(3))
def test_reasons_are_those_of_a_loop_over_images_and_none_switches_a_filter_off(seed, off):
    chain = FilterChain(clip_class=20, clip_concept=30, third_class=0.8, near_duplicate=0.9)
    if off is not None:
        chain = replace(chain, **{off: None})
    looks = looks_of(seed)
    found = reasons_to_drop(chain, looks)
    assert found.tolist() == by_loop(chain, looks)
    gone = {"near_duplicate", "leak"} if off == "near_duplicate" else {off}
    assert set(found.tolist()) >= {"clip_class", "third_class", ""} - gone and not set(found.tolist()) & gone
    assert set(found.tolist()) <= {"", *REASONS}


def test_the_loops_see_every_reason_and_no_filter_drops_nothing():
    chain = FilterChain(clip_class=20, clip_concept=30, third_class=0.8, near_duplicate=0.9)
    seen = {reason for seed in range(3) for reason in by_loop(chain, looks_of(seed))}
    assert seen == {"", *REASONS} - {"failed"}
    blind = replace(looks_of(0), vectors=None, real_vectors=None, real_labels=None, class_vectors=None)
    assert set(reasons_to_drop(OFF, blind).tolist()) == {""}
    assert not OFF.needs_clip
    assert replace(OFF, clip_class=5).needs_clip and replace(OFF, clip_concept=5).needs_clip


def angles(*degrees):
    return np.array([(np.cos(np.radians(d)), np.sin(np.radians(d))) for d in degrees], dtype=np.float32)


def planted(**changes):
    """Two classes whose names lie at 0° and 90°; real images of class 0 at 10, 20, 30, 40°, of class 1 at 80°."""
    looks = Looks(
        labels=np.array([0, 0, 0, 1, 1]),
        concepts=np.array(["", "snow", "snow", "", "snow"], dtype=object),
        probabilities=np.eye(2)[[0, 0, 0, 1, 1]],
        thumbnails=angles(0, 60, 120, 180, 240),
        rivals={},
        known=np.zeros((0, 2), dtype=np.float32),
        vectors=angles(5, 35, 50, 85, 60),
        real_vectors=angles(10, 20, 30, 40, 80),
        real_labels=np.array([0, 0, 0, 0, 1]),
        class_vectors=angles(0, 90),
        concept_vectors={"snow": angles(45)[0]},
    )
    return replace(looks, **changes)


def test_an_image_less_like_its_class_than_the_real_ones_is_dropped():
    assert reasons_to_drop(replace(OFF, clip_class=0), planted()).tolist() == ["", "", "clip_class", "", "clip_class"]
    most = reasons_to_drop(replace(OFF, clip_class=50), planted()).tolist()
    assert most == ["", "clip_class", "clip_class", "", "clip_class"]  # cos 35° is below the middle of class 0
    assert reasons_to_drop(replace(OFF, clip_class=100), planted()).tolist()[0] == ""  # better than every real one
    nothing_real = planted(real_labels=np.full(5, 1))
    assert not below_real(nothing_real, 100, concepts=False)[:3].any()


def test_an_image_less_like_its_concept_than_the_real_ones_of_its_class_is_dropped():
    # from snow (45°): the real images of class 0 are 35, 25, 15, 5° away, the one of class 1 35°
    assert reasons_to_drop(replace(OFF, clip_concept=50), planted()).tolist() == [""] * 5
    away = planted(vectors=angles(5, 15, 70, 85, 0))  # of those with snow 30, 25 and 45°
    assert reasons_to_drop(replace(OFF, clip_concept=50), away).tolist() == [
        "",
        "clip_concept",
        "clip_concept",
        "",
        "clip_concept",
    ]
    assert reasons_to_drop(replace(OFF, clip_concept=10), away).tolist() == ["", "", "", "", "clip_concept"]


def test_a_sure_third_class_is_dropped_but_neither_a_rival_nor_doubt():
    probabilities = np.array([[0, 1, 0], [0, 0, 1], [1, 0, 0], [0.3, 0.3, 0.4], [0.1, 0.0, 0.9], [0.05, 0.0, 0.95]])
    looks = planted(
        labels=np.zeros(6, int), concepts=np.array([""] * 6, object), probabilities=probabilities, rivals={0: {1}}
    )
    assert confident_third(looks, 0.9).tolist() == [False, True, False, False, True, True]
    assert confident_third(replace(looks, rivals={0: {1, 2}}), 0.9).tolist() == [False] * 6
    assert confident_third(replace(looks, rivals={}), 0.95).tolist() == [True, True, False, False, False, True]
    assert confident_third(replace(looks, rivals={}), 0.4).tolist() == [True, True, False, True, True, True]


def test_an_image_has_the_first_of_its_reasons():
    labels, concepts = np.array([0, 0, 0, 0]), np.array(["snow"] * 4, object)
    looks = planted(
        labels=labels,
        concepts=concepts,
        probabilities=np.eye(2)[[1, 1, 1, 1]],
        thumbnails=angles(0, 0, 0, 0),
        known=angles(0),
        vectors=angles(80, -5, 45, 45),
    )
    everything = FilterChain(clip_class=0, clip_concept=0, third_class=0.5, near_duplicate=0.9)
    assert reasons_to_drop(everything, looks).tolist() == ["clip_class", "clip_concept", "clip_class", "clip_class"]
    looks = replace(looks, vectors=angles(80, -5, 35, 30))
    for chain, expected in (
        (everything, "third_class"),
        (replace(everything, third_class=None), "leak"),
    ):
        assert reasons_to_drop(chain, looks).tolist() == ["clip_class", "clip_concept", expected, expected]
    strangers = replace(looks, known=angles(90))
    found = reasons_to_drop(replace(everything, third_class=None), strangers).tolist()
    assert found == ["clip_class", "clip_concept", "", "near_duplicate"]  # what was dropped before is nobody's twin


def test_rivals_take_at_least_a_tenth_of_the_failures():
    labels = np.array([0] * 40 + [1] * 5 + [2] * 3)
    predictions = np.array([0] * 20 + [1] * 17 + [2] * 2 + [3] + [1] * 5 + [0, 3, 2])
    assert rivals_of(labels, predictions) == {0: {1, 2}, 1: set(), 2: {0, 3}}  # 17, 2 and 1 of 20


@pytest.mark.parametrize("seed", range(4))
def test_repeats_are_those_of_a_loop_however_large_a_chunk_is(seed):
    looks, limit = looks_of(seed, n=41, known=37), 0.9
    expected, kept = [], []
    for row, label in enumerate(looks.labels.tolist()):
        if any(float(looks.thumbnails[row] @ old) >= limit for old in looks.known):
            expected.append("leak")
        elif any(
            looks.labels[i] == label and float(looks.thumbnails[row] @ looks.thumbnails[i]) >= limit for i in kept
        ):
            expected.append("near_duplicate")
        else:
            expected.append("")
            kept.append(row)
    assert {"leak", "near_duplicate", ""} == set(expected)
    for chunk in (1, 2, 7, 1024):
        assert repeats(looks.thumbnails, looks.labels, looks.known, limit, chunk).tolist() == expected
    none = repeats(looks.thumbnails[:0], looks.labels[:0], looks.known, limit)
    assert none.tolist() == []


def test_a_chain_of_likenesses_is_cut_where_one_was_dropped_and_classes_do_not_matter_to_each_other():
    thumbnails, nothing = angles(0, 20, 40, 60), np.zeros((0, 2), dtype=np.float32)
    limit = float(np.cos(np.radians(25)))
    same = repeats(thumbnails, np.zeros(4, int), nothing, limit).tolist()
    assert same == ["", "near_duplicate", "", "near_duplicate"]  # the second is gone: the third has no twin left
    assert repeats(thumbnails, np.array([0, 1, 0, 1]), nothing, limit).tolist() == [""] * 4
    assert repeats(thumbnails, np.zeros(4, int), angles(10), limit).tolist() == ["leak", "leak", "", "near_duplicate"]


def table_of(folder, images):
    table = square_table(folder, len(images))
    np.save(folder / "train.npy", np.stack(images))
    return ImageTable.build(table.frame, table.classes, folder)


def test_thumbnails_are_correlations_without_brightness(tmp_path):
    rng = np.random.default_rng(0)
    image = rng.integers(40, 160, (48, 48, 3), dtype=np.uint8)
    flat = np.full((48, 48, 3), 90, dtype=np.uint8)
    other = rng.integers(40, 160, (48, 48, 3), dtype=np.uint8)
    images = [image, image.copy(), image + np.uint8(50), (image / 2).astype(np.uint8), 255 - image, other, flat]
    found = thumbnails_of(table_of(tmp_path, images))
    assert found.shape == (7, 3 * 16 * 16) and found.dtype == np.float32
    close = found @ found[0]
    assert (
        close[:3] == pytest.approx([1, 1, 1], abs=1e-5) and close[3] > 0.99 and close[4] == pytest.approx(-1, abs=1e-4)
    )
    assert abs(close[5]) < 0.2 and (found[6] == 0).all()
    small = [array.reshape(16, 3, 16, 3, 3).mean(axis=(1, 3)).ravel() for array in (image, other)]
    assert close[5] == pytest.approx(np.corrcoef(*small)[0, 1], abs=0.01)


def test_the_funnel_adds_up():
    rng = np.random.default_rng(0)
    for _ in range(5):
        reasons = rng.choice(np.array(["", *REASONS[1:]], dtype=object), 40)
        found = funnel(47, reasons, redrawn=9, kept=3)
        assert list(found) == ["asked", "redrawn", *REASONS, "passed", "taken"]
        assert found["asked"] == 47 == sum(found[reason] for reason in REASONS) + found["passed"]
        assert found["failed"] == 7 and found["redrawn"] == 9 and found["taken"] == 3
        assert all(found[reason] == reasons.tolist().count(reason) for reason in REASONS[1:])
    nothing = funnel(5, np.array([], dtype=object), 20, 0)
    assert (nothing["failed"], nothing["passed"]) == (5, 0)
