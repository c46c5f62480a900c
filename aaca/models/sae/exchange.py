"""Autoencoders as files: our own folder, and those of DN-CBM, SAELens and dictionary_learning, both ways.

What is read is checked key by key and shape by shape; nothing is unpickled but tensors. Of a folder the page (JSON) is
written last, so a folder that has one is whole.

With the `scaling` of its vectors an autoencoder is written so that it takes vectors as they were before: x̂ is then in
their units, and codes are the old ones over its factor. A scaling to unit length is no affine map: `DataError`.
"""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from aaca.models.sae.archetypal import Archetypal
from aaca.models.sae.base import TINY, Known, SaeSpec, SparseAutoencoder
from aaca.models.sae.batchtopk import BatchTopK
from aaca.models.sae.gated import Gated
from aaca.models.sae.jumprelu import JumpRelu
from aaca.models.sae.relu import Relu
from aaca.models.sae.topk import TopK
from aaca.runtime.config import TARGET, parse
from aaca.runtime.errors import ConfigError, DataError, nearest
from aaca.runtime.files import atomic_path, file_sha256, read_json, write_json

if TYPE_CHECKING:  # it brings the image towers
    from aaca.models.bottleneck import Scaling

MODEL, PAGE = "model.safetensors", "sae.json"
LENS_MODEL, LENS_PAGE, LENS_FORMAT = "sae_weights.safetensors", "cfg.json", "6.0.0"  # of SAELens' configs since then
DL_MODEL, DL_PAGE = "ae.pt", "config.json"
UNIT = 1e-4  # how far from 1 the length of a row of a unit dictionary may be

Shape = tuple[int | str, ...]
Layout = dict[str, tuple[str, Shape]]
"""Their key: our tensor and their shape; the same letter is the same size everywhere, d × h means transposed."""

DNCBM: Layout = {
    "tied_bias": ("bias", (1, "d")),
    "pre_encoder_bias._bias_reference": ("bias", (1, "d")),
    "post_decoder_bias._bias_reference": ("bias", (1, "d")),
    "encoder._weight": ("encoder", (1, "h", "d")),
    "encoder._bias": ("encoder_bias", (1, "h")),
    "decoder._weight": ("dictionary", (1, "d", "h")),
}
_LENS: Layout = {"W_enc": ("encoder", ("d", "h")), "W_dec": ("dictionary", ("h", "d")), "b_dec": ("bias", ("d",))}
_LENS_RELU: Layout = {**_LENS, "b_enc": ("encoder_bias", ("h",))}
SAELENS: dict[str, Layout] = {
    "standard": _LENS_RELU,
    "topk": _LENS_RELU,
    "jumprelu": {**_LENS_RELU, "threshold": ("threshold", ("h",))},
    "gated": {
        **_LENS,
        "b_gate": ("encoder_bias", ("h",)),
        "b_mag": ("mag_bias", ("h",)),
        "r_mag": ("r_mag", ("h",)),
    },
}
SAELENS_KEEPS = {
    "apply_b_dec_to_input": True,
    "normalize_activations": "none",
    "reshape_activations": "none",
    "finetuning_scaling_factor": False,
    "activation_fn": "relu",
    "activation_fn_str": "relu",
}
"""Settings that would change the codes, and the only value that ours have."""

_DL: Layout = {"encoder.weight": ("encoder", ("h", "d")), "decoder.weight": ("dictionary", ("d", "h"))}
_DL_RELU: Layout = {**_DL, "encoder.bias": ("encoder_bias", ("h",))}
_DL_TOPK: Layout = {**_DL_RELU, "b_dec": ("bias", ("d",)), "k": ("k", ()), "threshold": ("threshold", ())}
DICTIONARY_LEARNING: dict[str, Layout] = {
    "AutoEncoder": {**_DL_RELU, "bias": ("bias", ("d",))},
    "AutoEncoderTopK": _DL_TOPK,
    "BatchTopKSAE": _DL_TOPK,
    "GatedAutoEncoder": {
        **_DL,
        "decoder_bias": ("bias", ("d",)),
        "gate_bias": ("encoder_bias", ("h",)),
        "mag_bias": ("mag_bias", ("h",)),
        "r_mag": ("r_mag", ("h",)),
    },
}


def save(sae: SparseAutoencoder, folder: Path) -> None:
    """Write `model.safetensors` and `sae.json`: class, arguments, sizes, the weights' SHA-256."""
    spec = sae.spec
    page = {
        "class": f"{type(spec).__module__}.{type(spec).__qualname__}",
        "spec": asdict(spec),
        "dim": len(sae.bias),
        "latents": sae.latents,
    }
    _publish(folder, MODEL, {name: _plain(value) for name, value in sae.state_dict().items()}, PAGE, page)


