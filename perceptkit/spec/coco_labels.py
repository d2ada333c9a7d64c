"""Labels of one picture from COCO's annotations, in the form that a user's own label files would have. No torch.

**Segmentation.** Where objects overlap, the smaller one (by pixels) is on top. Pixels of a crowd (`iscrowd: 1`) are not
labelled, except where an object of its own lies on it. An object of a category that is not declared hides what is below
it and is background. Pixels of no object are background too; in a panoptic picture they are not labelled.

**Keypoints.** v = 0 is no label. `kinds` has the points of all persons, from the largest on as far as MAX_POINTS
go; `names` those of the largest person that has any. Crowds and persons without points give none. A picture
without persons has the label that it has no points of `kinds`, and none of `names`.

Shapes: H W pixels, as the annotation file says.
"""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from perceptkit.errors import DataError
from perceptkit.spec.check_labels import MAX_POINTS, read_array
from perceptkit.spec.coco_file import BACKGROUND, CocoFile, CocoImage
from perceptkit.spec.coco_masks import counts_of_text, polygon_mask, runs_mask
from perceptkit.spec.tasks_file import KeypointsSpec
from perceptkit.spec.templates import shown

UNLABELLED = -1


def class_ids(file: CocoFile, image: CocoImage, classes: Sequence[str]) -> np.ndarray:
    """(H, W) int64 of a picture: the index of each pixel's class, -1 = unlabelled.

    Raises DataError that names the file and the annotation.
    """
    index = {name: i for i, name in enumerate(classes)}
    background = index.get(BACKGROUND, UNLABELLED)
    class_of = {number: index.get(name, background) for number, name in file.categories.items()}
    of_image = file.annotations.get(image.id, [])
    if file.is_panoptic:
        return _panoptic_ids(file, image, of_image, class_of)
    ids = np.full(image.size_HW, background, np.int64)
    objects = []
    for annotation in of_image:
        mask = object_mask(file, image, annotation)
        if annotation.get("iscrowd"):
            ids[mask] = UNLABELLED
        else:
            objects.append((int(mask.sum()), mask, class_of[annotation["category_id"]]))
    for _, mask, of_object in sorted(objects, key=lambda found: -found[0]):
        ids[mask] = of_object
    return ids


def object_mask(file: CocoFile, image: CocoImage, annotation: Mapping[str, Any]) -> np.ndarray:
    """(H, W) bool of one annotation's `segmentation`. Raises DataError that names the file and the annotation."""
    where = f"{shown(file.path)}: annotation {annotation.get('id')} of {image.file_name}"
    written = annotation.get("segmentation")
    if isinstance(written, list):
        mask = np.zeros(image.size_HW, bool)
        for part in written:
            if not _is_numbers(part) or len(part) < 6 or len(part) % 2:
                raise DataError(
                    f"{where} has a polygon that is no [x, y, x, y, x, y, ...] of three points or more"
                )
            mask |= polygon_mask(np.array(part, np.float64).reshape(-1, 2), image.size_HW)
        return mask
    if not isinstance(written, dict) or not {"size", "counts"} <= set(written):
        raise DataError(f"{where} has no 'segmentation' that is polygons or run lengths (size and counts)")
    if written["size"] != list(image.size_HW):
        told = "x".join(map(str, image.size_HW))
        raise DataError(
            f"{where} has run lengths of size {written['size']}; its image is {told} (height x width)"
        )
    counts = written["counts"]
    try:
        counts = counts_of_text(counts) if isinstance(counts, str) else counts
        if not _is_numbers(counts):
            raise ValueError("its run lengths are neither numbers nor text")
        return runs_mask(counts, image.size_HW)
    except ValueError as error:
        raise DataError(f"{where}: {error}") from error


def panoptic_picture(file: CocoFile, annotation: Mapping[str, Any]) -> Path:
    """Where the segments of a panoptic annotation are drawn."""
    return file.path.with_suffix("") / str(annotation["file_name"])


