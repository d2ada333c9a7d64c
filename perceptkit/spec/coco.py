"""COCO, and data sets with annotation files like its: what a split holds, and the names of classes and points.

    ROOT/train2017/000000000009.jpg
    ROOT/annotations/instances_train2017.json            segmentation (the default)
                     person_keypoints_train2017.json     keypoints (the default)
                     stuff_train2017.json                segmentation, by `target: annotations/stuff_{split}.json`
                     panoptic_train2017.json             the same, with the pictures below panoptic_train2017/
    ROOT/val2017/...                                     and the same files with val2017 in their names

The files are described in coco_file.py, what becomes of their annotations in coco_labels.py.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from perceptkit.spec.classes import class_names
from perceptkit.spec.coco_file import CocoFile, CocoImage, read_coco
from perceptkit.spec.excluded import kept
from perceptkit.spec.layouts import held_out
from perceptkit.spec.listed import thinned
from perceptkit.spec.tasks_file import CocoData, KeypointsSpec, SegmentationSpec, Split, TaskBase
from perceptkit.spec.templates import fill

WORDS: Mapping[Split, str] = {"train": "train2017", "val": "val2017", "test": "val2017"}
"""What stands for the splits in names, where the tasks file says nothing."""
FILES = {
    "segmentation": "annotations/instances_{split}.json",
    "keypoints": "annotations/person_keypoints_{split}.json",
}
"""Annotation files by task type, where `target` says nothing."""


class CocoPicture(NamedTuple):
    """One picture."""

    id: str
    """Its name in the annotation files."""
    path: Path
    images: Mapping[str, tuple[CocoFile, CocoImage]]
    """By task, where the task's file lists it."""


def word_of(data: CocoData, split: Split) -> str:
    """What stands for a split in names."""
    if split == "val" and data.hold_out is not None:
        split = "train"
    return (data.splits or {}).get(split) or WORDS[split]


def annotation_file(spec: TaskBase, data: CocoData, split: Split) -> Path:
    """The file that a task's labels of one split are in."""
    template = spec.target or FILES[spec.type]  # type: ignore[attr-defined]  # all have one
    return data.root / fill(template, word_of(data, split))


def coco_pictures(tasks: Mapping[str, TaskBase], data: CocoData, split: Split) -> list[CocoPicture]:
    """The pictures of one split that any task's file lists, in the order of the files, thinned to `limit`.

    Raises DataError where a file is missing or damaged.
    """
    folder = data.root / fill(data.images, word_of(data, split))
    found: dict[str, dict[str, tuple[CocoFile, CocoImage]]] = {}
    for name, spec in tasks.items():
        if not is_derived(spec):
            file = read_coco(annotation_file(spec, data, split))
            for image in file.images.values():
                found.setdefault(image.file_name, {})[name] = (file, image)
    pictures = [CocoPicture(name, folder / name, images) for name, images in found.items()]
    chosen = thinned(held_out(pictures, data.hold_out, split), data.limit, split)
    return kept(chosen, lambda picture: picture.id, data, split)


def is_derived(spec: TaskBase) -> bool:
    """Whether a task's labels come from other tasks' labels."""
    return bool(getattr(spec, "derive", None))


def coco_classes(spec: SegmentationSpec, data: CocoData) -> list[str]:
    """The names of a segmentation's classes: as declared, or else background and the categories by their ids.

    Raises SpecError or DataError where they cannot be read.
    """
    if spec.classes is not None:
        return class_names(spec, data.root)
    return read_coco(annotation_file(spec, data, "train")).classes


def coco_points(spec: KeypointsSpec, data: CocoData) -> list[str]:
    """The names of the points that the train file has. Raises DataError where it cannot be read."""
    return read_coco(annotation_file(spec, data, "train")).point_names


def with_points(spec: KeypointsSpec, data: CocoData) -> KeypointsSpec:
    """The same task with all points of the train file as kinds, where it names none, and with what changes places when
    a picture is mirrored: left_... and right_..., where it says nothing of that.

    Raises DataError where the file cannot be read.
    """
    kinds = spec.kinds if spec.names or spec.kinds else coco_points(spec, data)
    names = spec.names or kinds or []
    pairs = spec.flip_pairs
    if "flip_pairs" not in spec.model_fields_set:
        others = {name: f"right_{name.removeprefix('left_')}" for name in names if name.startswith("left_")}
        pairs = [(left, right) for left, right in others.items() if right in names]
    return spec.model_copy(update={"kinds": kinds, "flip_pairs": pairs})
