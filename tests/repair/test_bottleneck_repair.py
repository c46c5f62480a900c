"""`repair=bottleneck`: which concepts are off, the layer that is fitted, logits by hand, the way back from a folder."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from aaca.concepts.concept_sets import ClassConcepts, Concept, ConceptSets
from aaca.models.bottleneck import BottleneckClassifier, Scaling, encode_sparse, without
from aaca.models.sae.base import Known
from aaca.models.sae.relu import Relu
from aaca.repair.augment import AugmentAndRetrain
from aaca.repair.base import RepairContext
from aaca.repair.bottleneck import PROBE, REPORT, BottleneckRepair, ConceptModel
from aaca.runtime.errors import AacaError
from aaca.runtime.files import read_json
from aaca.training.fit import SUMMARY, WEIGHTS
from aaca.training.probes import AdamL1, AtNec, Proximal
from aaca.training.sparse_probe import Probe
from tests.models.test_zero_shot import toy_image_text
from tests.repair_toys import CPU, network, stripes
from tests.toys import SIZE, plain_recipe

D, H = 12, 24
DEAD = 7  # a latent that no training image has
BLAMED = (0, 6, 13)
NAMES = ["sand" if latent in BLAMED else "deep sea" if latent == DEAD else f"w{latent % 9}" for latent in range(H)]
CLIP = SimpleNamespace(load=toy_image_text)  # all of an image-text model that is used


def sets(*names: str) -> ConceptSets:
    return ConceptSets({"red": ClassConcepts(tuple(Concept(name) for name in names), valid=(Concept("w0"),))})


def images_of(table) -> torch.Tensor:
    pixels = np.load(table.root / table.frame["path"].iloc[0])[table.frame["row"].to_numpy()]
    pixels = torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255
    mean, std = torch.tensor([0.4, 0.5, 0.6]), torch.tensor([0.2, 0.3, 0.4])
    return (pixels - mean[:, None, None]) / std[:, None, None]


@pytest.fixture(scope="module")
def given(tmp_path_factory) -> SimpleNamespace:
    """The toy image-text model taken apart, and what a repair is given; there are no weights of f0 to be used."""
    folder = tmp_path_factory.mktemp("bottleneck")
    benchmark = stripes(folder / "data")
    with torch.no_grad():
        vectors = {
            split: toy_image_text().model.encode_image(images_of(benchmark.split(split))) for split in ("train", "test")
        }
    scaling = Scaling(vectors["train"].mean(dim=0), 1.7, unit=True)
    known = Known(D, torch.zeros(D), torch.zeros(D), torch.zeros(0, D))
    sae = Relu(latents=H, init="kaiming").build(known, torch.Generator().manual_seed(0)).eval()
    with torch.no_grad():
        sae.encoder_bias[DEAD] = -100.0
    codes = encode_sparse(sae, vectors["train"].numpy(), scaling)
    labels = benchmark.split("train").labels
    model = ConceptModel(CLIP, sae, scaling, NAMES, codes, labels, Proximal(strength=0.02), sets("a Sand", "nowhere"))
    context = RepairContext(
        benchmark=benchmark,
        debug=None,
        f0_weights=folder / "none.safetensors",
        model=network(),
        recipe=plain_recipe(),
        trainer=CPU,
        rule="last",
        epoch_size=96,
        seed=0,
    )
    return SimpleNamespace(context=context, model=model, images=images_of(benchmark.split("test")), vectors=vectors)


def applied(repair: BottleneckRepair, given, folder: Path, seed: int = 0, **changes) -> dict:
    folder.mkdir(exist_ok=True)
    model = ConceptModel(**{**vars(given.model), **changes})
    return repair.apply(RepairContext(**{**vars(given.context), "bottleneck": model, "seed": seed}), folder)


def restored(given, folder: Path) -> BottleneckClassifier:
    return BottleneckRepair().restored(given.context.model, 2, given.context.recipe, folder, CLIP)


@torch.no_grad()
def by_hand(given, folder: Path, off) -> np.ndarray:
    """Test logits: scaled vectors, ReLU codes, those of `off` zero, the probe's raw weights and bias."""
    sae, scaling = given.model.sae, given.model.scaling
    moved = given.vectors["test"] - scaling.offset
    x = 1.7 * moved / moved.norm(dim=1, keepdim=True)
    codes = ((x - sae.bias) @ sae.encoder.T + sae.encoder_bias).clamp(min=0)
    codes[:, list(off)] = 0
    weight, bias = Probe.load(folder / PROBE).raw()
    return codes.numpy() @ weight.T + (0 if bias is None else bias)


