"""S-Random: K candidates of the class, uniformly without replacement; the lower bound of every other selector."""

from hashlib import blake2b

import numpy as np

from aaca.data.features import Scored
from aaca.debugset.selectors.base import ScoringSelector, SelectionContext, map_chunks


class Random(ScoringSelector):
    """A uniform number per id, hashed from the seed and the id: the same pick whatever the order of the pool."""

    needs_features = False

    def score(self, candidates: Scored, context: SelectionContext) -> np.ndarray:
        """Uniform in [0, 1), `[n]`."""
        key = int(context.seed).to_bytes(16, "little")

        def uniform(chunk: Scored) -> np.ndarray:
            digests = b"".join(blake2b(str(name).encode(), digest_size=8, key=key).digest() for name in chunk.ids)
            return (np.frombuffer(digests, dtype="<u8") >> np.uint64(11)) * 2.0**-53

        return map_chunks(candidates, uniform)