def _panoptic_ids(
    file: CocoFile, image: CocoImage, of_image: Sequence[Mapping[str, Any]], class_of: Mapping[int, int]
) -> np.ndarray:
    if not of_image:
        return np.full(image.size_HW, UNLABELLED, np.int64)
    path = panoptic_picture(file, of_image[0])
    try:
        values = read_array(path)
    except DataError as error:
        raise DataError(f"{shown(path)} {error}") from error
    if values.dtype != np.uint8 or values.ndim != 3 or values.shape[2] < 3:
        shape = "x".join(map(str, values.shape))
        raise DataError(f"{shown(path)} has shape {shape}; expected a colour picture of segment ids")
    red, green, blue = (values[..., i].astype(np.int64) for i in range(3))
    present, inverse = np.unique(red + 256 * green + 65536 * blue, return_inverse=True)
    of_segment = {0: UNLABELLED}
    for segment in of_image[0]["segments_info"]:
        of_segment[segment["id"]] = UNLABELLED if segment.get("iscrowd") else class_of[segment["category_id"]]
    strangers = [number for number in present.tolist() if number not in of_segment]
    if strangers:
        raise DataError(
            f"{shown(path)} holds the segment {strangers[0]}, which {shown(file.path)} does not list"
        )
    ids: np.ndarray = np.array([of_segment[number] for number in present.tolist()])[inverse]
    return ids.reshape(values.shape[:2])


def points_entry(spec: KeypointsSpec, file: CocoFile, image: CocoImage, occluded: str) -> Any:
    """The points of a picture: `{name: [x, y, v]}` of `names`, `[[x, y, kind], ...]` of `kinds`.

    Args:
        spec: has either.
        file: with keypoints.
        image: one of its images.
        occluded: `count` or `hide`, see CocoData.

    Raises DataError that names the file and the annotation.
    """
    wanted = set(spec.kinds or spec.names or ())
    persons: list[tuple[float, dict[str, list[float]]]] = []
    for annotation in file.annotations.get(image.id, []):
        if annotation.get("iscrowd") or annotation["category_id"] not in file.points:
            continue
        points = {
            name: xyv for name, xyv in _points(file, image, annotation).items() if name in wanted and xyv[2]
        }
        if points:
            persons.append((_area(annotation, points), points))
    persons.sort(key=lambda person: -person[0])
    if spec.kinds is None:
        largest = persons[0][1] if persons else {}
        return {name: [x, y, 2 if occluded == "count" else v] for name, (x, y, v) in largest.items()}
    found: list[list[Any]] = []
    for _, points in persons:
        of_person = [[x, y, name] for name, (x, y, v) in points.items() if v == 2 or occluded == "count"]
        if len(found) + len(of_person) > MAX_POINTS:
            break
        found += of_person
    return found


def _points(file: CocoFile, image: CocoImage, annotation: Mapping[str, Any]) -> dict[str, list[float]]:
    """Name -> [x, y, v] of one person."""
    names = file.points[annotation["category_id"]]
    written = annotation.get("keypoints") or [0] * (3 * len(names))
    where = f"{shown(file.path)}: annotation {annotation.get('id')} of {image.file_name}"
    if not _is_numbers(written) or len(written) != 3 * len(names):
        raise DataError(f"{where} has keypoints that are no [x, y, v, ...] of {len(names)} points")
    points = {name: written[3 * i : 3 * i + 3] for i, name in enumerate(names)}
    for name, (_, _, v) in points.items():
        if v not in (0, 1, 2):
            raise DataError(f"{where}: {name} has visibility {v}; 0 is no label, 1 occluded, 2 visible")
    return points


def _area(annotation: Mapping[str, Any], points: Mapping[str, Sequence[float]]) -> float:
    """Of a person: as written, or else that of its box or of the box of its points."""
    if _is_numbers([area := annotation.get("area")]):
        return float(area)  # type: ignore[arg-type]  # a number
    box = annotation.get("bbox")
    if _is_numbers(box) and len(box) == 4:  # type: ignore[arg-type]  # a list
        return float(box[2] * box[3])  # type: ignore[index]  # of numbers
    xs, ys = [x for x, _, _ in points.values()], [y for _, y, _ in points.values()]
    return (max(xs) - min(xs)) * (max(ys) - min(ys))


def _is_numbers(values: Any) -> bool:
    return isinstance(values, list) and all(
        isinstance(v, int | float) and not isinstance(v, bool) and math.isfinite(v) for v in values
    )
