"""What one label file may hold, by task type. numpy and Pillow only: no torch, no training code.

Shapes: H W pixels of the label file, which may differ from the picture's.
"""

import json
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import ExifTags, Image, UnidentifiedImageError

from perceptkit.errors import DataError
from perceptkit.spec.label_csv import LabelTable
from perceptkit.spec.problems import closest
from perceptkit.spec.tasks_file import (
    ClassificationSpec,
    DepthSpec,
    EdgesSpec,
    KeypointsSpec,
    NormalsSpec,
    ResponseSpec,
    SegmentationSpec,
    TaskBase,
)

SHOWN_VALUES = 3
ON_ITS_SIDE = (5, 6, 7, 8)
"""EXIF orientations that swap height and width."""
UNIT = (0.8, 1.25)
"""Lengths of a normal that is a unit vector up to the rounding of 8 bits and to resizing."""
ODD_NORMALS = 0.05
"""Share of other lengths that is not worth a word: resized edges have some."""
MAX_POINTS = 256
"""Points of all kinds in one picture."""


class Finding(NamedTuple):
    """Something about a file that its owner should know."""

    message: str
    is_problem: bool = True
    """Training would fail or learn something wrong; otherwise it is a warning."""
    is_refused: bool = True
    """Of a problem: training would fail, rather than learn something wrong."""


def read_array(path: Path) -> np.ndarray:
    """The values of a .npy file or a picture, as stored; palette pictures give their indexes.

    Raises DataError where the file is not what its name says.
    """
    try:
        if path.suffix.lower() == ".npy":
            return np.asarray(np.load(path, allow_pickle=False))
        with Image.open(path) as picture:
            return np.asarray(picture)
    except UnidentifiedImageError as error:
        reason = "of no format that Pillow knows" if path.stat().st_size else "the file is empty"
        raise DataError(f"cannot be read: {reason}") from error
    except Exception as error:  # damaged headers fail in many ways, inside Pillow and numpy
        raise DataError(
            f"cannot be read: {str(error).splitlines()[0] if str(error) else 'broken file'}"
        ) from error


def check_picture(path: Path, is_labelled: bool) -> tuple[tuple[int, int], list[Finding]]:
    """Height and width of a picture as training sees it, upright, and what its owner should know.

    Args:
        path: of the picture.
        is_labelled: whether maps or points of labels lie on it.

    Raises DataError where training could not read it.
    """
    values = read_array(path)
    with Image.open(path) as picture:
        mode, turn = picture.mode, picture.getexif().get(ExifTags.Base.Orientation)
    if mode == "F":
        raise DataError("cannot be read: floating-point pixels; 8 and 16 bits are known")
    if mode.startswith("I") and values.size and (values.min() < 0 or values.max() > 65535):
        raise DataError(
            f"cannot be read: grey values of {values.min()} to {values.max()}; 8 and 16 bits are known"
        )
    height, width = values.shape[:2] if turn not in ON_ITS_SIDE else values.shape[1::-1]
    if not is_labelled or turn in (None, 1):
        return (height, width), []
    message = (
        "is turned upright by its EXIF tag; labels are taken as stored: are they made of the upright one?"
    )
    return (height, width), [Finding(message, is_problem=False)]


def check_dense(spec: TaskBase, values: np.ndarray, num_classes: int) -> Iterator[Finding]:
    """Checks one label map as stored, before scaling and decoding."""
    wanted = 3 if isinstance(spec, NormalsSpec) else 2
    if values.ndim == wanted + 1 and 1 in (values.shape[0], values.shape[-1]) and wanted == 2:
        values = values.squeeze(0 if values.shape[0] == 1 else -1)
    if values.ndim != wanted or (wanted == 3 and values.shape[-1] != 3):
        what = "three values (x, y, z) per pixel" if wanted == 3 else "one value per pixel"
        yield Finding(f"has shape {'x'.join(map(str, values.shape))}; expected {what}")
    elif values.size == 0:
        yield Finding(f"is empty: its shape is {'x'.join(map(str, values.shape))}")
    elif values.dtype.kind not in "buif":
        yield Finding(f"holds values of type {values.dtype}; expected numbers")
    elif isinstance(spec, SegmentationSpec):
        yield from _segmentation(spec, values, num_classes)
    elif isinstance(spec, DepthSpec):
        yield from _depth(spec, values)
    elif isinstance(spec, NormalsSpec):
        yield from _normals(spec, values)
    elif isinstance(spec, ResponseSpec) and values.dtype.kind == "f":
        outside = values[(values < 0) | (values > 1)]
        if outside.size:
            yield Finding(f"holds {_some(outside)}; expected numbers from 0 to 1, or NaN for unlabelled")
    elif isinstance(spec, EdgesSpec) and values.dtype.kind == "f":
        outside = values[~((values >= 0) & (values <= 1)) & (values != -1)]
        if outside.size:
            yield Finding(f"holds {_some(outside)}; expected probabilities from 0 to 1, or -1 to ignore")


