"""Drawing with diffusers: an image depends on its request and its seed alone, and what is no image is None."""

import copy
from dataclasses import replace
from types import SimpleNamespace

import diffusers
import numpy as np
import pytest
import torch
from PIL import Image

from aaca.debugset.generators.base import Request
from aaca.debugset.generators.diffusion import DiffusionPainter, as_image
from aaca.debugset.generators.text_to_image import TextToImage
from aaca.models.tokens import save_token
from aaca.runtime.errors import AacaError
from aaca.training.generate import generate_images
from aaca.training.trainer import TrainerSpec
from tests.diffusion_toys import CONTEXT, SIDE, WIDTH, scheduler_of_sd15, toy_diffusion
from tests.toys import square_table

PROMPTS = ("a photo of a bird", "sand", "a red flower on snow left of a car", "A  Dog &amp; a cat", "a bird by night")
SEEDS = (11, 2**32 - 1, 0, 11, 5)


def requests_of(strength=1.0, start=-1, negative=""):
    return [
        Request(index, 0, prompt, negative, "", (seed,), strength, start if start < 0 else start + index)
        for index, (prompt, seed) in enumerate(zip(PROMPTS, SEEDS, strict=True))
    ]


@pytest.fixture(scope="module")
def starts(tmp_path_factory):
    return square_table(tmp_path_factory.mktemp("squares"), 8)


@pytest.fixture
def painter_of(pipeline, pipeline_folder):
    def make(starts=None, scheduler=None, **changes):
        settings = toy_diffusion(pipeline_folder, **changes)
        own = copy.copy(pipeline)
        if scheduler is None or isinstance(scheduler, str):
            kind = getattr(diffusers, scheduler or "DPMSolverMultistepScheduler")
            scheduler = kind.from_config(pipeline.scheduler.config)
        own.scheduler = scheduler
        return DiffusionPainter(own, settings, starts)

    return make


def draw(painter, requests):
    images = painter(requests, [request.seeds[0] for request in requests])
    assert len(images) == len(requests)
    assert all(image.shape == (SIDE, SIDE, 3) and image.dtype == np.uint8 for image in images)
    return images


CASES = {
    "from noise": {},
    "a scheduler that draws noise at every step": {"scheduler": "EulerAncestralDiscreteScheduler"},
    "the own scheduler of Stable Diffusion 1.5": {"scheduler": scheduler_of_sd15()},
    "from an image": {"start": 1, "strength": 0.6},
    "against a negative prompt": {"negative": "a car"},
}


@pytest.mark.parametrize("case", CASES)
def test_the_same_image_whatever_shares_its_batch_and_in_whatever_order(case, painter_of, starts):
    options = dict(CASES[case])
    painter = painter_of(starts if "start" in options else None, options.pop("scheduler", None))
    requests = requests_of(**options)
    expected = draw(painter, requests[:4]) + draw(painter, requests[4:])  # a full batch, and one that is filled up
    assert len({image.tobytes() for image in expected}) == 5
    for order in ([4, 2, 0, 1], [3], [1, 4], [2, 3, 1]):
        for row, image in zip(order, draw(painter, [requests[row] for row in order]), strict=True):
            assert np.array_equal(image, expected[row]), (order, row)


def test_one_negative_prompt_in_a_batch_changes_no_other_image(painter_of):
    painter, requests = painter_of(), requests_of()
    plain = draw(painter, requests[:4])
    mixed = draw(painter, [requests[0], replace(requests[1], negative="a car"), *requests[2:4]])
    assert [np.array_equal(a, b) for a, b in zip(plain, mixed, strict=True)] == [True, False, True, True]


@pytest.mark.parametrize("strength", [None, 0.6])
def test_the_size_of_the_batch_is_a_matter_of_rounding(painter_of, starts, strength):
    requests = requests_of() if strength is None else requests_of(strength, 1)
    given = None if strength is None else starts
    four = draw(painter_of(given), requests[:4])
    one = painter_of(given, batch_size=1)
    for row, image in enumerate(four):
        alone = draw(one, [requests[row]])[0]
        assert np.abs(alone.astype(int) - image.astype(int)).max() <= 2


