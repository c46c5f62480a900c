"""What one process of a distributed metric does; apart from the tests, so that a spawned process imports little."""

import torch

from aaca.evaluate.metrics import WorstGroupAccuracy

N, C, G = 61, 3, 5


def rows(seed: int = 0) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {
        "preds": torch.randn(N, C, generator=generator),
        "target": torch.randint(0, C, (N,), generator=generator),
        "group": torch.randint(0, G, (N,), generator=generator),
        "ids": torch.randperm(N, generator=generator) + 1000,
    }


def run(rank: int, path: str, cases: list[list[list[int]]]) -> None:
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{path}/store", rank=rank, world_size=2)
    data, results = rows(), []
    for shards in cases:
        metric = WorstGroupAccuracy()
        for start in range(0, len(shards[rank]), 8):
            index = shards[rank][start : start + 8]
            metric.update(**{name: part[index] for name, part in data.items()})
        results.append(metric.compute())
    torch.save(results, f"{path}/{rank}.pt")
    torch.distributed.destroy_process_group()
