"""One seed a run, split by purpose, so that changing one choice never moves the randomness of another."""

import hashlib

import numpy as np


def purpose_seed(seed: int, *purpose: str | int) -> int:
    """A 32-bit seed for this purpose (`"init"`, `"order"`, …) derived from the run's seed; the same everywhere."""
    words = hashlib.sha256("/".join(map(str, purpose)).encode()).digest()
    entropy = (seed, *np.frombuffer(words, dtype=np.uint32).tolist())
    return int(np.random.SeedSequence(entropy).generate_state(1)[0])
