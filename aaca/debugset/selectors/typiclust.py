"""TypiClust: the most typical candidate of every cluster (Hacohen et al., ICML 2022, arXiv 2202.02794)."""

import numpy as np
from sklearn.neighbors import NearestNeighbors
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from aaca.data.features import Scored
from aaca.debugset.selectors.base import Selection, SelectionContext, Selector, by_id
from aaca.debugset.selectors.clusters import kmeans
from aaca.debugset.selectors.distance import embeddings
from aaca.runtime.errors import ConfigError

EPSILON = 1e-5
"""Keeps the typicality of exact duplicates (mean distance 0) finite."""


class TypiClust(Selector):
    """k-means into min(K, `max_clusters`) clusters, then the most typical of each in turn, until K are taken.

    Typicality = 1 / mean distance to the `neighbours` nearest members of the same cluster. Larger clusters come first;
    those smaller than `min_cluster_size` (outliers) give only when the others have no more. Holds `[n, D]` in memory.
    """

    def __init__(
        self, neighbours: int = 20, max_clusters: int = 500, min_cluster_size: int = 5, l2_normalize: bool = True
    ) -> None:
        for name, value in (
            ("neighbours", neighbours),
            ("max_clusters", max_clusters),
            ("min_cluster_size", min_cluster_size),
        ):
            if value < 1:
                raise ConfigError(f"selector.{name}: {value}; expected 1 or more")
        self.neighbours = neighbours
        self.max_clusters = max_clusters
        self.min_cluster_size = min_cluster_size
        self.l2_normalize = l2_normalize

    def select(self, candidates: Scored, context: SelectionContext, k: int) -> Selection:
        """K candidates in the order taken; the score is the typicality within the cluster."""
        pool, positions = by_id(candidates)
        k = min(k, len(pool))
        if k < 1:
            return Selection(np.empty(0, dtype=np.int64), np.empty(0))
        values = embeddings(pool, self.l2_normalize)
        _, cluster = kmeans(values, min(k, self.max_clusters), context.seed, n_init=1)
        members = [np.flatnonzero(cluster == number) for number in range(cluster.max() + 1)]
        typicality = np.zeros(len(pool))
        for rows in members:
            typicality[rows] = typicalities(values[rows], self.neighbours)
        members.sort(key=lambda rows: (-len(rows), rows[0]))
        queues = [rows[np.argsort(-typicality[rows], kind="stable")].tolist() for rows in members]
        large = [queue for queue in queues if len(queue) >= self.min_cluster_size]
        small = [queue for queue in queues if len(queue) < self.min_cluster_size]
        picks = np.array([*round_robin(large), *round_robin(small)][:k], dtype=np.int64)
        return Selection(positions[picks], typicality[picks])


def typicalities(values: np.ndarray, neighbours: int) -> np.ndarray:
    """1 / mean L2 distance of each of `[n, D]` to its nearest others, `[n]`; 0 for a point that has no other."""
    if len(values) < 2:
        return np.zeros(len(values))
    with threadpool_limits(1):
        search = NearestNeighbors(n_neighbors=min(neighbours, len(values) - 1), algorithm="brute").fit(values)
        distances, _ = search.kneighbors()  # without an argument, a point is no neighbour of itself
    return 1.0 / (distances.mean(axis=1) + EPSILON)


def round_robin(queues: list[list[int]]) -> list[int]:
    """The first of every queue, then the second of every queue that has one, and so on."""
    longest = max(map(len, queues), default=0)
    return [queue[turn] for turn in range(longest) for queue in queues if turn < len(queue)]
