"""Codes, reconstructions, losses and gradients are those of other libraries with the same weights.

The libraries are extras that CI lacks (sae-lens 6.54, dictionary-learning 0.1, overcomplete 0.3). `golden.json` freezes
numbers that they have confirmed, for everyone: `python -m tests.models.sae.test_sae_parity` writes it anew.
"""

import importlib.util
import json
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest
import torch
import torch.nn.functional as F

from aaca.models.sae.archetypal import Archetypal
from aaca.models.sae.base import Known
from aaca.models.sae.batchtopk import BatchTopK
from aaca.models.sae.exchange import read_dictionary_learning, read_saelens, write_dictionary_learning, write_saelens
from aaca.models.sae.gated import Gated
from aaca.models.sae.jumprelu import JumpRelu
from aaca.models.sae.matryoshka import Matryoshka
from aaca.models.sae.relu import Relu
from aaca.models.sae.topk import TopK

GOLDEN = Path(__file__).with_name("golden.json")
D, H, B = 6, 12, 7
L1, L0 = 0.02, 0.05
CLOSE = {"rtol": 1e-6, "atol": 1e-6}
SPECS = {
    "relu": Relu(latents=H, l1=L1, reconstruction="mse_mean"),
    "relu_free": Relu(latents=H, l1=L1, reconstruction="mse_sum", decoder="free"),
    "topk": TopK(latents=H, k=3, dead_after=100),
    "batchtopk": BatchTopK(latents=H, k=3, keep=0.999, dead_after=100),
    "matryoshka": Matryoshka(latents=H, k=3, keep=0.999, dead_after=100, prefixes=[0.25, 0.5, 1.0]),
    "jumprelu": JumpRelu(latents=H, l0=L0, bandwidth=0.3),
    "gated": Gated(latents=H, l1=L1, reconstruction="mse_sum"),
    "archetypal": Archetypal(latents=H, k=3, anchors=5, delta=0.2),
}


def waves(rows, columns, first, second):
    """Numbers between -1 and 1 that no version of a random generator changes, `[rows, columns]`."""
    places = torch.arange(rows, dtype=torch.float64)[:, None] * first + torch.arange(columns, dtype=torch.float64)
    return torch.sin(1 + places * second).float()


def vectors(count=B):
    return 1.5 * waves(count, D, 7.3, 1.9) + 0.2


def made(name):
    """The autoencoder of that name, its weights waves; latents that are off for the whole batch are dead."""
    spec = SPECS[name]
    known = Known(D, torch.zeros(D), torch.zeros(D), vectors(5))
    sae = spec.build(known, torch.Generator().manual_seed(0))
    with torch.no_grad():
        sae.encoder.copy_(waves(H, D, 5.1, 2.3))
        sae.encoder_bias.copy_(0.3 * waves(1, H, 1, 3.7)[0])
        sae.bias.copy_(0.2 * waves(1, D, 1, 1.3)[0])
        if name == "archetypal":
            sae.mixture.copy_(waves(H, 5, 3.1, 2.9))
            sae.relaxation.copy_(0.2 * waves(H, D, 4.7, 1.7))
            sae.renormalise()
        else:
            rows = F.normalize(waves(H, D, 4.3, 3.1), dim=1)
            sae.dictionary.copy_(rows * (torch.linspace(0.5, 2, H)[:, None] if name == "relu_free" else 1))
        if name == "jumprelu":
            sae.log_threshold.copy_((0.5 + 0.4 * waves(1, H, 1, 2.1)[0]).log())
        if name == "gated":
            sae.r_mag.copy_(0.3 * waves(1, H, 1, 2.1)[0])
            sae.mag_bias.copy_(0.2 * waves(1, H, 1, 1.1)[0])
        if hasattr(spec, "auxk"):
            sae.encoder[::3] *= 0.15
            dead = ~(trained_codes(sae) > 0).any(dim=0)  # theirs counts the batch at hand first
            assert dead.sum() > 2
            sae.since_fired[dead] = 1000
    return sae


def trained_codes(sae):
    """The codes of the training batch: those of a batch's largest for BatchTopK and its kind."""
    if not isinstance(sae.spec, BatchTopK):
        return sae.encode(vectors())
    pre = sae.pre(vectors())
    rows, columns = sae.kept(pre)
    return torch.zeros_like(pre).index_put((rows, columns), pre[rows, columns])


def summary(name):
    sae = made(name)
    codes = trained_codes(sae).detach()
    losses = sae.losses(vectors())
    losses.total.backward()
    return {
        "codes": codes.tolist(),
        "reconstruction": sae.decode(codes).tolist(),
        "loss": losses.total.item(),
        "parts": {key: value.item() for key, value in losses.parts.items()},
        "gradient": {key: value.grad.double().norm().item() for key, value in sae.named_parameters()},
    }


