"""What the pictures of a split are called, whatever the source of files; none is opened."""

from collections.abc import Sequence

from perceptkit.spec.coco import coco_pictures
from perceptkit.spec.csv_source import csv_pictures
from perceptkit.spec.excluded import as_listed, excluded
from perceptkit.spec.folder_ids import folder_ids
from perceptkit.spec.layout_table import layout_entries
from perceptkit.spec.listed import listed_pictures
from perceptkit.spec.packed import open_packed, packed_places
from perceptkit.spec.several import parts, with_data
from perceptkit.spec.tasks_file import (
    SPLITS,
    CocoData,
    CsvData,
    FolderData,
    LayoutData,
    PackedData,
    ScenesData,
    Split,
    TasksFile,
)


def picture_ids(part: TasksFile, split: Split) -> Sequence[str]:
    """The ids of one split of a source, in its order. Raises DataError where a list cannot be read."""
    data = part.first
    assert not isinstance(data, ScenesData)
    if isinstance(data, FolderData):
        return folder_ids(data, split)
    if isinstance(data, CocoData):
        return [picture.id for picture in coco_pictures(part.tasks, data, split)]
    if isinstance(data, CsvData):
        return [picture.id for picture in csv_pictures(data, split)]
    if isinstance(data, PackedData):
        ids = open_packed(data, split).ids
        return [ids[place] for place in packed_places(data, split)]
    if isinstance(data, LayoutData):
        return [entry.id for entry in layout_entries(data, split)]
    return [picture.id for picture in listed_pictures(data, split)]


def unknown_excluded(part: TasksFile) -> dict[Split, list[str]]:
    """By split: excluded ids that are of no picture. Raises DataError where a list cannot be read."""
    data = part.first
    found: dict[Split, list[str]] = {}
    if isinstance(data, ScenesData) or not data.exclude:
        return found
    whole = with_data(part, lambda *_: {"exclude": None, "limit": None})
    for split in SPLITS:
        if left_out := excluded(data, split):
            found[split] = sorted(left_out - set(map(as_listed, picture_ids(whole, split))))
    return found


def count_excluded(tasks_file: TasksFile) -> dict[Split, int]:
    """How many pictures each split is without, of all sources; only of sources that exclude some."""
    found: dict[Split, int] = {}
    for part in parts(tasks_file).values():
        data = part.first
        if isinstance(data, ScenesData) or not data.exclude:
            continue
        whole = with_data(part, lambda *_: {"exclude": None})
        for split in SPLITS:
            if left_out := excluded(data, split):
                of_split = sum(as_listed(image_id) in left_out for image_id in picture_ids(whole, split))
                found[split] = found.get(split, 0) + of_split
    return found
