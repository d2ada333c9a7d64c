"""Pictures and labels of COCO, and of data sets with annotation files like its."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from perceptkit.data.decoded import DecodedSource
from perceptkit.data.resize import resize_target
from perceptkit.data.sample import Sample
from perceptkit.errors import DataError
from perceptkit.pixels import read_rgb, resize_rgb
from perceptkit.spec.coco import CocoPicture, coco_pictures, is_derived
from perceptkit.spec.coco_labels import class_ids, panoptic_picture, points_entry
from perceptkit.spec.tasks_file import CocoData, Split, TaskBase
from perceptkit.spec.templates import shown
from perceptkit.tasks.base import Task
from perceptkit.tasks.edges import Edges
from perceptkit.tasks.keypoints import Keypoints
from perceptkit.tasks.point_files import kinds_target, named_target


class CocoSource(DecodedSource):
    """One split.

    Args:
        data: the declaration, with an absolute root.
        split: which one.
        tasks: by name; those whose targets are wanted.
        declared: all tasks of the tasks file: their annotation files list the pictures.

    Raises DataError where there is no picture, or an annotation file cannot be read.
    """

    data: CocoData

    def __init__(
        self, data: CocoData, split: Split, tasks: Mapping[str, Task], declared: Mapping[str, TaskBase]
    ) -> None:
        self.data, self.tasks = data, dict(tasks)
        self.pictures = coco_pictures(declared, data, split)
        if not self.pictures:
            raise DataError(f"no pictures for {split} in {data.root}")
        super().__init__([picture.id for picture in self.pictures])

    def decode(self, index: int) -> Sample:
        """Decodes the picture and every label, at the network's size; a picture that a task's file does not list has
        no label of it."""
        picture, size_HW = self.pictures[index], self.data.size
        targets = {
            name: self._target(name, task, picture)
            for name, task in self.tasks.items()
            if not is_derived(task.spec)
        }
        for name, task in self.tasks.items():
            if isinstance(task, Edges):
                # after resizing, so that an edge is one pixel wide at the size the network sees
                targets[name] = task.derive(targets, self.tasks)
        return Sample(picture.id, resize_rgb(read_rgb(picture.path), size_HW), targets)

    def files(self, index: int) -> list[Path]:
        """See `DecodedSource`."""
        picture = self.pictures[index]
        annotated = [(file, image) for name, (file, image) in picture.images.items() if name in self.tasks]
        drawn = [
            panoptic_picture(file, annotation)
            for file, image in annotated
            if file.is_panoptic
            for annotation in file.annotations.get(image.id, [])
        ]
        return [picture.path, *(file.path for file, _ in annotated), *drawn]

    def label(self, index: int, task: str) -> int:
        """-1: none of the tasks has one label per picture."""
        return -1

    def _target(self, name: str, task: Task, picture: CocoPicture) -> np.ndarray:
        """Labels are measured by the size that the annotation file says, whatever that of the picture is."""
        if name not in picture.images:
            return task.missing(self.data.size)
        file, image = picture.images[name]
        if isinstance(task, Keypoints):
            entry = points_entry(task.spec, file, image, self.data.occluded)
            as_target = named_target if task.has_names else kinds_target
            target: np.ndarray = as_target(entry, task.labels, f"{shown(file.path)}: {image.file_name}")
        else:
            target = class_ids(file, image, task.labels)
        return resize_target(task, target, image.size_HW, self.data.size)
