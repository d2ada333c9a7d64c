"""Masks as COCO stores them: polygons, run lengths, and run lengths as text. numpy only.

    polygons       [[x1, y1, x2, y2, ...], ...]        parts of one object; x, y from the picture's upper left corner
    run lengths    {"size": [H, W], "counts": [7, 2, ...]}     column by column; pixels outside and inside in turn
    as text        {"size": [H, W], "counts": "061M..."}       six bits a character, see `counts_of_text`

A pixel is inside a polygon where its centre is (in row y, column x: at x + 1/2, y + 1/2), by the even-odd rule. The
COCO API draws outlines at five times the size instead; the two differ in pixels of the outline.

Format: https://cocodataset.org/#format-data and cocodataset/cocoapi, common/maskApi.c.

Shapes: H W pixels, P corners.
"""

from collections.abc import Sequence

import numpy as np


def polygon_mask(corners_P2: np.ndarray, size_HW: tuple[int, int]) -> np.ndarray:
    """(H, W) bool: pixels whose centre is inside; what lies outside the picture is cut off.

    >>> polygon_mask(np.array([[1, 0], [3, 0], [3, 1], [1, 1]]), (2, 4)).astype(int).tolist()
    [[0, 1, 1, 0], [0, 0, 0, 0]]
    """
    height, width = size_HW
    start, end = corners_P2.astype(np.float64), np.roll(corners_P2, -1, axis=0).astype(np.float64)
    down = start[:, 1] <= end[:, 1]
    upper, lower = np.where(down[:, None], start, end), np.where(down[:, None], end, start)
    # rows whose centre an edge crosses: those from ceil(upper - 1/2) on, before ceil(lower - 1/2)
    first, last = (np.ceil(y - 0.5).clip(0, height).astype(int) for y in (upper[:, 1], lower[:, 1]))
    crossed = last - first
    edge = np.repeat(np.arange(len(start)), crossed)
    row = np.arange(len(edge)) - np.repeat(np.cumsum(crossed) - crossed, crossed) + first[edge]
    slope = (lower - upper)[edge, 0] / (lower - upper)[edge, 1]
    x = upper[edge, 0] + (row + 0.5 - upper[edge, 1]) * slope
    # the parity of a row changes for all pixels whose centre is right of the crossing
    column = np.ceil(x - 0.5).clip(0, width).astype(int)
    inside = np.zeros(size_HW, bool)
    if row.size:  # only the box of the polygon is worked on: most are small
        top, left, bottom, right = row.min(), column.min(), row.max() + 1, column.max() + 1
        changes = np.zeros((bottom - top, right - left), np.uint8)
        np.add.at(changes, (row - top, column - left), 1)  # wraps at 256, which keeps the parity
        parity = np.bitwise_xor.accumulate(changes & 1, axis=1)
        inside[top:bottom, left:right] = parity[:, : width - left] == 1
    return inside


def runs_mask(counts: Sequence[int], size_HW: tuple[int, int]) -> np.ndarray:
    """(H, W) bool of run lengths. Raises ValueError where they are not those of H * W pixels.

    >>> runs_mask([1, 2, 3], (2, 3)).astype(int).tolist()
    [[0, 1, 0], [1, 0, 0]]
    """
    runs = np.asarray(counts, np.int64)
    if (runs < 0).any():
        raise ValueError("a run length is negative")
    if runs.sum() != size_HW[0] * size_HW[1]:
        raise ValueError(f"its run lengths add up to {runs.sum()}, not to {size_HW[0]} x {size_HW[1]} pixels")
    return np.repeat(np.arange(len(runs)) % 2 == 1, runs).reshape(size_HW[1], size_HW[0]).T


def counts_of_text(text: str) -> list[int]:
    """The run lengths of a text.

    A character holds c - 48 = 32 m + 16 s + ...: five bits of a number, the lowest first, m says that more follow, and
    s of the last one is the sign. From the fourth number on it is the difference to the last but one.

    Raises ValueError where the text is none.

    >>> counts_of_text("061M")
    [0, 6, 1, 3]
    """
    counts: list[int] = []
    value, bits = 0, 0
    for character in text:
        code = ord(character) - 48
        if not 0 <= code < 64:
            raise ValueError(f"its run lengths hold the character {character!r}")
        value |= (code & 31) << bits
        bits += 5
        if code & 32:
            if bits > 60:
                raise ValueError("its run lengths are cut off")
            continue
        if code & 16:
            value -= 1 << bits
        counts.append(value + (counts[-2] if len(counts) > 2 else 0))
        value, bits = 0, 0
    if bits:
        raise ValueError("its run lengths are cut off")
    return counts
