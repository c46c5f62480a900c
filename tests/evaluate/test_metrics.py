import numpy as np
import pytest
import ranks
import torch
from fairlearn.metrics import MetricFrame
from ranks import N, rows
from sklearn.metrics import accuracy_score
from torch import multiprocessing

from aaca.evaluate.metrics import WorstGroupAccuracy
from aaca.runtime.errors import DataError


def oracle(data: dict[str, torch.Tensor]) -> MetricFrame:
    return MetricFrame(
        metrics=accuracy_score,
        y_true=data["target"].numpy(),
        y_pred=data["preds"].argmax(1).numpy(),
        sensitive_features=data["group"].numpy(),
    )


def check(result: dict, data: dict[str, torch.Tensor]) -> None:
    frame = oracle(data)
    assert float(result["accuracy"]) == pytest.approx(frame.overall, abs=1e-12)
    assert float(result["worst_group_accuracy"]) == pytest.approx(frame.group_min(), abs=1e-12)
    assert int(result["worst_group"]) == frame.by_group.idxmin()
    np.testing.assert_allclose(np.asarray(result["per_group"]), frame.by_group.to_numpy(), atol=1e-12)
    assert int(result["n"]) == N


def test_equals_fairlearn_in_batches_with_padding():
    data, metric = rows(), WorstGroupAccuracy()
    for start in range(0, N, 16):
        metric.update(**{name: part[start : start + 16] for name, part in data.items()})
    metric.update(**{name: part[:7] for name, part in data.items()})  # padding: the first images again
    check(metric.compute(), data)


def test_labels_and_logits_agree():
    data = rows(1)
    one, other = WorstGroupAccuracy(), WorstGroupAccuracy()
    one.update(**data)
    other.update(**{**data, "preds": data["preds"].argmax(1)})
    torch.testing.assert_close(one.compute(), other.compute(), equal_nan=True)


def test_empty_group_is_nan_and_never_worst():
    metric = WorstGroupAccuracy()
    metric.update(torch.tensor([0, 1, 1]), torch.tensor([0, 1, 0]), torch.tensor([0, 0, 2]), torch.arange(3))
    result = metric.compute()
    assert torch.isnan(result["per_group"][1]) and int(result["worst_group"]) == 2
    assert result["per_group_n"].tolist() == [2, 0, 1]


def test_reset_forgets():
    metric = WorstGroupAccuracy()
    metric.update(**rows(2))
    metric.reset()
    metric.update(**rows(3))
    check(metric.compute(), rows(3))


def test_refuses_wrong_shapes_groups_and_nothing():
    metric, one = WorstGroupAccuracy(), torch.zeros(1, dtype=torch.long)
    with pytest.raises(DataError, match=r"must be \[B\] alike"):
        metric.update(one, one, torch.zeros(2, dtype=torch.long), one)
    with pytest.raises(DataError, match="0 or more"):
        metric.update(one, one, one - 1, one)
    with pytest.warns(UserWarning, match="before the"), pytest.raises(DataError, match="no image"):
        WorstGroupAccuracy().compute()


def test_two_processes_equal_one(tmp_path):
    cases = [
        [[*range(0, N, 2)], [*range(1, N, 2), 0]],  # as DistributedSampler pads: the first image again
        [[*range(40), 3, 3, 5], [*range(40, N), *range(10)]],  # uneven, many repeats across ranks
        [[*range(N)], []],  # a rank without a batch
    ]
    multiprocessing.spawn(ranks.run, args=(str(tmp_path), cases), nprocs=2)
    for rank in range(2):
        results = torch.load(tmp_path / f"{rank}.pt", weights_only=True)
        assert len(results) == len(cases)
        for result in results:
            check(result, rows())
