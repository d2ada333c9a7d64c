"""Pictures and labels of data sets with a layout of their own: `source: nyuv2`, `cityscapes`, `taskonomy`."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from perceptkit.data.decoded import DecodedSource
from perceptkit.data.resize import resize_target
from perceptkit.data.sample import Sample
from perceptkit.errors import DataError
from perceptkit.pixels import read_rgb, resize_rgb
from perceptkit.spec.layout_table import label_of, layout_entries
from perceptkit.spec.stored_labels import read_picture, read_stored
from perceptkit.spec.tasks_file import LayoutData, Split
from perceptkit.tasks.base import Task
from perceptkit.tasks.edges import Edges


class LayoutSource(DecodedSource):
    """One split.

    Args:
        data: the declaration, with an absolute root.
        split: which one.
        tasks: by name.

    Raises DataError where there is no picture, or a list cannot be read.
    """

    data: LayoutData

    def __init__(self, data: LayoutData, split: Split, tasks: Mapping[str, Task]) -> None:
        self.data, self.tasks = data, dict(tasks)
        self.entries = layout_entries(data, split)
        if not self.entries:
            raise DataError(f"no pictures for {split} in {data.root}")
        self.kinds = {
            name: label_of(task.spec, data, len(task.labels))
            for name, task in self.tasks.items()
            if not isinstance(task, Edges)
        }
        super().__init__([entry.id for entry in self.entries])

    def decode(self, index: int) -> Sample:
        """Decodes the picture and every label, at the network's size; a label without file is missing."""
        entry, size_HW = self.entries[index], self.data.size
        try:
            image = read_picture(entry.image) if entry.image.suffix == ".npy" else read_rgb(entry.image)
        except DataError as error:
            named = str(entry.image) in str(error)
            raise error if named else DataError(f"{entry.image} {error}") from error
        image_HW = (image.shape[0], image.shape[1])
        targets: dict[str, np.ndarray] = {}
        for name, label in self.kinds.items():
            task, path = self.tasks[name], entry.labels[label]
            if not path.is_file():
                targets[name] = task.missing(size_HW)
                continue
            try:
                values = read_stored(self.data, task.spec, len(task.labels), path)
            except DataError as error:
                raise DataError(f"{path} {error}") from error
            targets[name] = resize_target(task, task.target_of(values, str(path), size_HW), image_HW, size_HW)
        for name, task in self.tasks.items():
            if isinstance(task, Edges):
                # after resizing, so that an edge is one pixel wide at the size the network sees
                targets[name] = task.derive(targets, self.tasks)
        return Sample(entry.id, resize_rgb(image, size_HW), targets)

    def files(self, index: int) -> list[Path]:
        """See `DecodedSource`."""
        entry = self.entries[index]
        return [entry.image, *(entry.labels[label] for label in self.kinds.values())]

    def label(self, index: int, task: str) -> int:
        """-1: none of these sets has one label per picture."""
        return -1