def load(folder: Path) -> SparseAutoencoder:
    """What `save` wrote, on the CPU. Raises `DataError` for any other folder, class, argument, tensor or byte."""
    page, path = _page(folder / PAGE, "class", "spec", "dim", "latents", "sha256"), folder / MODEL
    if not path.is_file() or file_sha256(path) != page["sha256"]:
        raise DataError(f"{path}: not the file that {PAGE} is of; expected SHA-256 {page['sha256']}")
    if not isinstance(page["spec"], dict):
        raise DataError(f"{folder / PAGE}: spec {page['spec']!r}; expected arguments by name")
    tensors = _tensors(path)
    dim = len(tensors.get("bias", ()))
    try:
        spec = parse({TARGET: page["class"], **page["spec"]}, SaeSpec, "spec")
        if [page["dim"], page["latents"]] != [dim, spec.size(dim)]:
            sizes = f"{page['dim']} and {page['latents']}"
            raise ConfigError(f"dim and latents: {sizes}; expected the weights' {dim} and {spec.size(dim)}")
        sae = _blank(spec, dim, tensors.get("anchors"))
    except ConfigError as error:
        raise DataError(f"{folder / PAGE}: {error}") from error
    _checked(path, tensors, {name: tuple(value.shape) for name, value in sae.state_dict().items()})
    sae.load_state_dict(tensors, assign=True)
    return sae


def read_dncbm(path: Path) -> SparseAutoencoder:
    """A `relu` autoencoder from a DN-CBM state dict (as its released code saves). Raises `DataError`."""
    state = _tensors(path)
    tensors = _ours(path, state, DNCBM)
    for key, (name, _) in DNCBM.items():
        if name == "bias" and not torch.equal(state[key], state["tied_bias"]):
            raise DataError(f"{path}: {key!r} differs from 'tied_bias'; expected three copies of one bias")
    return _imported(path, "AutoEncoder", tensors)


def write_dncbm(sae: SparseAutoencoder, path: Path, scaling: "Scaling | None" = None) -> None:
    """A `relu` autoencoder as a DN-CBM state dict, `scaling` folded in. Raises `DataError` for any other."""
    if not isinstance(sae.spec, Relu):
        raise DataError(f"{path}: {sae.spec.name} cannot be written as DN-CBM; expected relu")
    state = _theirs(sae, DNCBM, path, scaling)
    with atomic_path(path) as temporary:
        torch.save(state, temporary)


def read_saelens(folder: Path) -> SparseAutoencoder:
    """An autoencoder from a SAELens inference folder (version 6). Raises `DataError` for what ours cannot be.

    SAELens saves BatchTopK and Matryoshka as `jumprelu`, and so they come back. Where rows of the dictionary are not of
    length 1, `relu` keeps them (`decoder` free); else they and the codes change units, the reconstruction does not.
    """
    page, path = folder / LENS_PAGE, folder / LENS_MODEL
    config = _page(page, "architecture", "d_in", "d_sae")
    kind = config["architecture"]
    if kind not in SAELENS:
        raise DataError(f"{page}: architecture {kind!r}; {nearest(str(kind), SAELENS)}")
    for key, only in SAELENS_KEEPS.items():
        if config.get(key, only) != only:
            raise DataError(f"{page}: {key} {config[key]!r}; expected {only!r}")
    tensors = _ours(path, _tensors(path), SAELENS[kind])
    sizes = [config["d_sae"], config["d_in"]]
    if sizes != list(tensors["encoder"].shape):
        raise DataError(f"{page}: d_sae and d_in {sizes}; expected the weights' {list(tensors['encoder'].shape)}")
    if kind == "topk":
        k = _page(page, "k")["k"]
        if not isinstance(k, int):
            raise DataError(f"{page}: k {k!r}; expected a whole number")
        tensors["k"] = torch.tensor(k)
    kinds = {"standard": "AutoEncoder", "topk": "AutoEncoderTopK", "gated": "GatedAutoEncoder", "jumprelu": "JumpRelu"}
    return _imported(path, kinds[kind], tensors, config.get("rescale_acts_by_decoder_norm") is True)


def write_saelens(sae: SparseAutoencoder, folder: Path, scaling: "Scaling | None" = None) -> None:
    """Write `cfg.json` and `sae_weights.safetensors` that SAELens 6 loads with the same codes, `scaling` folded in."""
    spec = sae.spec
    kinds: dict[type[SaeSpec], str] = {Relu: "standard", BatchTopK: "jumprelu", TopK: "topk", Archetypal: "topk"}
    kinds |= {JumpRelu: "jumprelu", Gated: "gated"}
    kind = _kind(sae, kinds, folder)
    config = {
        "architecture": kind,
        "d_in": len(sae.bias),
        "d_sae": sae.latents,
        "dtype": "float32",
        "device": "cpu",
        **{key: SAELENS_KEEPS[key] for key in ("apply_b_dec_to_input", "normalize_activations", "reshape_activations")},
        "metadata": {"sae_lens_version": LENS_FORMAT, "training_architecture": spec.name},
    }
    if isinstance(spec, TopK | Archetypal) and kind == "topk":
        config |= {"k": spec.k, "rescale_acts_by_decoder_norm": False}
    _publish(folder, LENS_MODEL, _theirs(sae, SAELENS[kind], folder, scaling), LENS_PAGE, config)


