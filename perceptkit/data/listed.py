"""Pictures with one class each, from class folders or from the Visual Decathlon's annotation files."""

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from perceptkit.data.decoded import DecodedSource
from perceptkit.data.sample import Sample
from perceptkit.errors import DataError
from perceptkit.pixels import Fit, cover_rgb, fit_rgb, read_rgb
from perceptkit.spec.decathlon import annotation_file
from perceptkit.spec.listed import listed_pictures
from perceptkit.spec.tasks_file import DecathlonData, ListedData, Split
from perceptkit.tasks.base import Task
from perceptkit.tasks.embedding import Embedding


class ListedSource(DecodedSource):
    """One split of `source: imagefolder` or `source: decathlon`.

    Args:
        data: the declaration, with an absolute root.
        split: which one.
        tasks: by name; a classification, an embedding or both, or none where only pictures are wanted.

    Raises:
        DataError: there is no picture, a file of labels cannot be read, or a label is none of the classes.
    """

    data: ListedData

    def __init__(self, data: ListedData, split: Split, tasks: Mapping[str, Task]) -> None:
        self.data, self.tasks = data, dict(tasks)
        self.fit: Fit = data.fit if isinstance(data, DecathlonData) else "stretch"
        self.cuts = self.fit == "crop"
        self.annotations: list[Path] = []
        if isinstance(data, DecathlonData):
            self.annotations = [annotation_file(data.root, data.domain, name) for name in ("train", split)]
        self.pictures = listed_pictures(data, split)
        if not self.pictures:
            raise DataError(f"no pictures for {split} in {data.root}")
        for name, task in self.tasks.items():
            if isinstance(task, Embedding):
                continue  # which may meet ids that train does not have
            known = set(task.labels)
            stranger = next((p for p in self.pictures if p.label is not None and p.label not in known), None)
            if stranger is not None:
                raise DataError(
                    f"{stranger.path} is of the class '{stranger.label}', which {name} does not have"
                )
        self._index: dict[str, Callable[[str], int]] = {
            name: task.number_of
            if isinstance(task, Embedding)
            else {label: i for i, label in enumerate(task.labels)}.__getitem__
            for name, task in self.tasks.items()
        }
        super().__init__([picture.id for picture in self.pictures])

    def decode(self, index: int) -> Sample:
        """Decodes the picture at the network's size; its target is () int64, the index of the class."""
        return self._sample(index, fit_rgb(self._picture(index), self.data.size, self.fit))

    def decode_whole(self, index: int) -> Sample:
        """The same, but for the sides of a picture of another shape."""
        return self._sample(index, cover_rgb(self._picture(index), self.data.size))

    def _picture(self, index: int) -> np.ndarray:
        return read_rgb(self.pictures[index].path)

    def _sample(self, index: int, image: np.ndarray) -> Sample:
        targets = {name: np.array(self.label(index, name), dtype=np.int64) for name in self.tasks}
        return Sample(self.pictures[index].id, image, targets)

    def files(self, index: int) -> list[Path]:
        """See `DecodedSource`."""
        return [self.pictures[index].path, *self.annotations]

    def label(self, index: int, task: str) -> int:
        """The class or id of one picture, -1 without."""
        label = self.pictures[index].label
        return -1 if label is None else self._index[task](label)
