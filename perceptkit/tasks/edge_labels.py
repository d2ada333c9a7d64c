"""Edge maps from files, and edge maps derived from the labels of other tasks.

A pixel is a derived edge when, towards its right or its lower neighbour,

    segmentation   the class changes,
    depth          the depth jumps by more than 10 % of the nearer one, and more than a plane seen at this slant
                   would (the edge is put on the nearer side),
    normals        the surface turns by more than 30 degrees.

Ignored and invalid pixels make no edges.
"""

import math
from pathlib import Path

import numpy as np

from perceptkit.errors import DataError
from perceptkit.pixels import take_strongest
from perceptkit.tasks.label_arrays import label_map, read_label_map, shown

IGNORED = -1.0
DEPTH_JUMP = 0.1
TURN_DEG = 30.0


def read_edge_map(path: Path) -> np.ndarray:
    """(1, H, W) float32 in [0, 1], -1 = ignored, from a grey picture or a .npy.

    Whole numbers are divided by 255 (8 bits) or 65535 (16 bits), unless none is above 1: that is a mask.
    Floats are taken as they are; -1 and NaN among them are ignored pixels. Raises DataError.
    """
    return edge_map(read_label_map(path), str(path))


def edge_map(values: np.ndarray, path: str, size_HW: tuple[int, int] | None = None) -> np.ndarray:
    """As `read_edge_map`, of numbers that were read from `path`; those of pictures at `size_HW`. Raises DataError."""
    stored = label_map(values, path)
    if stored.dtype.kind == "u":
        largest = stored.max()
        if size_HW is not None and largest <= 65535:
            stored = take_strongest(stored, size_HW)  # dividing keeps the order: fewer are divided
    values = stored.astype(np.float32)
    if stored.dtype.kind == "u":
        if 1 < largest <= 65535:
            values /= 255 if largest <= 255 else 65535
        if largest <= 65535:
            return values[None]
    values = np.nan_to_num(values, nan=IGNORED)
    if stored.dtype.kind in "ui" and stored.max() > 1:
        values[values > 0] /= 255 if stored.max() <= 255 else 65535
    wrong = values[((values < 0) | (values > 1)) & (values != IGNORED)]
    if len(wrong):
        raise DataError(f"{path} holds {shown(wrong)}; edge labels are in [0, 1], or -1 for ignored pixels")
    return values[None]


def class_edges(target_HW: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Edge pixels and known pixels, both (H, W) bool, of a segmentation target (-1 = ignored)."""
    known = target_HW >= 0
    edge = np.zeros(target_HW.shape, dtype=bool)
    for here, there in _NEIGHBOURS:
        edge[here] |= (target_HW[here] != target_HW[there]) & known[here] & known[there]
    return edge, known


def depth_edges(target_1HW: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Edge pixels and known pixels, both (H, W) bool, of a depth target (0 = invalid).

    On a plane 1 / depth is linear in the pixels, however slanted it is. A jump that continues the slope of 1 / depth
    on either side is therefore part of a surface: walls seen at a grazing angle would be all edge otherwise.
    """
    depth = target_1HW[0]
    known = depth > 0
    edge = np.zeros(depth.shape, dtype=bool)
    inverse = np.where(known, 1 / np.where(known, depth, 1), np.nan)
    for axis, (here, there) in zip((1, 0), _NEIGHBOURS, strict=True):
        nearer = np.minimum(depth[here], depth[there])
        jump = known[here] & known[there] & (np.abs(depth[here] - depth[there]) > DEPTH_JUMP * nearer)
        step = np.diff(inverse, axis=axis)
        # the same step one pixel before and after; NaN beyond the border and beside invalid pixels
        beyond = [(1, 1) if i == axis else (0, 0) for i in range(2)]
        inner = np.pad(step, beyond, constant_values=np.nan)
        n = step.shape[axis]
        around = (np.take(inner, range(n), axis=axis), np.take(inner, range(2, n + 2), axis=axis))
        jump &= ~np.logical_or(*(np.abs(step - other) < 0.5 * np.abs(step) for other in around))
        edge[here] |= jump & (depth[here] == nearer)
        edge[there] |= jump & (depth[there] == nearer)
    return edge, known


def normal_edges(target_3HW: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Edge pixels and known pixels, both (H, W) bool, of a normals target (zero vector = invalid)."""
    known = (target_3HW != 0).any(axis=0)
    edge = np.zeros(known.shape, dtype=bool)
    for here, there in _NEIGHBOURS:
        cosine = (target_3HW[(slice(None), *here)] * target_3HW[(slice(None), *there)]).sum(axis=0)
        edge[here] |= known[here] & known[there] & (cosine < math.cos(math.radians(TURN_DEG)))
    return edge, known


# a pixel and its right neighbour, a pixel and its lower neighbour
_NEIGHBOURS = (
    ((slice(None), slice(None, -1)), (slice(None), slice(1, None))),
    ((slice(None, -1), slice(None)), (slice(1, None), slice(None))),
)

DERIVE = {"segmentation": class_edges, "depth": depth_edges, "normals": normal_edges}
"""The rule by task type."""
