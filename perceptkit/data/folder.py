"""Pictures and labels in folders, found by templates.

A label file that is absent, or that holds nothing for a picture, is a missing label: masked, never zero.
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from perceptkit.data.decoded import DecodedSource
from perceptkit.data.resize import resize_target
from perceptkit.data.sample import Sample
from perceptkit.errors import DataError
from perceptkit.pixels import read_rgb, resize_rgb
from perceptkit.spec.folder_ids import folder_ids
from perceptkit.spec.tasks_file import FolderData, Split
from perceptkit.spec.templates import fill
from perceptkit.tasks.base import Task
from perceptkit.tasks.edges import Edges


class FolderSource(DecodedSource):
    """One split of `source: folder`.

    Args:
        data: the declaration, with an absolute root.
        split: which one.
        tasks: by name; their specs hold the label templates.
    """

    data: FolderData

    def __init__(self, data: FolderData, split: Split, tasks: Mapping[str, Task]) -> None:
        self.data, self.tasks = data, dict(tasks)
        self.folder = data.splits.get(split, split)
        super().__init__(folder_ids(data, split))
        if not self.ids:
            pattern = Path(data.root) / fill(data.image, self.folder, "*")
            raise DataError(f"no pictures for {split}: nothing matches {pattern}")

    def decode(self, index: int) -> Sample:
        """Decodes the picture and every label, at the network's size."""
        image_id = self.ids[index]
        path = Path(self.data.root) / fill(self.data.image, self.folder, image_id)
        image = read_rgb(path)
        image_HW = (image.shape[0], image.shape[1])
        size_HW = self.data.size
        targets: dict[str, np.ndarray] = {}
        for name, task in self.tasks.items():
            read = self._read(task, image_id)
            if read is None:
                targets[name] = task.missing(size_HW)
            else:
                targets[name] = resize_target(task, read, image_HW, size_HW)
        for name, task in self.tasks.items():
            if isinstance(task, Edges) and task.spec.derive:
                # after resizing, so that an edge is one pixel wide at the size the network sees
                targets[name] = task.derive(targets, self.tasks)
        return Sample(image_id, resize_rgb(image, size_HW), targets)

    def files(self, index: int) -> list[Path]:
        """See `DecodedSource`."""
        image_id = self.ids[index]
        templates = [self.data.image, *(task.spec.target for task in self.tasks.values() if task.spec.target)]
        return [Path(self.data.root) / fill(template, self.folder, image_id) for template in templates]

    def label(self, index: int, task: str) -> int:
        """The class or id of one picture by a task that has one per picture, -1 without."""
        read = self._read(self.tasks[task], self.ids[index])
        return -1 if read is None else int(read)

    def _read(self, task: Task, image_id: str) -> np.ndarray | None:
        if task.spec.target is None:
            return None
        path = Path(self.data.root) / fill(task.spec.target, self.folder, image_id)
        return task.read_at(path, image_id, self.data.size) if path.is_file() else None
