"""Ten procedural textures that differ in colour and pattern: stripes, checks, dots, weave, noise and the like."""

from collections.abc import Callable

import numpy as np

Pattern = Callable[[np.ndarray, np.ndarray, np.random.Generator], np.ndarray]


def _stripes(angle: float, width: float) -> Pattern:
    def pattern(y: np.ndarray, x: np.ndarray, draw: np.random.Generator) -> np.ndarray:
        along = np.cos(angle) * x + np.sin(angle) * y + draw.uniform(0, 2 * width)
        return np.asarray((along % (2 * width)) < width, dtype=np.float64)

    return pattern


def _checks(width: float) -> Pattern:
    def pattern(y: np.ndarray, x: np.ndarray, draw: np.random.Generator) -> np.ndarray:
        left, top = draw.uniform(0, 2 * width, 2)
        return np.asarray((((x + left) // width + (y + top) // width) % 2), dtype=np.float64)

    return pattern


def _dots(gap: float, radius: float) -> Pattern:
    def pattern(y: np.ndarray, x: np.ndarray, draw: np.random.Generator) -> np.ndarray:
        left, top = draw.uniform(0, gap, 2)
        away = np.hypot((x + left) % gap - gap / 2, (y + top) % gap - gap / 2)
        return np.asarray(away < radius, dtype=np.float64)

    return pattern


def _rings(width: float) -> Pattern:
    def pattern(y: np.ndarray, x: np.ndarray, draw: np.random.Generator) -> np.ndarray:
        centre = draw.uniform(-10, 10, 2)
        return np.asarray((np.hypot(x - centre[0], y - centre[1]) % (2 * width)) < width, dtype=np.float64)

    return pattern


def _noise(cell: int) -> Pattern:
    def pattern(y: np.ndarray, x: np.ndarray, draw: np.random.Generator) -> np.ndarray:
        height, width = -(-x.shape[0] // cell), -(-x.shape[1] // cell)
        return np.kron(draw.random((height, width)), np.ones((cell, cell)))[: x.shape[0], : x.shape[1]]

    return pattern


def _weave(width: float) -> Pattern:
    def pattern(y: np.ndarray, x: np.ndarray, draw: np.random.Generator) -> np.ndarray:
        left, top = draw.uniform(0, 8, 2)
        return np.asarray((np.sin((x + left) / width) * np.sin((y + top) / width) + 1) / 2)

    return pattern


TEXTURES: tuple[tuple[Pattern, tuple[int, int, int], tuple[int, int, int]], ...] = (
    (_weave(1.2), (0, 90, 90), (90, 210, 200)),
    (_dots(7, 2.6), (235, 140, 170), (140, 20, 60)),
    (_noise(2), (225, 205, 160), (170, 145, 100)),
    (_stripes(0.0, 2), (190, 20, 20), (110, 0, 0)),
    (_checks(4), (20, 20, 20), (245, 245, 245)),
    (_noise(4), (120, 120, 120), (190, 190, 190)),
    (_rings(2.5), (90, 20, 130), (200, 140, 230)),
    (_stripes(0.9, 1.5), (20, 110, 20), (120, 210, 60)),
    (_stripes(np.pi / 2, 3), (60, 60, 180), (200, 200, 250)),
    (_dots(5, 1.5), (240, 220, 120), (200, 120, 10)),
)
"""A pattern, and the colours of its lows and highs (0…255)."""


def texture(number: int, size: int, draw: np.random.Generator) -> np.ndarray:
    """An image uint8 `[size, size, 3]` of a texture, at a random place of its pattern."""
    pattern, low, high = TEXTURES[number]
    y, x = np.mgrid[0:size, 0:size].astype(np.float64)
    share = pattern(y, x, draw)[..., None]
    return np.asarray((np.array(low) * (1 - share) + np.array(high) * share).round().astype(np.uint8))
