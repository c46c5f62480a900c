"""`failure_direction`: which way in an image-text space do a class's failures lie (Jain et al., ICLR 2023)."""

import numpy as np
from sklearn.model_selection import cross_val_score
from sklearn.svm import LinearSVC

from aaca.discover.rivals.base import Findings, Suspect, WordRival
from aaca.runtime.errors import ConfigError

FOLDS = 3


class FailureDirection(WordRival):
    """A linear SVM a class between failures and right images; concepts are ranked by their text along its normal.

    Args:
        c: inverse strength of the SVM's regularisation.
        balanced: balanced accuracy by cross-validation (3 folds) that the SVM has to reach, or the class has none.
        most: concepts a class.
        vocabulary: a YAML file of kinds and names; None: of the embedded world.

    """

    def __init__(self, c: float = 0.1, balanced: float = 0.6, most: int = 5, vocabulary: str | None = None) -> None:
        if c <= 0:
            raise ConfigError(f"discovery.c: {c}; expected a positive number")
        if not 0.5 <= balanced < 1:
            raise ConfigError(f"discovery.balanced: {balanced}; expected a balanced accuracy in [0.5, 1)")
        super().__init__(most, vocabulary)
        self.c, self.balanced = c, balanced

    def suspects(self, findings: Findings) -> list[Suspect]:
        """Concepts towards the failures of each class that an SVM can tell from its right images."""
        assert findings.look is not None
        texts, images = self.words.vectors(findings.look), findings.look.images(findings.audit)
        texts = texts - texts.mean(axis=0)  # what all texts share points nowhere
        found = []
        for label, name in enumerate(findings.classes):
            own = findings.labels == label
            failed = findings.predictions[own] != label
            if min(failed.sum(), (~failed).sum()) < FOLDS:
                continue
            svm = LinearSVC(C=self.c, class_weight="balanced", dual=True, max_iter=20_000, random_state=findings.seed)
            accuracy = cross_val_score(svm, images[own], failed, cv=FOLDS, scoring="balanced_accuracy").mean()
            if accuracy < self.balanced:
                continue
            normal = svm.fit(images[own], failed).coef_[0]
            scores = texts @ (normal / np.linalg.norm(normal))
            rival = findings.rival_of(np.flatnonzero(own)[failed])
            found += [
                Suspect(name, rival, concept, kind, float(score))
                for concept, kind, score in zip(self.words.names, self.words.kinds, scores, strict=True)
            ]
        return found
