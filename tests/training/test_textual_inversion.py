"""Learned tokens: the loss by hand, nothing but rows moves, what is written loads; also at Stable Diffusion's width."""

import copy
import hashlib
import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from diffusers import DDIMScheduler
from PIL import Image
from safetensors.torch import load_file

from aaca.models.tokenizer import clip_tokenizer
from aaca.models.tokens import expanded, token_names
from aaca.runtime.errors import ConfigError
from aaca.runtime.files import read_json
from aaca.training.inversion import InversionRecipe
from aaca.training.pretrain import Constant, PretrainJob
from aaca.training.resume import ResumeSpec
from aaca.training.textual_inversion import TextualInversion, chosen_rows, learn_tokens, posteriors
from aaca.training.trainer import TrainerSpec
from tests.captioned_toys import weights_after
from tests.diffusion_toys import CONTEXT, FACTOR, SIDE, VOCABULARY, WIDTH, networks, scheduler_of_sd15, toy_diffusion
from tests.toys import square_table

NAMES, NOUNS = token_names(["bird", "art_studio"]), ["bird", "art studio"]
TEMPLATES = ["a photo of a {}", "a {}", "a bright picture of one {} here"]
CPU = TrainerSpec(accelerator="cpu")


@pytest.fixture(scope="module")
def loaded(pipeline_folder):
    return toy_diffusion(pipeline_folder).load()


def fresh(loaded, scheduler=None):
    """What the module needs of a pipeline, its own copy."""
    parts = {name: copy.deepcopy(getattr(loaded, name)) for name in ("unet", "vae", "text_encoder")}
    return SimpleNamespace(**parts, tokenizer=copy.deepcopy(loaded.tokenizer), scheduler=scheduler or loaded.scheduler)


def recipe_of(updates=3, lr=1e-2, **changes):
    values = {"images": 6, "vectors": 1, "initialiser": "mean", "pin_norm": True, "flip": True, "templates": TEMPLATES}
    schedule = Constant(updates=updates, batch_size=4, lr=lr, warmup=0, clip_grad=None)
    return InversionRecipe(**{**values, **changes}, schedule=schedule)


def module_of(pipeline, seed=0, nouns=NOUNS, **changes):
    torch.manual_seed(seed)
    return TextualInversion(pipeline, NAMES, nouns, recipe_of(**changes))


