import numpy as np
import pytest
import torch

from aaca.discover.neurons.votes import vote


def by_hand(values, k, min_prec, hide_overlap, max_rows):
    """The paper's vote, one row at a time."""
    rows = [row for row in values.tolist() if sum(row) != 0]
    lists, details = [], []
    for sign in (1, -1):
        ranks = [{} for _ in range(k)]
        for row in rows:
            order = sorted(range(len(row)), key=lambda j: -sign * row[j])
            for rank, neuron in enumerate(order[:k]):
                if sign == 1 or row[neuron] <= 0:
                    ranks[rank][neuron] = ranks[rank].get(neuron, 0) + 1
        total = {}
        for rank in ranks:
            for neuron, count in rank.items():
                total[neuron] = total.get(neuron, 0) + count
        prec = {neuron: 100 * count / len(rows) for neuron, count in total.items()}
        lists.append(sorted(((n, p) for n, p in prec.items() if p > min_prec), key=lambda e: (-e[1], e[0])))
        details.append(ranks)
    hidden = {n for n, _ in lists[0]} & {n for n, _ in lists[1]} if hide_overlap else set()
    return [[e for e in one if e[0] not in hidden][:max_rows] for one in lists], details


@pytest.mark.parametrize("hide", [True, False])
@pytest.mark.parametrize("k", [1, 5])
@pytest.mark.parametrize(("min_prec", "rows"), [(0.0, 30), (12.0, 30), (0.0, 3)])
def test_votes_are_those_counted_by_hand(hide, k, min_prec, rows):
    rng = np.random.default_rng(k)
    values = torch.from_numpy(rng.normal(size=(40, 12)) + rng.normal(size=12)).float()
    values[3] = 0
    lists, details = by_hand(values, k, min_prec, hide, rows)
    found = vote(values, k, min_prec, hide, rows)
    assert found.voters == 39
    for tally, expected, ranks in zip((found.insufficient, found.excessive), lists, details, strict=True):
        assert list(tally.prec) == [neuron for neuron, _ in expected]
        assert expected or (hide and min_prec == 0)
        assert tally.prec == pytest.approx(dict(expected))
        assert [dict(rank) for rank in tally.ranks] == ranks


def test_a_table_small_enough_to_read():
    values = torch.tensor(
        [[3.0, 2.0, -1.0, -5.0], [1.0, 4.0, -2.0, -1.0], [0.0, 0.0, 0.0, 0.0], [5.0, -1.0, 1.0, -3.0]]
    )
    found = vote(values, k=2, min_prec=3.0, hide_overlap=True, max_rows=30)
    assert found.insufficient.prec == pytest.approx({0: 100.0})  # 1 (67 %) and 2 (33 %) are in both lists
    assert found.excessive.prec == pytest.approx({3: 100.0})
    assert found.insufficient.ranks == ({0: 2, 1: 1}, {0: 1, 1: 1, 2: 1})
    assert found.excessive.ranks == ({2: 1, 3: 2}, {1: 1, 2: 1, 3: 1})
    shown = vote(values, k=2, min_prec=3.0, hide_overlap=False, max_rows=30)
    assert list(shown.insufficient.prec) == [0, 1, 2]
    assert shown.insufficient.prec == pytest.approx({0: 100.0, 1: 200 / 3, 2: 100 / 3})
    assert list(vote(values, 2, 3.0, False, 1).excessive.prec) == [3]


def test_the_threshold_is_not_reached_by_equality():
    values = torch.eye(4)[[0, 0, 1, 1]] - 0.1
    assert set(vote(values, 1, 49.0, False, 9).insufficient.prec) == {0, 1}
    assert vote(values, 1, 50.0, False, 9).insufficient.prec == {}


def test_overlap_counts_only_among_listed_neurons():
    # neuron 0 is named excessive once in ten rows: below the threshold it hides nothing
    values = torch.tensor([[2.0, -1.0, 0.5]] * 9 + [[-2.0, 1.0, 0.5]])
    found = vote(values, 1, 20.0, True, 9)
    assert list(found.insufficient.prec) == [0] and list(found.excessive.prec) == [1]


def test_signs():
    # largest values may be negative; smallest ones may not be positive; an exact 0 gets no vote
    found = vote(torch.tensor([[-3.0, -1.0, -2.0]]), 2, 0.0, False, 9)
    assert list(found.insufficient.prec) == [1, 2] and list(found.excessive.prec) == [0, 2]
    found = vote(torch.tensor([[3.0, 1.0, 2.0]]), 2, 0.0, False, 9)
    assert found.excessive.prec == {} and found.voters == 1
    found = vote(torch.tensor([[3.0, 0.0, 0.0]]), 2, 0.0, False, 9)
    assert list(found.insufficient.prec) == [0] and found.excessive.prec == {}


def test_no_rows_and_few_neurons():
    found = vote(torch.zeros(0, 6), 5, 3.0, True, 30)
    assert found.voters == 0 and found.insufficient.prec == found.excessive.prec == {}
    assert len(vote(torch.ones(2, 3), 5, 3.0, True, 30).insufficient.ranks) == 3


def test_ties_go_to_the_lower_id():
    # many equal values: a sort that is not stable names others
    found = vote(torch.cat([torch.full((2, 300), 2.0), torch.full((2, 300), -1.0)], dim=1), 3, 0.0, False, 9)
    assert list(found.insufficient.prec) == [0, 1, 2] and list(found.excessive.prec) == [300, 301, 302]
    # equal counts, met in another order than their ids
    found = vote(torch.tensor([[0.1, 5.0, 4.0], [5.0, 0.1, 4.0]]), 2, 0.0, False, 9)
    assert list(found.insufficient.prec) == [2, 0, 1]
    found = vote(torch.tensor([[1.0, 2.0, 3.0]]), 3, 0.0, False, 9)
    assert list(found.insufficient.prec) == [0, 1, 2]
