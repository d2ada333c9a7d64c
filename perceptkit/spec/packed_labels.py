"""What is stored inside larger files -> what a user's own files would hold: maps of numbers, points, words."""

import io
import json
import math
from typing import Any

import numpy as np
from PIL import Image

from perceptkit.errors import DataError
from perceptkit.spec.tasks_file import KeypointsSpec, TaskBase

_NPY = b"\x93NUMPY"


def as_array(stored: Any, where: str) -> np.ndarray:
    """The values of a .npy file or a picture (bytes), or of nested lists; palette pictures give their indexes.

    Raises DataError that names `where`.
    """
    try:
        if isinstance(stored, bytes):
            if stored.startswith(_NPY):
                return np.asarray(np.load(io.BytesIO(stored), allow_pickle=False))
            with Image.open(io.BytesIO(stored)) as picture:
                return np.asarray(picture)
        if isinstance(stored, list | np.ndarray):
            return np.asarray(stored)
    except Exception as error:  # damaged headers fail in many ways, inside Pillow and numpy
        reason = str(error).splitlines()[0] if str(error) else "broken file"
        raise DataError(f"{where} cannot be read: {reason}") from error
    raise DataError(f"{where} holds {_short(stored)}; expected a picture or an array")


def as_points(stored: Any, spec: KeypointsSpec, where: str) -> Any:
    """`{name: [x, y, v]}` or `[[x, y, kind], ...]`, as parsed JSON has them; JSON in a text is parsed.

    Raises DataError that names `where`.
    """
    if isinstance(stored, str):
        try:
            stored = json.loads(stored)
        except (ValueError, RecursionError) as error:
            raise DataError(f"{where} is not JSON: {error}") from error
    if spec.kinds is not None and isinstance(
        stored, list
    ):  # columns of numbers have one type: kinds are floats there
        return [_with_whole_kind(point) for point in stored]
    return stored


def as_words(stored: Any, spec: TaskBase, where: str) -> tuple[str, ...] | None:
    """One word of a task with one label for each picture, any number of them with `multi_label`; None without a label.

    Raises DataError that names `where`.
    """
    multi_label = getattr(spec, "multi_label", False)
    if stored is None or (isinstance(stored, float) and math.isnan(stored)):
        return None
    if isinstance(stored, str) and multi_label:
        return tuple(part.strip() for part in stored.split("|") if part.strip())
    if isinstance(stored, list | np.ndarray):
        if not multi_label:
            raise DataError(f"{where} holds {_short(stored)}; expected one label, or multi_label: true")
        return tuple(_word(value, where) for value in stored)
    word = _word(stored, where)
    return (word,) if word else None


def _word(value: Any, where: str) -> str:
    if isinstance(value, str):
        return value.strip()
    if isinstance(value, bool | np.bool_):
        return str(int(value))
    if isinstance(value, int | float | np.number) and float(value).is_integer():
        return str(int(value))
    raise DataError(f"{where} holds {_short(value)}; expected a name, or a whole number")


def _with_whole_kind(point: Any) -> Any:
    is_whole = isinstance(point, list) and len(point) == 3 and isinstance(point[2], float)
    return [*point[:2], int(point[2])] if is_whole and point[2].is_integer() else point


def _short(value: Any) -> str:
    if isinstance(value, bytes):
        return f"{len(value)} bytes"
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