@pytest.mark.parametrize("name", SPECS)
def test_golden(name):
    golden, found = json.loads(GOLDEN.read_text())[name], summary(name)
    assert set(golden) == set(found) and set(golden["gradient"]) == set(found["gradient"])
    for key in ("codes", "reconstruction"):
        torch.testing.assert_close(torch.tensor(found[key]), torch.tensor(golden[key]), rtol=1e-5, atol=1e-6)
    assert found["loss"] == pytest.approx(golden["loss"], rel=1e-5)
    assert found["parts"] == pytest.approx(golden["parts"], rel=1e-5)
    assert found["gradient"] == pytest.approx(golden["gradient"], rel=1e-5)


def bare(package):
    """Make `package` importable without what its `__init__` asks for and we do not need; skip where it is missing."""
    spec = importlib.util.find_spec(package)
    if spec is None:
        pytest.skip(f"needs {package}")
    module = ModuleType(package)
    module.__path__ = list(spec.submodule_search_locations)
    sys.modules[package] = module
    return module.__path__[0]


@pytest.fixture(scope="module")
def learning():
    if "dictionary_learning" not in sys.modules:
        bare("dictionary_learning")
    pytest.importorskip("einops")
    from dictionary_learning import dictionary, trainers
    from dictionary_learning.trainers import matryoshka_batch_top_k

    trainers.dictionary, trainers.matryoshka = dictionary, matryoshka_batch_top_k
    return trainers


@pytest.fixture(scope="module")
def lens():
    return pytest.importorskip("sae_lens")


def learner(learning, name, sae):
    """Their trainer with our weights."""
    common = {"steps": 10, "activation_dim": D, "dict_size": H, "layer": 0, "lm_name": "none", "device": "cpu"}
    short = {"warmup_steps": 0, "decay_start": None}
    weights = {"encoder.weight": sae.encoder, "encoder.bias": sae.encoder_bias, "decoder.weight": sae.dictionary.T}
    if name == "relu":
        trainer = learning.StandardTrainer(l1_penalty=L1 * D, sparsity_warmup_steps=None, **common, **short)
        weights["bias"] = sae.bias
    elif name == "gated":
        trainer = learning.GatedSAETrainer(l1_penalty=L1, sparsity_warmup_steps=None, **common, **short)
        weights |= {"decoder_bias": sae.bias, "gate_bias": weights.pop("encoder.bias")}
        weights |= {"r_mag": sae.r_mag, "mag_bias": sae.mag_bias}
    else:
        extra = {"threshold_start_step": -1, "k": 3, **common, **short}
        if name == "matryoshka":
            extra |= {"group_fractions": [0.25, 0.25, 0.5], "auxk_alpha": 1 / 32 / 3}
            trainer = learning.matryoshka.MatryoshkaBatchTopKTrainer(**extra)
            weights = {"W_enc": sae.encoder.T, "b_enc": sae.encoder_bias, "W_dec": sae.dictionary}
        else:
            trainer = {"topk": learning.TopKTrainer, "batchtopk": learning.BatchTopKTrainer}[name](**extra)
        weights["b_dec"] = sae.bias
        trainer.dead_feature_threshold, trainer.num_tokens_since_fired = 100, sae.since_fired.clone()
    trainer.ae.load_state_dict(trainer.ae.state_dict() | {key: value.detach() for key, value in weights.items()})
    return trainer


@pytest.mark.parametrize("name", ["relu", "topk", "batchtopk", "matryoshka", "gated"])
def test_dictionary_learning(name, learning):
    sae, x = made(name), vectors()
    trainer = learner(learning, name, sae)
    log = trainer.loss(x, step=0, logging=True)
    torch.testing.assert_close(trained_codes(sae), log.f, **CLOSE)
    torch.testing.assert_close(sae.decode(trained_codes(sae)), log.x_hat, **CLOSE)
    losses = sae.losses(x)
    # theirs: Σ over dimensions; the mean over 3 prefixes of what is divided by 3 already
    factor = {"relu": 1 / D, "matryoshka": 3}.get(name, 1)
    assert losses.total.item() == pytest.approx(factor * log.losses["loss"], rel=1e-6)
    if "auxk" in losses.parts:
        assert losses.parts["auxk"].item() == pytest.approx(log.losses["auxk_loss"] / 32, rel=1e-6)
        assert losses.parts["auxk"] > 1e-3
    losses.total.backward()
    trainer.optimizer.zero_grad()
    trainer.loss(x, step=0).backward()
    theirs = dict(trainer.ae.named_parameters())
    assert len(theirs) == len(list(sae.parameters()))
    pairs = {"encoder": ("encoder.weight", "W_enc"), "dictionary": ("decoder.weight", "W_dec")}
    pairs |= {"encoder_bias": ("encoder.bias", "b_enc", "gate_bias"), "bias": ("bias", "b_dec", "decoder_bias")}
    pairs |= {"r_mag": ("r_mag",), "mag_bias": ("mag_bias",)}
    for key, parameter in sae.named_parameters():
        their = next(theirs[one] for one in pairs[key] if one in theirs)
        gradient = their.grad if their.shape == parameter.shape else their.grad.T
        torch.testing.assert_close(parameter.grad, factor * gradient, rtol=1e-5, atol=1e-6)


