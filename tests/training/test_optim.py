"""The MAE fine-tuning recipe in numbers: group scales, decay, and the learning rate at chosen updates."""

import math

import pytest
import pytorch_lightning as pl
import timm
import torch
from torch import nn

from aaca.data.module import ImageDataModule
from aaca.data.transforms import BatchAugment
from aaca.models.timm_model import TimmModel
from aaca.repair.base import start_classifier
from aaca.runtime.errors import ConfigError
from aaca.training.finetune import FineTune
from aaca.training.fit import FitJob, fit_classifier
from aaca.training.optim import lr_factor, parameter_groups
from aaca.training.recipe import Recipe
from aaca.training.trainer import TrainerSpec
from tests.toys import SIZE, plain_recipe, square_table, tiny_vit

# layer decay 0.65 on ViT-B/16: embeddings, twelve blocks, final norm and head (published rule, 13 exponents)
SCALES = [0.0037, 0.0057, 0.0088, 0.0135, 0.0207, 0.0319, 0.0490, 0.0754, 0.1160, 0.1785, 0.2746, 0.4225, 0.65, 1.0]


@pytest.fixture(scope="module", params=["token", "avg"])
def vit_base(request):
    with torch.device("meta"):
        return timm.create_model("vit_base_patch16_224", num_classes=12, global_pool=request.param)


def test_the_fourteen_group_scales_in_both_pooling_modes(vit_base):
    groups = parameter_groups(vit_base, weight_decay=0.05, layer_decay=0.65)
    scales = sorted({group["lr_scale"] for group in groups})
    assert [round(scale, 4) for scale in scales] == SCALES
    names = {id(value): name for name, value in vit_base.named_parameters()}
    scale_of = {names[id(value)]: group["lr_scale"] for group in groups for value in group["params"]}
    assert len(scale_of) == len(names)
    for name in ("cls_token", "pos_embed", "patch_embed.proj.weight", "patch_embed.proj.bias"):
        assert scale_of[name] == pytest.approx(0.65**13)
    for block in range(12):
        assert scale_of[f"blocks.{block}.attn.qkv.weight"] == pytest.approx(0.65 ** (12 - block))
    final = "norm.weight" if "norm.weight" in names.values() else "fc_norm.weight"
    assert scale_of[final] == scale_of["head.weight"] == 1.0


def test_one_dimensional_and_token_parameters_carry_no_weight_decay(vit_base):
    groups = parameter_groups(vit_base, weight_decay=0.05, layer_decay=0.65)
    names = {id(value): name for name, value in vit_base.named_parameters()}
    for group in groups:
        for value in group["params"]:
            free = value.ndim == 1 or names[id(value)] in {"pos_embed", "cls_token"}
            assert group["weight_decay"] == (0.0 if free else 0.05), names[id(value)]


def test_other_networks_are_grouped_too():
    resnet = timm.create_model("resnet18", num_classes=3)
    flat = parameter_groups(resnet, 0.1, 1.0)
    assert {group["lr_scale"] for group in flat} == {1.0}
    assert sum(len(group["params"]) for group in flat) == len(list(resnet.parameters()))
    decayed = parameter_groups(resnet, 0.1, 0.5)
    assert len({group["lr_scale"] for group in decayed}) > 3


def closed_form(epoch: float, epochs: int = 100, peak: float = 2e-3, low: float = 1e-6, warmup: float = 5) -> float:
    if epoch < warmup:
        return peak * epoch / warmup
    return low + (peak - low) * 0.5 * (1.0 + math.cos(math.pi * (epoch - warmup) / (epochs - warmup)))


@pytest.mark.parametrize(("batches", "accumulate"), [(281, 4), (280, 4), (100, 1), (7, 3)])
def test_the_learning_rate_at_every_update_is_the_closed_form(batches, accumulate):
    """A loop over epochs and micro-batches sets the rate before the first micro-batch of each update, as MAE does."""
    expected = []
    for epoch in range(100):
        expected += [closed_form(epoch + batch / batches) for batch in range(0, batches, accumulate)]
    factor = lr_factor(batches, accumulate, 100, 2e-3, 1e-6, 5)
    got = [2e-3 * factor(update) for update in range(len(expected))]
    assert got == pytest.approx(expected, rel=1e-9, abs=1e-15)
    assert got[0] == 0.0


