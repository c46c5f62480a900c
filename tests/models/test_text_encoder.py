"""The transformers text encoder is open_clip's text tower; the embedded model is an architecture of open_clip."""

import torch
import torch.nn.functional as F

from aaca.models.efficientnet_lite import imagenet_model
from aaca.models.text_encoder import to_clip_text_model
from aaca.models.tiny_clip import build_clip, clip_config
from tests.captioned_toys import CONTEXT, toy_clip

FIRST, LAST = 49406, 49407


def some_tokens():
    """Texts of all lengths, padded as open_clip does (0) and as Stable Diffusion does (end of text)."""
    generator = torch.Generator().manual_seed(0)
    tokens = torch.zeros(CONTEXT - 1, CONTEXT, dtype=torch.long)
    for row in range(CONTEXT - 1):
        length = row  # words between start and end
        words = torch.randint(1, 49000, (min(length, CONTEXT - 2),), generator=generator)
        tokens[row, : len(words) + 2] = torch.cat([torch.tensor([FIRST]), words, torch.tensor([LAST])])
    ends = (tokens == LAST).int().argmax(dim=1)
    padded = torch.where(torch.arange(CONTEXT)[None] > ends[:, None], LAST, tokens)
    return tokens, padded, ends


@torch.no_grad()
def test_states_at_the_end_of_text_projected_are_open_clip_s_embedding():
    torch.manual_seed(0)
    clip = toy_clip().eval()
    own = to_clip_text_model(clip)
    zeros, ended, ends = some_tokens()
    expected = clip.encode_text(zeros)
    assert expected.std() > 0.05 and not torch.allclose(expected[0], expected[1], atol=1e-2)
    for tokens in (zeros, ended):
        out = own(tokens)
        pooled = out.last_hidden_state[torch.arange(len(ends)), ends]
        torch.testing.assert_close(pooled @ clip.text_projection, expected, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(out.pooler_output, pooled)
    assert own.config.max_position_embeddings == CONTEXT
    assert sum(p.numel() for p in own.parameters()) == sum(
        p.numel() for name, p in clip.named_parameters() if not name.startswith(("visual", "logit", "text_projection"))
    )


@torch.no_grad()
def test_the_encoder_is_a_copy(tmp_path):
    torch.manual_seed(1)
    clip = toy_clip().eval()
    own = to_clip_text_model(clip)
    zeros, _, _ = some_tokens()
    before = own(zeros).last_hidden_state
    for parameter in clip.parameters():
        parameter.zero_()
    assert torch.equal(own(zeros).last_hidden_state, before)
    own.save_pretrained(tmp_path)
    again = type(own).from_pretrained(tmp_path, local_files_only=True)
    assert torch.equal(again(zeros).last_hidden_state, before)


@torch.no_grad()
def test_the_embedded_model_starts_from_imagenet_and_its_features_are_pooled_and_projected():
    torch.manual_seed(0)
    clip = build_clip(clip_config(image_size=32, width=16, layers=1, embed_dim=24, context=16), imagenet=True).eval()
    own, source = clip.visual.trunk, imagenet_model().eval()
    images = torch.randn(2, 3, 32, 32)
    features = source.forward_features(images)
    torch.testing.assert_close(own.forward_features(images), features)
    expected = clip.visual.head(features.mean(dim=(2, 3)))
    torch.testing.assert_close(clip.encode_image(images), expected, rtol=1e-4, atol=1e-5)
    assert expected.shape == (2, 24)
    tokens = torch.zeros(2, 16, dtype=torch.long)
    tokens[:, 0], tokens[0, 3], tokens[1, 5] = FIRST, LAST, LAST
    seen, said, scale = clip(images, tokens)
    torch.testing.assert_close(seen, F.normalize(expected, dim=1), rtol=1e-4, atol=1e-5)
    assert said.shape == (2, 24) and torch.allclose(said.norm(dim=1), torch.ones(2))
    assert 14 < float(scale) < 14.5  # CLIP's start, 1 / 0.07
