"""Batches of scene graphs for a captioner: items, padding, and loaders that shuffle and share out by seed and rank."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from aaca.data.sampler import EpochSampler, ShardSampler
from aaca.data.scenegraph.nodes import EDGE_KINDS, Nodes
from aaca.data.scenegraph.vocabulary import EOS
from aaca.runtime.errors import ConfigError, DataError


@dataclass(frozen=True)
class GraphItem:
    """One sample: nodes, image `[G]` and node features `[n, F]` float32, words int64 (BOS … EOS), its position."""

    nodes: Nodes
    image: np.ndarray
    features: np.ndarray
    words: np.ndarray
    row: int


class GraphSource(Protocol):
    """Where items come from: a `GraphSet`, or `PackedGraphs`."""

    def __len__(self) -> int:
        """Number of samples."""

    def item(self, i: int) -> GraphItem:
        """Sample `i`."""


@dataclass
class GraphBatch:
    """B graphs, padded to the largest (N nodes, 1 or more) and to the longest caption (T words with BOS and EOS).

    A graph without nodes has a mask that is False throughout.
    """

    globals: Tensor
    """`[B, G]` float32: the images' own features."""
    features: Tensor
    """`[B, N, F]` float32: the nodes' features, 0 where padded."""
    mask: Tensor
    """`[B, N]` bool: where nodes are."""
    types: Tensor
    """`[B, N]` int64: 0 object, 1 attribute, 2 relationship."""
    order: Tensor
    """`[B, N]` int64: 1, 2, … for an object's attributes, else 0."""
    adjacency: Tensor
    """`[B, 6, N, N]` float32, [b, kind, target, source]: 1 / number of edges of that kind into the target."""
    flow: Tensor
    """`[B, N, N]` float32, [b, target, source]: columns of nodes add up to 1, those of padding are 0."""
    words: Tensor
    """`[B, T]` int64: BOS … EOS, padded with EOS."""
    word_mask: Tensor
    """`[B, T-1]` bool: which of the targets `words[:, 1:]` count (the words and the first EOS)."""
    rows: Tensor
    """`[B]` int64: the samples' positions."""
    names: list[tuple[str, ...]]
    """The names of each graph's nodes."""

    def to(self, device: str | torch.device) -> "GraphBatch":
        """The batch with its tensors on `device`."""
        # a copy to the CPU that does not block would be read before it is there
        ahead = torch.device(device).type != "cpu"
        return self._each(lambda tensor: tensor.to(device, non_blocking=ahead))

    def pin_memory(self) -> "GraphBatch":
        """The batch in page-locked memory, as torch's loader asks for where it feeds a GPU."""
        return self._each(Tensor.pin_memory)

    def _each(self, change: Callable[[Tensor], Tensor]) -> "GraphBatch":
        tensors: dict[str, Any] = {
            field.name: change(getattr(self, field.name)) for field in fields(self) if field.name != "names"
        }
        return GraphBatch(**tensors, names=self.names)


def collate(items: Sequence[GraphItem]) -> GraphBatch:
    """The batch of some items. Raises `DataError` where there is none, or where their features differ in width."""
    widths = {(len(item.image), item.features.shape[1]) for item in items}
    if len(widths) != 1:
        raise DataError(f"batch: features of widths {sorted(widths)} (image, node); expected one pair")
    (image_width, width), b = widths.pop(), len(items)
    n = max(1, *(len(item.nodes.types) for item in items))
    t = max(len(item.words) for item in items)
    features = np.zeros((b, n, width), np.float32)
    mask = np.zeros((b, n), bool)
    types, order = np.zeros((2, b, n), np.int64)
    adjacency = np.zeros((b, len(EDGE_KINDS), n, n), np.float32)
    flow = np.zeros((b, n, n), np.float32)
    words = np.full((b, t), EOS, np.int64)
    word_mask = np.zeros((b, t - 1), bool)
    images = np.empty((b, image_width), np.float32)
    for at, item in enumerate(items):
        nodes, k = item.nodes, len(item.nodes.types)
        images[at], features[at, :k], mask[at, :k] = item.image, item.features, True
        types[at, :k], order[at, :k], flow[at, :k, :k] = nodes.types, nodes.order, nodes.flow
        _fill_adjacency(adjacency[at], nodes.edges)
        words[at, : len(item.words)], word_mask[at, : len(item.words) - 1] = item.words, True
    return GraphBatch(
        globals=torch.from_numpy(images),
        features=torch.from_numpy(features),
        mask=torch.from_numpy(mask),
        types=torch.from_numpy(types),
        order=torch.from_numpy(order),
        adjacency=torch.from_numpy(adjacency),
        flow=torch.from_numpy(flow),
        words=torch.from_numpy(words),
        word_mask=torch.from_numpy(word_mask),
        rows=torch.tensor([item.row for item in items], dtype=torch.int64),
        names=[item.nodes.names for item in items],
    )


def _fill_adjacency(goal: np.ndarray, edges: np.ndarray) -> None:
    # goal: zeros [kinds, N, N]; edges: [E, 3] of kind, target, source
    kind, target, source = edges.T
    counts = np.zeros(goal.shape[:2], np.float32)
    np.add.at(counts, (kind, target), 1)
    np.add.at(goal, (kind, target, source), 1 / counts[kind, target])


class GraphData(Dataset[GraphItem]):
    """The samples of a source for torch's loader; a number beyond the last begins anew at the first."""

    def __init__(self, source: GraphSource) -> None:
        self.source = source

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, draw: int) -> GraphItem:
        return self.source.item(draw % len(self.source))


class GraphLoader(DataLoader):
    """Batches of this rank's share of a source; the last batch is kept, however small.

    Shuffled, every epoch is an order of its own, a pure function of (seed, epoch), and all ranks take equally many
    samples; where these are more than there are, an epoch begins with what its forerunner took ahead (`EpochSampler`).
    Not shuffled, each sample comes once over all ranks, in order.

    Args:
        source: the samples.
        batch_size: samples a batch (of one rank).
        seed: of all orders.
        shuffle: whether the order is drawn anew every epoch.
        rank: of this process.
        world: number of processes.
        workers: processes that read ahead.

    Raises `ConfigError` for a batch size below 1, `DataError` for a source without samples.

    """

    def __init__(
        self,
        source: GraphSource,
        batch_size: int,
        seed: int = 0,
        shuffle: bool = True,
        rank: int = 0,
        world: int = 1,
        workers: int = 0,
    ) -> None:
        n = len(source)
        if batch_size < 1:
            raise ConfigError(f"batch_size: {batch_size}; expected 1 or more")
        if n == 0:
            raise DataError("graphs: no samples")
        share = -(-n // world)
        sampler = EpochSampler(n, share, share * world, seed, rank, world) if shuffle else ShardSampler(n, rank, world)
        more: dict[str, Any] = {
            "num_workers": workers,
            "persistent_workers": workers > 0,
            "pin_memory": torch.cuda.is_available(),
        }
        super().__init__(GraphData(source), batch_size, sampler=sampler, collate_fn=collate, **more)

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch that the next iteration draws (where the order is shuffled)."""
        if isinstance(self.sampler, EpochSampler):
            self.sampler.set_epoch(epoch)
