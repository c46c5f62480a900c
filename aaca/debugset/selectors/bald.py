"""BALD: candidates on which stochastic passes disagree (Houlsby et al. 2011; Gal et al. 2017)."""

import numpy as np

from aaca.data.features import Scored
from aaca.debugset.selectors.base import ScoringSelector, SelectionContext, map_chunks
from aaca.debugset.selectors.uncertainty import entropy, pass_probabilities
from aaca.runtime.errors import ConfigError


class Bald(ScoringSelector):
    """Mutual information of prediction and model: H(mean_t p_t) − mean_t H(p_t), over T stochastic passes."""

    def __init__(self, mc_samples: int = 20) -> None:
        if mc_samples < 2:
            raise ConfigError(f"selector.mc_samples: {mc_samples}; BALD compares stochastic passes, expected 2 or more")
        self.mc_samples = mc_samples

    def score(self, candidates: Scored, context: SelectionContext) -> np.ndarray:
        """Mutual information in nats, `[n]`."""

        def information(chunk: Scored) -> np.ndarray:
            passes = pass_probabilities(chunk, self.mc_samples)
            return entropy(passes.mean(axis=1)) - entropy(passes).mean(axis=1)

        return map_chunks(candidates, information)