def test_dictionary_learning_thresholds(learning):
    ours = made("batchtopk")
    trainer = learner(learning, "batchtopk", ours)
    for x in (vectors(), 1.3 * vectors(), vectors(30)):
        ours.losses(x)
        trainer.loss(x, step=0)
    assert ours.threshold.item() == pytest.approx(trainer.ae.threshold.item(), rel=1e-6)
    torch.testing.assert_close(ours.encode(vectors(30)), trainer.ae.encode(vectors(30), use_threshold=True), **CLOSE)


@pytest.mark.parametrize("name", ["relu", "topk", "batchtopk", "gated"])
def test_dictionary_learning_loads_our_folders_and_we_its(name, learning, tmp_path):
    sae, x = made(name), vectors()
    sae.losses(x)
    write_dictionary_learning(sae, tmp_path)
    kind = json.loads((tmp_path / "config.json").read_text())["trainer"]["dict_class"]
    modules = (learning.dictionary, learning.top_k, learning.batch_top_k)
    cls = next(getattr(module, kind) for module in modules if hasattr(module, kind))
    theirs = cls.from_pretrained(tmp_path / "ae.pt")
    torch.testing.assert_close(theirs.encode(x), sae.encode(x), **CLOSE)
    torch.testing.assert_close(theirs(x), sae(x), **CLOSE)
    torch.save(theirs.state_dict(), tmp_path / "ae.pt")
    torch.testing.assert_close(read_dictionary_learning(tmp_path)(x), sae(x), **CLOSE)


def lens_sae(name, sae):
    """SAELens' training autoencoder with our weights."""
    from sae_lens import saes

    common = {"d_in": D, "d_sae": H, "apply_b_dec_to_input": True, "decoder_init_norm": None}
    top = {**common, "k": 3, "rescale_acts_by_decoder_norm": True, "aux_loss_coefficient": 0.0}
    weights = {"W_enc": sae.encoder.T, "b_enc": sae.encoder_bias, "W_dec": sae.dictionary, "b_dec": sae.bias}
    if name in ("relu", "relu_free"):
        sum_l1 = L1 * (D if name == "relu" else 1)
        theirs = saes.StandardTrainingSAE(saes.StandardTrainingSAEConfig(l1_coefficient=sum_l1, **common))
    elif name == "topk":
        theirs = saes.TopKTrainingSAE(saes.TopKTrainingSAEConfig(**top))
    elif name == "batchtopk":
        theirs = saes.BatchTopKTrainingSAE(saes.BatchTopKTrainingSAEConfig(**top))
    elif name == "matryoshka":
        config = saes.MatryoshkaBatchTopKTrainingSAEConfig(matryoshka_widths=[3, 6, 12], **top)
        theirs = saes.MatryoshkaBatchTopKTrainingSAE(config)
    elif name == "jumprelu":
        config = saes.JumpReLUTrainingSAEConfig(l0_coefficient=L0, jumprelu_bandwidth=0.3, **common)
        theirs = saes.JumpReLUTrainingSAE(config)
        weights["threshold"] = sae.threshold
    else:
        theirs = saes.GatedTrainingSAE(saes.GatedTrainingSAEConfig(l1_coefficient=L1, **common))
        weights |= {"b_gate": weights.pop("b_enc"), "r_mag": sae.r_mag, "b_mag": sae.mag_bias}
    theirs.load_state_dict(theirs.state_dict() | {key: value.detach() for key, value in weights.items()})
    return theirs


