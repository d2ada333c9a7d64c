"""Pictures and labels in folders, found by templates.

A label file that is absent, or that holds nothing for a picture, is a missing label: masked, never zero.
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from perceptkit.data.resize import resize_target
from perceptkit.data.sample import Sample
from perceptkit.errors import DataError
from perceptkit.pixels import read_rgb, resize_rgb
from perceptkit.spec.tasks_file import FolderData, Split
from perceptkit.spec.templates import fill, image_ids
from perceptkit.tasks.base import Task
from perceptkit.tasks.edges import Edges

CACHED_BYTES = 512 * 2**20
"""Decoded samples are kept in memory up to this size per process: decoding costs more than training a
small network does, and most sets of small pictures fit."""


class FolderSource:
    """One split of `source: folder`.

    Args:
        data: the declaration, with an absolute root.
        split: which one.
        tasks: by name; their specs hold the label templates.
    """

    def __init__(self, data: FolderData, split: Split, tasks: Mapping[str, Task]) -> None:
        self.data, self.tasks = data, dict(tasks)
        self.folder = data.splits.get(split, split)
        self.ids = image_ids(Path(data.root), data.image, self.folder)[: data.limit]
        if not self.ids:
            pattern = Path(data.root) / fill(data.image, self.folder, "*")
            raise DataError(f"no pictures for {split}: nothing matches {pattern}")
        self._cache: dict[int, Sample] = {}
        self._cached_bytes = 0

    def __len__(self) -> int:
        return len(self.ids)

    def load(self, index: int) -> Sample:
        """Decodes the picture and every label, at the network's size."""
        cached = self._cache.get(index)
        if cached is None:
            cached = self._decode(self.ids[index])
            size = cached.image.nbytes + sum(target.nbytes for target in cached.targets.values())
            if self._cached_bytes + size <= CACHED_BYTES:
                self._cache[index] = cached
                self._cached_bytes += size
        return Sample(cached.id, cached.image, dict(cached.targets))

    def _decode(self, image_id: str) -> Sample:
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

    def _read(self, task: Task, image_id: str) -> np.ndarray | None:
        if task.spec.target is None:
            return None
        path = Path(self.data.root) / fill(task.spec.target, self.folder, image_id)
        return task.read(path, image_id) if path.is_file() else None