def test_codes_without_latents_store_nothing_for_them(given):
    codes, wanted = given.model.codes, given.model.codes.toarray()
    wanted[:, BLAMED] = 0
    found = without(codes, BLAMED)
    np.testing.assert_array_equal(found.toarray(), wanted)
    assert (found.nnz, found.dtype) == (np.count_nonzero(wanted), np.float32) and codes.nnz > found.nnz
    assert without(codes, ()) is codes


@torch.no_grad()
def test_nothing_switched_off_is_the_probe_on_all_concepts(given, tmp_path):
    found = applied(BottleneckRepair("none"), given, tmp_path, sets=None)
    assert (found["off"], found["latents_off"], found["no_latent_for"]) == ([], [], [])
    classifier = restored(given, tmp_path)
    assert classifier.bottleneck.keep.tolist() == [1.0] * H
    np.testing.assert_allclose(classifier(given.images).numpy(), by_hand(given, tmp_path, ()), rtol=1e-4, atol=1e-4)
    labels = given.context.benchmark.split("test").labels
    assert (classifier(given.images).argmax(dim=1).numpy() == labels).mean() > 0.6  # it has learned something
    weight = Probe.load(tmp_path / PROBE).weight
    assert weight[:, BLAMED].any(axis=0).all()  # else nothing below says anything
    assert found["concepts_a_class"] == np.count_nonzero(weight) / 2
    codes = given.model.codes.toarray()
    assert found["live"] == sum(codes[:, latent].any() for latent in range(H)) <= H - 1 and not codes[:, DEAD].any()


@torch.no_grad()
def test_what_is_blamed_is_off_and_the_layer_is_fitted_without_it(given, tmp_path):
    found = applied(BottleneckRepair("found"), given, tmp_path)
    assert (found["off"], found["latents_off"]) == (["sand"], list(BLAMED)) and found["no_latent_for"] == ["nowhere"]
    weight = Probe.load(tmp_path / PROBE).weight
    assert (weight[:, BLAMED] == 0).all() and weight.any()
    alone = given.model.probe.fit(without(given.model.codes, BLAMED), given.model.labels, 2, 0, tmp_path)
    np.testing.assert_array_equal(weight, alone.weight)
    classifier = restored(given, tmp_path)
    assert torch.nonzero(classifier.bottleneck.keep == 0).ravel().tolist() == list(BLAMED)
    np.testing.assert_allclose(classifier(given.images).numpy(), by_hand(given, tmp_path, BLAMED), rtol=1e-4, atol=1e-4)
    assert not classifier.bottleneck.codes(given.vectors["test"])[:, BLAMED].any()


@torch.no_grad()
def test_without_a_refit_the_layer_stays_and_the_activations_are_zero(given, tmp_path):
    applied(BottleneckRepair("none"), given, tmp_path / "none")
    found = applied(BottleneckRepair("found", refit=False), given, tmp_path / "found")
    before, after = (Probe.load(tmp_path / name / PROBE) for name in ("none", "found"))
    np.testing.assert_array_equal(before.weight, after.weight)
    assert after.weight[:, BLAMED].any()
    counted = np.delete(after.weight, BLAMED, axis=1)
    assert found["concepts_a_class"] == np.count_nonzero(counted) / 2 < np.count_nonzero(after.weight) / 2
    logits = restored(given, tmp_path / "found")(given.images).numpy()
    np.testing.assert_allclose(logits, by_hand(given, tmp_path / "found", BLAMED), rtol=1e-4, atol=1e-4)
    assert np.abs(logits - by_hand(given, tmp_path / "none", ())).max() > 0.05


@torch.no_grad()
@pytest.mark.parametrize("probe", [
    Proximal(strength=0.02, standardise=True), Proximal(strength=0.02, bias=False), AtNec(concepts=4),
    AdamL1(epochs=2, batch_size=32),
], ids=["standardised", "without a bias", "a number of concepts", "as published"])  # fmt: skip
def test_every_probe_gives_its_own_logits(given, tmp_path, probe):
    applied(BottleneckRepair("found"), given, tmp_path, probe=probe)
    logits = restored(given, tmp_path)(given.images).numpy()
    np.testing.assert_allclose(logits, by_hand(given, tmp_path, BLAMED), rtol=1e-4, atol=1e-3)
    if not isinstance(probe, AdamL1):  # it has no exact zeros
        assert (Probe.load(tmp_path / PROBE).weight[:, BLAMED] == 0).all()