@pytest.mark.parametrize("name", ["relu", "relu_free", "topk", "batchtopk", "matryoshka", "jumprelu", "gated"])
def test_saelens(name, lens):
    from sae_lens.saes.sae import TrainStepInput

    sae, x = made(name), vectors()
    sae.spec = replace(sae.spec, auxk=0) if hasattr(sae.spec, "auxk") else sae.spec  # theirs has another AuxK
    theirs = lens_sae(name, sae)
    coefficients = {"l1": getattr(theirs.cfg, "l1_coefficient", 0), "l0": getattr(theirs.cfg, "l0_coefficient", 0)}
    step = theirs.training_forward_pass(TrainStepInput(x, coefficients, None, 0, False))
    torch.testing.assert_close(trained_codes(sae), step.feature_acts, **CLOSE)
    torch.testing.assert_close(sae.decode(trained_codes(sae)), step.sae_out, **CLOSE)
    # theirs: Σ over dimensions, Σ over the 3 prefixes
    factor = {"relu": 1 / D, "matryoshka": 1 / 3}.get(name, 1)
    losses = sae.losses(x)
    assert losses.total.item() == pytest.approx(factor * step.loss.item(), rel=1e-6)
    if name == "gated":
        return  # theirs lets the gates train the dictionary
    losses.total.backward()
    step.loss.backward()
    pairs = {"encoder": theirs.W_enc.grad.T, "encoder_bias": theirs.b_enc.grad, "bias": theirs.b_dec.grad}
    if name in ("relu_free", "jumprelu"):
        pairs["dictionary"] = theirs.W_dec.grad
    else:  # theirs depends on the rows' lengths, ours is projected: what is left at right angles is the same
        along = (theirs.W_dec.grad * sae.dictionary).sum(dim=1, keepdim=True)
        pairs["dictionary"] = theirs.W_dec.grad - along * sae.dictionary.detach()
        sae.project_gradient()
    if name == "jumprelu":
        pairs["log_threshold"] = theirs.threshold.grad * sae.threshold.detach()
        assert pairs["log_threshold"].abs().max() > 1e-2
    for key, parameter in sae.named_parameters():
        torch.testing.assert_close(parameter.grad, factor * pairs[key], rtol=1e-5, atol=2e-6)


@pytest.mark.parametrize("name", SPECS)
def test_saelens_loads_our_folders(name, lens, tmp_path):
    sae, x = made(name), vectors()
    sae.losses(x)
    write_saelens(sae, tmp_path)
    theirs = lens.SAE.load_from_disk(tmp_path)
    codes = theirs.encode(x)
    assert (codes > 0).any()
    torch.testing.assert_close(codes, sae.encode(x), **CLOSE)
    torch.testing.assert_close(theirs.decode(codes), sae(x), **CLOSE)


@pytest.mark.parametrize("name", ["relu", "relu_free", "topk", "batchtopk", "matryoshka", "jumprelu", "gated"])
def test_we_load_the_folders_of_saelens(name, lens, tmp_path):
    x = vectors()
    theirs = lens_sae(name, made(name))
    if name in ("batchtopk", "matryoshka"):
        theirs.topk_threshold.fill_(0.7)
    with torch.no_grad():
        theirs.W_dec *= torch.linspace(0.5, 2, H)[:, None]  # as they come out of its training
    theirs.save_inference_model(tmp_path)
    loaded, ours = lens.SAE.load_from_disk(tmp_path), read_saelens(tmp_path)
    codes = loaded.encode(x)
    assert (codes > 0).any() and torch.equal(codes > 0, ours.encode(x) > 0)
    torch.testing.assert_close(ours(x), loaded.decode(codes), **CLOSE)
    lengths = 1 if name in ("relu", "relu_free") else loaded.W_dec.norm(dim=1)
    torch.testing.assert_close(ours.encode(x), codes * lengths, **CLOSE)


def test_archetypal_is_overcompletes_dictionary():
    file = Path(bare("overcomplete")) / "sae" / "archetypal_dictionary.py"
    module = importlib.util.module_from_spec(importlib.util.spec_from_file_location("archetypal_dictionary", file))
    module.__spec__.loader.exec_module(module)
    sae = made("archetypal")
    theirs = module.RelaxedArchetypalDictionary(D, H, sae.anchors, delta=0.2)
    with torch.no_grad():
        mixture, relaxation = waves(H, 5, 1.7, 2.3) + 0.2, waves(H, D, 2.9, 1.1)
        for own, other, value in ((sae.mixture, theirs.W, mixture), (sae.relaxation, theirs.Relax, relaxation)):
            own.copy_(value)
            other.copy_(value)
    sae.renormalise()
    torch.testing.assert_close(sae.atoms, theirs.get_dictionary(), **CLOSE)
    codes = sae.encode(vectors())
    torch.testing.assert_close(sae.decode(codes) - sae.bias, theirs(codes), **CLOSE)


def rounded(value):
    if isinstance(value, dict):
        return {key: rounded(one) for key, one in value.items()}
    return [rounded(one) for one in value] if isinstance(value, list) else float(f"{value:.8g}")


if __name__ == "__main__":
    lines = [f"{json.dumps(name)}: {json.dumps(rounded(summary(name)))}" for name in SPECS]
    GOLDEN.write_text("{\n" + ",\n".join(lines) + "\n}\n")
