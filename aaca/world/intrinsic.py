"""Procedural scenes with exact albedo R and shading S: the image is R · S, to the bit (intrinsic image decomposition).

A scene is a shape, an albedo and a light, each named by a seed of its own, so that one can change while the others
stay. Orthographic view, x to the right, y down, z towards the viewer, the image spans −1…1; no cast shadows.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal, get_args

import numpy as np

from aaca.world.scenes import stream

Shape = Literal["sphere", "cylinder", "box", "bumps"]
SHAPES: tuple[Shape, ...] = get_args(Shape)
DARKEST, BRIGHTEST = 0.08, 0.95
"""Bounds of an albedo's channels."""


@dataclass(frozen=True)
class IntrinsicScene:
    """What is seen (`shape` and where and how large: `shape_seed`), how it is painted, and how it is lit."""

    shape: Shape
    shape_seed: int
    albedo_seed: int
    light_seed: int


@dataclass(frozen=True)
class Intrinsics:
    """Albedo `[…, 3, S, S]` and grey shading `[…, 1, S, S]` of one or more scenes, float32 in 0…1."""

    albedo: np.ndarray
    shading: np.ndarray

    @cached_property
    def image(self) -> np.ndarray:
        """Their product, `[…, 3, S, S]` float32."""
        return self.albedo * self.shading


def draw_scene(seed: int, *key: str | int) -> IntrinsicScene:
    """The scene of this key; it depends on nothing else."""
    rng = stream(seed, "intrinsic", *key)
    shape = SHAPES[int(rng.integers(len(SHAPES)))]
    seeds = rng.integers(2**31, size=3).tolist()
    return IntrinsicScene(shape, *seeds)


def draw_scenes(n: int, seed: int, split: str) -> list[IntrinsicScene]:
    """Scenes 0…n − 1 of a split; the first m are the same for every n ≥ m."""
    return [draw_scene(seed, split, index) for index in range(n)]


def render(scene: IntrinsicScene, size: int) -> Intrinsics:
    """The exact decomposition at `size` × `size` pixels."""
    normal, covered = normals(scene.shape, scene.shape_seed, size)
    shading = shade(normal, scene.light_seed)
    return Intrinsics(paint(covered, scene.albedo_seed), shading[None].astype(np.float32))


def render_all(scenes: Sequence[IntrinsicScene], size: int) -> Intrinsics:
    """All of them, stacked `[N, …]`."""
    found = [render(scene, size) for scene in scenes]
    return Intrinsics(np.stack([one.albedo for one in found]), np.stack([one.shading for one in found]))


def delta_albedo(groups: int, members: int, size: int, seed: int, split: str) -> Intrinsics:
    """Δ_a, `[G, M, …]`: within a group only the albedo changes, under one light, on one shape."""
    return _delta("albedo", groups, members, size, seed, split)


def delta_light(groups: int, members: int, size: int, seed: int, split: str) -> Intrinsics:
    """Δ_i, `[G, M, …]`: within a group only the light changes, on one shape of one albedo."""
    return _delta("light", groups, members, size, seed, split)


def _delta(what: Literal["albedo", "light"], groups: int, members: int, size: int, seed: int, split: str) -> Intrinsics:
    albedo, shading = [], []
    for group in range(groups):
        base = draw_scene(seed, "delta", what, split, group)
        for member in range(members):
            other = draw_scene(seed, "delta", what, split, group, member)
            if what == "albedo":
                scene = replace(base, albedo_seed=other.albedo_seed)
            else:
                scene = replace(base, light_seed=other.light_seed)
            found = render(scene, size)
            albedo.append(found.albedo)
            shading.append(found.shading)
    lead = (groups, members)
    return Intrinsics(np.stack(albedo).reshape(*lead, 3, size, size), np.stack(shading).reshape(*lead, 1, size, size))


