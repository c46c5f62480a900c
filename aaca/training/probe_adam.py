"""The probe of Discover-then-Name as released: Adam on cross-entropy + λ · mean|W|, no bias, no standardisation.

It has no exact zeros (`sparse_probe.fit_prox` has); it is here to compare with. Source: Rao et al., ECCV 2024.
"""

import hashlib
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from scipy.sparse import csr_array
from torch import Tensor

from aaca.evaluate.bottleneck import Codes
from aaca.runtime.errors import ConfigError, DataError
from aaca.runtime.files import atomic_path, digest
from aaca.training.sparse_probe import Probe, check

STATE = ("weight", "exp_avg", "exp_avg_sq")


def fit_adam(
    codes: Codes,
    labels: np.ndarray,
    n_classes: int,
    lr: float = 1e-3,
    strength: float = 1.0,
    epochs: int = 200,
    batch_size: int = 512,
    seed: int = 0,
    checkpoint: Path | None = None,
    save_every: int = 10,
) -> Probe:
    """The weights after the last of `epochs` over codes `[N, h]` and labels `[N]`, at a constant `lr`.

    `checkpoint`: a file written every `save_every` epochs, from which a call with the same codes and values goes on,
    bit by bit. Raises `DataError` for codes and labels that do not fit, for a checkpoint of another fit; `ConfigError`.
    """
    check(codes, labels, n_classes)
    if min(lr, epochs, batch_size, save_every) <= 0 or strength < 0:
        raise ConfigError(
            f"probe: lr {lr}, epochs {epochs}, batch_size {batch_size}, save_every {save_every}, strength {strength}; "
            "expected more than 0, a strength of 0 or more"
        )
    codes, labels = codes.astype(np.float32, copy=False), labels.astype(np.int64)
    values = {"lr": lr, "strength": strength, "batch_size": batch_size, "seed": seed, "n_classes": n_classes}
    fit = digest({**values, "data": _fingerprint(codes, labels)}) if checkpoint else ""
    weight = first_weight(codes.shape[1], n_classes, seed)
    state, begin = [weight, torch.zeros_like(weight), torch.zeros_like(weight)], 0
    if checkpoint and checkpoint.exists():
        state, begin = _read(checkpoint, fit, epochs)
    steps = -(-len(labels) // batch_size)
    optimizer = _adam(state, lr, begin * steps)
    for epoch in range(begin, epochs):
        order = np.random.default_rng([seed, epoch]).permutation(len(labels))
        for start in range(0, len(order), batch_size):
            rows = order[start : start + batch_size]
            state[0].grad = gradient_of(codes[rows], labels[rows], state[0], strength)
            optimizer.step()
        if checkpoint and ((epoch + 1) % save_every == 0 or epoch + 1 == epochs):
            _write(checkpoint, optimizer, state[0], epoch + 1, fit)
    meta = {"solver": "adam", **values, "epochs": epochs, "alpha": 1.0, "reduction": "mean"}
    return Probe(state[0].numpy().T.copy(), meta=meta)


def first_weight(concepts: int, n_classes: int, seed: int) -> Tensor:
    """Transposed weights `[h, C]`, uniform in ±1/√h as in a new `torch.nn.Linear`."""
    drawn = torch.rand(n_classes, concepts, generator=torch.Generator().manual_seed(seed))
    return ((2 * drawn - 1) / concepts**0.5).T.contiguous()


def gradient_of(codes: Codes, labels: np.ndarray, weight: Tensor, strength: float) -> Tensor:
    """Gradient `[h, C]` of mean cross-entropy + `strength` · mean|W| over a batch of codes `[B, h]`."""
    shares = torch.softmax(torch.from_numpy(codes @ weight.numpy()), dim=1)
    shares[torch.arange(len(labels)), torch.from_numpy(labels)] -= 1
    gradient = torch.from_numpy(codes.T @ (shares / len(labels)).numpy())
    return gradient.add_(weight.sign(), alpha=strength / weight.numel())


def _adam(state: list[Tensor], lr: float, steps: int) -> torch.optim.Adam:
    weight, *moments = state
    optimizer = torch.optim.Adam([weight], lr=lr, fused=True)
    first, second = moments
    optimizer.state[weight] = {"step": torch.tensor(float(steps)), "exp_avg": first, "exp_avg_sq": second}
    return optimizer


def _fingerprint(codes: Codes, labels: np.ndarray) -> str:
    parts = [codes.indptr, codes.indices, codes.data] if isinstance(codes, csr_array) else [codes]
    found = hashlib.sha256(str(codes.shape).encode())
    for part in [*parts, labels]:
        found.update(np.ascontiguousarray(part).data)
    return found.hexdigest()


def _write(file: Path, optimizer: torch.optim.Adam, weight: Tensor, epoch: int, fit: str) -> None:
    own = optimizer.state[weight]
    with atomic_path(file) as temporary:
        tensors = {"weight": weight, "exp_avg": own["exp_avg"], "exp_avg_sq": own["exp_avg_sq"]}
        save_file(tensors, temporary, metadata={"epoch": str(epoch), "fit": fit})


def _read(file: Path, fit: str, epochs: int) -> tuple[list[Tensor], int]:
    try:
        with safe_open(file, framework="pt") as stream:
            meta = stream.metadata() or {}
            state, epoch = [stream.get_tensor(name) for name in STATE], int(meta["epoch"])
    except (OSError, SafetensorError, KeyError, ValueError) as error:
        raise DataError(f"{file}: no checkpoint of a probe ({error})") from error
    if meta.get("fit") != fit or epoch > epochs:
        raise DataError(
            f"{file}: epoch {epoch} of a probe of other codes or values; expected this one's, at most {epochs}"
        )
    return state, epoch
