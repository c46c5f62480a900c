"""k-means that gives the same clusters on every run and machine load."""

import numpy as np
from sklearn.cluster import KMeans
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]


def kmeans(points: np.ndarray, n_clusters: int, seed: int, n_init: int) -> tuple[np.ndarray, np.ndarray]:
    """Centres `[m, D]` and the cluster of each point `[n]`, for points `[n, D]`; m ≤ the number of distinct points."""
    m = min(n_clusters, len(np.unique(points, axis=0)))
    model = KMeans(n_clusters=m, n_init=n_init, random_state=seed % 2**32)
    with threadpool_limits(1):  # several threads add up in whatever order they finish
        labels = model.fit_predict(points)
    return model.cluster_centers_, labels