def read_dictionary_learning(folder: Path) -> SparseAutoencoder:
    """An autoencoder from dictionary_learning's `ae.pt`, its class from `config.json` beside it. Raises `DataError`."""
    page, path = folder / DL_PAGE, folder / DL_MODEL
    trainer = _page(page, "trainer")["trainer"]
    kind = trainer.get("dict_class") if isinstance(trainer, dict) else None
    if kind not in DICTIONARY_LEARNING:
        raise DataError(f"{page}: trainer.dict_class {kind!r}; {nearest(str(kind), DICTIONARY_LEARNING)}")
    return _imported(path, kind, _ours(path, _tensors(path), DICTIONARY_LEARNING[kind]))


def write_dictionary_learning(sae: SparseAutoencoder, folder: Path, scaling: "Scaling | None" = None) -> None:
    """Write `ae.pt` and `config.json` that dictionary_learning loads, `scaling` folded in.

    Raises `DataError` for what it has not.
    """
    kinds: dict[type[SaeSpec], str] = {Relu: "AutoEncoder", BatchTopK: "BatchTopKSAE", TopK: "AutoEncoderTopK"}
    kind = _kind(sae, kinds | {Gated: "GatedAutoEncoder"}, folder)
    trainer = {"dict_class": kind, "activation_dim": len(sae.bias), "dict_size": sae.latents}
    if isinstance(sae.spec, TopK):
        trainer["k"] = sae.spec.k
    state = _theirs(sae, DICTIONARY_LEARNING[kind], folder, scaling)
    _publish(folder, DL_MODEL, state, DL_PAGE, {"trainer": trainer})


def _kind(sae: SparseAutoencoder, kinds: Mapping[type[SaeSpec], str], folder: Path) -> str:
    for cls, name in kinds.items():
        if isinstance(sae.spec, cls):
            return name
    names = ", ".join(cls.__name__.lower() for cls in kinds)
    raise DataError(f"{folder}: {sae.spec.name} has no place in this format; expected one of {names}")


def _imported(path: Path, kind: str, tensors: dict[str, Tensor], rescales: bool = False) -> SparseAutoencoder:
    latents, dim = tensors["encoder"].shape
    lengths = tensors["dictionary"].norm(dim=1)
    unit = bool(((lengths - 1).abs() < UNIT).all())
    if kind == "AutoEncoder":
        spec: SaeSpec = Relu(latents=latents, decoder="unit" if unit else "free")
        return _filled(spec, tensors, dim)
    k = int(tensors.pop("k", torch.tensor(1)))
    if not 1 <= k <= latents:
        raise DataError(f"{path}: k {k}; expected 1 to the {latents} latents")
    if not unit:
        if kind in ("AutoEncoderTopK", "BatchTopKSAE") and not rescales:
            raise DataError(f"{path}: rows of the dictionary of length {float(lengths.max()):.3g}; expected 1")
        # the same latents are on and reconstruct the same; their codes count in rows of length 1
        tensors["dictionary"] = tensors["dictionary"] / lengths[:, None].clamp(min=TINY)
        tensors["encoder"] = tensors["encoder"] * lengths[:, None]
        for name in {"encoder_bias", "mag_bias", "threshold"} & set(tensors):
            tensors[name] = tensors[name] * lengths
    if kind == "GatedAutoEncoder":
        return _filled(Gated(latents=latents), tensors, dim)
    threshold = tensors.pop("threshold", None)
    if kind == "AutoEncoderTopK":
        return _filled(TopK(latents=latents, k=k), tensors, dim)
    assert threshold is not None
    if kind == "BatchTopKSAE":
        return _filled(BatchTopK(latents=latents, k=k), tensors | {"threshold": threshold}, dim)
    return _filled(JumpRelu(latents=latents), tensors | {"log_threshold": threshold.clamp(min=TINY).log()}, dim)


def _filled(spec: SaeSpec, tensors: dict[str, Tensor], dim: int) -> SparseAutoencoder:
    sae = _blank(spec, dim)
    sae.load_state_dict({**sae.state_dict(), **tensors}, assign=True)
    return sae


def _blank(spec: SaeSpec, dim: int, sample: Tensor | None = None) -> SparseAutoencoder:
    zeros = torch.zeros(1, dim)
    points = sample if sample is not None and sample.shape[1:] == (dim,) else zeros
    return spec.build(Known(dim, zeros[0], zeros[0], points), torch.Generator().manual_seed(0))