def test_an_image_follows_prompt_seed_guidance_steps_start_and_strength(painter_of, starts):
    request = requests_of()[0]
    first = draw(painter_of(), [request])[0]
    assert np.array_equal(first, draw(painter_of(), [request])[0])
    others = [
        draw(painter_of(), [replace(request, prompt="snow")])[0],
        draw(painter_of(), [replace(request, seeds=(12,))])[0],
        draw(painter_of(guidance=1.0), [request])[0],
        draw(painter_of(steps=3), [request])[0],
        draw(painter_of(starts), [replace(request, start=0, strength=0.5)])[0],
        draw(painter_of(starts), [replace(request, start=1, strength=0.5)])[0],
        draw(painter_of(starts), [replace(request, start=0, strength=1.0)])[0],
    ]
    assert len({image.tobytes() for image in [first, *others]}) == 8
    assert np.array_equal(draw(painter_of(starts), [request])[0], first)  # a request without a start is from noise
    assert draw_size(painter_of(size=24), request) == 24


def draw_size(painter, request):
    return painter([request], [0])[0].shape[0]


def test_texts_are_cleaned_as_those_that_the_pipeline_was_trained_on(painter_of):
    request = requests_of()[3]
    twin = replace(request, prompt="a dog & a cat")
    assert np.array_equal(draw(painter_of(), [request])[0], draw(painter_of(), [twin])[0])


@pytest.mark.parametrize("strength", [1.0, 0.6])
def test_nothing_is_printed_while_it_draws(painter_of, starts, strength, capfd):
    draw(painter_of(starts if strength < 1 else None), requests_of(strength, 0 if strength < 1 else -1)[:1])
    assert capfd.readouterr().err == ""


class Fake:
    """A pipeline whose images are given."""

    def __init__(self, images, flagged):
        self.drawn = SimpleNamespace(images=np.stack(images), nsfw_content_detected=flagged)
        self.unet, self.vae_scale_factor = SimpleNamespace(config=SimpleNamespace(sample_size=4)), 2

    def __call__(self, **asked):
        self.asked = asked
        return self.drawn


def test_what_is_black_not_finite_or_flagged_is_none(pipeline_folder):
    good = np.random.default_rng(0).random((8, 8, 3))
    broken = good.copy()
    broken[3, 3, 1] = np.nan
    pictures = [good, np.zeros_like(good), broken, good[::-1], good[::-1]]
    settings = toy_diffusion(pipeline_folder, batch_size=5)
    fake = Fake(pictures, [False, False, False, True, False])
    requests = requests_of()
    images = DiffusionPainter(fake, settings, None)(requests, [1, 2, 3, 4, 5])
    assert [image is None for image in images] == [False, True, True, True, False]
    assert np.array_equal(images[0], np.round(good * 255).astype(np.uint8))
    assert [stream.initial_seed() for stream in fake.asked["generator"]] == [1, 2, 3, 4, 5]
    assert (fake.asked["height"], fake.asked["guidance_scale"], fake.asked["num_inference_steps"]) == (8, 3.0, 2)
    assert "negative_prompt" not in fake.asked
    unchecked = Fake(pictures, None)  # a pipeline without a checker says None
    images = DiffusionPainter(unchecked, settings, None)(requests[:4], [1, 2, 3, 4])
    assert [image is None for image in images] == [False, True, True, False]
    assert len(unchecked.asked["prompt"]) == 5  # filled up


