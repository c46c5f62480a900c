"""The pretraining loop: interrupted anywhere it ends with the same bits; its schedule, its curve, its failures."""

import csv
import math
from itertools import pairwise

import numpy as np
import pytest
import timm
import torch
from torch import nn

from aaca.data.captioned import Captions
from aaca.models.judge import ASPECTS, Judge
from aaca.models.tiny_diffusion import build_unet, noise_schedule
from aaca.models.tokenizer import clip_tokenizer
from aaca.runtime.errors import AacaError, ConfigError
from aaca.runtime.stages import PROGRESS
from aaca.training import pretrain as loop
from aaca.training.checkpoints import found
from aaca.training.diffusion import LatentDiffusion
from aaca.training.judge import JudgePretraining, disturb
from aaca.training.masked_autoencoder import MaskedAutoencoder
from aaca.training.pretrain import Pretraining, Schedule, pretrain
from tests.captioned_toys import (
    CONTEXT,
    WIDTH,
    attempt,
    captioned_squares,
    toy_job,
    toy_text_encoder,
    weights_after,
)
from tests.toys import SIZE, Killed, Stop

ROW, UPDATES = 3, 6  # two rows of the curve


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    return captioned_squares(tmp_path_factory.mktemp("squares"), 10)


@pytest.fixture
def short_rows(monkeypatch):
    monkeypatch.setattr(loop, "CURVE", ROW)


def masked(table, updates=UPDATES):
    torch.manual_seed(0)
    kwargs = {"patch_size": 8, "embed_dim": 16, "depth": 1, "num_heads": 2}
    encoder = timm.create_model("vit_tiny_patch16_224", img_size=SIZE, num_classes=0, **kwargs)
    job = toy_job(table, updates, weight_decay=0.05)
    return MaskedAutoencoder(encoder, job.schedule, 0.5, width=16, depth=1), job


def diffusion(table, updates=5):
    torch.manual_seed(0)
    latents = np.random.default_rng(0).normal(size=(10, 4, 4, 4)).astype(np.float16)
    unet = build_unet([16], heads=2, latent_channels=4, latent_size=4, width=WIDTH)
    tokenizer, captions, job = clip_tokenizer(CONTEXT), Captions(table), toy_job(table, updates)
    arguments = (toy_text_encoder(), tokenizer, noise_schedule(), latents, captions, job.schedule, 1)
    return LatentDiffusion(unet, *arguments), job


def curve(folder):
    with (folder / "log" / "metrics.csv").open() as stream:
        return [{name: float(value) for name, value in row.items()} for row in csv.DictReader(stream)]


def differing(mine, whole):
    return [name for name in whole if not torch.equal(mine[name], whole[name])]


HOOKS = [
    [("on_train_batch_start", 1)],
    [("on_train_batch_start", 2)],
    [("on_train_batch_end", 3)],
    [("on_train_batch_start", 5)],
    [("on_train_epoch_end", 1)],
    [("on_train_epoch_start", 2)],
    [("on_train_end", 1)],
    [("on_train_batch_start", 3), ("on_train_batch_start", 1), ("on_train_batch_end", 2)],
]


@pytest.fixture(scope="module")
def whole(table, tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "CURVE", ROW)
        return weights_after(lambda: masked(table), folder / "run", []), curve(folder / "run")


@pytest.mark.parametrize("stops", HOOKS, ids=lambda stops: "-".join(f"{hook}{count}" for hook, count in stops))
def test_killed_at_any_hook_it_ends_with_the_same_bits_and_curve(stops, table, whole, short_rows, tmp_path):
    weights, rows = whole
    assert differing(weights_after(lambda: masked(table), tmp_path / "cut", stops), weights) == []
    assert curve(tmp_path / "cut") == rows


def test_the_bits_depend_on_the_seed(table, whole, short_rows, tmp_path):
    module, job = masked(table)
    other = vars(job) | {"seed": 4}
    pretrain(module, type(job)(**other), tmp_path)
    assert len(differing(module.state_dict(), whole[0])) > 10


def test_the_denoiser_killed_anywhere_ends_with_the_same_bits(table, tmp_path):
    """Two networks, captions, noise, a moving average."""
    whole = weights_after(lambda: diffusion(table), tmp_path / "whole", [])
    assert len([name for name in whole if name.startswith("average.")]) > 50
    for stops in ([("on_train_batch_end", 2), ("on_train_batch_start", 2)], [("on_train_batch_start", 4)]):
        again = weights_after(lambda: diffusion(table), tmp_path / "cut", stops)
        assert differing(again, whole) == [], stops


class Named(Pretraining):
    """Learns nothing of use; logs numbers that are known."""

    def __init__(self, schedule, values):
        super().__init__(schedule)
        self.weight = nn.Parameter(torch.zeros(2, 2))
        self.bias = nn.Parameter(torch.zeros(2))
        self.values, self.seen = values, []

    def losses(self, batch):
        value = self.values[self.global_step]
        self.seen.append(value)
        return {"loss": self.weight.sum() * 0 + self.bias.sum() * 0 + value, "double": torch.tensor(2.0 * value)}


def test_a_row_of_the_curve_is_the_mean_over_its_updates(table, short_rows, tmp_path):
    values = [1.0, 2.0, 6.0, 4.0, 4.0, 7.0]
    job = toy_job(table, len(values))
    seconds = pretrain(Named(job.schedule, values), job, tmp_path)
    rows = curve(tmp_path)
    assert [row["updates"] for row in rows] == [3, 6]
    assert [row["loss"] for row in rows] == [3, 5] and [row["double"] for row in rows] == [6, 10]
    assert 0 < seconds < 60


