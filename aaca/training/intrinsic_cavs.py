"""Concept vectors of intrinsic images: where activations go when the light changes, and when the albedo does."""

from typing import Literal

import numpy as np
import torch

from aaca.concepts.activations import activations_of
from aaca.concepts.cav import fit_cav
from aaca.models.intrinsic_net import BRANCHES, penultimate

Vectors = Literal["paired", "relative"]


def moments(values: np.ndarray) -> np.ndarray:
    """Brightness, its slope to the right and its slope downwards, `[3, G, M]`, of `[G, M, C, S, S]`."""
    grey = values.mean(axis=2)
    places = (np.arange(grey.shape[-1]) + 0.5) / grey.shape[-1] * 2 - 1
    return np.stack([grey.mean(axis=(2, 3)), (grey * places).mean(axis=(2, 3)), (grey * places[:, None]).mean(axis=(2, 3))])


def ends(moment: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Within each group of `[G, M]`, the half of larger and the half of smaller moments: two flat lists of places."""
    groups, members = moment.shape
    order = moment.argsort(axis=1) + np.arange(groups)[:, None] * members
    half = members // 2
    return order[:, members - half :].ravel(), order[:, :half].ravel()


def branch_cavs(net, light, albedo, vectors, folds=2, seed=0):
    acts = {}
    for name, d in (("light", light), ("albedo", albedo)):
        im = torch.from_numpy(d.image.reshape(-1, *d.image.shape[2:]))
        acts[name] = {k: v.numpy() for k, v in activations_of(net, im, [penultimate(b) for b in BRANCHES]).items()}
    out, info = {}, {}
    for b, own in (("albedo", "light"), ("shading", "albedo")):
        layer = penultimate(b)
        other = "albedo" if own == "light" else "light"
        if vectors == "relative":
            cavs = [fit_cav(acts[own][layer], acts[other][layer], folds=folds)]
            v = np.stack([c.direction for c in cavs])
        else:
            vs = {}
            for name, d in (("light", light.shading), ("albedo", albedo.albedo)):
                cs = []
                for m in moments(d):
                    p, n = ends(m)
                    cs.append(fit_cav(acts[name][layer][p], acts[name][layer][n], folds=folds))
                vs[name] = cs
            cavs = vs[own]
            v = np.stack([c.direction for c in cavs])
            if vectors == "paired":
                o = np.stack([c.direction for c in vs[other]])
                q, _ = np.linalg.qr(o.T)
                overlap = np.linalg.norm(v @ q, axis=1)
                v = v - (v @ q) @ q.T
                v /= np.linalg.norm(v, axis=1, keepdims=True)
                info[b + " overlap"] = overlap
        out[b] = torch.from_numpy(v.astype(np.float32))
        info[b] = [round(c.balanced_accuracy, 2) for c in cavs]
    return out, info
