"""The concept bottleneck: vectors scaled as in training, sparse codes, logits that are W z + b, concepts off."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from aaca.data.embedding_batches import EmbeddingBatches
from aaca.data.embedding_writer import store_of_array
from aaca.models import bottleneck as module
from aaca.models.bottleneck import Bottleneck, BottleneckClassifier, Scaling, encode_sparse
from aaca.models.sae.base import Known, SaeSpec, SparseAutoencoder
from aaca.models.sae.jumprelu import JumpRelu
from aaca.models.sae.relu import Relu
from aaca.models.sae.topk import TopK
from aaca.models.zero_shot import ZeroShot
from aaca.runtime.errors import DataError
from tests.models.test_zero_shot import NAMES, toy_image_text
from tests.toys import SIZE

N, D, H, C = 50, 12, 30, 4
SPECS = [
    Relu(latents=H, init="kaiming"),
    TopK(latents=H, k=3, bias="mean"),
    JumpRelu(latents=H, init_scale=1.0, threshold=0.2),
]


def vectors(n: int = N) -> np.ndarray:
    return (np.random.default_rng(0).normal(size=(n, D)) + 0.7).astype(np.float32)


def autoencoder(spec: SaeSpec = SPECS[1]) -> SparseAutoencoder:
    known = Known(D, torch.full((D,), 0.3), torch.zeros(D), torch.zeros(0, D))
    return spec.build(known, torch.Generator().manual_seed(0)).eval()


def head() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(C, H, generator=generator), torch.randn(C, generator=generator)


SCALING = Scaling(torch.linspace(-1, 1, D), 2.5)


@pytest.mark.parametrize("scale", ["none", "unit", "sqrt_d"])
@pytest.mark.parametrize("center", [False, True])
def test_vectors_are_scaled_as_batches_of_the_store_are_also_after_a_round_trip(center, scale, tmp_path):
    rows = vectors()
    store = store_of_array(tmp_path / "store", rows)
    batches = EmbeddingBatches(store, 16, shuffle="none", center=center, scale=scale, drop_last=False)
    offset = torch.zeros(D) if batches.offset is None else batches.offset
    scaling = Scaling(offset, batches.factor, batches.unit)
    scaling.save(tmp_path / "scaling")
    again = Scaling.load(tmp_path / "scaling")
    assert torch.equal(again.offset, offset) and (again.factor, again.unit) == (batches.factor, scale == "unit")
    wanted = torch.cat(list(batches.epoch(0)))
    for one in (scaling, again):
        torch.testing.assert_close(one(torch.from_numpy(rows)), wanted, rtol=0, atol=1e-6)
    moved = rows - rows.mean(axis=0) * center
    lengths = np.linalg.norm(moved, axis=1, keepdims=True)
    factor = {"none": 1.0, "unit": 1 / lengths, "sqrt_d": np.sqrt(D) / lengths.mean()}[scale]
    np.testing.assert_allclose(wanted.numpy(), moved * factor, rtol=1e-4, atol=1e-5)
    assert (np.abs(wanted.numpy() - rows).max() > 0.05) == (center or scale != "none")


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.name)
def test_sparse_codes_are_the_dense_ones_in_pieces_of_any_size(spec, monkeypatch):
    sae, rows = autoencoder(spec), vectors()
    with torch.no_grad():
        dense = sae.encode(SCALING(torch.from_numpy(rows))).numpy()
    assert 0 < (dense > 0).mean() < 0.6
    for chunk in (7, 50, 2048):
        monkeypatch.setattr(module, "CHUNK", chunk)
        codes = encode_sparse(sae, rows, SCALING)
        assert (codes.shape, codes.dtype, codes.nnz) == ((N, H), np.float32, int((dense > 0).sum()))
        np.testing.assert_allclose(codes.toarray(), dense, rtol=1e-5, atol=1e-6)
    halves = encode_sparse(sae, rows.astype(np.float16), SCALING)
    np.testing.assert_allclose(halves.sum(), dense.sum(), rtol=1e-2)


def test_codes_of_no_vector_have_the_right_width():
    codes = encode_sparse(autoencoder(), vectors(0), SCALING)
    assert (codes.shape, codes.dtype, codes.nnz) == ((0, H), np.float32, 0)


@torch.no_grad()
@pytest.mark.parametrize("unit", [False, True])
@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.name)
def test_logits_are_those_of_the_codes(spec, unit):
    sae, (weight, bias), rows = autoencoder(spec), head(), vectors()
    scaling = Scaling(SCALING.offset, SCALING.factor, unit)
    net = Bottleneck(sae, scaling, weight, bias)
    codes = encode_sparse(sae, rows, scaling).toarray()
    logits = net(torch.from_numpy(rows)).numpy()
    np.testing.assert_allclose(logits, codes @ weight.numpy().T + bias.numpy(), rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(net.codes(torch.from_numpy(rows)).numpy(), codes, rtol=1e-5, atol=1e-6)


@torch.no_grad()
def test_a_concept_that_is_switched_off_no_longer_counts_and_the_others_do_as_before():
    sae, (weight, bias), x = autoencoder(), head(), torch.from_numpy(vectors())
    net = Bottleneck(sae, SCALING, weight, bias)
    before, codes = net(x), net.codes(x)
    off = [int(codes.sum(dim=0).argmax()), 3]
    net.keep[off] = 0
    net.keep[5] = 2.0
    assert not net.codes(x)[:, off].any()
    pruned = weight.clone()
    pruned[:, off] = 0
    pruned[:, 5] *= 2
    torch.testing.assert_close(net(x), codes @ pruned.T + bias, rtol=1e-4, atol=1e-4)
    touched = (codes[:, [*off, 5]] > 0).any(dim=1)
    assert 0 < touched.sum() < N and torch.equal(net(x)[~touched], before[~touched])


@torch.no_grad()
def test_its_state_holds_all_that_it_says(tmp_path):
    x, (weight, bias) = torch.from_numpy(vectors()), head()
    net = Bottleneck(autoencoder(), SCALING, weight, bias)
    net.keep[1:9] = 0
    blank = Bottleneck(autoencoder(), Scaling(torch.zeros(D), SCALING.factor), 0 * weight, 0 * bias)
    assert not torch.allclose(blank(x), net(x))
    blank.load_state_dict(net.state_dict())
    assert torch.equal(blank(x), net(x))
    weight.zero_()  # its weights are its own
    assert net.head.weight.any()


def test_a_probe_on_other_concepts_is_refused():
    weight, bias = head()
    with pytest.raises(DataError, match=f"^a probe on {H - 1} concepts; expected {H}, as the autoencoder has$"):
        Bottleneck(autoencoder(), SCALING, weight[:, 1:], bias)


@torch.no_grad()
def test_a_classifier_with_it_is_the_image_tower_and_then_the_bottleneck():
    clip, (weight, bias) = toy_image_text(), head()
    net = Bottleneck(autoencoder(), SCALING, weight, bias)
    classifier = BottleneckClassifier(clip, net).eval().check_head()
    images = torch.randn(6, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(2))
    found, logits = classifier.embed(images)
    torch.testing.assert_close(found, clip.model.encode_image(images))
    torch.testing.assert_close(F.normalize(found, dim=1), ZeroShot(clip, NAMES).embed(images)[0])
    assert torch.equal(logits, net(found)) and torch.equal(logits, classifier(images))
    assert torch.equal(classifier.head(found), logits) and logits.shape == (6, C)
    assert (classifier.backbone.head_hidden_size, classifier.image_size) == (D, SIZE)
    assert (classifier.mean, classifier.std) == ([0.4, 0.5, 0.6], [0.2, 0.3, 0.4])
