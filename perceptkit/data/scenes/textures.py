"""Two-colour patterns on surfaces, in metres.

A pattern maps surface coordinates to the share of the second colour. Far away, where a period is smaller
than two pixels, it fades to its mean instead of flickering.

Shapes: R rays; 2 = (u, v) in periods.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Material:
    """What a surface is made of."""

    pattern: str
    first_3: np.ndarray
    """Linear RGB."""
    second_3: np.ndarray
    period_m: float
    heat: float
    """Temperature in [0, 1] for the thermal style; says nothing about the class."""


def albedo(material: Material, uv_m_R2: np.ndarray, pixel_m_R: np.ndarray) -> np.ndarray:
    """(3, R) linear RGB.

    Args:
        material: two colours and their pattern.
        uv_m_R2: surface coordinates in metres.
        pixel_m_R: size of a pixel on the surface.
    """
    if material.pattern == "plain":
        return np.broadcast_to(material.first_3[:, None], (3, len(uv_m_R2)))
    draw, mean = PATTERNS[material.pattern]
    share = draw(uv_m_R2 / material.period_m)
    sharp = np.clip(material.period_m / (2 * pixel_m_R) - 0.5, 0, 1)
    share = mean + (share - mean) * sharp
    mixed: np.ndarray = material.first_3[:, None] + share * (material.second_3 - material.first_3)[:, None]
    return mixed


def checker(uv_R2: np.ndarray) -> np.ndarray:
    """Squares of half a period."""
    return np.floor(2 * uv_R2).sum(1) % 2


def stripes(uv_R2: np.ndarray) -> np.ndarray:
    """Vertical on walls."""
    return (uv_R2[:, 0] % 1 > 0.5).astype(float)


def bands(uv_R2: np.ndarray) -> np.ndarray:
    """Horizontal on walls."""
    return (uv_R2[:, 1] % 1 > 0.5).astype(float)


def bricks(uv_R2: np.ndarray) -> np.ndarray:
    """Rows of half a period, shifted by turns, with joints; every brick has its own shade."""
    row = np.floor(2 * uv_R2[:, 1])
    along = uv_R2[:, 0] + 0.5 * (row % 2)
    joint = (2 * uv_R2[:, 1] % 1 < 0.14) | (along % 1 < 0.07)
    return np.where(joint, 1.0, 0.6 * lattice(np.floor(along), row))


def planks(uv_R2: np.ndarray) -> np.ndarray:
    """Long boards of a third of a period, each with its own shade."""
    board = np.floor(3 * uv_R2[:, 0])
    along = np.floor(uv_R2[:, 1] / 3 + lattice(board, np.zeros_like(board)))
    gap = 3 * uv_R2[:, 0] % 1 < 0.08
    return np.where(gap, 1.0, 0.75 * lattice(board, along))


def tiles(uv_R2: np.ndarray) -> np.ndarray:
    """Squares with joints."""
    joint = ((uv_R2 % 1) < 0.08).any(1)
    return np.where(joint, 1.0, 0.15 * lattice(*np.floor(uv_R2).T))


def dots(uv_R2: np.ndarray) -> np.ndarray:
    """Discs on a square grid."""
    return (((uv_R2 % 1 - 0.5) ** 2).sum(1) < 0.09).astype(float)


def noise(uv_R2: np.ndarray) -> np.ndarray:
    """Smooth blotches, with some finer ones."""
    return 0.65 * value_noise(2 * uv_R2) + 0.35 * value_noise(5 * uv_R2)


def value_noise(uv_R2: np.ndarray) -> np.ndarray:
    """Random values on the integer lattice, smoothly interpolated."""
    u, v = uv_R2.T
    u0, v0 = np.floor(u), np.floor(v)
    fu, fv = u - u0, v - v0
    fu, fv = fu * fu * (3 - 2 * fu), fv * fv * (3 - 2 * fv)
    low = lattice(u0, v0) * (1 - fu) + lattice(u0 + 1, v0) * fu
    high = lattice(u0, v0 + 1) * (1 - fu) + lattice(u0 + 1, v0 + 1) * fu
    return low * (1 - fv) + high * fv


def lattice(i: np.ndarray, j: np.ndarray) -> np.ndarray:
    """A fixed pseudo-random value in [0, 1) for every pair of integers."""
    with np.errstate(over="ignore"):
        h = i.astype(np.int64).astype(np.uint32) * np.uint32(0x9E3779B1)
        h ^= j.astype(np.int64).astype(np.uint32) * np.uint32(0x85EBCA77)
        h = (h ^ (h >> np.uint32(15))) * np.uint32(0x2C1B3C6D)
        h ^= h >> np.uint32(12)
    return h / 2.0**32


PATTERNS: dict[str, tuple[Callable[[np.ndarray], np.ndarray], float]] = {
    "checker": (checker, 0.5),
    "stripes": (stripes, 0.5),
    "bands": (bands, 0.5),
    "bricks": (bricks, 0.4),
    "planks": (planks, 0.4),
    "tiles": (tiles, 0.2),
    "dots": (dots, 0.28),
    "noise": (noise, 0.5),
}
"""Patterns by name, each with its mean."""
