"""What sets of images say with: clusters of images that fire alike, and the images of a concept in each dataset.

Codes are `scipy.sparse.csr_array` `[N, h]`, each entry once. Definitions of Rao et al. 2024 (Discover-then-Name) as in
the released code, unless said otherwise.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.sparse import csr_array

from aaca.evaluate.explain_tables import check_codes, check_positive, chunks, mean_strength, ranked, ranks_within
from aaca.runtime.errors import ConfigError, DataError


@dataclass(frozen=True)
class Clusters:
    """Images that fire alike.

    `words`: cluster, images (how many), latent, name, strength, difference, rank; `members`: cluster, image.
    """

    words: pd.DataFrame
    members: pd.DataFrame


def meta_clusters(
    codes: csr_array, names: Sequence[str], k: int, least: int = 9, most: int = 200, top: int = 6, seed: int = 0
) -> Clusters:
    """k-means on strengths; of each cluster its own concepts, by (cluster mean − mean of all images).

    Clusters of fewer than `least` images are left out, at most `most` are kept, the largest first (numbered from 0).
    Raises `ConfigError` for k out of range, `DataError` where no cluster is large enough.
    """
    from sklearn.cluster import MiniBatchKMeans

    check_codes(codes, names)
    for key, value in (("least", least), ("most", most), ("top", top)):
        check_positive(f"explain.{key}", value)
    if not 1 <= k <= codes.shape[0]:
        raise ConfigError(f"explain.clusters: {k}; expected 1…{codes.shape[0]} (images)")
    assigned = MiniBatchKMeans(n_clusters=k, random_state=seed, n_init=3).fit_predict(codes)
    sizes = np.bincount(assigned, minlength=k)
    kept = [int(index) for index in np.argsort(-sizes, kind="stable") if sizes[index] >= least][:most]
    if not kept:
        raise DataError(f"clusters: none of {k} has {least} images (largest: {sizes.max()}); expected fewer clusters")
    overall, words, members = mean_strength(codes), [], []
    for number, index in enumerate(kept):
        rows = np.flatnonzero(assigned == index)
        strength = mean_strength(codes[rows])
        difference = strength - overall
        order = np.argsort(-difference, kind="stable")[:top]
        order = order[difference[order] > 0]
        values = {"strength": strength[order], "difference": difference[order]}
        words.append(ranked(number, len(rows), order, names, values).rename(columns={"class": "cluster"}))
        members.append(pd.DataFrame({"cluster": number, "image": rows}))
    return Clusters(pd.concat(words, ignore_index=True), pd.concat(members, ignore_index=True))


def agnosticity(
    codes: Mapping[str, csr_array], names: Sequence[str], cosines: np.ndarray, top: int = 500
) -> pd.DataFrame:
    """Per latent its strongest images in each dataset: does a concept mean the same everywhere?

    Columns: latent, name, cosine (with its name, `[h]`), dataset, image, strength, rank. Latents of the best names come
    first. An image at which a latent is silent has no row.
    """
    check_positive("explain.top", top)
    if not codes or len(cosines) != len(names):
        raise DataError(
            f"explain: {len(codes)} datasets, {len(cosines)} cosines of {len(names)} names; expected one each"
        )
    found = []
    for number, (dataset, own) in enumerate(codes.items()):
        check_codes(own, names)
        columns = own.tocsc()
        for latents in chunks(np.arange(own.shape[1])):
            part = columns[:, latents]
            latent = np.repeat(latents, np.diff(part.indptr))
            order = np.lexsort((part.indices, -part.data, latent))
            order = order[part.data[order] > 0]
            rank = ranks_within(latent[order], own.shape[1])
            order, rank = order[rank <= top], rank[rank <= top]
            values = {"latent": latent[order], "image": part.indices[order], "strength": part.data[order], "rank": rank}
            found.append(pd.DataFrame(values).assign(dataset=dataset, number=number))
    frame = pd.concat(found, ignore_index=True)
    latent = frame["latent"].to_numpy()
    place = np.empty(len(names), dtype=np.int64)
    place[np.argsort(-np.asarray(cosines, dtype=np.float64), kind="stable")] = np.arange(len(names))
    frame = frame.assign(name=np.asarray(names, dtype=object)[latent], cosine=np.asarray(cosines)[latent])
    frame = frame.iloc[np.lexsort((frame["rank"], frame["number"], place[latent]))]
    return frame[["latent", "name", "cosine", "dataset", "image", "strength", "rank"]].reset_index(drop=True)
