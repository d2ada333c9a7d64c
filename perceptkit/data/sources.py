"""Where samples come from: one Source per split, whatever is on disk."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

from perceptkit.data.coco import CocoSource
from perceptkit.data.csv_source import CsvSource
from perceptkit.data.folder import FolderSource
from perceptkit.data.layout import LayoutSource
from perceptkit.data.listed import ListedSource
from perceptkit.data.sample import Sample
from perceptkit.data.scenes.source import SceneSource
from perceptkit.spec.tasks_file import CocoData, CsvData, FolderData, LayoutData, ScenesData, Split, TasksFile
from perceptkit.tasks.base import Task


class Source(Protocol):
    """A sequence of samples that can be loaded in any order, by any process."""

    @property
    def ids(self) -> Sequence[str]:
        """Names of the samples, in order."""

    def __len__(self) -> int: ...

    def load(self, index: int) -> Sample:
        """One sample at the network's size. Raises DataError that names the file."""

    def label(self, index: int, task: str) -> int:
        """The class or id of one sample by a task that has one per picture, -1 without; no picture is read."""


def open_split(
    tasks_file: TasksFile, tasks: Mapping[str, Task], split: Split, cache_dir: Path | None = None
) -> Source:
    """The source of one split.

    Raises DataError where a split that is asked for holds no picture.
    """
    if isinstance(tasks_file.data, FolderData):
        return FolderSource(tasks_file.data, split, tasks)
    if isinstance(tasks_file.data, ScenesData):
        return SceneSource(tasks_file.data, split, tasks, cache_dir)
    if isinstance(tasks_file.data, CocoData):
        return CocoSource(tasks_file.data, split, tasks, tasks_file.tasks)
    if isinstance(tasks_file.data, CsvData):
        return CsvSource(tasks_file.data, split, tasks)
    if isinstance(tasks_file.data, LayoutData):
        return LayoutSource(tasks_file.data, split, tasks)
    return ListedSource(tasks_file.data, split, tasks)


def open_train(tasks_file: TasksFile, tasks: Mapping[str, Task]) -> Source:
    """What is trained on: the splits of `data.train_on`, one after the other.

    Raises DataError where one of them holds no picture.
    """
    first, *more = (open_split(tasks_file, tasks, split) for split in tasks_file.data.train_on)
    return Joined([first, *more]) if more else first


class Joined:
    """Sources one after the other."""

    def __init__(self, sources: Sequence[Source]) -> None:
        self.sources = sources
        self.ids: Sequence[str] = [name for source in sources for name in source.ids]

    def __len__(self) -> int:
        return len(self.ids)

    def load(self, index: int) -> Sample:
        """One sample of the source that holds it."""
        source, index = self._holder(index)
        return source.load(index)

    def label(self, index: int, task: str) -> int:
        """From the source that holds it."""
        source, index = self._holder(index)
        return source.label(index, task)

    def _holder(self, index: int) -> tuple[Source, int]:
        for source in self.sources:
            if index < len(source):
                return source, index
            index -= len(source)
        raise IndexError(index)
