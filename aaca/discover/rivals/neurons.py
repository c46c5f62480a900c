"""`neurons`: what the neurons that mistakes hang on answer to (after NeuroInspect, arXiv 2310.07184)."""

from collections import Counter
from typing import Literal, get_args

import numpy as np

from aaca.concepts.concept_sets import ANY
from aaca.discover.rivals.base import Findings, NeuronFindings, Rival, Suspect, check_most
from aaca.runtime.errors import ConfigError, nearest

Lists = Literal["both", "insufficient", "excessive"]


class NeuronRival(Rival):
    """Blames the names of blamed neurons. Score: share of the class's mistakes that name the neuron × its name's score.

    What mistakes lack (insufficient) is what the model knows the class by: a confounder of the class without a rival.
    What they have too much of (excessive) makes the model say another class: the one most of the mistakes are taken
    for.

    Args:
        most: concepts a class.
        least_score: of a neuron's name; neurons whose name scores less blame nothing.
        lists: whose neurons are looked at.

    """

    needs_neurons = True

    def __init__(self, most: int = 5, least_score: float = 0.3, lists: Lists = "both") -> None:
        if least_score < 0:
            raise ConfigError(f"discovery.least_score: {least_score}; expected 0 or more")
        if lists not in get_args(Lists):
            raise ConfigError(f"discovery.lists: {lists!r}; {nearest(lists, get_args(Lists))}")
        self.most, self.least_score, self.lists = check_most(most), least_score, lists

    def suspects(self, findings: Findings) -> list[Suspect]:
        """One a blamed neuron with a name."""
        assert findings.neurons is not None
        named = findings.neurons.names
        named = named[(named["concept"] != "") & (named["score"] >= self.least_score)].set_index("neuron")
        found = []
        for row in findings.neurons.blamed.itertuples():
            if self.lists not in ("both", row.list) or row.neuron not in named.index:
                continue
            name = named.loc[row.neuron]
            rival = taken_for(findings.neurons, row.label) if row.list == "excessive" else ""
            score = float(row.prec) / 100 * float(name["score"])
            found.append(Suspect(findings.classes[row.label], rival, name["concept"], name["kind"], score))
        return [suspect for suspect in found if suspect.score > 0]


def taken_for(neurons: NeuronFindings, label: int) -> str:
    """The class that most mistakes of a class are taken for; `ANY` where there are none."""
    bank = neurons.bank
    said = Counter(np.asarray(bank.predictions[bank.mistakes(label)]).tolist())
    return bank.classes[said.most_common(1)[0][0]] if said else ANY
