"""Brings the targets of a picture to the network's size; the picture itself goes through pixels.py.

Convention: pixel centres are integers, so a point at x moves to (x + 0.5) * new / old - 0.5.

Shapes: H W pixels of the source, h w of the result; targets as in tasks/.
"""

import numpy as np

from perceptkit.pixels import take_nearest, take_strongest
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
        return take_strongest(target[0], size_HW)[None]
    return np.ascontiguousarray(take_nearest(target, size_HW, target.ndim - 2))


def _keep_padding(task: Task, before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """Rows that hold no point stay as they were."""
    named = len(task.labels) == len(before) and getattr(task, "has_names", True)
    empty = before[:, 2] <= 0 if named else ~(before[:, 2] >= 0)
    after[empty] = before[empty]
    return after