@torch.no_grad()
def test_what_comes_back_from_the_folder_is_what_was_written(given, tmp_path):
    found = applied(BottleneckRepair("found", refit=False), given, tmp_path / "a")
    assert {**found} == read_json(tmp_path / "a" / SUMMARY) and found["train_images"] == 96 and found["updates"] == 0
    assert read_json(tmp_path / "a" / REPORT) == {name: found[name] for name in read_json(tmp_path / "a" / REPORT)}
    first, again = restored(given, tmp_path / "a"), restored(given, tmp_path / "a")
    assert torch.equal(first(given.images), again(given.images)) and not first.training
    first.save(tmp_path / "copy.safetensors")
    written, copied = load_file(tmp_path / "a" / WEIGHTS), load_file(tmp_path / "copy.safetensors")
    assert set(written) == set(copied) and all(torch.equal(written[name], copied[name]) for name in written)
    vectors, logits = first.embed(given.images)
    torch.testing.assert_close(vectors, given.vectors["test"], rtol=1e-4, atol=1e-4)  # the tower's own, not of length 1
    assert torch.equal(logits, first(given.images)) and given.images.shape[-1] == SIZE == first.image_size
    applied(BottleneckRepair("found", refit=False), given, tmp_path / "b")
    assert (tmp_path / "a" / WEIGHTS).read_bytes() == (tmp_path / "b" / WEIGHTS).read_bytes()


def test_random_is_as_many_live_ones_and_the_same_for_a_seed(given, tmp_path):
    found = applied(BottleneckRepair("found"), given, tmp_path / "f", 0)["latents_off"]
    draws = [applied(BottleneckRepair("random"), given, tmp_path / "a", seed)["latents_off"] for seed in range(6)]
    live = set(np.flatnonzero(np.asarray(given.model.codes.sum(axis=0)).ravel() > 0).tolist())
    assert all(len(draw) == len(found) and set(draw) <= live for draw in draws)
    assert len({tuple(draw) for draw in draws}) > 1
    assert applied(BottleneckRepair("random"), given, tmp_path / "b", 0)["latents_off"] == draws[0]


@pytest.mark.parametrize("how", ["found", "random"])
@pytest.mark.parametrize(("blamed", "said"), [
    ((), "nothing is blamed"), (("deep sea",), "deep sea"), (("the Moon", "cheese"), "cheese, moon"),
], ids=["nothing", "a dead latent's", "what no latent is called"])  # fmt: skip
def test_where_nothing_live_is_blamed_it_says_so(given, tmp_path, how, blamed, said):
    with pytest.raises(AacaError) as caught:
        applied(BottleneckRepair(how), given, tmp_path, sets=sets(*blamed))
    expected = f"repair: no live concept bears a blamed name ({said}); expected another discovery= or sae="
    assert str(caught.value) == expected and not list(tmp_path.iterdir())


def test_a_class_whose_concepts_no_latent_is_called_stops_no_other(given, tmp_path, caplog):
    both = ConceptSets({**sets("sand").classes, "green": ClassConcepts((Concept("the Moon"),))})
    found = applied(BottleneckRepair(), given, tmp_path, sets=both)
    assert (found["latents_off"], found["no_latent_for"]) == (list(BLAMED), ["moon"])
    assert "no latent is called 'moon': it cannot be switched off" in caplog.text


def test_its_arguments_are_its_fingerprint_and_say_what_it_needs():
    repairs = [BottleneckRepair(how, refit) for how in ("found", "none", "random") for refit in (True, False)]
    assert len({str(repair.fingerprint()) for repair in repairs}) == 6
    assert repairs[0].fingerprint() == {"repair": "bottleneck", "switch_off": "found", "refit": True}
    assert [repair.needs_sets for repair in repairs] == [True, True, False, False, True, True]
    other = AugmentAndRetrain()
    for repair, expected in ((repairs[0], (True, False)), (other, (False, True))):
        assert (repair.needs_bottleneck, repair.keeps_model) == expected
    assert not other.needs_sets
