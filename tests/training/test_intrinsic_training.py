"""Training on scenes: λ = 0 changes nothing to the bit, concept losses reach what they should, vectors point right."""

import numpy as np
import pandas as pd
import pytest
import torch

from aaca.concepts.activations import activations_of
from aaca.data.table import ImageTable
from aaca.models.intrinsic_net import IntrinsicNet, penultimate
from aaca.training.intrinsic import ConceptLoss, ConceptSets, IntrinsicTraining, probe
from aaca.training.intrinsic_vectors import WAYS, fit_vectors, moments
from aaca.training.pretrain import PretrainJob, Schedule, pretrain
from aaca.training.resume import ResumeSpec
from aaca.training.trainer import TrainerSpec
from aaca.world.intrinsic import delta_albedo, delta_light, draw_scenes, render_all
from tests.captioned_toys import weights_after

SIZE, GROUPS, MEMBERS = 8, 3, 4


@pytest.fixture(scope="module")
def deltas():
    return delta_light(GROUPS, MEMBERS, SIZE, 0, "train"), delta_albedo(GROUPS, MEMBERS, SIZE, 0, "train")


def sets(deltas, variant="r_and_s", **change):
    options = {"weight": 1.0, "vectors": "scene", "target": "random_sign", "distance": "abs_cos"}
    numbers = {"cell": 4, "refresh": 2, "images": 3}
    return ConceptSets(*deltas, variant, ConceptLoss(**{**options, **numbers, **change}), seed=0)


def network():
    torch.manual_seed(0)
    return IntrinsicNet((8, 12))


def attempt(concepts, updates=5):
    scenes = render_all(draw_scenes(8, 0, "train"), SIZE)
    values = np.concatenate([scenes.albedo, scenes.shading], axis=1)
    schedule = Schedule(updates=updates, batch_size=4, lr=1e-2, warmup=1)
    job = PretrainJob(
        table=ImageTable.build(pd.DataFrame({"id": [str(row) for row in range(8)]}), ("scene",)),
        schedule=schedule,
        trainer=TrainerSpec(accelerator="cpu"),
        seed=3,
        label="toy",
        image_size=SIZE,
        settings={},
        values=values,
        resume=ResumeSpec(every=0),
    )
    return IntrinsicTraining(network(), schedule, concepts), job


def trained(concepts, folder):
    module, job = attempt(concepts)
    pretrain(module, job, folder)
    return {name: value.clone() for name, value in module.net.state_dict().items()}


def differing(mine, theirs):
    return {name for name in mine if not torch.equal(mine[name], theirs[name])}


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    return trained(None, tmp_path_factory.mktemp("plain"))


@pytest.mark.parametrize(("variant", "weight"), [("r_and_s", 0.0), ("base", 9.0)])
def test_without_weight_or_branches_it_is_the_base_to_the_bit(variant, weight, deltas, plain, tmp_path):
    assert differing(trained(sets(deltas, variant, weight=weight), tmp_path), plain) == set()


@pytest.mark.parametrize(("variant", "vectors"), [("r_only", "scene"), ("r_and_s", "relative")])
def test_with_weight_it_changes_the_weights(variant, vectors, deltas, plain, tmp_path):
    changed = differing(trained(sets(deltas, variant, vectors=vectors), tmp_path), plain)
    assert {"encoder.0.first.weight", "albedo.out.weight"} <= changed


def test_killed_in_between_it_ends_with_the_same_bits(deltas, tmp_path):
    """Also where the next update does not fit the vectors anew."""
    whole = weights_after(lambda: attempt(sets(deltas)), tmp_path / "whole", [])
    cut = weights_after(
        lambda: attempt(sets(deltas)), tmp_path / "cut", [("on_train_batch_start", 4), ("on_train_batch_start", 2)]
    )
    assert differing(whole, cut) == set() and "albedo_vectors" in whole


class Pinned(IntrinsicTraining):
    """Without a trainer: at update 0."""

    global_step = 0


