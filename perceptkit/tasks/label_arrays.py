"""Label maps from disk as numpy arrays, whatever may be wrong with the file.

Shapes: H W pixels of the label file.
"""

import io
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from perceptkit.errors import DataError
from perceptkit.pixels import EMPTY, NO_FORMAT, plain_png

SHOWN_VALUES = 5


def read_label_map(path: Path, channels: int = 1) -> np.ndarray:
    """The stored numbers of a picture or a `.npy` file: (H, W), or (H, W, channels) for more than one.

    Palette pictures give their indexes; bytes are in this machine's order.

    Raises:
        DataError: names the file that cannot be read or has another shape.
    """
    return label_map(_load(path), str(path), channels)


def label_map(values: np.ndarray, path: str, channels: int = 1) -> np.ndarray:
    """Numbers that were read from `path` in the shape that `read_label_map` gives.

    Raises DataError where they have another.
    """
    if values.dtype.kind not in "buif":
        raise DataError(f"{path} holds values of type {values.dtype}; expected numbers")
    if channels == 1 and values.ndim == 3 and 1 in (values.shape[0], values.shape[2]):
        values = values.squeeze(0 if values.shape[0] == 1 else 2)
    if values.ndim != (2 if channels == 1 else 3) or (channels > 1 and values.shape[2] != channels):
        expected = "one value" if channels == 1 else f"{channels} values"
        raise DataError(f"{path} has shape {'x'.join(map(str, values.shape))}; expected {expected} per pixel")
    if values.size == 0:
        raise DataError(f"{path} is empty: its shape is {'x'.join(map(str, values.shape))}")
    return values.astype(values.dtype.newbyteorder("="), copy=False)


def shown(values: np.ndarray) -> str:
    """A few of the distinct values, for messages: `41, 42 and 3 more`."""
    distinct = np.unique(values)
    first = ", ".join(f"{value:g}" for value in distinct[:SHOWN_VALUES].tolist())
    more = len(distinct) - SHOWN_VALUES
    return f"{first} and {more} more" if more > 0 else first


def _load(path: Path) -> np.ndarray:
    try:
        if path.suffix.lower() == ".npy":
            loaded = np.load(path, allow_pickle=False)
            if not isinstance(loaded, np.ndarray):
                raise ValueError("an archive of several arrays")
            return loaded
        data = path.read_bytes()
        if (plain := plain_png(data)) is not None:
            return plain
        with Image.open(io.BytesIO(data)) as picture:
            return np.asarray(picture)
    except UnidentifiedImageError as error:
        raise DataError(f"{path} cannot be read: {NO_FORMAT if data else EMPTY}") from error
    except Exception as error:  # damaged headers fail in many ways, inside Pillow and numpy
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DataError(f"{path} cannot be read: {reason}") from error
