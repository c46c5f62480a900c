"""The renderer as a generator: a prompt decides what it names, chance the rest, and only train sources are used."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch

from aaca.debugset.generators import renderer
from aaca.debugset.generators.base import Request
from aaca.debugset.generators.renderer import Renderer, named
from aaca.runtime.errors import ConfigError
from aaca.world.bugs import CONCEPT_RATE
from aaca.world.pack import load_pack
from aaca.world.render import render
from aaca.world.scenes import request_spec

CLASSES = load_pack().classes
SIZE = 24


def request(prompt, label=0, concept=""):
    return Request(0, label, prompt, "", concept, (1, 2, 3, 4))


@pytest.fixture
def painter():
    return Renderer(SIZE).painter(None, torch.device("cpu"), {}, None)


@pytest.fixture
def asked(monkeypatch, painter):
    """What is asked of the world for a request and seeds: (class, ground, co-object, relation) each, nothing drawn."""

    def ask(wanted, seeds):
        seen = []

        def spec(seed, *content):
            seen.append((*content, request_spec(seed, *content)))
            return seen[-1][-1]

        with monkeypatch.context() as patch:
            patch.setattr(renderer, "request_spec", spec)
            patch.setattr(renderer, "render", lambda spec, size: type("Drawn", (), {"rgb": np.zeros((size, size, 3))}))
            painter([wanted] * len(seeds), seeds)
        return seen

    return ask


@pytest.mark.parametrize("label", range(len(CLASSES)))
def test_what_a_prompt_names_is_in_the_image_and_the_class_is_the_request_s(asked, label):
    text = "a photo of a thing on snow left of a tennis ball"
    for cls, scene, concept, relation, spec in asked(request(text, label), range(5)):
        assert (cls, scene, concept, relation) == (CLASSES[label], "snow", "ball", "left of")
        assert (spec.cls, spec.scene, spec.concept.piece.label) == (CLASSES[label], "snow", "ball")
        assert spec.object.centre < spec.concept.centre
    assert asked(request("a thing right of a car", label), [0])[0][2:4] == ("car", "right of")
    assert asked(request("a thing beside a car on sand", label), [0])[0][1:4] == ("sand", "car", None)


def test_the_concept_counts_where_the_prompt_does_not_name_it(asked):
    assert {entry[1] for entry in asked(request("a photo of a bird", concept="grass"), range(20))} == {"grass"}
    assert {entry[2] for entry in asked(request("a photo of a bird", concept="a guitar"), range(20))} == {"guitar"}
    assert {entry[1] for entry in asked(request("a bird on sand", concept="grass"), range(5))} == {"sand"}


def test_what_it_does_not_name_is_drawn_evenly(asked):
    n, pack = 1200, load_pack()
    found = asked(request("a photo of a bird"), range(n))
    scenes = Counter(entry[1] for entry in found)
    concepts = Counter(entry[2] for entry in found)

    def near(count, p):
        return abs(count - n * p) <= 4.5 * (n * p * (1 - p)) ** 0.5

    assert all(near(scenes[scene], 1 / len(pack.labels("scene"))) for scene in pack.labels("scene"))
    assert near(concepts[None], 1 - CONCEPT_RATE)
    assert all(near(concepts[c], CONCEPT_RATE / len(pack.labels("concept"))) for c in pack.labels("concept"))
    sides = Counter(entry[-1].relation for entry in found if entry[2])
    assert near(sides["left of"], CONCEPT_RATE / 2)
    together = Counter((entry[1], entry[2] is None) for entry in found)
    assert all(near(together[scene, True], (1 - CONCEPT_RATE) / 6) for scene in pack.labels("scene"))


def test_a_relation_to_nothing_is_none(asked):
    entries = asked(request("a bird left of it all"), range(60))
    assert {(entry[2] is None, entry[3]) for entry in entries} == {(True, None), (False, "left of")}


def test_only_train_sources_are_used(asked):
    for entry in asked(request("a photo of a bird"), range(150)):
        spec = entry[-1]
        pieces = [spec.object.piece, spec.ground.piece, spec.backdrop.piece]
        pieces += [spec.concept.piece] if spec.concept else []
        assert {piece.split for piece in pieces} == {"train"}


def test_it_is_the_world_s_renderer_and_the_seed_decides(painter):
    wanted = request("a photo of a mammal on grass right of a car", CLASSES.index("mammal"))
    first, again, other, twin = painter([wanted, wanted, wanted, replace(wanted, index=5)], [7, 7, 8, 7])
    expected = render(request_spec(7, "mammal", "grass", "car", "right of"), SIZE).rgb
    assert first.shape == (SIZE, SIZE, 3) and first.dtype == np.uint8
    assert np.array_equal(first, expected) and np.array_equal(first, again) and np.array_equal(first, twin)
    assert not np.array_equal(first, other)


def test_words_are_named_whole_and_the_first_counts():
    assert named("a bird on sandstone", ["sand", "snow"]) is None
    assert named("snow, then sand", ["sand", "snow"]) == "snow"
    assert named("in the sand.", ["sand", "snow"]) == "sand"
    assert named("", ["sand"]) is None


def test_a_class_that_the_pack_lacks_is_refused_before_any_work():
    Renderer().check(CLASSES)
    with pytest.raises(
        ConfigError, match=r"^generator: renderer draws bird, .* alone, the dataset has class 'kitchen'; exp"
    ):
        Renderer().check([*CLASSES, "kitchen", "attic"])


def test_no_pipeline_and_no_start_images_are_needed():
    assert not Renderer().needs_diffusion and not Renderer().needs_tokens and not Renderer().needs_starts
    assert Renderer().batch_size(None) > 1
    assert Renderer(32).fingerprint() != Renderer(64).fingerprint()
