"""Images of neurons: each as if it were alone, every one once, whatever is killed, dead or not finite."""

import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

import aaca.training.illusion as illusion
from aaca.concepts.illusion.augment import AugmentSpec
from aaca.concepts.illusion.parameters import Fourier
from aaca.concepts.illusion.spectrum import mean_spectrum
from aaca.models.classifier import parameters_sha256
from aaca.runtime.errors import AacaError, ConfigError, DataError
from aaca.runtime.files import read_json
from aaca.runtime.launch import launch
from aaca.training.illusion import IllusionSpec, draw_illusions, requests_for
from aaca.training.illusion_painter import Painter
from tests.shape_toys import (
    CPU,
    SIDE,
    ColourGuide,
    requests_on,
    shape_classifier,
    shape_images,
    small_vit,
)
from tests.toys import Killed

SHORT = IllusionSpec(iterations=6, batch=4)
PAIRS = [(38, 0), (12, 1), (38, 1), (55, 2), (9, 3)]
RED, BLUE = (1.0, -0.5, -0.5), (-0.5, -0.5, 1.0)


def painted(classifier, requests, spec, text=None, quantiles=None, spectrum=None):
    classifier.requires_grad_(False)
    found = Painter(classifier, spec, text, quantiles, spectrum, torch.device("cpu"))(requests)
    classifier.requires_grad_(True)
    return found


def draw(folder, requests=None, classifier=None, spec=SHORT, text=None, quantiles=None, spectrum=None):
    requests = requests or requests_on(PAIRS)
    return draw_illusions(requests, classifier or shape_classifier(), spec, text, quantiles, spectrum, folder, CPU)


