"""CLIP's loss against a loop over pairs; captions that read alike are each other's match."""

import math

import numpy as np
import open_clip
import pytest
import torch

from aaca.data.captioned import Captions
from aaca.training.contrastive import ContrastivePretraining, resize
from tests.captioned_toys import CONTEXT, captioned_squares, toy_clip, toy_job, weights_after
from tests.toys import SIZE

TOKENIZER = open_clip.SimpleTokenizer(context_length=CONTEXT)
BOUND = math.log(100)


class Said:
    """Captions that are known."""

    def __init__(self, texts):
        self.texts = texts

    def draw(self, rows, seed):
        return [self.texts[row] for row in rows.tolist()]


def module_of(captions, seed=0, schedule=None):
    torch.manual_seed(seed)
    schedule = schedule or toy_job(None, 3).schedule  # type: ignore[arg-type]
    return ContrastivePretraining(toy_clip(), TOKENIZER, captions, SIZE, schedule, seed=1)


def by_hand(logits, texts):
    """Both directions; a text's or an image's matches share the target equally."""
    n, total = len(texts), 0.0
    for matrix in (logits, logits.T):
        for row in range(n):
            matches = [column for column in range(n) if texts[column] == texts[row]]
            chances = np.exp(matrix[row] - matrix[row].max())
            chances /= chances.sum()
            total -= sum(math.log(chances[column]) for column in matches) / len(matches) / n
    return total / 2


@pytest.mark.parametrize("texts", [["a bird", "a car on sand", "snow", "a rose"], ["a bird", "snow", "a bird", "snow"]])
@torch.no_grad()
def test_the_loss_is_the_one_computed_pair_by_pair(texts):
    module = module_of(Said(texts)).eval()
    images, rows = torch.randn(4, 3, SIZE, SIZE), torch.arange(4)
    seen = module.clip.encode_image(images, normalize=True).double().numpy()
    said = module.clip.encode_text(TOKENIZER(texts), normalize=True).double().numpy()
    logits = float(module.clip.logit_scale.exp()) * seen @ said.T
    found = module.losses((images, None, rows))
    assert float(found["loss"]) == pytest.approx(by_hand(logits, texts), rel=1e-4)
    hits = np.mean([texts[column] == texts[row] for row, column in enumerate(logits.argmax(axis=1))])
    assert float(found["hits"]) == pytest.approx(hits)


@torch.no_grad()
def test_images_with_the_same_caption_do_not_push_each_other_away():
    """All captions alike: nothing is to be told apart, so every image is as right as it can be."""
    module = module_of(Said(["a bird"] * 4)).eval()
    batch = (torch.randn(4, 3, SIZE, SIZE), None, torch.arange(4))
    found = module.losses(batch)
    assert float(found["hits"]) == 1
    other = module_of(Said(["a bird", "a car", "a dog", "snow"])).eval()
    assert float(other.losses(batch)["loss"]) > float(found["loss"])


def test_rows_say_which_captions_and_the_update_which_of_them(tmp_path, monkeypatch):
    captions = Captions(captioned_squares(tmp_path, 12))
    module = module_of(captions)
    drawn = []
    module.tokenizer = lambda texts: drawn.append(texts) or TOKENIZER(texts)
    rows = torch.tensor([3, 0, 7])
    for _ in range(2):
        module.losses((torch.randn(3, 3, SIZE, SIZE), None, rows))
    assert drawn[0] == drawn[1]  # the update's number is the same
    for update in range(1, 5):
        monkeypatch.setattr(ContrastivePretraining, "global_step", update)
        module.losses((torch.randn(3, 3, SIZE, SIZE), None, rows))
    assert len(set(map(tuple, drawn))) > 2
    for row, text in zip(rows.tolist(), drawn[0], strict=True):
        content = captions.contents[row]
        assert content.cls in text or content.scene in text


@pytest.mark.parametrize(("start", "bound"), [(6.0, BOUND), (-1.0, 0.0)])
def test_the_temperature_is_brought_within_clip_s_bounds_also_in_a_checkpoint(start, bound, tmp_path):
    table = captioned_squares(tmp_path / "data", 12)
    job = toy_job(table, 3, lr=1e-3)

    def build():
        module = module_of(Captions(table), schedule=job.schedule)
        with torch.no_grad():
            module.clip.logit_scale.fill_(start)
        return module, job

    whole = weights_after(build, tmp_path / "whole", [])
    assert float(whole["clip.logit_scale"]) == pytest.approx(bound, abs=0.004)  # two small steps later
    assert -1e-6 <= float(whole["clip.logit_scale"]) <= BOUND + 1e-4
    again = weights_after(build, tmp_path / "cut", [("on_train_batch_start", 2)])
    assert [name for name in whole if not torch.equal(again[name], whole[name])] == []


def test_images_are_resized_only_where_they_must():
    images = torch.rand(2, 3, 8, 8)
    assert resize(images, 8) is images
    large = resize(images, 16)
    assert large.shape == (2, 3, 16, 16)
    torch.testing.assert_close(large.mean(dim=(2, 3)), images.mean(dim=(2, 3)), atol=0.02, rtol=0)
