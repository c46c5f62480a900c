"""`domino`: slices of audit images that look alike and are misjudged alike (Eyuboglu et al., ICLR 2022)."""

import numpy as np
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA

from aaca.discover.rivals.base import Findings, Suspect, WordRival
from aaca.runtime.errors import ConfigError

FLOOR = 1e-6


class Domino(WordRival):
    """A mixture model p(s) N(z|s) p(y|s)^γ p(ŷ|s)^γ over image vectors, labels and predictions, fitted by EM (eq. 3).

    Of each slice whose images are mostly misjudged, the concepts are those whose text is nearest to the slice's mean
    less the mean of its class (eq. 5).

    Args:
        slices: of the mixture.
        gamma: weight of labels and predictions against the vectors.
        components: principal components of the vectors.
        steps: of EM, at most.
        most: concepts a class.
        vocabulary: a YAML file of kinds and names; None: of the embedded world.

    """

    def __init__(
        self,
        slices: int = 16,
        gamma: float = 10.0,
        components: int = 16,
        steps: int = 100,
        most: int = 5,
        vocabulary: str | None = None,
    ) -> None:
        for name, value in (("slices", slices), ("components", components), ("steps", steps)):
            if value < 1:
                raise ConfigError(f"discovery.{name}: {value}; expected 1 or more")
        if gamma < 0:
            raise ConfigError(f"discovery.gamma: {gamma}; expected 0 or more")
        super().__init__(most, vocabulary)
        self.slices, self.gamma, self.components, self.steps = slices, gamma, components, steps

    def suspects(self, findings: Findings) -> list[Suspect]:
        """Concepts of the slices that are mostly wrong; a score counts as often as a slice has failures."""
        assert findings.look is not None
        texts, images = self.words.vectors(findings.look), findings.look.images(findings.audit)
        count = len(findings.classes)
        truth = np.eye(count)[findings.labels]
        components = min(self.components, *images.shape)
        reduced = PCA(components, random_state=findings.seed).fit_transform(images)
        slices = min(self.slices, len(images))
        memberships, _ = fit_mixture(
            reduced, truth, findings.probabilities, slices, self.gamma, self.steps, findings.seed
        )
        wrong = findings.predictions != findings.labels
        found = []
        for weights in memberships.T:
            size = weights.sum()
            if size < 1 or (weights @ wrong) / size <= 0.5:
                continue
            label = int((weights @ truth).argmax())
            own = np.flatnonzero((findings.labels == label) & wrong & (weights > 0.5))
            if not len(own):
                continue
            prototype = (weights @ images) / size - images[findings.labels == label].mean(axis=0)
            scores = texts @ (prototype / max(FLOOR, float(np.linalg.norm(prototype)))) * len(own)
            found += [
                Suspect(findings.classes[label], findings.rival_of(own), concept, kind, float(score))
                for concept, kind, score in zip(self.words.names, self.words.kinds, scores, strict=True)
            ]
        return found


def fit_mixture(
    vectors: np.ndarray,
    truth: np.ndarray,
    predicted: np.ndarray,
    slices: int,
    gamma: float,
    steps: int,
    seed: int,
) -> tuple[np.ndarray, list[float]]:
    """(memberships `[N, S]`, the weighted log-likelihood before each step) of diagonal Gaussians and two categoricals.

    `vectors` `[N, D]`, `truth` and `predicted` `[N, K]` (rows sum to 1). Stops when a step gains less than 1e-6.
    """
    scale = vectors.std() + FLOOR
    start = np.concatenate([vectors / scale, truth, predicted], axis=1)
    labels = KMeans(slices, n_init=4, random_state=seed).fit_predict(start)
    memberships = np.eye(slices)[labels]
    spread = FLOOR + 1e-3 * vectors.var(axis=0)
    history: list[float] = []
    for _ in range(steps):
        sizes = memberships.sum(axis=0) + FLOOR
        means = memberships.T @ vectors / sizes[:, None]
        variances = np.maximum(memberships.T @ vectors**2 / sizes[:, None] - means**2, 0) + spread
        of_truth, of_predicted = (
            np.log((memberships.T @ part + FLOOR) / (sizes[:, None] + FLOOR * part.shape[1]))
            for part in (truth, predicted)
        )
        distance = (vectors[:, None, :] - means) ** 2 / variances
        gaussian = -0.5 * (distance + np.log(2 * np.pi * variances)).sum(axis=2)
        logs = np.log(sizes / sizes.sum()) + gaussian + gamma * (truth @ of_truth.T + predicted @ of_predicted.T)
        highest = logs.max(axis=1, keepdims=True)
        total = highest[:, 0] + np.log(np.exp(logs - highest).sum(axis=1))
        memberships = np.exp(logs - total[:, None])
        history.append(float(total.mean()))
        if len(history) > 1 and history[-1] - history[-2] < 1e-6:
            break
    return memberships, history
