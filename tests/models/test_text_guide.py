"""Texts and images of a guide: open_clip's own vectors, averaged and resized as they should be, with gradients."""

import pytest
import torch
import torch.nn.functional as F
from open_clip.tokenizer import SimpleTokenizer

from aaca.models.text_guide import ImageSide, text_guide
from aaca.models.zero_shot import ClipModel, ImageText
from aaca.runtime.errors import ConfigError
from tests.captioned_toys import CONTEXT, toy_clip
from tests.toys import SIZE

TEMPLATES = ("a photo of {}", "{} on sand", "many {}")


class Loaded(ClipModel):
    """What a folder would load."""

    def __init__(self):
        torch.manual_seed(0)
        clip = toy_clip().eval()
        clip.visual.preprocess_cfg = {"mean": (0.4, 0.5, 0.6), "std": (0.2, 0.3, 0.4)}
        self.found = ImageText(clip, SimpleTokenizer(context_length=CONTEXT), ["{}"], 64)

    def load(self):
        return self.found


@torch.no_grad()
def test_a_class_s_vector_is_the_mean_of_unit_vectors_and_none_itself():
    source, words = Loaded(), ["food, steak", "bird"]
    guide = text_guide(source, words, TEMPLATES)
    tokenizer = SimpleTokenizer(context_length=CONTEXT)
    for row, word in enumerate(words):
        said = source.found.model.encode_text(tokenizer([one.format(word) for one in TEMPLATES]))
        torch.testing.assert_close(guide.vectors[row], F.normalize(said, dim=1).mean(0), rtol=1e-3, atol=1e-5)
    assert guide.vectors.shape == (2, 12) and bool((guide.vectors.norm(dim=1) < 0.999).all())


def test_images_are_seen_whole_at_the_model_s_size_in_its_own_units_and_gradients_come_back():
    source = Loaded()
    side = text_guide(source, ["a", "b"], TEMPLATES).image_encoder
    images = torch.rand(2, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(1), requires_grad=True)
    mean, std = torch.tensor([0.4, 0.5, 0.6]).view(3, 1, 1), torch.tensor([0.2, 0.3, 0.4]).view(3, 1, 1)
    torch.testing.assert_close(side(images), source.found.model.encode_image((images - mean) / std))
    large = torch.rand(1, 3, 40, 40, generator=torch.Generator().manual_seed(2))
    small = F.interpolate(large, size=(SIZE, SIZE), mode="bicubic", align_corners=False, antialias=True)
    torch.testing.assert_close(side(large), side(small), rtol=1e-3, atol=1e-4)
    side(images)[0].sum().backward()
    assert bool(images.grad[0].ne(0).all()) and not bool(images.grad[1].any())
    assert isinstance(side, ImageSide) and not side.clip.model.training


def test_words_and_templates_are_looked_at():
    with pytest.raises(ConfigError, match=r"^guide: 0 class words and 3 templates"):
        text_guide(Loaded(), [], TEMPLATES)
    with pytest.raises(ConfigError, match=r"^guide\.templates\[1\]: .*expected {} once"):
        text_guide(Loaded(), ["bird"], ["{}", "a photo"])
