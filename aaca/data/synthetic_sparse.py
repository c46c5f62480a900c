"""`synthetic_sparse`: vectors that are sparse sums of known directions: what an autoencoder should find again."""

from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
from pydantic import Field

from aaca.runtime.seeding import purpose_seed


@dataclass(frozen=True, kw_only=True)
class SyntheticSparse:
    """x = Σ of the atoms that are on, each with its own strength; atoms: unit-norm Gaussian directions.

    Args:
        n: vectors.
        dim: D.
        atoms: M.
        active: mean number of atoms in a vector (each is on with probability active / atoms).
        least, most: bounds of the uniform strengths.
        seed: of all draws.

    """

    n: Annotated[int, Field(ge=10)] = 50_000
    dim: Annotated[int, Field(ge=2)] = 64
    atoms: Annotated[int, Field(ge=2)] = 128
    active: Annotated[float, Field(gt=0)] = 4.0
    least: Annotated[float, Field(gt=0)] = 0.5
    most: Annotated[float, Field(gt=0)] = 1.5
    seed: int = 0

    def fingerprint(self) -> dict[str, Any]:
        """All arguments."""
        return {"dataset": "synthetic_sparse", **vars(self)}

    def dictionary(self) -> np.ndarray:
        """The atoms `[M, D]` float32."""
        rng = np.random.default_rng(purpose_seed(self.seed, "atoms"))
        atoms = rng.normal(size=(self.atoms, self.dim))
        return np.asarray(atoms / np.linalg.norm(atoms, axis=1, keepdims=True), dtype=np.float32)

    def vectors(self) -> np.ndarray:
        """`[N, D]` float32."""
        rng = np.random.default_rng(purpose_seed(self.seed, "codes"))
        atoms, found = self.dictionary(), np.empty((self.n, self.dim), dtype=np.float32)
        for start in range(0, self.n, 10_000):
            size = min(10_000, self.n - start)
            on = rng.random((size, self.atoms)) < self.active / self.atoms
            strengths = rng.uniform(self.least, self.most, size=on.shape)
            found[start : start + size] = (on * strengths) @ atoms
        return found