def contents(folder: Path) -> dict[str, str]:
    files = [*folder.glob("images/*"), *folder.glob("masks/*"), *folder.glob("illusions.*")]
    return {str(file.relative_to(folder)): hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


def pixels(folder: Path, table: pd.DataFrame, column="image") -> np.ndarray:
    return np.stack([np.asarray(Image.open(folder / name)) for name in table[column]])


@pytest.mark.parametrize("kind", ["fourier", "pixel", "maco"])
@pytest.mark.parametrize("guided", [False, True])
def test_an_image_is_the_same_alone_and_in_a_batch_of_other_neurons_and_classes(kind, guided):
    # In float64: convolutions of another batch size round differently, and one ReLU or pooling that switches for it
    # changes all that comes after (measured in float32: 1e-7 up to there, 1e-2 some steps later).
    spec = IllusionSpec(param=kind, iterations=30)
    text = ColourGuide(RED, BLUE, (0.0, 1.0, 0.0), (1.0, 1.0, 0.0)) if guided else None
    requests, spectrum, classifier = requests_on(PAIRS), mean_spectrum(shape_images(20, 0)[0]), shape_classifier()
    together = painted(classifier.double(), requests, spec, text, None, spectrum)
    for row in (0, 2, 4):
        (alone,) = painted(classifier, requests[row : row + 1], spec, text, None, spectrum)
        torch.testing.assert_close(together[row].image, alone.image, atol=1e-5, rtol=0)
        assert together[row].activation_after == pytest.approx(alone.activation_after, abs=1e-5)
    assert float((together[0].image - together[1].image).abs().max()) > 0.01


def test_it_is_so_in_single_precision_where_the_network_is_smooth():
    torch.manual_seed(0)
    classifier, requests, spec = small_vit(), requests_on([(0, 1), (7, 2), (3, 0)]), IllusionSpec(iterations=30)
    together = painted(classifier, requests, spec)
    for row in range(3):
        (alone,) = painted(classifier, requests[row : row + 1], spec)
        torch.testing.assert_close(together[row].image, alone.image, atol=1e-5, rtol=0)


def test_the_batch_mean_couples_images_as_the_published_program_did():
    spec = IllusionSpec(iterations=10, coupling="batch_mean")
    text, requests = ColourGuide(RED, BLUE, BLUE, RED), requests_on(PAIRS)
    together = painted(shape_classifier(), requests, spec, text)
    (alone,) = painted(shape_classifier(), requests[:1], spec, text)
    assert float((together[0].image - alone.image).abs().max()) > 1e-4


def test_the_first_steps_are_adamw_on_the_objective_written_out():
    spec = IllusionSpec(iterations=3, augment=AugmentSpec.off(), class_gamma=0.7, lr=0.05)
    classifier, (request,) = shape_classifier(), requests_on([(11, 2)])
    (found,) = painted(classifier, [request], spec)
    fourier = Fourier(SIDE, 1e-3, 0.75)
    x = fourier.start([illusion.purpose_seed(request.seed, "start")]).detach()
    m, v = torch.zeros_like(x), torch.zeros_like(x)
    for step in range(3):
        x.requires_grad_()
        features, logits = classifier.embed((fourier.to_images(x) - 0.5) / 0.25)
        (g,) = torch.autograd.grad(-(features[0, 11] + 0.7 * logits[0, 2]), x)
        lr = 0.05 * (0.12 + 0.88 * (1 + np.cos(np.pi * step / 3)) / 2)
        m, v = 0.5 * m + 0.5 * g, 0.99 * v + 0.01 * g * g
        update = (m / (1 - 0.5 ** (step + 1))) / ((v / (1 - 0.99 ** (step + 1))).sqrt() + 1e-8)
        x = (x * (1 - lr * 2e-4) - lr * update).detach()
    torch.testing.assert_close(found.image, fourier.to_images(x)[0], atol=1e-5, rtol=0)


@pytest.mark.parametrize("epsilon", [0.01, 0.05])
def test_a_text_pulls_its_image_and_only_where_it_is_asked_to(epsilon):
    classifier, requests = shape_classifier(), requests_on([(3, 0), (3, 1), (17, 0), (17, 1)])
    guide = ColourGuide(RED, BLUE, RED, BLUE)
    spec = IllusionSpec(iterations=40, domain_eps=epsilon, lr=0.03)
    guided = painted(classifier, requests, spec, guide)
    free = painted(classifier, requests, spec)
    for request, with_text, without in zip(requests, guided, free, strict=True):
        colour = guide.image_encoder(without.image[None])
        plain = float(torch.cosine_similarity(colour, guide.vectors[[request.label]]))
        assert with_text.similarity > plain + 0.2 and without.similarity is None
    # Without a guide the class's text does nothing: what the two classes' images differ in is their logits alone.
    flat = IllusionSpec(iterations=40, class_gamma=0.0, lr=0.03)
    same = [replace(request, seed=1) for request in requests[:2]]
    red, blue = painted(classifier, same, flat)
    torch.testing.assert_close(red.image, blue.image, atol=1e-5, rtol=0)
    red, blue = painted(classifier, same, flat, guide)
    assert float((red.image - blue.image).abs().max()) > 0.01


def test_the_image_text_model_is_asked_at_every_mth_step_only():
    classifier, (request,) = shape_classifier(), requests_on([(3, 0)])
    for every, calls in ((1, 8), (3, 3), (20, 1)):
        guide = ColourGuide(RED, BLUE, RED, BLUE)
        (found,) = painted(classifier, [request], IllusionSpec(iterations=8, clip_every=every), guide)
        assert guide.calls == calls + 2 and found.finite  # and at the start and the end


def test_activations_are_measured_in_their_quantile_on_data():
    classifier, requests, quantiles = shape_classifier().double(), requests_on(PAIRS[:2]), torch.full((64,), 4.0)
    quantiles[12] = 0.0  # no unit: 1
    spec = IllusionSpec(iterations=1, lr=0.05, augment=AugmentSpec.off())
    four, one = painted(classifier, requests, replace(spec, act_norm="q99"), None, quantiles)
    wide, _ = painted(classifier, requests, replace(spec, class_gamma=2.0))  # a / 4 + z / 2 is (a + 2 z) / 4
    plain, same = painted(classifier, requests, spec, None, quantiles)
    torch.testing.assert_close(four.image, wide.image, atol=1e-3, rtol=0)
    assert torch.equal(one.image, same.image) and float((four.image - plain.image).abs().max()) > 0.005


def test_the_files_and_the_table_say_what_was_made(tmp_path):
    classifier, guide = shape_classifier(), ColourGuide(RED, BLUE, RED, BLUE)
    requests = requests_for({2: [4, 9], 0: [4]}, 2, 7)
    assert [(one.neuron, one.label, one.copy) for one in requests] == [
        *((4, 2, 0), (4, 2, 1), (9, 2, 0), (9, 2, 1), (4, 0, 0), (4, 0, 1))
    ]
    assert len({one.seed for one in requests}) == 6 and requests_for({0: [4]}, 1, 7)[0].seed == requests[4].seed
    quantiles = torch.full((64,), 0.7)
    quantiles[9] = 0.0
    spec = replace(SHORT, batch=6)
    table = draw(tmp_path, requests, classifier, spec, guide, quantiles)
    assert table.equals(pd.read_parquet(tmp_path / "illusions.parquet"))
    assert [tuple(row) for row in table[["index", "neuron", "label", "copy", "seed"]].to_numpy()] == [
        (one.index, one.neuron, one.label, one.copy, one.seed) for one in requests
    ]
    about = read_json(tmp_path / "illusions.json")
    assert about["schema"] == 1 and about["spec"]["iterations"] == 6 and (about["images"], about["failed"]) == (6, 0)
    shown = torch.stack([one.image for one in painted(classifier, requests, spec, guide)])
    with torch.no_grad():
        maps = classifier.backbone.forward_features((shown - 0.5) / 0.25)
        features, logits = classifier.embed((shown - 0.5) / 0.25)
    rows = torch.arange(6)
    neurons, labels = torch.tensor(table["neuron"].to_numpy()), torch.tensor(table["label"].to_numpy())
    np.testing.assert_allclose(table["activation_after"], features[rows, neurons], atol=1e-5)
    np.testing.assert_allclose(table["probability"], logits.softmax(1)[rows, labels], atol=1e-5)
    cosines = torch.cosine_similarity(guide.image_encoder(shown), guide.vectors[labels])
    np.testing.assert_allclose(table["similarity"], cosines, atol=1e-4)
    assert list(table["quantile"]) == pytest.approx([0.7, 0.7, 0, 0, 0.7, 0.7])
    assert list(table["above_quantile"]) == list(table["activation_after"] > table["quantile"])
    large = torch.nn.functional.interpolate(maps, SIDE, mode="bilinear", align_corners=True)[rows, neurons]
    z = (large - large.mean((1, 2), keepdim=True)) / large.std((1, 2), keepdim=True, unbiased=False)
    masked = shown * torch.where(z < 0.25, 0.5, 1.0)[:, None]
    for column, expected in (("image", shown), ("mask", masked)):
        found = pixels(tmp_path, table, column)
        assert abs(found - 255 * expected.permute(0, 2, 3, 1).numpy()).max() <= 0.501
    assert (
        0.1 < float((z < 0.25).float().mean()) < 0.9
        and [one.suffix for one in (tmp_path / "masks").iterdir()] == [".png"] * 6
    )


def test_two_batches_are_one_batch(tmp_path):
    one, two = (replace(SHORT, batch=size) for size in (5, 3))
    first, second = draw(tmp_path / "one", spec=one), draw(tmp_path / "two", spec=two)
    apart = abs(pixels(tmp_path / "one", first).astype(int) - pixels(tmp_path / "two", second))
    assert apart.max() <= 1  # a last digit may round to the other side
    numbers = ["activation_before", "activation_after", "probability"]
    pd.testing.assert_frame_equal(first[numbers], second[numbers], atol=1e-4)
    assert list(first["image"]) == list(second["image"])


@pytest.mark.parametrize(("records", "drawn"), [(0, [2, 2, 1]), (1, [2, 2, 1]), (2, [2, 1]), (4, [1]), (5, [])])
def test_killed_in_the_middle_it_goes_on_to_the_same_files(tmp_path, monkeypatch, records, drawn):
    spec = replace(SHORT, batch=2, iterations=3)
    draw(tmp_path / "whole", spec=spec)
    write, written = illusion.write_json, []

    def dying(path, value):
        if len(written) == records:
            raise Killed
        written.append(path)
        write(path, value)

    classifier = shape_classifier()
    with monkeypatch.context() as patch:
        patch.setattr(illusion, "write_json", dying)
        with pytest.raises(Killed):
            draw(tmp_path / "again", spec=spec, classifier=classifier)
    assert all(parameter.requires_grad for parameter in classifier.parameters())
    assert len(list((tmp_path / "again" / "resume" / "records").iterdir())) == records
    seen, call = [], Painter.__call__
    monkeypatch.setattr(Painter, "__call__", lambda self, batch: seen.append(len(batch)) or call(self, batch))
    draw(tmp_path / "again", spec=spec)
    assert contents(tmp_path / "again") == contents(tmp_path / "whole") and len(contents(tmp_path / "whole")) == 12
    assert seen == drawn
    draw(tmp_path / "again", spec=spec)
    assert seen == drawn  # nothing is drawn twice
    with pytest.raises(DataError, match=r"holds images of other requests or settings; expected an empty folder"):
        draw(tmp_path / "again", spec=replace(spec, lr=1e-3))


@pytest.mark.slow
def test_two_ranks_make_the_same_files(tmp_path):
    one = draw(
        tmp_path / "one",
        requests_on([(3, 0), (8, 1), (3, 1), (20, 2), (9, 3)]),
        spec=IllusionSpec(iterations=4, batch=2),
    )
    names = launch("tests.shape_toys:draw_on_ranks", {"folder": str(tmp_path / "two")}, 2)
    assert names == list(one["image"])
    assert contents(tmp_path / "two") == contents(tmp_path / "one")


def test_the_network_stays_as_it_was(tmp_path):
    classifier = shape_classifier().train()
    classifier.backbone.blocks[1].eval()
    classifier.backbone.blocks[0][0].weight.requires_grad_(False)
    before, buffers = parameters_sha256(classifier), [buffer.clone() for buffer in classifier.buffers()]
    modes = [part.training for part in classifier.modules()]
    needs = [parameter.requires_grad for parameter in classifier.parameters()]
    draw(tmp_path, classifier=classifier)
    assert parameters_sha256(classifier) == before
    assert all(torch.equal(a, b) for a, b in zip(buffers, classifier.buffers(), strict=True))
    assert [part.training for part in classifier.modules()] == modes and {True, False} <= set(modes)
    assert [parameter.requires_grad for parameter in classifier.parameters()] == needs and False in needs
    assert all(parameter.grad is None for parameter in classifier.parameters())


def test_a_dead_neuron_is_said_to_be(tmp_path, caplog):
    classifier = shape_classifier()
    with torch.no_grad():
        classifier.backbone.blocks[2][1].bias[38] = -1e4  # behind its ReLU for good
    table = draw(tmp_path, classifier=classifier)
    assert list(table["dead"]) == [True, False, True, False, False] and not table["failed"].any()
    assert "2 of 5 images leave their neuron dead" in caplog.text
    assert table["quantile"].isna().all() and table["above_quantile"].isna().all()


def test_an_image_that_is_not_finite_is_reported_and_spoils_no_other(tmp_path, caplog):
    guide = ColourGuide(RED, BLUE, (float("nan"), 0.0, 0.0), RED)
    table = draw(tmp_path, text=guide, quantiles=torch.ones(64))
    assert list(table["failed"]) == [False, False, False, True, False]  # the one of class 2
    assert table.loc[3, ["activation_after", "above_quantile", "dead", "image", "mask"]].isna().all()
    assert table.drop(index=3).notna().all(axis=None) and "1 of 5 images are not finite" in caplog.text
    assert len(list((tmp_path / "images").iterdir())) == 4 and read_json(tmp_path / "illusions.json")["failed"] == 1


@pytest.mark.parametrize("pool", ["token", "avg"])
def test_a_vision_transformer_s_neurons_have_images_and_maps_of_its_patches(tmp_path, pool):
    torch.manual_seed(0)
    classifier = small_vit(global_pool=pool, fc_norm=False)
    spec = replace(SHORT, iterations=60, lr=0.05, class_gamma=0.0, augment=AugmentSpec.off())
    table = draw(tmp_path, requests_on([(0, 1), (7, 2)]), classifier, spec)
    assert (table["activation_after"] > table["activation_before"] + 0.3).all() and not table["failed"].any()
    images, masked = pixels(tmp_path, table).astype(int), pixels(tmp_path, table, "mask").astype(int)
    dimmed = (masked < images).all(axis=-1).mean(axis=(1, 2))
    assert (dimmed > 0.1).all() and (dimmed < 0.95).all()


def test_a_canvas_may_be_larger_than_what_the_network_takes(tmp_path):
    torch.manual_seed(0)
    table = draw(tmp_path, requests_on([(0, 1)]), small_vit(), replace(SHORT, size=48))
    assert pixels(tmp_path, table).shape == (1, 48, 48, 3) == pixels(tmp_path, table, "mask").shape


@pytest.mark.parametrize("precision", ["bf16-mixed", "bf16-true"])
def test_networks_may_compute_in_half_precision(tmp_path, precision):
    torch.manual_seed(0)
    spec = replace(SHORT, iterations=30, augment=AugmentSpec.off())
    half = replace(CPU, precision=precision)
    requests, classifier = requests_on(PAIRS), shape_classifier()
    full = draw_illusions(requests, classifier, spec, None, None, None, tmp_path / "full", CPU)
    found = draw_illusions(requests, classifier, spec, None, None, None, tmp_path / "half", half)
    gained, wanted = (one["activation_after"] - one["activation_before"] for one in (found, full))
    assert (gained > 0.7 * wanted).all() and (wanted > 0.05).all()


@pytest.mark.parametrize(
    ("arguments", "error", "said"),
    [
        ({"requests": requests_on([(64, 0)])}, ConfigError, r"^illusion\.neurons: 64; expected 0…63"),
        ({"requests": requests_on([(0, 4)])}, ConfigError, r"^illusion\.class: 4; expected 0…3"),
        ({"text": ColourGuide(RED)}, DataError, "1 text vectors for 4 classes"),
        ({"spec": replace(SHORT, act_norm="q99")}, ConfigError, "'q99' needs the neurons' quantiles"),
        ({"quantiles": torch.ones(5)}, DataError, r"quantiles of shape \(5,\) for 64 neurons"),
        ({"spec": replace(SHORT, param="maco")}, ConfigError, "expected their mean spectrum"),
    ],
)
def test_what_does_not_fit_together_is_said_before_work_starts(tmp_path, arguments, error, said):
    with pytest.raises(error, match=said):
        draw(tmp_path / "none", **arguments)
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize(
    "wrong",
    [{"iterations": 0}, {"size": 4}, {"lr": 0.0}, {"lr_min_ratio": 2.0}, {"act_norm": "max"}, {"clip_every": 0}],
)
def test_a_spec_that_makes_no_images_is_refused(wrong):
    with pytest.raises(ConfigError, match=r"^illusion\."):
        IllusionSpec(**wrong)


def test_when_every_image_fails_it_is_an_error(tmp_path):
    classifier = shape_classifier()
    with torch.no_grad():
        classifier.backbone.fc.bias[:] = float("nan")
    with pytest.raises(AacaError, match=r"^illusions: none of 5 images is finite"):
        draw(tmp_path, classifier=classifier)
