"""`ProbeSpec`, the role of the `probe` config group: a linear layer on sparse codes."""

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import numpy as np
from pydantic import Field
from scipy.sparse import csr_array

from aaca.evaluate.bottleneck import nec, truncated
from aaca.training.probe_adam import fit_adam
from aaca.training.sparse_probe import Probe, fit_prox, path


class ProbeSpec(ABC):
    """How a probe is fitted; its constructor arguments are its config."""

    @abstractmethod
    def fit(self, codes: csr_array, labels: np.ndarray, n_classes: int, seed: int, work: Path) -> Probe:
        """The probe of codes `[N, H]`; `work`: a folder for what an interrupted fit goes on from."""


@dataclass(frozen=True, kw_only=True)
class AdamL1(ProbeSpec):
    """The published probe: CE + λ · mean |W| by Adam, no bias, last epoch. It has no exact zeros.

    Args:
        lr: constant.
        strength: λ.
        epochs, batch_size: of the fit.

    """

    lr: Annotated[float, Field(gt=0)] = 1e-3
    strength: Annotated[float, Field(ge=0)] = 1.0
    epochs: Annotated[int, Field(ge=1)] = 200
    batch_size: Annotated[int, Field(ge=1)] = 512

    def fit(self, codes: csr_array, labels: np.ndarray, n_classes: int, seed: int, work: Path) -> Probe:
        """See `ProbeSpec.fit`."""
        work.mkdir(parents=True, exist_ok=True)
        file = work / "probe.safetensors"
        return fit_adam(codes, labels, n_classes, self.lr, self.strength, self.epochs, self.batch_size, seed, file)


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
        return fit_prox(codes, labels, n_classes, self.strength, bias=self.bias, standardise=self.standardise)


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
        if nec(chosen.weight) <= self.concepts:
            return chosen
        return replace(chosen, weight=truncated(chosen.weight, self.concepts))
