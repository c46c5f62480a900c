"""`conbias`: concepts that the training data ties to some classes, and withholds from others (ConBias, 2024)."""

import numpy as np

from aaca.concepts.concept_sets import normal
from aaca.discover.rivals.base import Findings, Rival, Suspect, check_most
from aaca.runtime.errors import ConfigError


class ConBias(Rival):
    """Counts of (class, concept) in the training data; what a class lacks and another has in plenty confounds it.

    A concept's score for a class is log P(concept | rival) / P(concept | class) times how frequent it is in the rival;
    f0 is not asked at all. The paper also balances pairs of concepts; here single ones are counted.

    Args:
        ratio: the least P(concept | rival) / P(concept | class).
        most: concepts a class.

    """

    needs_concepts = True

    def __init__(self, ratio: float = 2.0, most: int = 5) -> None:
        if ratio <= 1:
            raise ConfigError(f"discovery.ratio: {ratio}; expected a number above 1")
        self.ratio, self.most = ratio, check_most(most)

    def suspects(self, findings: Findings) -> list[Suspect]:
        """Concepts that are less frequent in a class than in the class that has them most; no class's own name."""
        table = findings.in_train
        assert table is not None
        own_names = {normal(noun) for noun in findings.nouns}
        names = [name for name in table.names if normal(name) not in own_names]
        kinds, present = table.kinds(), table.present(names)
        count = len(findings.classes)
        sizes = np.bincount(findings.train_labels, minlength=count)[:, None]
        shown = np.stack([present[findings.train_labels == label].sum(axis=0) for label in range(count)])
        rates = (shown + 1) / (sizes + 2)  # add-one smoothed
        found = []
        for label, name in enumerate(findings.classes):
            others = rates.copy()
            others[label] = -1
            for at, concept in enumerate(names):
                rival = int(others[:, at].argmax())
                ratio = rates[rival, at] / rates[label, at]
                if ratio >= self.ratio:
                    score = float(rates[rival, at] * np.log(ratio))
                    found.append(Suspect(name, findings.classes[rival], concept, kinds[concept], score))
        return found
