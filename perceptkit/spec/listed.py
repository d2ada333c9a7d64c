"""Sources whose pictures have one class each: what a split holds, and the names of the classes.

`source: imagefolder` knows them from folders, `source: decathlon` from annotation files. No torch.
"""

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple, TypeVar

from perceptkit.errors import DataError
from perceptkit.spec.class_folders import class_folders, pictures_of_class
from perceptkit.spec.classes import class_names
from perceptkit.spec.decathlon import annotation_file, read_annotations
from perceptkit.spec.excluded import kept
from perceptkit.spec.tasks_file import (
    ClassificationSpec,
    DecathlonData,
    ImageFolderData,
    Limit,
    ListedData,
    Split,
    most_of,
)
from perceptkit.spec.templates import shown

Item = TypeVar("Item")
GOLDEN = (5**0.5 - 1) / 2
"""Of all numbers the one whose multiples fall in step with no period."""


class Listed(NamedTuple):
    """One picture."""

    id: str
    """`CLASS/NAME.png` in class folders, the image id in the decathlon."""
    path: Path
    label: str | None
    """Name of its class; None where it has no label."""


def listed_pictures(data: ListedData, split: Split) -> list[Listed]:
    """The pictures of one split in a fixed order, thinned to `limit`. Paths are not looked at.

    Raises DataError where an annotation file is missing or damaged, or a label is no class of train.
    """
    found = _of_folders(data, split) if isinstance(data, ImageFolderData) else _of_annotations(data, split)
    most = most_of(data.limit, split)
    chosen = found if most is None else spread_by_class(found, most)
    return kept(chosen, lambda picture: picture.id, data, split)


def own_classes(data: ListedData) -> list[str]:
    """The classes that the train split defines: folders by name, categories by id. Raises DataError."""
    if isinstance(data, ImageFolderData):
        return class_folders(data.root / data.splits["train"])
    return list(read_annotations(annotation_file(data.root, data.domain, "train")).categories.values())


def listed_classes(spec: ClassificationSpec, data: ListedData) -> list[str]:
    """The names of the task's classes in the order of their ids: as declared, or else the source's own.

    Raises SpecError or DataError where they cannot be read.
    """
    return own_classes(data) if spec.classes is None else class_names(spec, data.root)


def spread(items: Sequence[Item], most: int) -> list[Item]:
    """At most so many of them, evenly spread."""
    count = min(most, len(items))
    return [items[i * len(items) // count] for i in range(count)]


def spread_by_class(pictures: list[Listed], most: int) -> list[Listed]:
    """At most so many of them, in their order: of every class its share, evenly spread within the class."""
    by_class = sorted(range(len(pictures)), key=lambda i: pictures[i].label or "")
    return [pictures[i] for i in sorted(spread(by_class, most))]


def thinned(items: list[Item], limit: Limit | None, split: Split) -> list[Item]:
    """Those of a split that its `limit` leaves, in their order: one of each of so many equal parts.

    Which one of a part moves on by the golden ratio. Every k-th would be of one class where ids count through the
    classes (0-cat, 0-dog, 1-cat, 1-dog, ...).
    """
    most = most_of(limit, split)
    if most is None or most >= len(items):
        return items
    if 2 * most > len(items):  # parts of one or two pictures leave no choice: choose those to leave out
        left_out = set(_one_of_each_part(len(items), len(items) - most))
        return [item for i, item in enumerate(items) if i not in left_out]
    return [items[i] for i in _one_of_each_part(len(items), most)]


def _one_of_each_part(count: int, parts: int) -> list[int]:
    firsts = [part * count // parts for part in range(parts + 1)]
    return [
        first + int(part * GOLDEN % 1 * (stop - first)) for part, (first, stop) in enumerate(pairwise(firsts))
    ]


def _of_folders(data: ImageFolderData, split: Split) -> list[Listed]:
    folder = data.root / data.splits[split]
    return [
        Listed(path.relative_to(folder).as_posix(), path, label)
        for label in class_folders(folder)
        for path in pictures_of_class(folder / label)
    ]


def _of_annotations(data: DecathlonData, split: Split) -> list[Listed]:
    path = annotation_file(data.root, data.domain, split)
    annotations = read_annotations(path)
    names = read_annotations(annotation_file(data.root, data.domain, "train")).categories
    found = []
    for image_id, file in annotations.files.items():
        category = annotations.labels.get(image_id)
        if category is not None and category not in names:
            raise DataError(
                f"{shown(path)}: image {image_id} is of class {category}, which train does not have"
            )
        found.append(Listed(str(image_id), data.root / file, None if category is None else names[category]))
    return found
