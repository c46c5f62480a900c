"""Concept distillation: nothing at λ = 0, less of the concept (or more) at λ > 0, exact resumes, clear refusals."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from aaca.concepts.activations import captured
from aaca.repair.concept_distillation import DistilConcepts
from aaca.repair.concept_report import REPORT
from aaca.repair.erm import TrainOn
from aaca.runtime.errors import ConfigError, DataError
from aaca.runtime.files import read_json
from aaca.training.fit import WEIGHTS
from aaca.training.resume import ResumeSpec
from aaca.training.trainer import TrainerSpec
from tests.repair_toys import context, network, stripe_pair
from tests.toys import Killed, Stop, plain_recipe, tiny_vit

SHORT = {"epochs": 2, "lr": 1e-3}


@pytest.fixture(scope="module")
def given(tmp_path_factory):
    return context(tmp_path_factory.mktemp("distil"))


@pytest.fixture(scope="module")
def calm(tmp_path_factory):
    """Without batch norm, whose running means lag behind a training this short."""
    return context(tmp_path_factory.mktemp("calm"), tiny_vit())


def applied(repair, given, folder):
    folder.mkdir(exist_ok=True)
    repair.apply(given, folder)
    return load_file(folder / WEIGHTS)


def same(one, other):
    return all(torch.equal(one[name], other[name]) for name in other)


@pytest.mark.parametrize("target", ["random_sign", "logit", "ce", "proto"])
def test_without_strength_it_is_plain_training_to_the_bit(target, given, tmp_path):
    plain = applied(TrainOn(**SHORT), given, tmp_path / "erm")
    assert same(applied(DistilConcepts(target=target, strength=0.0, **SHORT), given, tmp_path / "zero"), plain)


@pytest.mark.parametrize(("target", "pool", "distance"), [
    ("random_sign", "gap", "abs_cos"),
    ("logit", "gap", "sq_cos"),
    ("random_sign", "max", "sq_dot"),
])  # fmt: skip
def test_it_depends_less_on_the_concept_and_random_directions_do_not_help(target, pool, distance, calm, tmp_path):
    strength = 3000.0 if distance == "sq_dot" else 30.0
    found = {}
    for which in ("concepts", "random", "shuffled"):
        repair = DistilConcepts("auto", pool, target, distance, strength, which, epochs=8, lr=1e-3)
        applied(repair, calm, tmp_path / which)
        report = read_json(tmp_path / which / REPORT)
        assert report["concepts"][0]["accuracy"] == [1.0, 1.0]
        found[which] = report["after"][0]["abs_cos"] / report["before"][0]["abs_cos"]
    assert found["concepts"] < 0.35 and min(found["random"], found["shuffled"]) > 2 * found["concepts"]


def test_the_report_says_whether_a_dependence_is_more_than_chance(given, tmp_path):
    applied(DistilConcepts(**SHORT), given, tmp_path / "a")
    (by_class,) = read_json(tmp_path / "a" / REPORT)["p_before"]
    assert len(by_class) == 2 and min(by_class) < 0.05
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 255, (48, 16, 16, 3)).astype(np.uint8)
    pair = stripe_pair()
    sides = {"positive": noise[:24], "negative": noise[24:]}
    empty = replace(pair, **{name: replace(getattr(pair, name), images=images) for name, images in sides.items()})
    applied(DistilConcepts(least_accuracy=0.0, **SHORT), replace(given, pairs=(empty,)), tmp_path / "b")
    assert min(read_json(tmp_path / "b" / REPORT)["p_before"][0]) > 0.05


def test_to_sensitise_makes_it_depend_more(calm, tmp_path):
    more = replace(calm, pairs=(stripe_pair(direction="sensitise"),))
    applied(DistilConcepts(pool="gap", strength=30.0, epochs=8, lr=1e-3), more, tmp_path / "a")
    report = read_json(tmp_path / "a" / REPORT)
    assert report["after"][0]["abs_cos"] > 1.5 * report["before"][0]["abs_cos"]


def test_prototypes_teach_what_comes_before_the_layer_and_not_the_head(given, tmp_path):
    """Of prototypes, the concept loss has no gradient by what comes after the layer."""
    from aaca.training import concept_distillation as module

    seen = {}
    objective = module.ConceptDistillation.objective

    def look(self, images, targets, rows):
        loss = objective(self, images, targets, rows)
        if not seen:
            plain = self.loss(self.classifier(images), targets)
            names = [name for name, _ in self.classifier.named_parameters()]
            grads = torch.autograd.grad(loss - plain, list(self.classifier.parameters()), retain_graph=True)
            seen.update({name: float(grad.abs().max()) for name, grad in zip(names, grads, strict=True)})
        return loss

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module.ConceptDistillation, "objective", look)
        applied(DistilConcepts(target="proto", strength=100.0, prototypes=3, epochs=1), given, tmp_path / "a")
    assert seen["backbone.fc.weight"] < 1e-6 < 1e-4 < seen["backbone.conv1.weight"]


def test_what_is_frozen_stays_bit_identical(given, tmp_path):
    before = load_file(given.f0_weights)
    after = applied(DistilConcepts(freeze=True, layer="layer2", strength=30.0, **SHORT), given, tmp_path / "a")
    early = [name for name in before if name.startswith(("backbone.conv1", "backbone.bn1", "backbone.layer1", "backbone.layer2"))]  # fmt: skip # noqa: E501
    assert len(early) > 20 and all(torch.equal(before[name], after[name]) for name in early)
    assert not torch.equal(before["backbone.layer3.0.conv1.weight"], after["backbone.layer3.0.conv1.weight"])


@pytest.mark.parametrize("target", ["random_sign", "proto"])
def test_a_killed_run_goes_on_to_the_same_bits(target, given, tmp_path, monkeypatch):
    repair = DistilConcepts(target=target, prototypes=2, strength=20.0, epochs=3)
    whole = applied(repair, given, tmp_path / "whole")
    make, stop = TrainerSpec.make, Stop("on_train_batch_end", 9)  # of 6 batches an epoch: in the second
    often = replace(given, resume=ResumeSpec(every=0))
    with monkeypatch.context() as patch:
        patch.setattr(
            TrainerSpec,
            "make",
            lambda self, label, callbacks=(), **more: make(self, label, callbacks=[*callbacks, stop], **more),
        )
        with pytest.raises(Killed):
            applied(repair, often, tmp_path / "half")
    assert same(applied(repair, often, tmp_path / "half"), whole)


def test_a_transformer_s_positions_are_frozen_too(calm, tmp_path):
    before = load_file(calm.f0_weights)
    repair = DistilConcepts(freeze=True, distance="sq_dot", pool="max", strength=10.0, **SHORT)
    after = applied(repair, calm, tmp_path / "a")
    held = {name for name in before if torch.equal(before[name], after[name])}
    assert {"backbone.pos_embed", "backbone.cls_token", "backbone.blocks.0.attn.qkv.weight"} <= held
    assert "backbone.blocks.1.attn.qkv.weight" not in held


def test_what_follows_in_place_does_not_change_what_was_captured():
    classifier, images = network().build(2).eval(), torch.randn(2, 3, 16, 16)
    with captured(classifier, ["backbone.bn1"]) as seen:
        classifier(images)
    expected = classifier.backbone.bn1(classifier.backbone.conv1(images))
    assert float(expected.min()) < 0
    torch.testing.assert_close(seen["backbone.bn1"], expected)


def test_impossible_combinations_are_refused():
    with pytest.raises(ConfigError, match=r"repair\.freeze: true, but prototypes' gradients"):
        DistilConcepts(target="proto", freeze=True)
    with pytest.raises(ConfigError, match=r"repair\.freeze: nothing after fc could learn"):
        DistilConcepts(freeze=True, layer="fc").check(network(), plain_recipe())
    with pytest.raises(ConfigError, match=r"recipe\.mixup, recipe\.cutmix"):
        DistilConcepts().check(network(), plain_recipe(mixup=0.4))
    with pytest.raises(ConfigError, match=r"repair\.layer: no module 'layer33'; nearest valid: layer3"):
        DistilConcepts(layer="layer33").check(network(), plain_recipe())
    for arguments in (
        {"strength": -1.0},
        {"ema": 1.5},
        {"refresh_epochs": -1},
        {"prototypes": 0},
        {"epochs": 0},
        {"folds": 1},
    ):
        with pytest.raises(ConfigError, match=rf"repair\.{next(iter(arguments))}"):
            DistilConcepts(**arguments)


def test_a_vector_that_tells_nothing_apart_is_refused(given, tmp_path):
    pair = stripe_pair(60)
    rng = np.random.default_rng(0)
    mixed = rng.permutation(np.concatenate([pair.positive.images, pair.negative.images]))
    same_images = replace(pair, positive=replace(pair.positive, images=mixed[:60]), negative=replace(pair.negative, images=mixed[60:]))  # fmt: skip # noqa: E501
    with pytest.raises(DataError, match=r"concept 'above': its vector tells .*repair\.least_accuracy"):
        applied(DistilConcepts(**SHORT), replace(given, pairs=(same_images,)), tmp_path / "a")
    applied(DistilConcepts(**SHORT), replace(given, pairs=(renamed(same_images), pair)), tmp_path / "b")
    report = read_json(tmp_path / "b" / REPORT)
    assert [one["concept"] for one in report["left_out"]] == ["noise"] and len(report["before"]) == 1


def renamed(pair):
    """The same images under names of their own."""
    sides = (pair.positive, "noise"), (pair.negative, "other noise")
    positive, negative = (replace(side, name=name) for side, name in sides)
    return replace(pair, positive=positive, negative=negative)


def test_concepts_count_only_for_their_classes():
    from aaca.repair.concept_distillation import counts_of

    pairs = [stripe_pair(4), stripe_pair(4, classes=("green",))]
    assert counts_of(pairs, ("red", "green")).tolist() == [[True, False], [True, True]]


def test_a_teacher_s_features_take_the_place_of_activations(given, tmp_path):
    """Every image is mapped by a mapping fitted without it: nearly, and never exactly, the student's own."""
    from aaca.models.teacher import TimmTeacher
    from aaca.repair.taught import MAPPING, PARTS, taught_activations
    from aaca.repair.vectors import PairVectors

    kwargs = {"patch_size": 8, "embed_dim": 16, "depth": 1, "num_heads": 2}
    source = TimmTeacher("vit_tiny_patch16_224", image_size=32, kwargs=kwargs)
    taught = replace(given, teacher=source, pairs=(stripe_pair(40),))
    classifier = given.start("f0")
    vectors = PairVectors(taught.pairs, "backbone.layer2", "gap", "mean_difference", 5, 0)
    mapped = taught_activations(taught, vectors, classifier, "ridge", tmp_path / "m")
    direct = vectors.activations(classifier)
    assert list(mapped) == list(direct) and len(list((tmp_path / "m" / MAPPING).iterdir())) == PARTS
    for name, own in direct.items():
        assert mapped[name].shape == own.shape and np.abs(mapped[name] - own).max() > 1e-4
    cosine = vectors.fitted(mapped)[0].direction @ vectors.fitted(direct)[0].direction
    assert cosine > 0.8
    applied(DistilConcepts(layer="layer2", pool="gap", strength=10.0, **SHORT), taught, tmp_path / "a")
    assert read_json(tmp_path / "a" / REPORT)["before"][0]["abs_cos"] > 0


