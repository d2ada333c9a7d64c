"""Pictures that a CSV lists, with labels of several tasks in its columns."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from perceptkit.data.decoded import DecodedSource
from perceptkit.data.sample import Sample
from perceptkit.errors import DataError
from perceptkit.pixels import read_rgb, resize_rgb
from perceptkit.spec.csv_source import csv_file, csv_labels, csv_pictures
from perceptkit.spec.tasks_file import CsvData, Split
from perceptkit.tasks.base import Task


class CsvSource(DecodedSource):
    """One split of `source: csv`.

    Args:
        data: the declaration, with an absolute root.
        split: which one.
        tasks: by name; each is of a type whose labels are words (`Task.target_of_words`).

    Raises:
        DataError: there is no picture, the file cannot be read, or a label is none of the classes; names the line.
    """

    data: CsvData

    def __init__(self, data: CsvData, split: Split, tasks: Mapping[str, Task]) -> None:
        self.data, self.tasks = data, dict(tasks)
        self.pictures = csv_pictures(data, split)
        if not self.pictures:
            raise DataError(f"no pictures for {split} in {csv_file(data, split)}")
        # all now, so that a wrong label stops a run before it starts
        self._targets: dict[str, list[np.ndarray]] = {}
        for name, task in self.tasks.items():
            of_task = [
                (csv_labels(name, task.spec, picture), f"{picture.where}: {picture.id}")
                for picture in self.pictures
            ]
            self._targets[name] = [
                task.missing(data.size) if words is None else task.target_of_words(words, where)
                for words, where in of_task
            ]
        super().__init__([picture.id for picture in self.pictures])

    def decode(self, index: int) -> Sample:
        """Decodes the picture at the network's size; targets are those of its row."""
        picture = self.pictures[index]
        try:
            image = read_rgb(picture.path)
        except DataError as error:
            raise DataError(f"{picture.where} lists {error}") from error
        targets = {name: of_task[index] for name, of_task in self._targets.items()}
        return Sample(picture.id, resize_rgb(image, self.data.size), targets)

    def files(self, index: int) -> list[Path]:
        """See `DecodedSource`."""
        return [self.pictures[index].path, self.pictures[index].table.file]

    def label(self, index: int, task: str) -> int:
        """The class or id of one picture by a task that has one per picture, -1 without."""
        return int(self._targets[task][index])
