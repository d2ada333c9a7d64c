"""One annotation file in COCO's format (https://cocodataset.org/#format-data).

    images         [{id, file_name, width, height}, ...]
    categories     [{id, name, keypoints: [names of points]}, ...]             keypoints: of persons only
    annotations    [{id, image_id, category_id, segmentation, area, bbox, iscrowd, keypoints: [x, y, v, ...]}, ...]
                   [{image_id, file_name, segments_info: [{id, category_id, iscrowd}, ...]}, ...]        panoptic

segmentation is polygons or run lengths (coco_masks.py). Of a panoptic file NAME.json the folder NAME beside it has a
picture for each image, in which red + 256 green + 65536 blue is the id of a segment, 0 of none.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from perceptkit.errors import DataError
from perceptkit.spec.json_file import json_records, read_json
from perceptkit.spec.once import once_per_version
from perceptkit.spec.templates import shown

BACKGROUND = "background"
"""The class of pixels that belong to no category, or to none that is declared."""
_KEPT = (
    "id",
    "category_id",
    "iscrowd",
    "area",
    "bbox",
    "segmentation",
    "keypoints",
    "file_name",
    "segments_info",
)
"""Of an annotation; the rest of a large file need not stay in memory."""


class CocoImage(NamedTuple):
    """One picture."""

    id: int
    file_name: str
    size_HW: tuple[int, int]


@dataclass(frozen=True)
class CocoFile:
    """One file."""

    path: Path
    images: Mapping[str, CocoImage]
    """By file name."""
    categories: Mapping[int, str]
    """Name by id, in rising order: the order of the classes."""
    points: Mapping[int, tuple[str, ...]]
    """Names of the keypoints by category id."""
    annotations: Mapping[int, list[dict[str, Any]]]
    """By image id; an image without any is absent."""
    is_panoptic: bool

    @property
    def classes(self) -> list[str]:
        """What a segmentation can tell apart."""
        names = list(self.categories.values())
        return names if self.is_panoptic or BACKGROUND in names else [BACKGROUND, *names]

    @property
    def point_names(self) -> list[str]:
        """Of all categories, each once."""
        return list(dict.fromkeys(name for names in self.points.values() for name in names))


@once_per_version
def read_coco(path: Path) -> CocoFile:
    """Reads a file, once per process and version of it.

    Raises DataError that names the file and the entry that is not as it should be.
    """
    where = shown(path)
    try:
        content = read_json(path)
    except DataError as error:
        raise DataError(f"{where} {error}") from error
    if not isinstance(content, dict) or not isinstance(content.get("images"), list):
        raise DataError(f"{where} is not a mapping with 'images', 'annotations' and 'categories'")
    images = _images(where, content)
    categories: dict[int, str] = {}
    points: dict[int, tuple[str, ...]] = {}
    for category in json_records(where, content, "categories", {"id": [int], "name": [str]}):
        number, name = category["id"], category["name"]
        if number in categories or name in categories.values():
            raise DataError(f"{where}: two categories have the id {number} or the name '{name}'")
        categories[number] = name
        if names := category.get("keypoints"):
            if not isinstance(names, list) or not all(isinstance(point, str) for point in names):
                raise DataError(f"{where}: keypoints of the category '{name}' are not a list of names")
            points[number] = tuple(names)
    is_panoptic, annotations = _annotations(where, content, images, categories)
    return CocoFile(path, images, dict(sorted(categories.items())), points, annotations, is_panoptic)


def _images(where: str, content: Mapping[str, Any]) -> dict[str, CocoImage]:
    fields: dict[str, list[type]] = {"id": [int], "file_name": [str], "width": [int], "height": [int]}
    images: dict[str, CocoImage] = {}
    ids = set()
    for i, image in enumerate(json_records(where, content, "images", fields)):
        number, name = image["id"], image["file_name"]
        if number in ids or name in images:
            raise DataError(f"{where}: images[{i}] has the id {number} or the name {name} of another")
        if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
            raise DataError(f"{where}: images[{i}] names {name}, which is not below data.images")
        if image["width"] < 1 or image["height"] < 1:
            raise DataError(f"{where}: images[{i}] is {image['width']}x{image['height']} pixels")
        ids.add(number)
        images[name] = CocoImage(number, name, (image["height"], image["width"]))
    return images


def _annotations(
    where: str, content: Mapping[str, Any], images: Mapping[str, CocoImage], categories: Mapping[int, str]
) -> tuple[bool, dict[int, list[dict[str, Any]]]]:
    """Whether the file is panoptic, and its annotations by image id."""
    records = json_records(where, content, "annotations", {"image_id": [int]})
    is_panoptic = any("segments_info" in record for record in records)
    fields: dict[str, list[type]] = {"category_id": [int]}
    if is_panoptic:
        fields = {"file_name": [str], "segments_info": [list]}
    json_records(where, content, "annotations", fields)
    ids = {image.id for image in images.values()}
    found: dict[int, list[dict[str, Any]]] = {}
    for i, record in enumerate(records):
        of_record = f"{where}: annotations[{i}]"
        if record["image_id"] not in ids:
            raise DataError(f"{of_record} is of image {record['image_id']}, which is not listed in 'images'")
        segments = [record]
        if is_panoptic:
            segments = json_records(of_record, record, "segments_info", {"id": [int], "category_id": [int]})
            name = PurePosixPath(record["file_name"])
            if name.is_absolute() or ".." in name.parts:
                raise DataError(f"{of_record} names {name}, which is not below {where.removesuffix('.json')}")
        for segment in segments:
            if segment["category_id"] not in categories:
                raise DataError(
                    f"{of_record} is of category {segment['category_id']}, which is not in 'categories'"
                )
        kept = {key: record[key] for key in _KEPT if key in record}
        found.setdefault(record["image_id"], []).append(kept)
    return is_panoptic, found