def test_the_minimum_rate_is_scaled_with_the_group():
    weight = nn.Parameter(torch.zeros(2, 2))
    optimizer = torch.optim.AdamW([{"params": [weight], "lr": 2e-3 * 0.65}], lr=2e-3)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lr_factor(10, 1, 100, 2e-3, 1e-6, 5))
    for _ in range(1000):
        optimizer.step()
        schedule.step()
    assert optimizer.param_groups[0]["lr"] == pytest.approx(1e-6 * 0.65, rel=1e-6)


def test_aacas_command_gives_its_learning_rate():
    recipe = Recipe(augment=BatchAugment(), batch_size=64, accumulate=4)
    assert recipe.peak_lr(devices=4) == pytest.approx(2e-3)
    assert Recipe(augment=BatchAugment(), batch_size=64, accumulate=16).peak_lr(1) == pytest.approx(2e-3)
    assert Recipe(augment=BatchAugment(), lr=0.1).peak_lr(8) == 0.1


@pytest.mark.parametrize(
    "wrong", [{"epochs": 0}, {"batch_size": 63}, {"layer_decay": 0.0}, {"drop_path": 1.5}, {"warmup_epochs": 100.0}]
)
def test_impossible_recipes_name_their_key(wrong):
    with pytest.raises(ConfigError, match=rf"recipe\.{next(iter(wrong))}: "):
        Recipe(augment=BatchAugment(), **wrong)


def test_a_built_vit_takes_drop_path():
    source = TimmModel(
        "vit_tiny_patch16_224", 32, kwargs={"patch_size": 8, "embed_dim": 24, "depth": 2, "num_heads": 2}
    )
    rates = [m.drop_prob for m in source.build(3, drop_path=0.1).modules() if type(m).__name__ == "DropPath"]
    assert max(rates) == pytest.approx(0.1)


def test_the_rates_of_a_real_fit_are_the_closed_form_times_the_scale(tmp_path):
    """A Trainer with accumulation, watched before each optimiser step."""
    table = square_table(tmp_path, 40)
    recipe = plain_recipe(
        epochs=3, batch_size=4, accumulate=4, blr=0.5, min_lr=1e-4, warmup_epochs=1.0, layer_decay=0.65
    )
    seen: list[list[tuple[float, float]]] = []

    class Watch(pl.Callback):
        def on_before_optimizer_step(self, trainer, pl_module, optimizer):
            seen.append([(group["lr"], group["lr_scale"]) for group in optimizer.param_groups])

    classifier = start_classifier(tiny_vit(), 2, recipe, 0)
    data = ImageDataModule(
        SIZE, [0.5] * 3, [0.5] * 3, 4, train=table, val=table, augment=recipe.augment, divisor=recipe.accumulate
    )
    batches = data.batches_per_epoch(1)
    assert batches == 8  # ten micro-batches, of which two do not fill an update
    module = FineTune(classifier.train(), recipe, 2, batches)
    spec = TrainerSpec(accelerator="cpu")
    spec.make("t", 3, [Watch()], accumulate_grad_batches=4, limit_val_batches=0).fit(module, datamodule=data)
    peak = 0.5 * 16 / 256
    expected = [closed_form(epoch + batch / 8, 3, peak, 1e-4, 1.0) for epoch in range(3) for batch in (0, 4)]
    assert len(seen) == 6
    for groups, rate in zip(seen, expected, strict=True):
        assert len({scale for _, scale in groups}) == 4  # embeddings, two blocks, norm and head
        for lr, scale in groups:
            assert lr == pytest.approx(rate * scale, rel=1e-6)


def test_mixed_precision_with_clipping_trains(tmp_path):
    table = square_table(tmp_path, 16)
    recipe = plain_recipe(epochs=1, warmup_epochs=0, clip_grad=1.0)
    spec = TrainerSpec(accelerator="cpu", precision="bf16-mixed")
    classifier = start_classifier(tiny_vit(), 2, recipe, 0)
    job = FitJob(table, table, recipe, spec, rule="last", epoch_size=16, seed=0, label="t")
    assert fit_classifier(classifier, job, tmp_path)["updates"] == 2
