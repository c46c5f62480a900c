"""A sparse probe by `fit_prox` beside 200 epochs of Adam: seconds to the same objective, and to the optimum.

Ratios are of CPU seconds of the one thread, which a busy machine changes least; wall seconds are printed beside them.

OMP_NUM_THREADS=1 python tests/bench/probe.py [images] [epochs]
"""

import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from scipy.sparse import csr_array

from aaca.training.probe_adam import fit_adam
from aaca.training.sparse_probe import Probe, fit_prox, objective, path

CONCEPTS, CLASSES, ACTIVE, PLANTED = 4096, 10, 40, 120


def problem(images: int) -> tuple[csr_array, np.ndarray]:
    """Codes, about 40 of 4,096 concepts an image, some far more common than others; labels from sparse weights."""
    rng = np.random.default_rng(0)
    shares = np.minimum(rng.dirichlet(np.ones(CONCEPTS)) * ACTIVE, 0.5)
    own = [np.flatnonzero(rng.random(images) < share) for share in shares]
    rows, columns = np.concatenate(own), np.repeat(np.arange(CONCEPTS), [len(part) for part in own])
    values = rng.uniform(0.5, 1.5, len(rows)).astype(np.float32)
    codes = csr_array((values, (rows, columns)), shape=(images, CONCEPTS))
    weight = np.zeros((CLASSES, CONCEPTS), np.float32)
    for part in weight:
        part[rng.choice(CONCEPTS, PLANTED, replace=False)] = rng.normal(0, 3, PLANTED)
    return codes, (codes @ weight.T + rng.gumbel(size=(images, CLASSES))).argmax(axis=1)


def timed(work: Callable[[], Any]) -> tuple[Any, float, float]:
    """What `work` returns, its CPU seconds and its wall seconds."""
    wall, used = time.perf_counter(), time.process_time()
    found = work()
    return found, time.process_time() - used, time.perf_counter() - wall


def line(name: str, taken: tuple[Probe, float, float], codes: csr_array, labels: np.ndarray) -> float:
    """Print a row; the objective in float64."""
    probe, used, wall = taken
    found = objective(probe, codes, labels, 1.0, 1.0, "mean")
    zeros, accuracy = (probe.weight == 0).mean(), (probe.logits(codes).argmax(axis=1) == labels).mean()
    print(f"{name:30s} {used:6.2f} CPU s {wall:6.2f} s   objective {found:.5f}   zeros {zeros:6.1%}", end="   ")
    print(f"training accuracy {accuracy:.3f}")
    return found


def main(images: int, epochs: int) -> None:
    """Both solvers, the first number of steps (in tens) that does as well as Adam; then to the optimum; then a path."""
    torch.set_num_threads(1)
    codes, labels = problem(images)
    print(f"{images} images, {codes.nnz / images:.1f} of {CONCEPTS} concepts an image, {CLASSES} classes, one thread")
    fit_prox(codes[:1000], labels[:1000], CLASSES, 1.0, max_steps=2)  # first calls load libraries
    adam = timed(lambda: fit_adam(codes, labels, CLASSES, lr=1e-3, strength=1.0, epochs=epochs))
    goal = line(f"Adam, {epochs} epochs", adam, codes, labels)
    for steps in [*range(10, 1000, 10), 1000]:
        prox = timed(lambda steps=steps: fit_prox(codes, labels, CLASSES, 1.0, max_steps=steps))
        if prox[0].meta["converged"] or objective(prox[0], codes, labels, 1.0, 1.0, "mean") <= goal:
            break
    line(f"fit_prox, {steps} steps", prox, codes, labels)
    best = timed(lambda: fit_prox(codes, labels, CLASSES, 1.0))
    line(f"fit_prox, to KKT {best[0].meta['violation']:.1%} of λ", best, codes, labels)
    print(f"to an objective as low as Adam's: {adam[1] / prox[1]:.1f} times as fast", end=" ")
    print(f"(wall {adam[2] / prox[2]:.1f}); to the optimum: {adam[1] / best[1]:.1f} (wall {adam[2] / best[2]:.1f})")
    probes, used, wall = timed(lambda: path(codes, labels, CLASSES, nec_limit=30))
    print(f"a standardised path of {len(probes)} probes to NEC 30: {used:.2f} CPU s, {wall:.2f} s")


if __name__ == "__main__":
    main(*(int(value) for value in [*sys.argv[1:], *["20000", "200"][len(sys.argv) - 1 :]]))
