"""What the floors and walls of the toy rooms are made of: a mesh and pictures that tile, drawn here.

Shapes: S pixels on a side of a texture. Needs numpy only.
"""

from pathlib import Path

import numpy as np

SURFACE_PX = 128
SHEET_CELLS, SHEET_REPEATS = 8, 4


def write_sheet(path: Path) -> Path:
    """A square of side 2 around the origin, normal up, in cells: short triangles are interpolated best."""
    side = np.linspace(0, 1, SHEET_CELLS + 1)
    lines = [f"v {2 * x - 1:.6f} {2 * y - 1:.6f} 0" for y in side for x in side]
    lines += [f"vt {SHEET_REPEATS * x:.6f} {SHEET_REPEATS * y:.6f}" for y in side for x in side]
    lines.append("vn 0 0 1")
    for row in range(SHEET_CELLS):
        for column in range(SHEET_CELLS):
            a = row * (SHEET_CELLS + 1) + column + 1
            b, c, d = a + 1, a + SHEET_CELLS + 2, a + SHEET_CELLS + 1
            lines += [f"f {i}/{i}/1 {j}/{j}/1 {k}/{k}/1" for i, j, k in ((a, b, c), (a, c, d))]
    path.write_text("\n".join(lines) + "\n")
    return path


def surface(rng: np.random.Generator) -> np.ndarray:
    """A texture that tiles, bytes: plain, checks, stripes, planks or spots in two colours, and grain."""
    y_S1, x_1S = np.mgrid[0:SURFACE_PX, 0:SURFACE_PX]
    kind, count = rng.integers(5), 2 ** int(rng.integers(1, 4))
    x, y = x_1S * count // SURFACE_PX, y_S1 * count // SURFACE_PX
    waves = np.zeros((SURFACE_PX, SURFACE_PX))
    for _ in range(6):  # whole periods only, so that the edges meet
        fx, fy = rng.integers(-6, 7, 2)
        waves += np.sin(2 * np.pi * (fx * x_1S + fy * y_S1) / SURFACE_PX + rng.uniform(0, 6.3))
    patterns = (np.zeros_like(waves), (x + y) % 2, x % 2, y % 2 * 0.3 + (waves > 1) * 0.4, waves > 0.7)
    mix_SS1 = np.asarray(patterns[kind], float)[..., None]
    one_3, other_3 = rng.uniform(90, 255, (2, 3))
    grain_SS1 = rng.normal(0, rng.uniform(0, 10), (SURFACE_PX, SURFACE_PX, 1)) + 5 * waves[..., None]
    return np.clip((1 - mix_SS1) * one_3 + mix_SS1 * other_3 + grain_SS1, 0, 255).astype(np.uint8)
