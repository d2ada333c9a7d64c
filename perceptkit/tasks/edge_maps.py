"""Thin edges out of thick ones: non-maximum suppression and morphological thinning in numpy.

Both work on a whole stack of maps at once, because the benchmark looks at every picture at many thresholds.

Thinning is the parallel algorithm of Guo and Hall, *Parallel thinning with two-subiteration algorithms*,
CACM 1989 (algorithm A1), written as one lookup table per sub-iteration. With the eight neighbours numbered
counter-clockwise from the right, x1 = right, x2 = up-right, x3 = up, ... x8 = down-right, a pixel goes when

    exactly one run of the form "off, then on" is met going round it (it joins nothing),
    2 <= min(N1, N2) <= 3 (it is neither the end of a line nor inside),
    sub-iteration 1: (x2 or x3 or not x8) and x1 is false;  2: (x6 or x7 or not x4) and x5 is false.

Shapes: ... any leading dimensions, H W pixels.
"""

import numpy as np

THIN_STEPS = 3
"""A line up to twice this many pixels wide becomes one pixel wide; what is thicker is a region."""

SMOOTHINGS = 4
"""The direction of an edge is read off a map blurred to sigma = sqrt(4 / 2) px: the pixels beside a line then
bend down across it too, as the line itself does."""

SLOPE = 0.25
"""Weight of the slope against the bend when the direction across an edge is chosen."""

# (dy, dx) of x1..x8
_NEIGHBOURS = ((0, 1), (-1, 1), (-1, 0), (-1, -1), (0, -1), (1, -1), (1, 0), (1, 1))


def _shifted(maps: np.ndarray, dy: int, dx: int, fill: float) -> np.ndarray:
    """out[..., y, x] = maps[..., y + dy, x + dx], `fill` outside."""
    H, W = maps.shape[-2:]
    out = np.full_like(maps, fill)
    rows, columns = slice(max(0, -dy), H - max(0, dy)), slice(max(0, -dx), W - max(0, dx))
    out[..., rows, columns] = maps[..., max(0, dy) : H - max(0, -dy), max(0, dx) : W - max(0, -dx)]
    return out


def _keeps(second: bool) -> np.ndarray:
    """(256,) 0 or 1: whether a pixel with these neighbours (bit i is x(i+1)) outlives this sub-iteration."""
    table = np.ones(256, dtype=np.uint8)
    for code in range(256):
        x1, x2, x3, x4, x5, x6, x7, x8 = (bool(code >> i & 1) for i in range(8))
        pairs = ((x1, x2, x3), (x3, x4, x5), (x5, x6, x7), (x7, x8, x1))
        crossings = sum((not a) and (b or c) for a, b, c in pairs)
        n1 = sum((x1 or x8, x2 or x3, x4 or x5, x6 or x7))
        n2 = sum((x1 or x2, x3 or x4, x5 or x6, x7 or x8))
        side = (x6 or x7 or not x4) and x5 if second else (x2 or x3 or not x8) and x1
        table[code] = not (crossings == 1 and 2 <= min(n1, n2) <= 3 and not side)
    return table


_KEEPS = (_keeps(second=False), _keeps(second=True))


def thin(masks: np.ndarray, steps: int = THIN_STEPS) -> np.ndarray:
    """Peels the masks from outside until lines are one pixel wide; connected parts stay connected.

    Args:
        masks: (..., H, W) bool.
        steps: Largest number of layers to peel from each side.
    """
    *lead, H, W = masks.shape
    # one flat buffer with a border of zeros round every map: a neighbour is then the same buffer, shifted
    width = W + 2
    size, margin = int(np.prod(lead, dtype=int)) * (H + 2) * width, width + 1
    buffer = np.zeros(size + 2 * margin, dtype=np.uint8)
    on = buffer[margin : margin + size]
    inside = on.reshape(*lead, H + 2, width)[..., 1:-1, 1:-1]
    inside[...] = masks
    remaining = np.count_nonzero(on)
    for _ in range(steps):
        for keeps in _KEEPS:
            code = np.zeros(size, dtype=np.uint8)
            for i, (dy, dx) in enumerate(_NEIGHBOURS):
                start = margin + dy * width + dx
                code |= buffer[start : start + size] << i
            on &= keeps.take(code)
        before, remaining = remaining, np.count_nonzero(on)
        if remaining == before:
            break
    return inside.astype(bool)


def _smooth(maps: np.ndarray) -> np.ndarray:
    """SMOOTHINGS times the binomial 1-2-1 filter along both axes, borders replicated."""
    H, W = maps.shape[-2:]
    for _ in range(SMOOTHINGS):
        padded = np.pad(maps, [(0, 0)] * (maps.ndim - 2) + [(1, 1), (1, 1)], mode="edge")
        rows = padded[..., :H, :] + 2 * padded[..., 1 : H + 1, :] + padded[..., 2:, :]
        maps = (rows[..., :W] + 2 * rows[..., 1 : W + 1] + rows[..., 2:]) / 16
    return maps


def ridges(maps: np.ndarray) -> np.ndarray:
    """Non-maximum suppression: True where a value is not below its two neighbours across the edge.

    The direction across is the one of four in which the smoothed map bends down or falls off most: a pixel on
    an even slope has no bend, and must not pass for a ridge. Where the map is flat nothing is suppressed;
    plateaus are left to `thin`.

    Args:
        maps: (..., H, W) floats in any monotone scale; logits do not saturate as probabilities do.
    """
    smooth = _smooth(maps.astype(np.float32))
    across = ((0, 1), (1, 1), (1, 0), (1, -1))
    best = np.full(maps.shape, np.inf, dtype=np.float32)
    keep = np.zeros(maps.shape, dtype=bool)
    for dy, dx in across:
        ahead, behind = _shifted(smooth, dy, dx, np.nan), _shifted(smooth, -dy, -dx, np.nan)
        bend = (ahead + behind - 2 * smooth) / (dy * dy + dx * dx)
        slope = np.abs(ahead - behind) / (2 * np.hypot(dy, dx))
        # beyond the border there is no value: such a direction is taken only where no other one falls
        fall = np.nan_to_num(bend - SLOPE * slope, nan=0.0)
        peak = (maps >= _shifted(maps, dy, dx, -np.inf)) & (maps >= _shifted(maps, -dy, -dx, -np.inf))
        steeper = fall < best
        keep = np.where(steeper, peak, keep)
        best = np.where(steeper, fall, best)
    return keep
