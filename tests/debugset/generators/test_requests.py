"""What is asked of a painter: images shared out over prompts, seeds that depend on nothing else, starts, strengths."""

from collections import Counter
from dataclasses import replace

import pytest

from aaca.debugset.generators.base import TRIES
from aaca.debugset.generators.image_to_image import DaFusion, RealGuidance
from aaca.debugset.generators.renderer import Renderer
from aaca.debugset.generators.text_to_image import TextToImage
from aaca.debugset.generators.textual_inversion import LearnedTokens
from aaca.debugset.prompts.base import Prompt
from aaca.runtime.errors import ConfigError, DataError
from tests.toys import square_table

CLASSES = ("art_studio", "produce")
TEXTS = ("a photo of {class}", "{class} by night", "{class} on sand")
PROMPTS = [Prompt(label, text, concept="sand" if "sand" in text else "") for label in (0, 1) for text in TEXTS]
ALL = [TextToImage(), LearnedTokens(), RealGuidance(), DaFusion(), Renderer()]


@pytest.fixture(scope="module")
def starts(tmp_path_factory):
    return square_table(tmp_path_factory.mktemp("squares"), 20)


def asked(generator, starts, per_class=8, seed=0, prompts=PROMPTS, classes=CLASSES):
    return generator.requests(prompts, classes, per_class, seed, starts if generator.needs_starts else None)


def test_images_are_shared_out_evenly_over_the_prompts_of_a_class():
    for per_class, expected in ((8, [3, 3, 2]), (6, [2, 2, 2]), (2, [1, 1])):
        requests = asked(TextToImage(), None, per_class)
        assert [request.index for request in requests] == list(range(2 * per_class))
        for label in (0, 1):
            own = [request for request in requests if request.label == label]
            assert sorted(Counter(request.prompt for request in own).values(), reverse=True) == expected
    first, _, third = asked(TextToImage(), None)[:3]
    assert (first.prompt, first.concept) == ("a photo of an art studio", "")
    assert (third.prompt, third.concept) == ("an art studio on sand", "sand")
    assert asked(TextToImage(), None)[8].prompt == "a photo of produce"


@pytest.mark.parametrize("generator", ALL, ids=lambda generator: type(generator).__name__)
def test_the_first_images_stay_when_more_are_asked_for_and_whatever_the_other_classes_are(generator, starts):
    few, many = asked(generator, starts, 4), asked(generator, starts, 9)
    for label in (0, 1):
        own = [[replace(r, index=0) for r in requests if r.label == label] for requests in (few, many)]
        assert own[1][:4] == own[0] and len(own[1]) == 9
    if generator.needs_starts:
        return  # a start image is drawn from the class's rows, which have another number below
    alone = asked(generator, starts, 4, prompts=[replace(p, label=0) for p in PROMPTS if p.label], classes=CLASSES[1:])
    theirs = [replace(request, index=0, label=0) for request in few if request.label == 1]
    assert [replace(request, index=0) for request in alone] == theirs


@pytest.mark.parametrize("generator", ALL, ids=lambda generator: type(generator).__name__)
def test_every_image_has_its_own_seeds_and_they_follow_the_run_s(generator, starts):
    requests = asked(generator, starts)
    seeds = [seed for request in requests for seed in request.seeds]
    assert len(seeds) == len(set(seeds)) == 16 * TRIES and all(0 <= seed < 2**32 for seed in seeds)
    assert requests == asked(generator, starts)
    others = {seed for request in asked(generator, starts, seed=1) for seed in request.seeds}
    assert not others & set(seeds)


def test_the_negative_prompt_and_the_concept_are_part_of_what_is_drawn():
    prompts = [Prompt(0, "{class}"), Prompt(0, "{class}", negative="sand"), Prompt(0, "{class}", concept="snow")]
    requests = TextToImage().requests(prompts, CLASSES[:1], 3, 0, None)
    assert [(r.prompt, r.negative, r.concept) for r in requests] == [
        ("an art studio", "", ""),
        ("an art studio", "sand", ""),
        ("an art studio", "", "snow"),
    ]
    assert len({request.seeds for request in requests}) == 3


def test_a_class_without_a_prompt_is_an_error():
    with pytest.raises(DataError, match=r"^prompts: none for class 'produce'; expected at least one"):
        asked(TextToImage(), None, prompts=PROMPTS[:3])


@pytest.mark.parametrize("generator", [LearnedTokens(), DaFusion()])
def test_with_learned_tokens_a_prompt_names_the_token(generator, starts):
    assert generator.needs_tokens
    requests = asked(generator, starts, 1)
    assert [request.prompt for request in requests] == ["a photo of a <aaca-art-studio>", "a photo of a <aaca-produce>"]


@pytest.mark.parametrize("generator", [LearnedTokens(), DaFusion()])
def test_two_classes_may_not_share_a_token(generator):
    generator.check(CLASSES)
    with pytest.raises(ConfigError, match="share token <aaca-art-studio>"):
        generator.check(["art_studio", "art studio"])


def test_real_guidance_starts_from_images_of_the_class_at_one_strength(starts):
    requests = asked(RealGuidance(0.3), starts, 200)
    assert {request.strength for request in requests} == {0.3}
    for label in (0, 1):
        rows = Counter(request.start for request in requests if request.label == label)
        assert set(rows) == {row for row in range(20) if starts.labels[row] == label}
        assert min(rows.values()) >= 6  # 20 expected, 4.2 the standard deviation
    assert RealGuidance(0.3).needs_starts and not RealGuidance(0.3).needs_tokens


def test_da_fusion_uses_every_strength_equally_often(starts):
    requests = asked(DaFusion(), starts, 10)
    for label in (0, 1):
        own = [request for request in requests if request.label == label]
        assert Counter(request.strength for request in own) == {0.25: 3, 0.5: 3, 0.75: 2, 1.0: 2}
        assert all(starts.labels[request.start] == label for request in own)
    assert {request.strength for request in asked(DaFusion([0.2, 0.9]), starts)} == {0.2, 0.9}


def test_a_class_without_a_training_image_cannot_be_started_from(starts):
    with pytest.raises(DataError, match=r"^generator: class 'class1' has no training image to start from"):
        asked(RealGuidance(), starts.take(starts.labels == 0))


@pytest.mark.parametrize("strength", [0.0, -0.5, 1.01, float("nan")])
def test_strengths_are_shares(strength):
    with pytest.raises(ConfigError, match=r"^generator\.strength: .*; expected a share in \(0, 1\]"):
        RealGuidance(strength)
    with pytest.raises(ConfigError, match=r"^generator\.strengths: "):
        DaFusion([0.5, strength])


def test_fingerprints_tell_generators_and_their_settings_apart():
    found = [*ALL, RealGuidance(0.4), DaFusion([0.5]), Renderer(32)]
    prints = [str({**generator.fingerprint(), "class": type(generator).__name__}) for generator in found]
    assert len(set(prints)) == len(prints)
