"""Brings the targets of a picture to the network's size; the picture itself goes through pixels.py.

Convention: pixel centres are integers, so a point at x moves to (x + 0.5) * new / old - 0.5.

Shapes: H W pixels of the source, h w of the result; targets as in tasks/.
"""

import numpy as np

from perceptkit.tasks.base import Task


def resize_target(
    task: Task, target: np.ndarray, image_HW: tuple[int, int], size_HW: tuple[int, int]
) -> np.ndarray:
    """A target at `size_HW`.

    Args:
        task: decides how: class ids, depth and normals take the nearest pixel (means of them mean nothing),
            edges the strongest pixel that falls into each new one, points are scaled.
        target: at the label's own size.
        image_HW: size of the picture, which points are measured in.
        size_HW: the wanted size.
    """
    height, width = size_HW
    if task.geometry == "none":
        return target
    if task.geometry == "points":
        scaled = target.copy()
        scaled[:, 0] = (target[:, 0] + 0.5) * (width / image_HW[1]) - 0.5
        scaled[:, 1] = (target[:, 1] + 0.5) * (height / image_HW[0]) - 0.5
        return _keep_padding(task, target, scaled)
    if target.shape[-2:] == (height, width):
        return target
    if task.type == "edges":
        return _strongest(target, size_HW)
    rows, columns = _nearest(target.shape[-2], height), _nearest(target.shape[-1], width)
    return np.ascontiguousarray(target[..., rows[:, None], columns])


def _nearest(old: int, new: int) -> np.ndarray:
    """For each of `new` pixels, which of `old` ones holds its centre."""
    return ((np.arange(new) + 0.5) * (old / new)).astype(int)


def _keep_padding(task: Task, before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """Rows that hold no point stay as they were."""
    named = len(task.labels) == len(before) and getattr(task, "has_names", True)
    empty = before[:, 2] <= 0 if named else ~(before[:, 2] >= 0)
    after[empty] = before[empty]
    return after


def _strongest(edge_1HW: np.ndarray, size_HW: tuple[int, int]) -> np.ndarray:
    """Each new pixel takes the largest value in it: thin edges survive, ignored stays ignored."""
    grown = tuple(max(old, new) for old, new in zip(edge_1HW.shape[1:], size_HW, strict=True))
    rows, columns = (_nearest(old, new) for old, new in zip(edge_1HW.shape[1:], grown, strict=True))
    edge_HW = edge_1HW[0, rows[:, None], columns]
    result = np.full(size_HW, -1.0, dtype=np.float32)
    to_row, to_column = (_nearest(new, old) for old, new in zip(grown, size_HW, strict=True))
    np.maximum.at(result, (to_row[:, None], to_column), edge_HW)
    return result[None]