@pytest.mark.parametrize(("variant", "untouched"), [("r_only", "shading"), ("r_and_s", None)])
def test_a_branch_s_concept_loss_teaches_that_branch_and_the_encoder(variant, untouched, deltas):
    module = Pinned(network(), Schedule(updates=1, batch_size=1, lr=1.0), sets(deltas, variant))
    losses = module.losses((torch.rand(2, 4, SIZE, SIZE), None, None))
    concept = sum(value for name, value in losses.items() if name.startswith("concept_"))
    concept.backward()
    taught = {name.split(".")[0] for name, weight in module.net.named_parameters() if weight.grad is not None}
    assert taught == {"encoder", "albedo", "shading"} - {untouched}
    assert 0 < float(concept.detach()) <= len(module.branches)


def test_the_loss_is_the_sum_of_its_parts(deltas):
    module = Pinned(network(), Schedule(updates=1, batch_size=1, lr=1.0), sets(deltas, weight=7.0))
    truth = torch.rand(3, 4, SIZE, SIZE)
    with torch.enable_grad():
        losses = module.losses((truth, None, None))
    albedo, shading = module.net(truth[:, :3] * truth[:, 3:])
    expected = {
        "shading": (shading - truth[:, 3:]).square().mean(),
        "reconstruction": (albedo * shading - truth[:, :3] * truth[:, 3:]).square().mean(),
    }
    for name, value in expected.items():
        torch.testing.assert_close(losses[name], value)
    data = losses["albedo"] + losses["shading"] + losses["reconstruction"]
    torch.testing.assert_close(losses["loss"], data + 7 * (losses["concept_albedo"] + losses["concept_shading"]))


def test_a_scene_s_vectors_point_to_its_members_that_have_more(deltas):
    light, albedo = deltas
    net, layer = network(), penultimate("albedo")
    found = fit_vectors(net, layer, light, light.shading, albedo, "scene", seed=0)
    assert found.scenes.tolist() == [group for group in range(GROUPS) for _ in range(WAYS)]
    torch.testing.assert_close(found.directions.norm(dim=1), torch.ones(GROUPS * WAYS))
    bright = light.shading.mean(axis=(2, 3, 4))
    for group in range(GROUPS):
        order = bright[group].argsort()
        values = activations_of(net, torch.from_numpy(light.image[group]), [layer])[layer]
        expected = values[order[2:].copy()].mean(dim=0) - values[order[:2].copy()].mean(dim=0)
        torch.testing.assert_close(found.directions[WAYS * group], expected / expected.norm(), rtol=0, atol=1e-5)


def test_the_relative_vector_is_between_the_two_deltas(deltas):
    light, albedo = deltas
    net, layer = network(), penultimate("shading")
    found = fit_vectors(net, layer, albedo, albedo.albedo, light, "relative", seed=0)
    means = [
        activations_of(net, torch.from_numpy(one.image.reshape(-1, 3, SIZE, SIZE)), [layer])[layer].mean(dim=0)
        for one in (albedo, light)
    ]
    assert found.scenes.tolist() == [-1]
    expected = means[0] - means[1]
    torch.testing.assert_close(found.directions[0], expected / expected.norm(), rtol=0, atol=1e-5)


def test_moments_are_brightness_and_its_slopes():
    values = np.zeros((1, 3, 3, 8, 8))
    values[0, 0], values[0, 1, :, :, 4:], values[0, 2, :, 4:] = 0.5, 1, 1
    bright, right, down = moments(values)[0]
    assert bright == pytest.approx([0.5, 0.5, 0.5])
    assert right == pytest.approx([0, 0.25, 0]) and down == pytest.approx([0, 0, 0.25])


def test_signs_are_shared_by_cells_and_drawn_for_each_image_and_channel():
    torch.manual_seed(0)
    signs = probe(torch.zeros(20, 3, 10, 10), "random_sign", 4)
    assert signs.shape == (20, 3, 10, 10) and set(signs.unique().tolist()) == {-1.0, 1.0}
    assert bool((signs[:, :, :4, :4] == signs[:, :, :1, :1]).all()) and abs(float(signs.mean())) < 0.2
    assert len({one.numpy().tobytes() for one in signs.flatten(0, 1)}) > 55
    assert bool((probe(signs, "branch_mean", 4) == 1).all())
