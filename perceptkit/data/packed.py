"""Pictures and labels inside larger files: shards of webdataset, parquet files of Hugging Face's datasets."""

import io
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image

from perceptkit.data.decoded import DecodedSource
from perceptkit.data.resize import resize_target
from perceptkit.data.sample import Sample
from perceptkit.errors import DataError
from perceptkit.pixels import resize_rgb, to_rgb
from perceptkit.spec.packed import is_derived, open_packed, packed_places
from perceptkit.spec.packed_arrays import as_array
from perceptkit.spec.packed_labels import as_points, as_words
from perceptkit.spec.tasks_file import ClassificationSpec, EmbeddingSpec, PackedData, Split
from perceptkit.tasks.base import Task
from perceptkit.tasks.edges import Edges
from perceptkit.tasks.keypoints import Keypoints
from perceptkit.tasks.point_files import kinds_target, named_target


class PackedSource(DecodedSource):
    """One split.

    Args:
        data: the declaration, with an absolute root.
        split: which one.
        tasks: by name.

    Raises DataError where there is no picture, or a file cannot be read.
    """

    data: PackedData

    def __init__(self, data: PackedData, split: Split, tasks: Mapping[str, Task]) -> None:
        self.data, self.tasks = data, dict(tasks)
        self.packed = open_packed(data, split)
        self.places = packed_places(data, split)
        if not self.places:
            raise DataError(f"no pictures for {split} in {data.root}")
        ids = self.packed.ids
        super().__init__([ids[place] for place in self.places])

    def decode(self, index: int) -> Sample:
        """Decodes the picture and every label, at the network's size; what is not there is a missing label."""
        place, size_HW = self.places[index], self.data.size
        content = self.packed.picture(place)
        try:
            with Image.open(io.BytesIO(content)) as opened:
                image = to_rgb(opened)
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
            where = self.packed.picture_where(place)
            raise DataError(f"{where}: not a readable picture ({error})") from error
        image_HW = (image.shape[0], image.shape[1])
        targets: dict[str, np.ndarray] = {}
        for name, task in self.tasks.items():
            if not is_derived(task.spec):
                read = self._target(name, task, place)
                if read is None:
                    targets[name] = task.missing(size_HW)
                else:
                    targets[name] = resize_target(task, read, image_HW, size_HW)
        for name, task in self.tasks.items():
            if isinstance(task, Edges) and is_derived(task.spec):
                # after resizing, so that an edge is one pixel wide at the size the network sees
                targets[name] = task.derive(targets, self.tasks)
        return Sample(self.ids[index], resize_rgb(image, size_HW), targets)

    def files(self, index: int) -> list[Path]:
        """See `DecodedSource`."""
        return [self.packed.file(self.places[index])]

    def label(self, index: int, task: str) -> int:
        """The class or id of one picture by a task that has one per picture, -1 without."""
        read = self._target(task, self.tasks[task], self.places[index])
        return -1 if read is None else int(read)

    def _target(self, name: str, task: Task, place: int) -> np.ndarray | None:
        """A label as a target of its own size; None without one. Raises DataError that names it."""
        stored = self.packed.stored(place, name, task.spec)
        if stored is None:
            return None
        where = self.packed.label_where(place, name, task.spec)
        if isinstance(task, Keypoints):
            points = as_points(stored, task.spec, where)
            as_target = named_target if task.has_names else kinds_target
            target: np.ndarray = as_target(points, task.labels, where)
            return target
        if isinstance(task.spec, ClassificationSpec | EmbeddingSpec):
            words = as_words(stored, task.spec, where)
            return None if words is None else task.target_of_words(words, where)
        return task.target_of(as_array(stored, where), where)
