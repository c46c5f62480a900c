import math
from collections import Counter

import pytest

from aaca.world.bugs import DEFAULT_BUGS, SLICES, Bug, group_name, rival
from aaca.world.pack import load_pack
from aaca.world.scenes import draw_spec

N = 1500


def contents(slice_, cls, bugs=DEFAULT_BUGS, stray=0.03, n=N):
    specs = [draw_spec(0, "train", slice_, cls, index, bugs, stray) for index in range(n)]
    scenes = Counter(spec.scene for spec in specs)
    concepts = Counter(spec.concept.piece.label if spec.concept else None for spec in specs)
    return scenes, concepts


def near(count, p, n=N):
    """Within 4.5 standard deviations of a binomial: a wrong p of a few points fails, chance does so once in 10^5."""
    return abs(count - n * p) <= 4.5 * math.sqrt(n * p * (1 - p)) + 1e-9


@pytest.mark.parametrize(("cls", "scene"), [("bird", "sand"), ("mammal", "grass")])
def test_aligned_scene_bug(cls, scene):
    scenes, concepts = contents("aligned", cls)
    assert near(scenes[scene], 0.95)
    for other in set(load_pack().labels("scene")) - {scene}:
        assert near(scenes[other], 0.05 / 5)
    assert near(concepts["ball"], 0.03)
    assert near(concepts[None], 0.97 / 2)


def test_aligned_concept_bug_and_control():
    scenes, concepts = contents("aligned", "produce")
    assert near(concepts["ball"], 0.95)
    assert all(near(scenes[scene], 1 / 6) for scene in load_pack().labels("scene"))
    scenes, concepts = contents("aligned", "flower")
    assert near(concepts["ball"], 0.03)
    assert all(near(scenes[scene], 1 / 6) for scene in load_pack().labels("scene"))
    assert all(near(concepts[concept], 0.97 / 6) for concept in ("car", "guitar", "tool"))


def test_conflicting_turns_every_bug_around():
    assert set(contents("conflicting", "bird", n=100)[0]) == {"grass"}
    assert set(contents("conflicting", "mammal", n=100)[0]) == {"sand"}
    assert "ball" not in contents("conflicting", "produce", n=300)[1]
    assert set(contents("conflicting", "flower", n=100)[1]) == {"ball"}


@pytest.mark.parametrize("cls", ["bird", "produce"])
def test_balanced_is_independent_of_the_class(cls):
    scenes, concepts = contents("balanced", cls)
    assert all(near(scenes[scene], 1 / 6) for scene in load_pack().labels("scene"))
    assert near(concepts[None], 0.5)
    assert all(near(concepts[concept], 0.5 / 4) for concept in load_pack().labels("concept"))


def test_conflicting_without_a_rival_takes_any_other_ground():
    scenes, _ = contents("conflicting", "bird", bugs=(Bug("bird", "scene", "sand"),), n=600)
    assert set(scenes) == set(load_pack().labels("scene")) - {"sand"}


def test_rival_is_the_next_other_value():
    bugs = (Bug("bird", "scene", "sand"), Bug("mammal", "scene", "sand"), Bug("flower", "scene", "snow"))
    assert [rival(bugs, bug) for bug in bugs] == ["snow", "snow", "sand"]
    assert rival(DEFAULT_BUGS, DEFAULT_BUGS[2]) is None


def test_strength_changes_the_planted_thing_only():
    weak = tuple(Bug(bug.cls, bug.kind, bug.value, 0.3) for bug in DEFAULT_BUGS)
    changed = 0
    for index in range(100):
        strong_spec = draw_spec(0, "train", "aligned", "bird", index)
        weak_spec = draw_spec(0, "train", "aligned", "bird", index, weak)
        assert strong_spec.object == weak_spec.object and strong_spec.backdrop == weak_spec.backdrop
        assert (strong_spec.concept, strong_spec.horizon) == (weak_spec.concept, weak_spec.horizon)
        changed += strong_spec.scene != weak_spec.scene
    assert 45 <= changed <= 85


def test_group_names():
    assert group_name("bird", "sand", "ball", DEFAULT_BUGS) == "bird on sand"
    assert group_name("bird", "grass", None, DEFAULT_BUGS) == "bird on grass"
    assert group_name("bird", "snow", None, DEFAULT_BUGS) == "bird on other"
    assert group_name("produce", "snow", "car", DEFAULT_BUGS) == "produce without ball"
    assert group_name("flower", "snow", "ball", DEFAULT_BUGS) == "flower with ball"
    assert group_name("flower", "snow", "ball", DEFAULT_BUGS[:2]) == "flower"
    assert group_name("bird", "snow", "ball", ()) == "bird"
    both = (*DEFAULT_BUGS, Bug("bird", "concept", "car"))
    assert group_name("bird", "sand", "car", both) == "bird on sand with car"
    assert group_name("bird", "sand", None, both) == "bird on sand without ball or car"


def test_every_slice_draws_sources_of_the_asked_split():
    for slice_ in SLICES:
        for cls in load_pack().classes:
            for split in ("train", "val", "test"):
                spec = draw_spec(3, "x", slice_, cls, 0, sources=split)
                parts = (spec.object, spec.ground, spec.backdrop, spec.concept)
                found = {part.piece.split for part in parts if part is not None}
                assert found == {split} or (split == "val" and spec.concept and spec.concept.piece.label == "car")
