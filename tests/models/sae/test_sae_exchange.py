"""Files of autoencoders: round trips keep codes to the bit, other people's layouts as published, errors one line."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from aaca.models.bottleneck import Scaling
from aaca.models.sae.archetypal import Archetypal
from aaca.models.sae.base import Known
from aaca.models.sae.batchtopk import BatchTopK
from aaca.models.sae.exchange import (
    load,
    read_dictionary_learning,
    read_dncbm,
    read_saelens,
    save,
    write_dictionary_learning,
    write_dncbm,
    write_saelens,
)
from aaca.models.sae.gated import Gated
from aaca.models.sae.jumprelu import JumpRelu
from aaca.models.sae.matryoshka import Matryoshka
from aaca.models.sae.relu import Relu
from aaca.models.sae.topk import TopK
from aaca.runtime.errors import DataError

D, H = 6, 20
SPECS = [
    Relu(latents=H, l1=1e-3, init="kaiming"),
    Relu(latents=H, decoder="free", init="datapoint"),
    TopK(latents=H, k=3),
    BatchTopK(latents=H, k=3, keep=0.5),
    Matryoshka(latents=H, k=3, prefixes=[0.3, 1.0]),
    JumpRelu(latents=H, init="kaiming", threshold=0.3),
    Gated(latents=H, init="kaiming"),
    Archetypal(latents=H, k=3, anchors=9, delta=0.1),
]


def vectors(count=50):
    return torch.randn(count, D, generator=torch.Generator().manual_seed(5)) + 0.2


def built(spec):
    """An autoencoder no weight and no buffer of which is as it starts."""
    generator, sample = torch.Generator().manual_seed(1), vectors(30)
    sae = spec.build(Known(D, sample.mean(dim=0), sample.median(dim=0).values, sample), generator)
    with torch.no_grad():
        for parameter in sae.parameters():
            parameter += 0.1 * torch.randn(parameter.shape, generator=generator)
    sae.renormalise()
    losses = sae.losses(vectors())
    sae.saw(losses.fired, 50)
    if isinstance(spec, Relu):
        sae.align_to(torch.linspace(0, 1, H))
    return sae.requires_grad_(False)


def alike(sae, other, exact=True):
    codes, again = sae.encode(vectors()), other.encode(vectors())
    assert (codes > 0).any() and (again > 0).any()
    close = {"rtol": 0, "atol": 0} if exact else {"rtol": 1e-5, "atol": 1e-6}
    torch.testing.assert_close(codes, again, **close)
    torch.testing.assert_close(sae(vectors()), other(vectors()), **close)


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: f"{spec.name}-{spec.init}")
def test_what_is_saved_is_loaded_to_the_bit(spec, tmp_path):
    sae = built(spec)
    save(sae, tmp_path / "new" / "sae")
    again = load(tmp_path / "new" / "sae")
    assert type(again) is type(sae) and again.spec == spec
    state = again.state_dict()
    assert set(state) == set(sae.state_dict())
    assert all(torch.equal(value, state[name]) for name, value in sae.state_dict().items())
    alike(sae, again)
    assert all(parameter.requires_grad for parameter in again.parameters())
    assert torch.equal(again.losses(vectors()).total, sae.losses(vectors()).total)
    assert sorted(path.name for path in (tmp_path / "new" / "sae").iterdir()) == ["model.safetensors", "sae.json"]


def test_a_folder_is_written_over_as_a_whole(tmp_path, monkeypatch):
    first, second = built(SPECS[0]), built(SPECS[2])
    save(first, tmp_path)
    save(second, tmp_path)
    alike(load(tmp_path), second)

    def full_disk(*_):
        raise OSError("no space")

    with monkeypatch.context() as patch, pytest.raises(OSError, match="no space"):
        patch.setattr("aaca.models.sae.exchange.write_json", full_disk)
        save(first, tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model.safetensors"]
    with pytest.raises(DataError, match=r"sae\.json: cannot be read"):
        load(tmp_path)


def test_a_changed_byte_is_noticed(tmp_path):
    save(built(SPECS[0]), tmp_path)
    data = bytearray((tmp_path / "model.safetensors").read_bytes())
    data[-1] ^= 1
    (tmp_path / "model.safetensors").write_bytes(bytes(data))
    with pytest.raises(DataError, match=r"model\.safetensors: not the file that sae\.json is of"):
        load(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"class": "os.system"}, "'os.system' is not allowed"),
        ({"class": "aaca.models.sae.relu.ReluAutoencoder"}, "is not a SaeSpec"),
        ({"class": "aaca.models.sae.relu.Rely"}, "nearest valid: Relu"),
        ({"spec": {"latents": H, "l2": 1}}, r"spec\.l2: unknown key; .*l1"),
        ({"spec": {"latents": H, "l1": -1.0}}, r"spec\.l1: expected greater than or equal to 0"),
        ({"spec": {"latents": H + 1}}, f"dim and latents: {D} and {H}; expected the weights' {D} and {H + 1}"),
        ({"dim": D + 1}, f"dim and latents: {D + 1} and {H}; expected"),
        ({"spec": 3}, "spec 3; expected arguments by name"),
    ],
)
def test_another_page_is_one_line(change, message, tmp_path):
    save(built(SPECS[0]), tmp_path)
    page = tmp_path / "sae.json"
    page.write_text(json.dumps(json.loads(page.read_text()) | change))
    with pytest.raises(DataError, match=message) as caught:
        load(tmp_path)
    assert "\n" not in str(caught.value) and str(page) in str(caught.value)


def dncbm_file(path, **changes):
    """A synthetic file with the keys and shapes of the released code."""
    generator = torch.Generator().manual_seed(2)
    bias = torch.randn(1, D, generator=generator)
    decoder = torch.nn.functional.normalize(torch.randn(1, D, H, generator=generator), dim=1)
    state = {
        "tied_bias": bias,
        "pre_encoder_bias._bias_reference": bias,
        "post_decoder_bias._bias_reference": bias,
        "encoder._weight": torch.randn(1, H, D, generator=generator),
        "encoder._bias": torch.randn(1, H, generator=generator),
        "decoder._weight": decoder,
    }
    state.update(changes)
    torch.save({key: value for key, value in state.items() if value is not None}, path)
    return state


def test_dncbm_files_are_read_as_their_formula_says_and_written_back_to_the_bit(tmp_path):
    state = dncbm_file(tmp_path / "final.pt")
    sae = read_dncbm(tmp_path / "final.pt")
    bias, x = state["tied_bias"][0], vectors()
    codes = (state["encoder._weight"][0] @ (x - bias).T).T.add(state["encoder._bias"][0]).clamp(min=0)
    torch.testing.assert_close(sae.encode(x), codes)
    torch.testing.assert_close(sae(x), codes @ state["decoder._weight"][0].T + bias)
    assert isinstance(sae.spec, Relu) and sae.spec.decoder == "unit" and sae.spec.latents == H
    write_dncbm(sae, tmp_path / "again.pt")
    again = torch.load(tmp_path / "again.pt", weights_only=True)
    assert list(again) == list(state) and all(torch.equal(again[key], value) for key, value in state.items())
    trained = built(SPECS[0])
    write_dncbm(trained, tmp_path / "ours.pt")
    alike(read_dncbm(tmp_path / "ours.pt"), trained)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"encoder._bias": None}, r"no key 'encoder\._bias'; expected a tensor of shape \[1, 20\]"),
        ({"encoder._wait": torch.zeros(1)}, r"unknown key 'encoder\._wait'; nearest valid: encoder\._weight"),
        ({"decoder._weight": torch.ones(1, H, D)}, r"'decoder\._weight' has shape \[1, 20, 6\]; expected \[1, 6, 20\]"),
        ({"encoder._weight": torch.ones(H, D)}, r"'encoder\._weight' has shape \[20, 6\]; expected \[1, h, 6\]"),
        ({"encoder._bias": torch.full((1, H), torch.nan)}, r"'encoder\._bias' has values that are not finite"),
        ({"post_decoder_bias._bias_reference": torch.ones(1, D)}, "'post_.*' differs from 'tied_bias'; expected three"),
        ({"tied_bias": "zeros"}, "not a state dict; expected tensors by name"),
        ({"tied_bias": json}, "not a file of plain tensors"),
    ],
)
def test_other_dncbm_files_are_one_line(changes, message, tmp_path):
    path = tmp_path / "final.pt"
    if changes.get("tied_bias") is json:
        path.write_bytes(b"\x80\x02cos\nsystem\n")
    else:
        dncbm_file(path, **changes)
    with pytest.raises(DataError, match=message) as caught:
        read_dncbm(path)
    assert "\n" not in str(caught.value) and str(caught.value).startswith(str(path))


def test_no_code_in_a_pickle_is_run(tmp_path):
    class Evil:
        def __reduce__(self):
            return (open, (str(tmp_path / "touched"), "w"))

    torch.save({"tied_bias": Evil()}, tmp_path / "final.pt")
    with pytest.raises(DataError, match="not a file of plain tensors"):
        read_dncbm(tmp_path / "final.pt")
    assert not (tmp_path / "touched").exists()


LENS = {"relu": "standard", "topk": "topk", "jumprelu": "jumprelu", "gated": "gated"}
LENS |= {"batchtopk": "jumprelu", "matryoshka": "jumprelu", "archetypal": "topk"}


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: f"{spec.name}-{spec.init}")
def test_saelens_folders(spec, tmp_path):
    sae = built(spec)
    write_saelens(sae, tmp_path)
    config = json.loads((tmp_path / "cfg.json").read_text())
    weights = load_file(tmp_path / "sae_weights.safetensors")
    assert (config["architecture"], config["d_in"], config["d_sae"]) == (LENS[spec.name], D, H)
    assert config["apply_b_dec_to_input"] is True and config["normalize_activations"] == "none"
    assert weights["W_enc"].shape == (D, H) and weights["W_dec"].shape == (H, D) and weights["b_dec"].shape == (D,)
    pre = (vectors() - weights["b_dec"]) @ weights["W_enc"]
    if "threshold" in weights:
        codes = (pre + weights["b_enc"]) * (pre + weights["b_enc"] > weights["threshold"])
        torch.testing.assert_close(sae.encode(vectors()), codes)
    if spec.name == "archetypal":
        with pytest.raises(DataError, match=r"rows of the dictionary of length .*; expected 1"):
            read_saelens(tmp_path)
        return
    again = read_saelens(tmp_path)
    alike(sae, again, exact=LENS[spec.name] != "jumprelu")
    assert LENS[again.spec.name] == LENS[spec.name]


@pytest.mark.parametrize("name", ["jumprelu", "gated", "topk"])
def test_saelens_rows_of_other_lengths_change_the_codes_units_alone(name, tmp_path):
    sae = built(next(spec for spec in SPECS if spec.name == name))
    write_saelens(sae, tmp_path)
    lengths = torch.linspace(0.1, 3, H)
    weights = load_file(tmp_path / "sae_weights.safetensors")
    weights["W_dec"] *= lengths[:, None]
    for key in {"W_enc", "b_enc", "b_gate", "b_mag", "threshold"} & set(weights):
        weights[key] /= lengths
    save_file(weights, tmp_path / "sae_weights.safetensors")
    config = json.loads((tmp_path / "cfg.json").read_text())
    (tmp_path / "cfg.json").write_text(json.dumps(config | {"rescale_acts_by_decoder_norm": True}))
    again = read_saelens(tmp_path)
    assert (again.dictionary.norm(dim=1) - 1).abs().max() < 1e-6
    alike(sae, again, exact=False)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"architecture": "jumprely"}, r"architecture 'jumprely'; nearest valid: jumprelu"),
        ({"apply_b_dec_to_input": False}, "apply_b_dec_to_input False; expected True"),
        ({"normalize_activations": "layer_norm"}, "normalize_activations 'layer_norm'; expected 'none'"),
        ({"activation_fn_str": "tanh-relu"}, "activation_fn_str 'tanh-relu'; expected 'relu'"),
        ({"d_sae": 7}, r"d_sae and d_in \[7, 6\]; expected the weights' \[20, 6\]"),
        ({"k": 2.5}, "k 2.5; expected a whole number"),
        ({"k": 21}, "k 21; expected 1 to the 20 latents"),
        ({"k": None}, "k None; expected a whole number"),
    ],
)
def test_other_saelens_folders_are_one_line(change, message, tmp_path):
    write_saelens(built(SPECS[2]), tmp_path)
    config = json.loads((tmp_path / "cfg.json").read_text())
    (tmp_path / "cfg.json").write_text(json.dumps(config | change))
    with pytest.raises(DataError, match=message):
        read_saelens(tmp_path)


def test_saelens_weights_that_lack_one_or_have_one_too_many_are_one_line(tmp_path):
    write_saelens(built(SPECS[5]), tmp_path)
    path = tmp_path / "sae_weights.safetensors"
    weights = load_file(path)
    save_file({key: value for key, value in weights.items() if key != "threshold"}, path)
    with pytest.raises(DataError, match=r"sae_weights\.safetensors: no key 'threshold'; .* shape \[20\]"):
        read_saelens(tmp_path)
    save_file({**weights, "scaling_factor": torch.ones(H)}, path)
    with pytest.raises(DataError, match="unknown key 'scaling_factor'"):
        read_saelens(tmp_path)
    path.unlink()
    with pytest.raises(DataError, match=r"sae_weights\.safetensors: not a file of plain tensors"):
        read_saelens(tmp_path)
    with pytest.raises(DataError, match=r"cfg\.json: cannot be read"):
        read_saelens(tmp_path / "none")


DL = {"relu": "AutoEncoder", "topk": "AutoEncoderTopK", "batchtopk": "BatchTopKSAE", "gated": "GatedAutoEncoder"}
DL |= {"matryoshka": "BatchTopKSAE"}


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: f"{spec.name}-{spec.init}")
def test_dictionary_learning_folders(spec, tmp_path):
    sae = built(spec)
    if spec.name not in DL:
        with pytest.raises(DataError, match=f"{spec.name} has no place in this format; expected one of relu, "):
            write_dictionary_learning(sae, tmp_path)
        assert not list(tmp_path.iterdir())
        return
    write_dictionary_learning(sae, tmp_path)
    state = torch.load(tmp_path / "ae.pt", weights_only=True)
    assert json.loads((tmp_path / "config.json").read_text())["trainer"]["dict_class"] == DL[spec.name]
    assert state["encoder.weight"].shape == (H, D) and state["decoder.weight"].shape == (D, H)
    assert ("k" in state) == (spec.name in ("topk", "batchtopk", "matryoshka"))
    again = read_dictionary_learning(tmp_path)
    alike(sae, again)
    assert DL[again.spec.name] == DL[spec.name] and getattr(again.spec, "k", None) == getattr(spec, "k", None)


@pytest.mark.parametrize(
    ("page", "message"),
    [
        ("{", r"config\.json: cannot be read"),
        ("{}", r"config\.json: no key 'trainer'"),
        ('{"trainer": []}', r"trainer\.dict_class None; valid: AutoEncoder, AutoEncoderTopK"),
        ('{"trainer": {"dict_class": "AutoEncoderTop"}}', r"nearest valid: AutoEncoderTopK"),
        ('{"trainer": {"dict_class": "AutoEncoderTopK"}}', r"ae\.pt: unknown key 'bias'"),
    ],
)
def test_other_dictionary_learning_folders_are_one_line(page, message, tmp_path):
    write_dictionary_learning(built(SPECS[0]), tmp_path)
    (tmp_path / "config.json").write_text(page)
    with pytest.raises(DataError, match=message):
        read_dictionary_learning(tmp_path)


def test_what_a_format_has_no_place_for_is_refused(tmp_path):
    with pytest.raises(DataError, match="topk cannot be written as DN-CBM; expected relu"):
        write_dncbm(built(SPECS[2]), tmp_path / "sae.pt")
    write_dictionary_learning(built(SPECS[2]), tmp_path)
    state = torch.load(tmp_path / "ae.pt", weights_only=True)
    torch.save(state | {"decoder.weight": 2 * state["decoder.weight"]}, tmp_path / "ae.pt")
    with pytest.raises(DataError, match=r"rows of the dictionary of length 2; expected 1"):
        read_dictionary_learning(tmp_path)


FORMATS = {
    "dncbm": (write_dncbm, read_dncbm, {"relu"}),
    "saelens": (write_saelens, read_saelens, {"relu", "topk", "batchtopk", "matryoshka", "jumprelu", "gated"}),
    "dl": (write_dictionary_learning, read_dictionary_learning, set(DL)),
}


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("spec", SPECS[:-1], ids=lambda spec: f"{spec.name}-{spec.init}")
def test_a_scaling_is_folded_in_so_that_raw_vectors_are_taken(spec, form, tmp_path):
    write, read, kinds = FORMATS[form]
    if spec.name not in kinds:
        return
    sae, raw = built(spec), 3 * vectors() + 1
    scaling = Scaling(torch.linspace(-1, 2, D), 0.37)
    write(sae, tmp_path / "sae", scaling)
    again = read(tmp_path / "sae")
    seen = scaling(raw)
    codes = sae.encode(seen)
    assert 0.05 < (codes > 0).float().mean() < 0.95
    torch.testing.assert_close(again.encode(raw), codes / 0.37, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(again(raw), sae(seen) / 0.37 + scaling.offset, rtol=1e-5, atol=1e-5)
    assert (again(raw) - sae(raw)).abs().max() > 0.1  # it matters


def test_a_threshold_that_is_not_known_stays_so_and_unit_length_is_refused(tmp_path):
    fresh = BatchTopK(latents=H, k=3).build(Known(D, *torch.zeros(2, D), vectors()), torch.Generator().manual_seed(0))
    write_dictionary_learning(fresh, tmp_path / "new", Scaling(torch.zeros(D), 4.0))
    assert read_dictionary_learning(tmp_path / "new").threshold.item() == -1
    for write in (write_saelens, write_dictionary_learning, write_dncbm):
        with pytest.raises(DataError, match=r"unit length cannot be folded .*; expected sae\.scale none or sqrt_d"):
            write(built(SPECS[0]), tmp_path / "unit", Scaling(torch.zeros(D), 1.0, unit=True))
        assert not (tmp_path / "unit").exists()