def normals(shape: Shape, shape_seed: int, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Unit normals `[S, S, 3]` and where the object is, bool `[S, S]`; around it is a wall that faces the viewer."""
    rng = stream(shape_seed, "shape")
    x, y = _grid(size)
    normal, covered = {"sphere": _sphere, "cylinder": _cylinder, "box": _box, "bumps": _bumps}[shape](rng, x, y)
    return np.where(covered[..., None], normal, np.array([0.0, 0.0, 1.0])), covered


def shade(normal: np.ndarray, light_seed: int) -> np.ndarray:
    """S = ambient + strength · max(0, n · l), `[S, S]`, at most 1."""
    rng = stream(light_seed, "light")
    around, height = rng.uniform(0, 2 * np.pi), rng.uniform(0.25, 0.95)
    flat = np.sqrt(1 - height**2)
    ambient, strength = rng.uniform(0.1, 0.3), rng.uniform(0.45, 0.7)
    towards = np.array([flat * np.cos(around), flat * np.sin(around), height])
    return np.asarray(ambient + strength * np.maximum(0, normal @ towards))


def paint(covered: np.ndarray, albedo_seed: int) -> np.ndarray:
    """Piecewise constant colours float32 `[3, S, S]`: Voronoi cells or stripes on the object, one colour around it."""
    rng = stream(albedo_seed, "albedo")
    x, y = _grid(len(covered))
    count = int(rng.integers(3, 9))
    colours = rng.uniform(DARKEST, BRIGHTEST, (count + 1, 3))
    if rng.random() < 0.6:
        sites = rng.uniform(-0.9, 0.9, (count, 2))
        piece = np.argmin((x[..., None] - sites[:, 0]) ** 2 + (y[..., None] - sites[:, 1]) ** 2, axis=2)
    else:
        angle, width, start = rng.uniform(0, np.pi), rng.uniform(0.15, 0.45), rng.uniform(0, 1)
        piece = np.floor((np.cos(angle) * x + np.sin(angle) * y) / width + start).astype(int) % count
    return np.moveaxis(colours[np.where(covered, piece, count)], 2, 0).astype(np.float32)


def _grid(size: int) -> tuple[np.ndarray, np.ndarray]:
    places = (np.arange(size) + 0.5) / size * 2 - 1
    x, y = np.meshgrid(places, places)
    return x, y


def _sphere(rng: np.random.Generator, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    (left, top), radius = rng.uniform(-0.2, 0.2, 2), rng.uniform(0.55, 0.85)
    u, v = (x - left) / radius, (y - top) / radius
    inside = u**2 + v**2 < 1
    return np.stack([u, v, np.sqrt(np.maximum(0, 1 - u**2 - v**2))], axis=2), inside


def _cylinder(rng: np.random.Generator, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    angle, radius, half = rng.uniform(0, np.pi), rng.uniform(0.35, 0.65), rng.uniform(0.6, 0.9)
    across, along = np.cos(angle) * x + np.sin(angle) * y, np.cos(angle) * y - np.sin(angle) * x
    u = across / radius
    normal = np.stack([u * np.cos(angle), u * np.sin(angle), np.sqrt(np.maximum(0, 1 - u**2))], axis=2)
    return normal, (np.abs(u) < 1) & (np.abs(along) < half)


def _box(rng: np.random.Generator, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    turn, _ = np.linalg.qr(rng.standard_normal((3, 3)))  # columns: the box's axes
    half = rng.uniform(0.4, 0.65, 3)
    start = np.stack([x, y, np.zeros_like(x)], axis=2) @ turn  # rays along z through the image, seen from the box
    pace = turn[2]  # of a ray towards the viewer, along each of the box's axes
    leave = (np.where(pace > 0, half, -half) - start) / pace
    enter = (np.where(pace > 0, -half, half) - start) / pace
    face = leave.argmin(axis=2)  # the face through which the ray comes out towards the viewer
    return (np.sign(pace)[:, None] * turn.T)[face], leave.min(axis=2) > enter.max(axis=2)


def _bumps(rng: np.random.Generator, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    slope_x, slope_y = np.zeros_like(x), np.zeros_like(y)
    for _ in range(5):
        (left, top), width, height = rng.uniform(-0.9, 0.9, 2), rng.uniform(0.2, 0.5), rng.uniform(-0.45, 0.45)
        hill = height * np.exp(-((x - left) ** 2 + (y - top) ** 2) / (2 * width**2))
        slope_x -= hill * (x - left) / width**2
        slope_y -= hill * (y - top) / width**2
    normal = np.stack([-slope_x, -slope_y, np.ones_like(x)], axis=2)
    return normal / np.linalg.norm(normal, axis=2, keepdims=True), np.ones(x.shape, dtype=bool)