def batch_of(labels, seed=0):
    generator = torch.Generator().manual_seed(seed)
    posterior = torch.randn(len(labels), 2, 2, 4, SIDE // 2, SIDE // 2, generator=generator)
    posterior[:, :, 1] = posterior[:, :, 1].abs() / 3
    return posterior, torch.tensor(labels), torch.arange(len(labels))


def hash_of(*networks):
    values = [value for network in networks for _, value in sorted(network.state_dict().items())]
    return hashlib.sha256(b"".join(value.contiguous().numpy().tobytes() for value in values)).hexdigest()


def learn(pipeline, folder, table, names=NAMES, nouns=NOUNS, size=SIDE, **changes):
    folder.mkdir(exist_ok=True)
    return learn_tokens(pipeline, names, nouns, table, recipe_of(**changes), CPU, folder, size, 5, ResumeSpec())


@pytest.mark.parametrize("pin", [True, False])
def test_only_the_rows_move_and_the_files_hold_them(loaded, tmp_path, pin):
    pipeline, table = fresh(loaded), square_table(tmp_path / "data", 20)
    old = pipeline.text_encoder.get_input_embeddings().weight.detach().clone()
    before = hash_of(pipeline.unet, pipeline.vae, pipeline.text_encoder)
    files = learn(pipeline, tmp_path / "run", table, vectors=2, pin_norm=pin)
    spliced = pipeline.text_encoder.get_input_embeddings()
    assert torch.equal(spliced.table, old)
    pipeline.text_encoder.set_input_embeddings(torch.nn.Embedding.from_pretrained(spliced.table))
    assert hash_of(pipeline.unet, pipeline.vae, pipeline.text_encoder) == before
    for network in (pipeline.unet, pipeline.text_encoder):
        assert not any(weight.requires_grad or weight.grad is not None for weight in network.parameters())
    assert list(files) == NAMES
    rows = {name: load_file(file) for name, file in files.items()}
    report = read_json(tmp_path / "run" / "tokens.json")
    for label, name in enumerate(NAMES):
        assert list(rows[name]) == [name] and rows[name][name].shape == (2, WIDTH)
        assert files[name] == tmp_path / "run" / "tokens" / str(label) / "learned_embeds.safetensors"
        assert report[name]["images"] == 6
        cosines = report[name]["cosine to the start"]
        assert len(cosines) == 2 and all(0 < cosine < 1 - 1e-6 for cosine in cosines)
    found = torch.cat([rows[name][name] for name in NAMES])
    assert torch.equal(found, spliced.rows.detach())
    lengths = first_norms(loaded, vectors=2)
    kept = (found.norm(dim=1) / lengths - 1).abs()
    assert kept.max() < 1e-6 if pin else kept.min() > 1e-4


def first_norms(loaded, **changes):
    from aaca.runtime.seeding import purpose_seed

    return module_of(fresh(loaded), seed=purpose_seed(5, "tokens"), **changes).rows.detach().norm(dim=1)


class Draws:
    """The random numbers that the loss drew, in their order."""

    def __init__(self, monkeypatch):
        self.normal, self.whole = [], []
        for kept, name in ((self.normal, "randn_like"), (self.whole, "randint")):
            draw = getattr(torch, name)
            monkeypatch.setattr(
                torch, name, lambda *given, draw=draw, kept=kept, **more: kept.append(draw(*given, **more)) or kept[-1]
            )


def alphas_by_hand(prediction):
    """Products of 1 − β: scaled linear as Stable Diffusion 1.5, the cosine as the toy (v)."""
    if prediction == "epsilon":
        return np.cumprod(1 - np.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2)
    f = np.cos((np.arange(1001) / 1000 + 0.008) / 1.008 * math.pi / 2) ** 2
    return np.cumprod(1 - np.minimum(1 - f[1:] / f[:-1], 0.999))


@pytest.mark.parametrize(("prediction", "vectors", "flip"), [("epsilon", 1, True), ("v_prediction", 3, False)])
def test_the_loss_is_the_one_computed_by_hand(loaded, monkeypatch, prediction, vectors, flip):
    scheduler = scheduler_of_sd15() if prediction == "epsilon" else loaded.scheduler
    assert scheduler.config.prediction_type == prediction
    module = module_of(fresh(loaded, scheduler), vectors=vectors, flip=flip)
    with torch.no_grad():
        module.rows.add_(0.02 * torch.randn_like(module.rows))
    labels = [1, 0, 1, 1, 0, 1]
    posterior, *rest = batch_of(labels)
    with monkeypatch.context() as patch:
        draws = Draws(patch)
        found = module.losses((posterior, *rest))
    mirrored, times, templates = draws.whole
    chance, noise = draws.normal
    assert set(mirrored.tolist()) == ({0, 1} if flip else {0})
    assert len(set(times.tolist())) > 3 and len(set(templates.tolist())) > 1

    text_encoder, unet, tokenizer = copy.deepcopy(loaded.text_encoder), loaded.unet, clip_tokenizer(CONTEXT)
    tokenizer.add_tokens([token for name in NAMES for token in expanded(name, vectors)])
    old = text_encoder.get_input_embeddings().weight.detach()
    whole = torch.nn.Embedding.from_pretrained(torch.cat([old, module.rows.detach()]))
    text_encoder.set_input_embeddings(whole)
    alphas, errors = alphas_by_hand(prediction), []
    for row, label in enumerate(labels):
        mean, deviation = posterior[row, int(mirrored[row])].double()
        latent = (mean + deviation * chance[row].double()) * FACTOR
        signal, rest_ = math.sqrt(alphas[times[row]]), math.sqrt(1 - alphas[times[row]])
        noisy = signal * latent + rest_ * noise[row].double()
        said = TEMPLATES[templates[row]].replace("{}", " ".join(expanded(NAMES[label], vectors)))
        ids = tokenizer(said).input_ids
        assert sum(i >= VOCABULARY for i in ids) == vectors
        ids += [49407] * (CONTEXT - len(ids))
        with torch.no_grad():
            states = text_encoder(torch.tensor([ids])).last_hidden_state
            predicted = unet(noisy[None].float(), times[row], states).sample[0].double()
        target = noise[row].double()
        if prediction == "v_prediction":
            target = signal * noise[row].double() - rest_ * latent
        errors.append((predicted - target).square().mean().item())
    assert float(found["loss"].detach()) == pytest.approx(np.mean(errors), rel=1e-4)
    assert float(found["norm"]) == pytest.approx(float(module.rows.detach().norm(dim=1).mean()), rel=1e-6)
    assert 0 < float(found["cosine"]) < 1


@pytest.mark.parametrize("vectors", [1, 2])
def test_the_rows_of_a_class_get_their_gradient_from_its_own_images_alone(loaded, vectors):
    module = module_of(fresh(loaded), vectors=vectors)
    for label in (0, 1):
        module.rows.grad = None
        module.losses(batch_of([label] * 4))["loss"].backward()
        pulled = module.rows.grad.view(2, vectors, WIDTH).abs().sum(dim=2)
        assert (pulled[label] > 0).all() and (pulled[1 - label] == 0).all()
    assert [name for name, weight in module.named_parameters() if weight.requires_grad] == ["rows"]
    assert sorted(module.state_dict()) == ["first", "rows"]  # checkpoints stay small


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_networks_in_half_precision_pull_rows_in_full_precision_the_same_way(loaded, dtype):
    posterior = batch_of([0, 1, 1, 0])[0].repeat(1, 1, 1, 1, 4, 4)  # the more pixels, the smaller their gradients
    pulls = []
    for kind in (torch.float32, dtype):
        pipeline = fresh(loaded, scheduler_of_sd15())
        for network in (pipeline.unet, pipeline.text_encoder):
            network.to(kind)
        module = module_of(pipeline)
        torch.manual_seed(1)
        module.losses((posterior, torch.tensor([0, 1, 1, 0]), None))["loss"].backward()
        pulls.append(module.rows.grad)
    assert pulls[1].dtype == torch.float32 and (F.cosine_similarity(*pulls, dim=1) > 0.99).all()
    torch.testing.assert_close(pulls[1].norm(dim=1), pulls[0].norm(dim=1), rtol=0.05, atol=0)


def test_a_token_starts_as_the_mean_of_the_tokens_of_its_noun(loaded):
    table = loaded.text_encoder.get_input_embeddings().weight.detach()
    ids = [loaded.tokenizer(noun).input_ids[1:-1] for noun in NOUNS]
    assert [len(found) for found in ids] == [1, 2]
    means = torch.stack([table[found].mean(dim=0) for found in ids])
    torch.testing.assert_close(module_of(fresh(loaded)).rows.detach(), means)
    three = module_of(fresh(loaded), vectors=3).rows.detach().view(2, 3, WIDTH)
    near = F.cosine_similarity(three, means[:, None], dim=2)
    assert (near > 0.95).all() and (near < 1 - 1e-4).all()
    assert not torch.allclose(three[:, 0], three[:, 1], atol=1e-5)  # equal rows would stay equal
    chance = module_of(fresh(loaded), initialiser="random", vectors=2).rows.detach().view(2, 2, WIDTH)
    torch.testing.assert_close(chance.norm(dim=2), means.norm(dim=1)[:, None].expand(2, 2))
    assert (F.cosine_similarity(chance, means[:, None], dim=2).abs() < 0.75).all()
    assert not torch.equal(
        chance, module_of(fresh(loaded), seed=1, initialiser="random", vectors=2).rows.view(2, 2, -1)
    )


def test_a_caption_that_does_not_fit_is_refused(loaded):
    assert module_of(fresh(loaded), vectors=CONTEXT - 8).ids.shape == (2, len(TEMPLATES), CONTEXT)
    with pytest.raises(
        ConfigError, match=rf"^inversion\.vectors: 30 a token make .* 38 tokens; expected at most {CONTEXT}"
    ):
        module_of(fresh(loaded), vectors=30)


def test_tokens_that_have_not_moved_are_an_error(loaded, tmp_path):
    table = square_table(tmp_path / "data", 8)
    with pytest.raises(ConfigError, match=r"inversion\.schedule: not one token has moved; expected a larger lr"):
        learn(fresh(loaded), tmp_path / "run", table, updates=1, lr=1e-30)


def test_a_template_has_its_slot_once():
    with pytest.raises(ConfigError, match=r"^inversion\.templates\[1\]: 'a bird'; expected {} once"):
        recipe_of(templates=["a {}", "a bird"])
    with pytest.raises(ConfigError, match=r"^inversion\.templates\[0\]"):
        recipe_of(templates=["a {} on a {}"])
    with pytest.raises(ConfigError, match=r"^inversion\.templates\[0\]"):
        recipe_of(templates=["a {} in {place}"])
    with pytest.raises(ConfigError, match=r"^inversion\.templates: none"):
        recipe_of(templates=[])


def test_an_interrupted_learning_ends_with_the_same_rows(loaded, tmp_path):
    table = square_table(tmp_path / "data", 8)
    values = batch_of([0, 1] * 4)[0].numpy()

    def build():
        module = module_of(fresh(loaded), vectors=2)
        spec = {"table": table, "trainer": CPU, "seed": 1, "label": "tokens", "image_size": SIDE, "settings": {}}
        return module, PretrainJob(**spec, schedule=module.schedule, resume=ResumeSpec(every=0), values=values)

    whole = weights_after(build, tmp_path / "whole", [])
    cut = weights_after(build, tmp_path / "cut", [("on_train_batch_start", 2), ("on_train_batch_start", 2)])
    assert sorted(whole) == sorted(cut) == ["first", "rows"]
    for name in whole:
        assert torch.equal(whole[name], cut[name]), name
    assert not torch.equal(whole["rows"], whole["first"])


def test_images_are_drawn_evenly_from_every_class():
    labels = np.array([0] * 30 + [2] * 3 + [1] * 12)
    rows = chosen_rows(labels, 5, 0)
    assert np.bincount(labels[rows]).tolist() == [5, 5, 3]
    assert np.array_equal(rows, np.unique(rows)) and np.array_equal(rows, chosen_rows(labels, 5, 0))
    assert not np.array_equal(rows, chosen_rows(labels, 5, 1))
    drawn = np.bincount(np.concatenate([chosen_rows(labels, 5, seed) for seed in range(120)]), minlength=45)
    assert drawn[:30].min() > 5 and drawn[30:33].tolist() == [120] * 3  # 20 expected, 4 the standard deviation


@torch.no_grad()
def test_latents_of_images_plain_and_mirrored(loaded, tmp_path):
    table = square_table(tmp_path, 5)
    found = posteriors(loaded.vae, table, 24, batch_size=2)
    assert found.shape == (5, 2, 2, 4, 12, 12) and found.dtype == np.float32
    for row in (0, 4):
        picture = np.asarray(Image.fromarray(table.image(row)).resize((24, 24), Image.Resampling.BICUBIC))
        for mirrored, pixels in enumerate((picture, picture[:, ::-1])):
            values = torch.from_numpy(pixels.copy()).permute(2, 0, 1)[None] / 255 * 2 - 1
            posterior = loaded.vae.encode(values).latent_dist
            np.testing.assert_allclose(found[row, mirrored, 0], posterior.mean[0], rtol=1e-3, atol=1e-4)
            np.testing.assert_allclose(found[row, mirrored, 1], posterior.std[0], rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("make", [scheduler_of_sd15, lambda: DDIMScheduler.from_config(scheduler_of_sd15().config)])
def test_the_width_vocabulary_and_noise_of_stable_diffusion_1_5(tmp_path, make):
    """Random weights in the shape of SD 1.5's text encoder (one layer of it), its own context and scheduler."""
    scheduler = make()
    pipeline = SimpleNamespace(**networks(768, 77), tokenizer=clip_tokenizer(77), scheduler=scheduler)
    table, names = square_table(tmp_path / "data", 8), token_names(["art_studio", "library"])
    files = learn(pipeline, tmp_path / "run", table, names, ["art studio", "library"], updates=2, lr=5e-4)
    for name in names:
        rows = load_file(files[name])[name]
        assert rows.shape == (1, 768) and rows.isfinite().all()
    assert all(
        0 < entry["cosine to the start"][0] < 1 for entry in read_json(tmp_path / "run" / "tokens.json").values()
    )
