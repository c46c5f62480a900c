"""The mapping by a trained pair of kernels: the paper's shapes, planted kernels, chance, ranks."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from aaca.concepts.cav import fit_cav
from aaca.concepts.mapping import Mapping
from aaca.runtime.errors import ConfigError, DataError
from aaca.runtime.launch import launch
from aaca.training.mapper import Mapper, Schedule, fit_mapping, geometry
from aaca.training.trainer import TrainerSpec
from tests.training.mapper_tasks import map_both_ways

CPU = TrainerSpec(accelerator="cpu")
SHORT = Schedule(lr=0.02, batch_size=16, patience=2, rows=6)
BRIEF = Schedule(batch_size=8, rows=1)


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(
    ("teacher", "student", "grows", "kernel", "stride"),
    [
        ((64, 3, 3), (50, 8, 8), True, (6, 6), (1, 1)),  # ColorMNIST, TextureMNIST
        ((64, 28, 28), (512, 7, 7), False, (10, 10), (3, 3)),  # BFFHQ
        ((64, 28, 28), (2048, 7, 7), False, (10, 10), (3, 3)),  # ResNet-50
        ((64, 64, 48), (1, 512, 384), True, (71, 55), (7, 7)),  # intrinsic images
        ((64, 8, 8), (50, 8, 8), False, (1, 1), (1, 1)),  # the tiny teacher on digits
        ((64, 8, 7), (20, 9, 7), True, (2, 1), (1, 1)),
    ],
)
def test_kernels_and_strides_are_the_paper_s_and_shapes_are_exact(teacher, student, grows, kernel, stride):
    found = geometry(teacher, student)
    assert (found.grows, found.kernel, found.stride) == (grows, kernel, stride)
    with torch.device("meta"):
        mapper = Mapper(teacher, student)
        encoded = mapper.encoder(torch.zeros(2, *teacher))
        assert encoded.shape[1:] == student and mapper.decoder(encoded).shape[1:] == teacher
    assert type(mapper.encoder) is (nn.ConvTranspose2d if grows else nn.Conv2d) and mapper.encoder.bias is not None


@pytest.mark.parametrize(("student", "words"), [((40,), "(40,)"), ((17, 32), "(17, 32)"), ((5, 8, 2), "(8, 2)")])
def test_what_is_no_map_of_places_is_for_ridge(student, words, tmp_path):
    features, activations = normal(40, 4, 4, 4), normal(40, *student, seed=1)
    with pytest.raises(ConfigError, match=r"^repair\.mapping: conv, but .*nearest valid: ridge$") as caught:
        fit_mapping("conv", features, activations, 0, CPU, tmp_path)
    assert words in str(caught.value) and not list(tmp_path.iterdir())
    planted = features.flatten(1) @ normal(64, int(np.prod(student)), seed=2)
    mapping = fit_mapping("ridge", features, planted.reshape(40, *student), 0, None, tmp_path, components=None)
    assert mapping.apply(features).shape == (40, int(np.prod(student))) and mapping.shape == student


def test_a_planted_map_of_one_grid_is_found_and_carries_concept_vectors(tmp_path):
    # teacher = fixed linear map of the student at each place, six channels of three
    student = normal(120, 3, 4, 4) + 5
    has = np.arange(120) % 2 == 0
    student[has, 1] += 1.0
    features = torch.einsum("nchw,kc->nkhw", student, normal(6, 3, seed=1)) * 10
    random = torch.random.get_rng_state()
    mapping = fit_mapping("conv", features, student, 0, CPU, tmp_path / "a", schedule=SHORT)
    assert torch.equal(torch.random.get_rng_state(), random)
    assert mapping.r2 > 0.9 and mapping.kind == "conv" and mapping.meta["kernel"] == [1, 1]
    mapped, direct = mapping.apply(features).numpy(), student.flatten(1).numpy()
    assert fit_cav(mapped[has], mapped[~has]).direction @ fit_cav(direct[has], direct[~has]).direction > 0.95
    ridge = fit_mapping("ridge", features, student, 0, None, tmp_path / "b")
    assert ridge.r2 > 0.99
    again = Mapping.load(tmp_path / "a")
    torch.testing.assert_close(again.apply(features), mapping.apply(features), rtol=0, atol=0)
    curve = (tmp_path / "a" / "log" / "metrics.csv").read_text().splitlines()
    assert {"loss", "stop_loss", "stop_r2"} <= set(curve[0].split(",")) and len(curve) > 3


@pytest.mark.parametrize(("side", "other"), [(3, 8), (9, 4)])
def test_a_planted_kernel_is_found_in_both_directions(side, other, tmp_path):
    features = normal(100, 3, side, side)
    with torch.no_grad():
        torch.manual_seed(1)
        student = Mapper((3, side, side), (4, other, other)).encoder(features) * 7 + 2
    mapping = fit_mapping("conv", features, student, 0, CPU, tmp_path, components=None, schedule=SHORT)
    assert mapping.r2 > 0.9


@pytest.mark.parametrize("kind", ["ridge", "conv"])
def test_a_mapping_worse_than_the_mean_is_refused(kind, tmp_path):
    with pytest.raises(
        DataError, match=r"^repair\.mapping: held-out R² is -0\.\d\d; expected 0 or more; more"
    ) as error:
        fit_mapping(kind, normal(60, 4, 3, 3), normal(60, 5, 3, 3, seed=1), 0, CPU, tmp_path, schedule=BRIEF)
    assert ("repair.mapping=ridge" in str(error.value)) == (kind == "conv")
    assert not (tmp_path / "mapping.json").exists()


def test_the_same_seed_gives_the_same_kernels(tmp_path):
    features, student = normal(40, 3, 4, 4), normal(40, 3, 4, 4) + 1
    two = replace(SHORT, rows=2)
    runs = [fit_mapping("conv", features, student, seed, CPU, tmp_path, schedule=two) for seed in (0, 0, 1)]
    assert torch.equal(runs[0].tensors["weight"], runs[1].tensors["weight"])
    assert not torch.equal(runs[0].tensors["weight"], runs[2].tensors["weight"])


def test_what_cannot_be_fitted_is_one_line(tmp_path):
    features, student = normal(20, 3, 4, 4), normal(20, 2, 4, 4)
    with pytest.raises(ConfigError, match=r"repair\.mapping: conv is trained, and no trainer"):
        fit_mapping("conv", features, student, 0, None, tmp_path)
    with pytest.raises(DataError, match=r"feature maps \(20, 3, 4, 4\) and activations \(19, 2, 4, 4\)"):
        fit_mapping("ridge", features, student[1:], 0, None, tmp_path)
    features[0, 0, 0, 0] = float("nan")
    with pytest.raises(DataError, match="all finite"):
        fit_mapping("ridge", features, student, 0, None, tmp_path)


@pytest.mark.slow
def test_two_ranks_do_what_one_does(tmp_path):
    one = map_both_ways({"folder": str(tmp_path / "one")})
    two = launch("tests.training.mapper_tasks:map_both_ways", {"folder": str(tmp_path / "two")}, 2)
    assert two == [*one, *one]
