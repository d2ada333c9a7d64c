"""What is stored inside larger files -> what a user's own files would hold: points, words (maps: packed_arrays.py)."""

import json
import math
from typing import Any

from perceptkit.errors import DataError
from perceptkit.spec.tasks_file import KeypointsSpec, TaskBase


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
    if isinstance(stored, list):
        if not multi_label:
            raise DataError(f"{where} holds {short(stored)}; expected one label, or multi_label: true")
        return tuple(_word(value, where) for value in stored)
    word = _word(stored, where)
    return (word,) if word else None


def _word(value: Any, where: str) -> str:
    if isinstance(value, str):
        return value.strip()
    if isinstance(value, bool):
        return str(int(value))
    if isinstance(value, int | float) and float(value).is_integer():
        return str(int(value))
    raise DataError(f"{where} holds {short(value)}; expected a name, or a whole number")


def _with_whole_kind(point: Any) -> Any:
    is_whole = isinstance(point, list) and len(point) == 3 and isinstance(point[2], float)
    return [*point[:2], int(point[2])] if is_whole and point[2].is_integer() else point


def short(value: Any) -> str:
    """A value in a message."""
    if isinstance(value, bytes):
        return f"{len(value)} bytes"
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