def test_every_row_is_true_also_where_the_updates_are_no_whole_number_of_rows(table, short_rows, tmp_path):
    values = [1.0, 2.0, 6.0, 40.0]
    job = toy_job(table, len(values))
    module, done = Named(job.schedule, values), 0
    pretrain(module, job, tmp_path)
    assert module.seen == values
    for row in curve(tmp_path):
        updates = int(row["updates"])
        assert row["loss"] == pytest.approx(np.mean(values[done:updates])), row
        done = updates
    assert done >= 3


def test_fewer_updates_than_a_row_make_one_row(table, tmp_path):
    job = toy_job(table, 2)
    pretrain(Named(job.schedule, [1.0, 3.0]), job, tmp_path)
    assert [(row["updates"], row["loss"]) for row in curve(tmp_path)] == [(2, 2)]


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_is_one_line(value, table, tmp_path):
    job = toy_job(table, 5)
    with pytest.raises(AacaError, match=rf"^update 2: the loss is {value}; lower schedule\.lr$"):
        pretrain(Named(job.schedule, [1.0, 1.0, value]), job, tmp_path)


def test_what_was_saved_is_kept_and_refused_by_another_fit(table, tmp_path):
    module, job = masked(table)
    with pytest.raises(Killed):
        attempt(lambda: (module, job), tmp_path, Stop("on_train_batch_start", 4))
    assert [int(file.stem) for file in found(tmp_path / PROGRESS)] == [3, 2]
    for change in ({"seed": 9}, {"settings": {"mask": 0.1}}, {"table": table.take(range(8))}):
        with pytest.raises(ConfigError, match="made by a fit with other"):
            pretrain(module, type(job)(**(vars(job) | change)), tmp_path)


def test_the_schedule_warms_up_and_falls_to_nothing_but_never_stands_still():
    schedule = Schedule(updates=100, batch_size=1, lr=1.0, warmup=10)
    factors = [schedule.factor(update) for update in range(101)]
    assert factors[:10] == pytest.approx([(update + 1) / 10 for update in range(10)])
    assert factors[9] == max(factors) == 1
    for update in (20, 50, 99):  # half a cosine over what is left
        assert factors[update] == pytest.approx((1 + math.cos(math.pi * (update + 1 - 10) / 91)) / 2)
    assert all(factor > 0 for factor in factors[:100]) and factors[100] == pytest.approx(0, abs=1e-12)
    assert all(later < sooner for sooner, later in pairwise(factors[9:]))
    assert Schedule(updates=5, batch_size=1, lr=1.0, warmup=0).factor(0) > 0.9


def test_matrices_decay_and_vectors_do_not():
    schedule = Schedule(updates=5, batch_size=1, lr=0.1, weight_decay=0.3, beta2=0.9)
    module = Named(schedule, [])
    (optimizer,), (scheduler,) = module.configure_optimizers()
    assert scheduler["interval"] == "step"
    decay = {id(weight): group["weight_decay"] for group in optimizer.param_groups for weight in group["params"]}
    assert decay == {id(module.weight): 0.3, id(module.bias): 0.0}
    assert optimizer.param_groups[0]["betas"] == (0.9, 0.9)


@torch.no_grad()
def test_the_judge_s_loss_is_the_sum_over_its_aspects(monkeypatch):
    monkeypatch.setattr("aaca.training.judge.disturb", lambda images: images)
    torch.manual_seed(0)
    labels = torch.stack([torch.randint(len(choices), (6,)) for choices in ASPECTS.values()], dim=1)
    judge = Judge().eval()
    judge.image_size = 32
    module = JudgePretraining(judge, labels, Schedule(updates=1, batch_size=4, lr=1.0)).eval()
    images, rows = torch.randn(4, 3, 32, 32), torch.tensor([5, 0, 2, 2])
    found = module.losses((images, None, rows))
    logits, total = module.judge(images), 0.0
    for column, (name, choices) in enumerate(ASPECTS.items()):
        odds = np.exp(logits[name].double().numpy())
        chances = odds / odds.sum(axis=1, keepdims=True)
        wanted = labels[rows, column].numpy()
        for row in range(4):  # a tenth of the target is spread over all choices
            target = np.full(len(choices), 0.1 / len(choices))
            target[wanted[row]] += 0.9
            total -= (target * np.log(chances[row])).sum() / 4
        assert float(found[name]) == pytest.approx((chances.argmax(axis=1) == wanted).mean())
    assert float(found["loss"]) == pytest.approx(total, rel=1e-4)


def test_the_judge_sees_every_image_disturbed_in_its_own_way():
    torch.manual_seed(0)
    image = torch.rand(1, 3, 16, 16) * 2 - 1
    many = disturb(image.expand(40, -1, -1, -1))
    assert many.shape == (40, 3, 16, 16) and float(many.min()) >= -1 and float(many.max()) <= 1
    assert len({round(float(one.std()), 6) for one in many}) == 40
    flat = lambda one: (one - one.mean()).flatten() / one.std() / len(one.flatten()) ** 0.5  # noqa: E731
    alike = [float(flat(one) @ flat(image[0])) for one in many]
    assert min(alike) > 0.3 and max(alike) > 0.95  # it is still the same image
