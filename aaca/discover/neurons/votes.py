"""Which neurons a class's mistakes agree on: the paper's Prec@k (NeuroInspect, inspect_class_mistakes)."""

from collections import Counter
from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Tally:
    """One list. prec: neuron → Prec@k in percent, best first. ranks: per rank, neuron → votes, of all neurons."""

    prec: dict[int, float]
    ranks: tuple[dict[int, int], ...]


@dataclass(frozen=True)
class Ballot:
    """What `voters` mistakes say: neurons that they need more of, and neurons that they have too much of."""

    voters: int
    insufficient: Tally
    excessive: Tally


def vote(values: Tensor, k: int, min_prec: float, hide_overlap: bool, max_rows: int) -> Ballot:
    """Let each row of values `[M, D]` name its k largest (insufficient) and its k smallest (excessive) neurons.

    Prec@k = votes over all ranks / voters · 100. Kept above `min_prec`, sorted from the highest (ties: the lower id),
    those in both lists dropped if `hide_overlap`, then at most `max_rows` a list. Rows whose sum is exactly 0 do not
    vote. As in the paper a largest value may be negative and a smallest may not be positive; other than there an exact
    0 gets no vote: nothing was asked of that neuron (`contribution` and a box leave many).
    """
    values = values[values.sum(dim=1) != 0]
    largest, smallest = (_ranks(values, k, descending) for descending in (True, False))
    insufficient, excessive = (_kept(ranks, len(values), min_prec) for ranks in (largest, smallest))
    hidden = insufficient.keys() & excessive.keys() if hide_overlap else set()
    return Ballot(
        voters=len(values),
        insufficient=Tally(_shown(insufficient, hidden, max_rows), largest),
        excessive=Tally(_shown(excessive, hidden, max_rows), smallest),
    )


def _ranks(values: Tensor, k: int, descending: bool) -> tuple[dict[int, int], ...]:
    # a stable sort: among equal values the lower id comes first, on every machine
    order = values.argsort(dim=1, descending=descending, stable=True)[:, :k]
    chosen = values.gather(1, order)
    counts = (chosen != 0) if descending else (chosen < 0)
    return tuple(dict(sorted(Counter(order[counts[:, rank], rank].tolist()).items())) for rank in range(order.shape[1]))


def _kept(ranks: tuple[dict[int, int], ...], voters: int, min_prec: float) -> dict[int, float]:
    votes: Counter[int] = Counter()
    for rank in ranks:
        votes.update(rank)
    shares = {neuron: 100 * count / voters for neuron, count in votes.items()}
    ordered = sorted(shares.items(), key=lambda entry: (-entry[1], entry[0]))
    return {neuron: share for neuron, share in ordered if share > min_prec}


def _shown(prec: dict[int, float], hidden: set[int], max_rows: int) -> dict[int, float]:
    return dict([entry for entry in prec.items() if entry[0] not in hidden][:max_rows])
