"""`ProbeSpec`, the role of the `probe` config group: a linear layer on sparse codes."""

import logging
from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import numpy as np
from pydantic import Field
from scipy.sparse import csr_array

from aaca.concepts.intervene import keep_top
from aaca.evaluate.bottleneck import nec, truncated
from aaca.runtime.errors import ConfigError
from aaca.training.probe_adam import fit_adam
from aaca.training.sparse_probe import Probe, fit_prox, path

log = logging.getLogger(__name__)


class ProbeSpec(ABC):
    """How a probe is fitted; its constructor arguments are its config."""

    @abstractmethod
    def fit(self, codes: csr_array, labels: np.ndarray, n_classes: int, seed: int, work: Path) -> Probe:
        """The probe of codes `[N, H]`; `work`: a folder for what an interrupted fit goes on from."""


@dataclass(frozen=True, kw_only=True)
class AdamL1(ProbeSpec):
    """The published probe: CE + λ · mean |W| by Adam, no bias, last epoch. No exact zeros but those of `keep`.

    Args:
        lr: constant.
        strength: λ.
        epochs, batch_size: of the fit.
        keep: weights a class that stay after the fit, those of largest magnitude (Waterbirds-100: 5); None: all.

    """

    lr: Annotated[float, Field(gt=0)] = 1e-3
    strength: Annotated[float, Field(ge=0)] = 1.0
    epochs: Annotated[int, Field(ge=1)] = 200
    batch_size: Annotated[int, Field(ge=1)] = 512
    keep: Annotated[int, Field(ge=1)] | None = None

    def fit(self, codes: csr_array, labels: np.ndarray, n_classes: int, seed: int, work: Path) -> Probe:
        """See `ProbeSpec.fit`. Raises `ConfigError` for more weights to keep than concepts, before the fit."""
        if self.keep is not None and self.keep > codes.shape[1]:
            raise ConfigError(f"probe.keep: {self.keep}; expected at most the {codes.shape[1]} concepts")
        work.mkdir(parents=True, exist_ok=True)
        file = work / "probe.safetensors"
        found = fit_adam(codes, labels, n_classes, self.lr, self.strength, self.epochs, self.batch_size, seed, file)
        return found if self.keep is None else replace(found, weight=keep_top(found.weight, self.keep))


@dataclass(frozen=True, kw_only=True)
class Proximal(ProbeSpec):
    """The same objective at its optimum, with real zeros.

    Args:
        strength: λ of λ · mean |W|.
        bias: whether classes have one.
        standardise: codes by their training mean and spread.

    """

    strength: Annotated[float, Field(gt=0)] = 1.0
    bias: bool = True
    standardise: bool = False

    def fit(self, codes: csr_array, labels: np.ndarray, n_classes: int, seed: int, work: Path) -> Probe:
        """See `ProbeSpec.fit`."""
        found = fit_prox(codes, labels, n_classes, self.strength, bias=self.bias, standardise=self.standardise)
        change = "probe.strength" if self.standardise else "probe.strength or probe.standardise=true"
        return checked(found, type(self).__name__, f"a larger {change}")


@dataclass(frozen=True, kw_only=True)
class AtNec(ProbeSpec):
    """As many concepts a class as asked for: the first dense enough probe of a path, cut down (VLG-CBM's protocol).

    Args:
        concepts: non-zero weights a class (NEC).
        alpha: share of L1 in the elastic net.

    """

    concepts: Annotated[int, Field(ge=1)] = 30
    alpha: Annotated[float, Field(gt=0, le=1)] = 0.99

    def fit(self, codes: csr_array, labels: np.ndarray, n_classes: int, seed: int, work: Path) -> Probe:
        """See `ProbeSpec.fit`. Where the whole path stays sparser, its densest probe as it is."""
        found = path(codes, labels, n_classes, alpha=self.alpha, nec_limit=self.concepts)
        chosen = next((probe for probe in found if nec(probe.weight) >= self.concepts), found[-1])
        checked(chosen, type(self).__name__, "fewer probe.concepts or a smaller probe.alpha")
        if nec(chosen.weight) <= self.concepts:
            return chosen
        return replace(chosen, weight=truncated(chosen.weight, self.concepts))


def checked(probe: Probe, name: str, change: str) -> Probe:
    """The probe as it is; a warning where its solver stopped before the optimum. `change`: what would help."""
    if not probe.meta["converged"]:
        log.warning(
            "%s: not at its optimum after %d steps (largest |subgradient| %.3g of λα); try %s",
            name,
            probe.meta["steps"],
            probe.meta["violation"],
            change,
        )
    return probe
