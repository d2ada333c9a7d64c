"""Labels of the fixed layouts as `source: folder` would have them: ids from 0, depth, normals, responses.

numpy and Pillow only. Nothing is ever unpickled.

Shapes: H W pixels of the label file.
"""

from pathlib import Path

import numpy as np

from perceptkit.errors import DataError
from perceptkit.spec.check_labels import read_array
from perceptkit.spec.cityscapes import CATEGORIES, OFFICIAL, TRAIN_IDS
from perceptkit.spec.layout_table import layout_of
from perceptkit.spec.taskonomy import FARTHEST, RESPONSES
from perceptkit.spec.tasks_file import LayoutData, SegmentationSpec, TaskBase, TaskonomyData


def read_stored(data: LayoutData, spec: TaskBase, num_classes: int, path: Path) -> np.ndarray:
    """One label, in the values that the task's own files would hold.

    Args:
        data: the data set.
        spec: the task.
        num_classes: of a segmentation.
        path: of the label.

    Raises DataError (without the path) where the file is not what the layout has there.
    """
    values = read_array(path)
    if isinstance(data, TaskonomyData):
        return _taskonomy(spec, values)
    if layout_of(data) is OFFICIAL:
        return _official(spec, num_classes, values)
    if isinstance(spec, SegmentationSpec) and values.dtype.kind == "f":
        return _whole(values)
    return values


def read_picture(path: Path) -> np.ndarray:
    """RGB uint8 (H, W, 3) of a .npy of floats in [0, 1], or of bytes. Raises DataError without the path."""
    values = read_array(path)
    if values.ndim != 3 or values.shape[2] != 3 or values.dtype.kind not in "uif" or not values.size:
        shape = "x".join(map(str, values.shape))
        raise DataError(f"has shape {shape}; expected a picture, height x width x 3 numbers")
    if values.dtype == np.uint8:
        return values
    low, high = float(values.min()), float(values.max())
    if values.dtype.kind != "f" or not (low >= 0 and high <= 1):
        raise DataError(f"holds values from {low:g} to {high:g}; expected floats from 0 to 1, or bytes")
    picture: np.ndarray = np.rint(values * 255).astype(np.uint8)
    return picture


def _whole(values: np.ndarray) -> np.ndarray:
    """Whole numbers that are stored as floats."""
    if not np.isfinite(values).all() or (values != np.rint(values)).any():
        raise DataError("holds fractions; expected whole class ids")
    return values.astype(np.int64)


def _official(spec: TaskBase, num_classes: int, values: np.ndarray) -> np.ndarray:
    if isinstance(spec, SegmentationSpec):
        if values.dtype != np.uint8 or values.ndim != 2:
            raise DataError(f"is no picture of label ids: its values are of type {values.dtype}")
        class_of = np.full(256, spec.ignore_index, np.int64)
        for label, class_id in TRAIN_IDS.items():
            class_of[label] = class_id if num_classes == len(TRAIN_IDS) else CATEGORIES[class_id]
        ids: np.ndarray = class_of[values]
        return ids
    _of_16_bits(values)
    return np.where(values > 0, (values.astype(np.float32) - 1) / 256, 0)


def _taskonomy(spec: TaskBase, values: np.ndarray) -> np.ndarray:
    if isinstance(spec, SegmentationSpec):
        return np.maximum(values.astype(np.int64), 1) - 1
    if spec.type == "depth":  # type: ignore[attr-defined]
        _of_16_bits(values)
        depth = np.log1p(values.astype(np.float64)) / np.log(2**16)
        return np.where(values < FARTHEST, depth, 0).astype(np.float32)
    if spec.type == "response":  # type: ignore[attr-defined]
        _of_16_bits(values)
        return np.minimum(values / 2**16 / RESPONSES[str(spec.target)], 1).astype(np.float32)
    return values


def _of_16_bits(values: np.ndarray) -> None:
    """Raises DataError for a picture of 8 bits where 16 carry the meaning."""
    if values.ndim != 2 or values.dtype.kind not in "ui" or values.dtype.itemsize < 2:
        shape = "x".join(map(str, values.shape))
        raise DataError(
            f"has shape {shape} and values of type {values.dtype}; expected a 16-bit grey picture"
        )