def test_flattened_values_say_their_order():
    from aaca.training.concept_distillation import flattened

    values = torch.randn(2, 3, 4, 5)
    plain, none = flattened(values)
    last, order = flattened(values.to(memory_format=torch.channels_last))
    assert none is None and order is not None and not torch.equal(plain, last)
    torch.testing.assert_close(plain[:, order], last, rtol=0, atol=0)


def test_vectors_in_another_order_follow_a_refresh():
    """On a map with channels last: the loss is that of the plain order, before and after the vectors change."""
    from tests.bench.distillation import module_of

    module = module_of("proto")
    images, labels = torch.randn(6, 3, 28, 28), torch.arange(6)
    for _ in range(2):
        module.directions.copy_(torch.nn.functional.normalize(torch.randn_like(module.directions), dim=1))
        module.bank.centres.normal_()
        found = module.objective(images, labels, labels) - module.loss(module.classifier(images), labels)
        with captured(module.classifier, ["backbone.conv2"]) as seen:
            module.classifier(images)
        away = seen["backbone.conv2"].flatten(1) - module.bank.centres[labels]
        cosine = torch.nn.functional.cosine_similarity(away[:, None], module.directions[None], dim=2).abs().mean()
        torch.testing.assert_close(found, 200.0 * cosine, rtol=1e-3, atol=1e-3)
