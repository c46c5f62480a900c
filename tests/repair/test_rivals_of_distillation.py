"""The baselines: projections folded exactly, weights of groups by hand, balanced heads, errors that count again."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from sklearn.linear_model import LogisticRegression
from torch import nn

from aaca.data.table import ImageTable
from aaca.models.digit_cnn import DigitCnn
from aaca.models.timm_model import TimmModel
from aaca.repair.clarc import Clarc, holders
from aaca.repair.concept_report import REPORT
from aaca.repair.dfr import RefitHead, balanced_head, balanced_rows
from aaca.repair.erm import TrainOn
from aaca.repair.group_dro import GroupDroRepair
from aaca.repair.input_penalty import PenaliseInput, below
from aaca.repair.jtt import JustTrainTwice, repeated
from aaca.runtime.errors import ConfigError, DataError
from aaca.runtime.files import read_json
from aaca.training.artifacts import is_passed_by, project_out, readers_of, shift_to, span
from aaca.training.fit import WEIGHTS
from aaca.training.group_dro import GroupDro
from aaca.training.input_penalty import InputPenalty, corners, foreground
from tests.repair_toys import context, network
from tests.toys import plain_recipe, square_table, tiny_vit


@pytest.fixture(scope="module")
def given(tmp_path_factory):
    return context(tmp_path_factory.mktemp("rivals"))


def applied(repair, given, folder):
    folder.mkdir(exist_ok=True)
    return repair.apply(given, folder), load_file(folder / WEIGHTS)


# ClArC


def test_the_span_counts_dependent_directions_once():
    v = torch.randn(3, 8)
    basis = span(torch.cat([v, v.sum(dim=0, keepdim=True)]))
    assert basis.shape == (3, 8)
    torch.testing.assert_close(basis @ basis.T, torch.eye(3), atol=1e-5, rtol=0)
    torch.testing.assert_close(v @ basis.T @ basis, v, atol=1e-5, rtol=0)


@pytest.mark.parametrize("bias", [True, False])
def test_a_folded_projection_is_the_projection(bias):
    torch.manual_seed(0)
    conv, norm = nn.Conv2d(3, 6, 3, bias=bias), nn.BatchNorm2d(6).eval()
    norm.running_mean.normal_()
    norm.running_var.uniform_(0.5, 2)
    directions, centre, images = torch.randn(2, 6), torch.randn(6), torch.randn(4, 3, 9, 9)
    basis = span(directions)
    with torch.no_grad():
        a = conv(images)
        along = torch.einsum("bchw,rc->brhw", a - centre.view(1, 6, 1, 1), basis)
        expected = norm(a - torch.einsum("brhw,rc->bchw", along, basis))
        project_out(conv, directions, centre, None if bias else norm)
        torch.testing.assert_close(norm(conv(images)), expected, atol=1e-5, rtol=1e-4)


def test_a_shift_sets_the_projection_and_nothing_else():
    a, v = torch.randn(3, 5, 2, 2), nn.functional.normalize(torch.randn(3, 5), dim=1)
    moved = shift_to(a, v, torch.tensor([1.0, -2.0, 0.5]))
    along = torch.einsum("bchw,bc->bhw", moved, v)
    torch.testing.assert_close(along, torch.tensor([1.0, -2.0, 0.5]).view(3, 1, 1).expand(3, 2, 2), atol=1e-5, rtol=0)
    across = torch.einsum("bchw,bc->bhw", a, v)[:, None] * v[..., None, None]
    torch.testing.assert_close(moved - along[:, None] * v[..., None, None], a - across, atol=1e-5, rtol=0)


def test_projecting_blinds_the_readers_of_a_layer_and_changes_nothing_before(given, tmp_path):
    _, after = applied(Clarc(epochs=2), given, tmp_path / "a")
    report, before = read_json(tmp_path / "a" / REPORT), load_file(given.f0_weights)
    assert report["layer"] == "layer3" and report["before"][0]["abs_cos"] > 0.05
    vector = load_file(tmp_path / "a" / "cavs" / "000" / "cav.safetensors")["direction"]
    of = read_json(tmp_path / "a" / "cavs" / "000" / "cav.json")["meta"]
    assert len(of["weights_sha256"]) == 64 and set(of["transform"]) == {"size", "mean", "std"}
    for name in ("backbone.layer4.0.conv1.weight", "backbone.layer4.0.downsample.0.weight"):
        assert float(torch.einsum("ochw,c->ohw", before[name], vector).abs().max()) > 1e-3
        assert float(torch.einsum("ochw,c->ohw", after[name], vector).abs().max()) < 1e-5
    early = [name for name in before if not name.startswith(("backbone.layer4", "backbone.fc"))]
    assert all(torch.equal(before[name], after[name]) for name in early)
    assert report["after_along_f0"][0]["abs_cos"] < 1e-4


def test_projecting_a_layer_s_own_weights(given, tmp_path):
    _, after = applied(Clarc(layer="conv1", epochs=1), given, tmp_path / "a")
    vector = load_file(tmp_path / "a" / "cavs" / "000" / "cav.safetensors")["direction"]
    assert float((vector @ after["backbone.conv1.weight"].flatten(1)).abs().max()) < 1e-5
    report = read_json(tmp_path / "a" / REPORT)
    assert report["after"] == [None]  # nothing is left there that a vector could tell apart


def test_a_layer_with_a_shortcut_around_it_is_no_place_for_a_projection():
    classifier, images = network().build(2).eval(), torch.randn(2, 3, 16, 16)
    assert is_passed_by(classifier, "backbone.layer3.0.conv1", images)
    assert not is_passed_by(classifier, "backbone.conv1", images)
    with pytest.raises(ConfigError, match=r"repair\.layer: layer3\.0\.conv1: a projection is folded .* conv1"):
        Clarc(layer="layer3.0.conv1").check(network(), plain_recipe())
    with pytest.raises(ConfigError, match=r"repair\.layer: auto: blocks\.0 has a shortcut around it"):
        Clarc().check(tiny_vit(), plain_recipe())


def test_tokens_are_shifted_like_places():
    a, v = torch.randn(3, 5, 7), nn.functional.normalize(torch.randn(3, 7), dim=1)
    value = torch.tensor([1.0, -2.0, 0.5])
    places = shift_to(a.transpose(1, 2)[..., None], v, value)[..., 0].transpose(1, 2)
    torch.testing.assert_close(shift_to(a, v, value), places)
    along = (shift_to(a, v, value) * v[:, None]).sum(dim=2)
    torch.testing.assert_close(along, value[:, None].expand(3, 5), atol=1e-5, rtol=0)


def test_readers_are_found_where_nothing_else_reads():
    classifier, images = network().build(2).eval(), torch.randn(2, 3, 16, 16)
    assert readers_of(classifier, "backbone.layer2", images) == [
        "backbone.layer3.0.conv1",
        "backbone.layer3.0.downsample.0",
    ]
    two = TimmModel("resnet18", 16, kwargs={"layers": [2, 1, 1, 1], "channels": [8, 8, 16, 16]}).build(2).eval()
    assert readers_of(two, "backbone.layer1.0", images) == []  # the next block's shortcut reads it, too
    assert len(readers_of(two, "backbone.layer1.1", images)) == 2
    assert readers_of(classifier, "backbone.layer4", images) == []  # a pooling reads it


def test_artifacts_in_half_of_the_images_change_the_training(given, tmp_path):
    half = applied(Clarc(how="augment", epochs=1), given, tmp_path / "half")[1]
    none = applied(Clarc(how="augment", share=0.0, epochs=1), given, tmp_path / "none")[1]
    assert not torch.equal(half["backbone.fc.weight"], none["backbone.fc.weight"])


def test_layers_that_cannot_hold_a_projection_are_refused():
    with pytest.raises(ConfigError, match=r"repair\.layer: layer4: a projection is folded into .* valid: conv1"):
        Clarc(layer="layer4").check(network(), plain_recipe())
    found = holders(network().build(2).eval())
    assert found["backbone.layer1.0.conv1"] == "backbone.layer1.0.bn1" and "backbone.fc" not in found
    assert set(holders(DigitCnn().build(10))) == {"backbone.conv1", "backbone.conv2", "backbone.fc1"}


# group DRO


class Fixed(nn.Module):
    """A classifier whose logits are its inputs."""

    def __init__(self):
        super().__init__()
        self.backbone = nn.Identity()

    def forward(self, images):
        return images


def test_group_weights_follow_the_losses_as_in_the_paper():
    module = GroupDro(Fixed(), plain_recipe(), 2, 1, groups=torch.tensor([0, 0, 1, 2]), eta=0.5)
    logits, targets = torch.tensor([[2.0, 0.0], [0.0, 1.0], [3.0, 0.0]]), torch.tensor([0, 0, 1])
    loss = module.objective(logits, targets, torch.tensor([0, 1, 2]))
    each = [math.log(1 + math.exp(-2)), math.log(1 + math.exp(1)), math.log(1 + math.exp(3))]
    losses = [(each[0] + each[1]) / 2, each[2], 0.0]
    raised = [math.exp(0.5 * value) / 3 for value in losses]
    q = [value / sum(raised) for value in raised]
    assert module.q.tolist() == pytest.approx(q, rel=1e-5)
    assert float(loss) == pytest.approx(q[0] * losses[0] + q[1] * losses[1], rel=1e-5)


def test_group_dro_trains_and_refuses_tables_without_groups(given, tmp_path):
    summary, _ = applied(GroupDroRepair(epochs=1), given, tmp_path / "a")
    assert summary["epochs"] == 1
    lonely = given.benchmark.table.frame.assign(group=given.benchmark.table.frame["label"].astype(str))
    alone = replace(given.benchmark, table=ImageTable.build(lonely, ["red", "green"], given.benchmark.table.root))
    with pytest.raises(DataError, match="group_dro needs several groups within a class, and those of train are 0, 1"):
        GroupDroRepair().check_images(alone)
    GroupDroRepair().check_images(given.benchmark)


# just train twice


def test_errors_count_again_under_ids_of_their_own(tmp_path):
    table = square_table(tmp_path, 6)
    again = repeated(table, np.array([1, 4]), 3)
    assert len(again) == 12 and len(set(again.ids)) == 12
    assert sorted(again.labels[6:]) == [0, 0, 0, 1, 1, 1]
    assert (again.image(7) == table.image(4)).all()
    assert repeated(table, np.array([], dtype=int), 3) is table


def test_training_twice_finds_the_conflicting_images(given, tmp_path):
    summary, _ = applied(JustTrainTwice(first_epochs=4, times=5, epochs=2), given, tmp_path / "a")
    assert 0 < summary["errors"] < 48
    assert summary["train_images"] == 96 + 4 * summary["errors"]
    saved = read_json(tmp_path / "a" / "fit.json")
    assert saved == summary and saved["updates"] == 4 * 6 + 2 * 6  # of both trainings


# deep feature reweighting


def test_balanced_draws_take_as_many_of_every_group():
    groups = np.repeat([0, 1, 2], [50, 7, 20])
    rows = balanced_rows(groups, np.random.default_rng(0))
    assert np.bincount(groups[rows]).tolist() == [7, 7, 7] and len(set(rows)) == 21


def test_a_balanced_head_does_without_the_spurious_feature():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 1200)
    spurious = np.where(rng.random(1200) < 0.95, labels, 1 - labels)
    values = rng.normal(size=(1200, 6))
    values[:, 0] += 1.5 * labels
    values[:, 1] += 6 * spurious
    values = values * [1, 1, 5, 1, 1, 1] + 3
    groups = 2 * labels + spurious
    weight, bias, _ = balanced_head(values, labels, groups, 5, rng)

    def worst(predicted):
        return min((predicted == labels)[groups == group].mean() for group in range(4))

    plain = LogisticRegression(max_iter=1000).fit(values, labels)
    assert worst(plain.predict(values)) < 0.55 < 0.65 < worst((values @ weight.T + bias).argmax(axis=1))
    assert weight.shape == (2, 6) and abs(weight[1, 1]) < 0.2 * abs(weight[1, 0])


def test_only_the_head_is_refitted(given, tmp_path):
    summary, after = applied(RefitHead(refits=3), given, tmp_path / "a")
    before = load_file(given.f0_weights)
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed == {"backbone.fc.weight", "backbone.fc.bias"} and summary["updates"] == 0


# penalties on inputs


def test_the_penalty_is_the_squared_gradient_in_the_region():
    """Of a linear classifier, in closed form."""
    torch.manual_seed(0)
    weight = torch.randn(2, 3 * 16)
    linear = nn.Sequential(nn.Flatten(), nn.Linear(48, 2))
    with torch.no_grad():
        linear[1].weight.copy_(weight)
    images, targets = torch.randn(5, 3, 4, 4), torch.tensor([0, 1, 1, 0, 1])
    module = InputPenalty(linear, plain_recipe(), 2, 1, of="log_probabilities", region=corners(1), strength=2.0)  # type: ignore[arg-type]
    found = module.objective(images, targets, torch.arange(5)) - module.loss(linear(images), targets)
    p = linear(images).softmax(dim=1)
    gradient = weight.sum(dim=0) - 2 * p @ weight  # ∂ Σ log p / ∂ x
    where = torch.zeros(4, 4)
    where[[0, 0, -1, -1], [0, -1, 0, -1]] = 1
    expected = 2.0 * (gradient.view(5, 3, 4, 4).square() * where).sum(dim=(1, 2, 3)).mean()
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)


def test_foreground_pixels_are_lit_and_as_many_as_asked():
    images = torch.zeros(2, 3, 6, 6) - 1
    images[0, 1, 2:4, 2:4] = 0.5
    images[1, :, 0, :] = 1.0
    _, where = foreground(3, torch.tensor([-1.0] * 3))(images, torch.arange(2))
    assert where.sum(dim=(1, 2, 3)).tolist() == [3, 3]
    assert bool((where[0, 0, 2:4, 2:4].sum() == 3) & (where[1, 0, 0].sum() == 3))
    _, few = foreground(9, torch.tensor([-1.0] * 3))(images, torch.arange(2))
    assert few.sum(dim=(1, 2, 3)).tolist() == [4, 6]


def test_masks_lie_on_the_image_as_it_is(given):
    from aaca.discover.concepts.table import ConceptTable

    masks = np.zeros((2, 4, 4))
    masks[0, 0, 0], masks[1, 3, :] = 1, 1
    table = ConceptTable.build([0, 0], ["a", "b"], ["object", "object"], masks, 96, (4, 4))
    train = given.train
    images, where = below(table, train, given.start("f0"))(torch.zeros(2, 3, 16, 16), torch.tensor([0, 5]))
    assert where[0, 0, :4, :4].all() and where[0, 0, 12:].all() and where[0].sum() == 16 + 64 and where[1].sum() == 0
    torch.testing.assert_close((images[1, 0] * 0.229 + 0.485) * 255, torch.from_numpy(train.image(5)[..., 0]).float(), atol=1e-2, rtol=0)  # fmt: skip # noqa: E501


def test_a_penalty_makes_corners_matter_less(given, tmp_path):
    def corner_gradient(weights):
        classifier = given.start("f0")
        classifier.load_state_dict(weights)
        images = torch.randn(8, 3, 16, 16, generator=torch.Generator().manual_seed(0)).requires_grad_()
        classifier.eval()(images).log_softmax(dim=1).sum().backward()
        return float(images.grad[:, :, :5, :5].square().sum())

    strong = applied(PenaliseInput("corners", strength=100.0, epochs=3), given, tmp_path / "a")[1]
    plain = applied(TrainOn(epochs=3), given, tmp_path / "b")[1]
    assert corner_gradient(strong) < 0.5 * corner_gradient(plain)