def check_size(values: np.ndarray, size_HW: tuple[int, ...] | None) -> Iterator[Finding]:
    """Compares the size of a label map with its picture's, where that is known."""
    if size_HW and values.ndim >= 2 and values.shape[:2] != size_HW:
        sizes = [f"{s[1]}x{s[0]}" for s in (values.shape, size_HW)]
        yield Finding(f"is {sizes[0]} pixels, its picture {sizes[1]}; both are resized", is_problem=False)


def _segmentation(spec: SegmentationSpec, values: np.ndarray, num_classes: int) -> Iterator[Finding]:
    if values.dtype.kind == "f":
        yield Finding(f"holds values of type {values.dtype}; expected whole class ids")
        return
    ids, _ = id_counts(values)
    wrong = ids[((ids < 0) | (ids >= num_classes)) & (ids != spec.ignore_index)]
    if wrong.size:
        noun = "class id" if wrong.size == 1 else "class ids"
        declared = f"{num_classes} classes are declared; {spec.ignore_index} is ignored"
        yield Finding(f"holds {noun} {_some(wrong)}; {declared}")
    elif (ids == spec.ignore_index).all():
        yield Finding("has no labelled pixel", is_problem=False)


def id_counts(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The ids of a map of whole numbers, sorted, and how many pixels each has, both int64."""
    if values.dtype == np.uint8 or values.dtype == bool:  # counting is several times as fast as sorting
        counts = np.bincount(values.ravel(), minlength=1)
        (ids,) = counts.nonzero()
        return ids, counts[ids]
    ids, counts = np.unique(values, return_counts=True)
    return ids.astype(np.int64), counts


def percent(share: float) -> str:
    """Two digits, or three of what is nearly all.

    >>> [percent(share) for share in (0.00123, 0.5, 0.996, 1)]
    ['0.12', '50', '99.6', '100']
    """
    return f"{100 * share:.{2 if share < 0.995 else 3}g}"


def _depth(spec: DepthSpec, values: np.ndarray) -> Iterator[Finding]:
    depth = values.astype(np.float64) / spec.scale
    negative = depth[depth < 0]
    if negative.size:
        yield Finding(f"holds negative depth ({_some(negative)} {spec.unit}); 0 means invalid")
        return
    for what, wrong in (("NaN", np.isnan(depth)), ("infinite depth", np.isinf(depth))):
        if wrong.any():
            share = f"{percent(float(wrong.mean()))} % of its pixels"
            yield Finding(f"holds {what} in {share}; they are invalid", is_problem=False)
    valid = depth[np.isfinite(depth) & (depth > 0)]
    if not valid.size:
        yield Finding("has no valid depth", is_problem=False)
    elif spec.max is not None and np.median(valid) > spec.max:
        middle = f"its median is {np.median(valid):.4g} {spec.unit}, above max {spec.max:g}"
        yield Finding(f"is mostly invalid: {middle}; is 'scale' right?", is_problem=False)


def _normals(spec: NormalsSpec, values: np.ndarray) -> Iterator[Finding]:
    if spec.encoding == "raw_u8":
        if values.dtype != np.uint8:
            yield Finding(f"holds values of type {values.dtype}; encoding raw_u8 is for bytes")
        return
    vectors = values.astype(np.float64)
    marked = np.zeros(values.shape[:2], bool)
    if values.dtype.kind in "ui":
        whole = np.iinfo(values.dtype).max
        marked = (values == 0).all(-1) | (values == whole).all(-1)
        vectors = 2 * vectors / whole - 1
    length = np.linalg.norm(vectors, axis=-1)
    valid = ~marked & (length >= 0.5)
    if not valid.any():
        yield Finding("has no valid normal", is_problem=False)
        return
    is_unit = (length[valid] > UNIT[0]) & (length[valid] < UNIT[1])
    if not UNIT[0] < (middle := float(np.median(length[valid]))) < UNIT[1]:
        message = f"holds vectors of median length {middle:.2g}; expected 1 (encoding: {spec.encoding})"
        yield Finding(message, is_refused=False)
    elif (odd := 1 - float(is_unit.mean())) > ODD_NORMALS:
        message = f"{100 * odd:.0f} % of its normals are not of length 1 (encoding: {spec.encoding})"
        yield Finding(message, is_problem=False)
    z = vectors[..., 2][valid] * (1 if spec.frame == "camera" else -1)  # camera axes: z away from the viewer
    if (away := float((z > 0.1).mean())) > 0.5:
        share = f"{100 * away:.0f} % of its normals point away from the viewer"
        yield Finding(f"{share}; is 'frame: {spec.frame}' right?", is_problem=False)


def check_points(spec: KeypointsSpec, points: Any, size_HW: tuple[int, int] | None) -> Iterator[Finding]:
    """Checks one picture's points, `{name: [x, y, v]}` or `[[x, y, kind], ...]`.

    Args:
        spec: says whether points are named.
        points: what the JSON says.
        size_HW: size of their picture; None skips the question whether they lie inside.
    """
    if spec.kinds is None:
        if not isinstance(points, Mapping):
            yield Finding("is not a mapping of names to [x, y, visibility]")
            return
        named = list(points.items())
    else:
        if not isinstance(points, Sequence) or isinstance(points, str):
            yield Finding("is not a list of [x, y, kind]")
            return
        if len(points) > MAX_POINTS:
            yield Finding(f"has {len(points)} points; a picture can have {MAX_POINTS} at most")
        named = [(f"point {i}", point) for i, point in enumerate(points)]
    outside = []
    for name, written in named:
        if spec.kinds is None and spec.names and name not in spec.names:
            match = closest(name, spec.names)
            hint = f"; did you mean '{match}'?" if match else f": {', '.join(spec.names)}"
            yield Finding(f"has a point '{name}', which is not one of names{hint}")
            continue
        if spec.kinds is None and written is None:
            continue  # not labelled
        point = _as_triple(spec, written)
        if point is None:
            expected = "[x, y] or [x, y, visibility]" if spec.kinds is None else "[x, y, kind]"
            yield Finding(f"{name} is {json.dumps(written)[:60]}; expected {expected}")
        elif spec.kinds is None and point[2] not in (0, 1, 2):
            yield Finding(
                f"{name} has visibility {point[2]}; expected 0 (no label), 1 (hidden) or 2 (visible)"
            )
        elif spec.kinds is not None and point[2] not in range(len(spec.kinds)):
            kinds = ", ".join(f"{i} ({kind})" for i, kind in enumerate(spec.kinds))
            yield Finding(f"{name} is of kind {point[2]}; expected one of: {kinds}")
        elif size_HW and (spec.kinds is not None or point[2] == 2) and not _inside(point, size_HW):
            outside.append(f"{name} at {point[0]:g}, {point[1]:g}")
    if outside and size_HW:
        picture = f"outside its picture of {size_HW[1]}x{size_HW[0]} pixels"
        yield Finding(f"has {len(outside)} visible points {picture} ({outside[0]})", is_problem=False)


def check_class(spec: ClassificationSpec, labels: Sequence[str], classes: Sequence[str]) -> Iterator[Finding]:
    """Checks one picture's labels, each a class name or the index of one."""
    for label in labels:
        if label in classes or (label.isdecimal() and int(label) < len(classes)):
            continue
        match = closest(label, classes)
        known = ", ".join(classes[:10]) + (", ..." if len(classes) > 10 else "")
        hint = f"; did you mean '{match}'?" if match else f": {known}"
        yield Finding(f"has the label '{label}', which is not one of the classes{hint}")


def check_ids(table: LabelTable, pictures: Collection[str]) -> Iterator[Finding]:
    """Checks the ids of a split's pictures: one per picture, and most of them more than once."""
    if table.columns:
        yield Finding(f"has {len(table.columns)} columns beside the pictures; expected one, the id")
        return
    count_of = Counter(label for image, (label, *_) in table.labels.items() if image in pictures)
    single = [label for label, count in count_of.items() if count == 1]
    if single:
        noun = f"the id '{single[0]}'" + (f" and {len(single) - 1} more" if len(single) > 1 else "")
        message = (
            f"has one picture only of {noun} of {len(count_of)}; such a picture has no other to be near to"
        )
        yield Finding(message, is_problem=False)


def _as_triple(spec: KeypointsSpec, point: Any) -> Sequence[float] | None:
    """[x, y, visibility or kind] in numbers, as training reads it; None where it is nothing like that."""
    if not isinstance(point, list):
        return None
    if spec.kinds is None and len(point) == 2:
        point = [*point, 2]
    if spec.kinds is not None and len(point) == 3 and point[2] in spec.kinds:
        point = [*point[:2], spec.kinds.index(point[2])]
    numbers = all(isinstance(v, int | float) and not isinstance(v, bool) and np.isfinite(v) for v in point)
    return point if len(point) == 3 and numbers else None


def _inside(point: Sequence[float], size_HW: tuple[int, int]) -> bool:
    return -0.5 <= point[0] <= size_HW[1] - 0.5 and -0.5 <= point[1] <= size_HW[0] - 0.5


def _some(values: np.ndarray) -> str:
    """A few values: `41, 42, 43 and 5 more`."""
    distinct = np.unique(values)
    listed = ", ".join(f"{value:g}" for value in distinct[:SHOWN_VALUES])
    more = distinct.size - SHOWN_VALUES
    return listed + (f" and {more} more" if more > 0 else "")