def test_an_image_is_rounded_and_has_to_show_something():
    ramp = np.linspace(0, 1, 8 * 8 * 3).reshape(8, 8, 3)
    image = as_image(ramp)
    assert image.dtype == np.uint8 and image.min() == 0 and image.max() == 255
    assert np.abs(image / 255 - ramp).max() <= 0.5 / 255 + 1e-9
    for value in (0.0, 0.5, 1.0):
        assert as_image(np.full((8, 8, 3), value)) is None
    for value in (np.nan, np.inf, -np.inf):
        odd = ramp.copy()
        odd[0, 0, 0] = value
        assert as_image(odd) is None
    spread = np.where(np.arange(8 * 8 * 3).reshape(8, 8, 3) % 2, 0.5, 0.5 + 6 / 255)
    assert as_image(spread) is not None  # a deviation of 3 is faint, but something


def test_a_prompt_that_does_not_fit_is_one_line_before_anything_is_drawn(painter_of):
    painter = painter_of()
    fits, long = "bird " * (CONTEXT - 2), "bird " * (CONTEXT - 1)
    painter.check([*requests_of(), replace(requests_of()[0], prompt=fits, negative=fits)])
    for asked in ({"prompt": long}, {"negative": long}):
        with pytest.raises(AacaError) as caught:
            painter.check([*requests_of(), replace(requests_of()[0], **asked)])
        said = str(caught.value)
        assert said.startswith(f"prompts: {long!r} has {CONTEXT + 1} tokens; expected at most {CONTEXT} (")
        assert "\n" not in said


def test_a_size_that_cannot_be_drawn_is_one_line_before_anything_is_drawn(painter_of):
    """diffusers says it in the middle of the work, as a `ValueError`: sides are multiples of 8."""
    with pytest.raises(AacaError, match=r"size"):
        painter_of(size=20).check(requests_of())


def test_a_strength_that_leaves_no_step_is_one_line_before_anything_is_drawn(painter_of, starts):
    """A quarter of two steps is none: diffusers raises a `ValueError` when it comes to it."""
    painter_of(starts, steps=4).check(requests_of(0.25, 0))
    with pytest.raises(AacaError, match=r"0\.25 leaves none of diffusion\.steps=2; expected at least 4 steps"):
        painter_of(starts, steps=2).check(requests_of(0.25, 0))
    painter_of(starts, steps=4).check(requests_of(0.3, 0))
    with pytest.raises(AacaError, match="expected at least 4 steps"):  # three are not enough either
        painter_of(starts, steps=3).check(requests_of(0.3, 0))


def test_learned_tokens_are_loaded_draw_and_are_counted_also_inside_the_loop(pipeline_folder, painter_of, tmp_path):
    generator = torch.Generator().manual_seed(0)
    names = ("<aaca-bird>", "<aaca-art-studio>")
    tokens = {
        name: save_token(tmp_path / name, name, torch.randn(vectors, WIDTH, generator=generator))
        for name, vectors in zip(names, (1, 3), strict=True)
    }
    settings, cpu = toy_diffusion(pipeline_folder), torch.device("cpu")
    requests = [replace(requests_of()[i], prompt=f"a photo of a {name}") for i, name in enumerate(names)]
    painter = TextToImage().painter(settings, cpu, tokens, None)
    images = draw(painter, requests)
    assert not any(np.array_equal(a, b) for a, b in zip(images, draw(painter_of(), requests), strict=True))
    fits = replace(requests[0], prompt=names[1] + " bird" * (CONTEXT - 5))
    painter.check([fits])
    with pytest.raises(AacaError, match=f"has {CONTEXT + 1} tokens"):
        painter.check([replace(fits, prompt=fits.prompt + " bird")])
    folder = generate_images(  # as a job does: loaded and drawn by a Trainer, without gradients
        requests,
        lambda device: TextToImage().painter(settings, device, tokens, None),
        4,
        tmp_path / "made",
        TrainerSpec(accelerator="cpu"),
    )
    for index, image in enumerate(images):
        assert np.array_equal(np.asarray(Image.open(folder / f"{index:07d}.png")), image)