def _ours(path: Path, state: dict[str, Tensor], layout: Layout) -> dict[str, Tensor]:
    _checked(path, state, {key: shape for key, (_, shape) in layout.items()})
    found = {}
    for key, (name, shape) in layout.items():
        value = state[key].float()
        value = value[0] if shape[:1] == (1,) else value
        found[name] = value.T.contiguous() if shape[-2:] == ("d", "h") else value
    return found


def _theirs(sae: SparseAutoencoder, layout: Layout, path: Path, scaling: "Scaling | None") -> dict[str, Tensor]:
    state = {name: _plain(value).float() for name, value in sae.state_dict().items()}
    state["dictionary"] = _plain(sae.atoms).float()
    if "log_threshold" in state:
        state["threshold"] = state["log_threshold"].exp()
    state.setdefault("threshold", torch.tensor(-1.0))
    if scaling is not None:
        state |= _folded(path, state, scaling)
    state["k"] = torch.tensor(getattr(sae.spec, "k", 0), dtype=torch.int32)
    found = {}
    for key, (name, shape) in layout.items():
        value = state[name]
        if shape == ("h",) and not value.dim():
            value = value.clamp(min=0).expand(sae.latents)  # one threshold for all, 0 while it is not known
        value = value.T if shape[-2:] == ("d", "h") else value
        found[key] = (value[None] if shape[:1] == (1,) else value).clone(memory_format=torch.contiguous_format)
    return found


def _folded(path: Path, state: Mapping[str, Tensor], scaling: "Scaling") -> dict[str, Tensor]:
    """What changes so that x is taken instead of (x − o) f: b to b / f + o; all in units of codes is divided by f.

    W_e and D stay, so rows of length 1 do too.
    """
    if scaling.unit:
        raise DataError(
            f"{path}: vectors of unit length cannot be folded into weights; expected sae.scale none or sqrt_d"
        )
    factor = scaling.factor
    found = {name: state[name] / factor for name in {"encoder_bias", "mag_bias"} & set(state)}
    found["bias"] = state["bias"] / factor + _plain(scaling.offset).float()
    found["threshold"] = torch.where(state["threshold"] < 0, state["threshold"], state["threshold"] / factor)
    return found


def _checked(path: Path, state: Mapping[str, Tensor], shapes: Mapping[str, Shape]) -> None:
    sizes: dict[int | str, int] = {}
    for key in state:
        if key not in shapes:
            raise DataError(f"{path}: unknown key {key!r}; {nearest(key, shapes)}")
    for key, shape in shapes.items():
        if key not in state:
            raise DataError(f"{path}: no key {key!r}; expected a tensor of shape {_spelled(shape, sizes)}")
        found = tuple(state[key].shape)
        if len(found) == len(shape):
            sizes |= {letter: size for letter, size in zip(shape, found, strict=True) if letter not in sizes}
        if found != tuple(sizes.get(letter, letter) if isinstance(letter, str) else letter for letter in shape):
            raise DataError(f"{path}: {key!r} has shape {list(found)}; expected {_spelled(shape, sizes)}")
        if not bool(torch.isfinite(state[key]).all()):
            raise DataError(f"{path}: {key!r} has values that are not finite; expected numbers")


def _spelled(shape: Shape, sizes: Mapping[int | str, int]) -> str:
    return f"[{', '.join(str(sizes.get(part, part) if isinstance(part, str) else part) for part in shape)}]"


def _plain(value: Tensor) -> Tensor:
    return value.detach().cpu().contiguous()


def _tensors(path: Path) -> dict[str, Tensor]:
    try:
        state = load_file(path) if path.suffix == ".safetensors" else torch.load(path, "cpu", weights_only=True)
    except Exception as error:  # broken bytes make the safe unpickler fail in any way it likes
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise DataError(f"{path}: not a file of plain tensors ({reason})") from error
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise DataError(f"{path}: not a state dict; expected tensors by name")
    return dict(state)


def _page(path: Path, *keys: str) -> dict[str, Any]:
    try:
        page = read_json(path)
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read ({str(error).splitlines()[0]}); expected JSON") from error
    for key in keys:
        if not isinstance(page, dict) or key not in page:
            raise DataError(f"{path}: no key {key!r}; expected {', '.join(keys)}")
    return page


def _publish(folder: Path, model: str, tensors: dict[str, Tensor], name: str, page: dict[str, Any]) -> None:
    (folder / name).unlink(missing_ok=True)  # of what was there before
    with atomic_path(folder / model) as temporary:
        if model == DL_MODEL:
            torch.save(tensors, temporary)
        else:
            save_file(tensors, temporary)
    signed = {"sha256": file_sha256(folder / model)} if name == PAGE else {}
    write_json(folder / name, page | signed)
