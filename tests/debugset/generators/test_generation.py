"""The job's side: which groups a generated debug set needs, and the table of what was made."""

from dataclasses import fields

import numpy as np
import pytest

from aaca.debugset.filters import FilterChain
from aaca.debugset.generators.base import Request
from aaca.debugset.generators.image_to_image import DaFusion
from aaca.debugset.generators.renderer import Renderer
from aaca.debugset.generators.text_to_image import TextToImage
from aaca.debugset.prompts.class_name import ClassName
from aaca.runtime.errors import ConfigError
from aaca.training.generate import write_image
from experiments.debug_config import DebugConfig, DebugSetConfig
from experiments.debug_generate import generated_frame

OFF = FilterChain(clip_class=None, clip_concept=None, third_class=0.9, near_duplicate=None)
ON = FilterChain(clip_class=None, clip_concept=5, third_class=None, near_duplicate=None)


def config_of(candidates="generated", per_class=10, oversample=1.25, **groups):
    nothing = dict.fromkeys(field.name for field in fields(DebugConfig))
    wanted = DebugSetConfig(candidates=candidates, per_class=per_class, oversample=oversample, fill="none")
    return DebugConfig(**{**nothing, "debugset": wanted, **groups})


@pytest.mark.parametrize(
    ("groups", "missing"),
    [
        ({}, "generator"),
        ({"generator": Renderer()}, "prompts"),
        ({"generator": Renderer(), "prompts": ClassName()}, "filters"),
        ({"generator": TextToImage(), "prompts": ClassName(), "filters": OFF}, "diffusion"),
        ({"generator": DaFusion(), "prompts": ClassName(), "filters": OFF, "diffusion": object()}, "inversion"),
        ({"generator": Renderer(), "prompts": ClassName(), "filters": ON}, "clip"),
    ],
)
def test_the_first_group_that_is_missing_is_named(groups, missing):
    with pytest.raises(ConfigError, match=rf"^{missing}: missing, and debugset\.candidates=generated needs it; c"):
        config_of(**groups).generation()


def test_a_generator_without_generated_candidates_is_refused():
    with pytest.raises(ConfigError, match=r"^generator: given, but debugset\.candidates is pool; expected generated"):
        config_of("pool", generator=Renderer(), prompts=ClassName(), filters=OFF).generation()


def test_groups_that_nothing_needs_may_be_missing():
    parts = config_of(generator=Renderer(), prompts=ClassName(), filters=OFF).generation()
    assert isinstance(parts.generator, Renderer) and parts.filters is OFF and parts.diffusion is None


@pytest.mark.parametrize(
    ("per_class", "oversample", "asked"), [(10, 1.25, 13), (10, 1.0, 10), (3, 1.5, 5), (100, 1.1, 110)]
)
def test_more_images_are_asked_for_than_are_taken(per_class, oversample, asked):
    assert config_of(per_class=per_class, oversample=oversample).debugset.asked == asked


def test_the_table_says_for_every_request_what_became_of_it(tmp_path):
    requests = [
        Request(
            index, index % 2, f"prompt {index}", "not this", "sand", tuple(10 * index + i for i in range(3)), 0.5, 7
        )
        for index in range(4)
    ]
    image = np.zeros((4, 4, 3), dtype=np.uint8)
    for index, attempt in ((0, 0), (1, 2), (3, 1)):
        write_image(tmp_path / "images", requests[index], image, attempt)
    frame = generated_frame(requests, tmp_path, ("bird", "flower"))
    assert frame["failed"].tolist() == [False, False, True, False]
    assert frame["seed"].tolist() == [0, 12, 22, 31]
    assert frame["redrawn"].tolist() == [0, 2, 3, 1]
    assert frame["id"].tolist()[:2] == ["generated/bird/0000000", "generated/flower/0000001"]
    assert frame["id"].is_unique and frame["source"].is_unique
    assert all((tmp_path / path).is_file() for path in frame["path"][~frame["failed"]])
    assert frame["prompt"].tolist() == [f"prompt {index}" for index in range(4)]
    assert set(frame["provenance"]) == {"synthetic"} and set(frame["row"]) == {-1} and set(frame["start"]) == {7}
