"""Keypoint label files: JSON, one file per picture or one for the whole split.

    named points    {"left eye": [x, y, v], "nose": [x, y], "chin": null, ...}
    kinds           [[x, y, kind], ...]         kind: a name or an index

A file for the whole split is a mapping of picture ids to the above. x, y are pixels of the original picture,
the centre of the first pixel being 0; v is 0 not labelled, 1 labelled but not visible, 2 visible (COCO's
convention), and 2 where it is left out. A name that is absent or null is not labelled.
"""

import json
import math
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from perceptkit.errors import DataError
from perceptkit.spec.check_labels import MAX_POINTS


def load_entry(path: Path, image_id: str, per_picture: bool) -> Any:
    """The label of one picture as parsed JSON; None where a file for the whole split has none.

    Raises DataError where the file cannot be read.
    """
    try:
        content = _parse(path, path.stat().st_mtime_ns)
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from error
    if per_picture:
        return content
    if not isinstance(content, dict):
        raise DataError(f"{path} must map picture ids to points; it holds a {type(content).__name__}")
    return content.get(image_id)


@lru_cache(maxsize=16)
def _parse(path: Path, mtime_ns: int) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8-sig"))
    except (ValueError, UnicodeDecodeError) as error:
        raise DataError(f"{path} is not valid JSON: {error}") from error


def named_target(entry: Any, names: list[str], where: str) -> np.ndarray:
    """(N, 3) float32 x, y, v of a parsed label; unlabelled rows are zero. Raises DataError."""
    if not isinstance(entry, dict):
        raise DataError(f'{where}: expected {{"name": [x, y, v], ...}}, found {_short(entry)}')
    unknown = sorted(set(entry) - set(names))
    if unknown:
        raise DataError(f"{where} names {', '.join(unknown)}; the names declared are {', '.join(names)}")
    target = np.zeros((len(names), 3), dtype=np.float32)
    for i, name in enumerate(names):
        point = entry.get(name)
        if point is None:
            continue
        if not _is_numbers(point) or len(point) not in (2, 3):
            raise DataError(
                f"{where}: {name} is {_short(point)}; expected [x, y] or [x, y, v] with finite numbers"
            )
        x, y, v = point if len(point) == 3 else (*point, 2)
        if v not in (0, 1, 2):
            raise DataError(f"{where}: {name} has visibility {v}; 0 not labelled, 1 not visible, 2 visible")
        if v:
            target[i] = x, y, v
    return target


def kinds_target(entry: Any, kinds: list[str], where: str) -> np.ndarray:
    """(MAX_POINTS, 3) float32 x, y, kind of a parsed label; rows left over have kind -1. Raises DataError."""
    if not isinstance(entry, list):
        raise DataError(f"{where}: expected [[x, y, kind], ...], found {_short(entry)}")
    if len(entry) > MAX_POINTS:
        raise DataError(f"{where}: {len(entry)} points; a picture can have {MAX_POINTS} at most")
    target = np.tile(np.array([0, 0, -1], dtype=np.float32), (MAX_POINTS, 1))
    for i, point in enumerate(entry):
        if not isinstance(point, list) or len(point) != 3 or not _is_numbers(point[:2]):
            raise DataError(
                f"{where}: point {i} is {_short(point)}; expected [x, y, kind] with finite numbers"
            )
        x, y, kind = point
        index = kinds.index(kind) if kind in kinds else kind
        if isinstance(index, bool) or not isinstance(index, int | float) or index not in range(len(kinds)):
            declared = ", ".join(f"{k} {name}" for k, name in enumerate(kinds))
            raise DataError(f"{where}: point {i} has kind {_short(kind)}; the kinds declared are {declared}")
        target[i] = x, y, index
    return target


def _is_numbers(values: Any) -> bool:
    return isinstance(values, list) and all(
        isinstance(v, int | float) and not isinstance(v, bool) and math.isfinite(v) for v in values
    )


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else text[:57] + "..."
