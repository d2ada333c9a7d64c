"""Where samples come from: one Source per split, whatever is on disk."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol, TypeAlias

from perceptkit.data.coco import CocoSource
from perceptkit.data.csv_source import CsvSource
from perceptkit.data.decoded import DecodedSource
from perceptkit.data.folder import FolderSource
from perceptkit.data.layout import LayoutSource
from perceptkit.data.listed import ListedSource
from perceptkit.data.packed import PackedSource
from perceptkit.data.readable import Readable, unreadable
from perceptkit.data.sample import Sample
from perceptkit.data.scenes.source import SceneSource
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
from perceptkit.tasks.base import Task

LeftOut: TypeAlias = Mapping[Split, Mapping[str, str]]
"""By split: ids of pictures that cannot be read, each with the reason."""


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
    tasks_file: TasksFile,
    tasks: Mapping[str, Task],
    split: Split,
    cache_dir: Path | None = None,
    left_out: LeftOut | None = None,
) -> Source:
    """The source of one split.

    Args:
        left_out: what is known to be unreadable, for `on_bad: skip`; None reads all pictures of the split to find out.

    Raises DataError where a split that is asked for holds no picture, or none that can be read.
    """
    if isinstance(tasks_file.data, ScenesData):
        return SceneSource(tasks_file.data, split, tasks, cache_dir)
    source = _files_of(tasks_file, tasks, split)
    if tasks_file.data.on_bad == "error":
        return source
    return Readable(source, unreadable(source, split) if left_out is None else left_out[split], split)


def open_train(tasks_file: TasksFile, tasks: Mapping[str, Task], left_out: LeftOut | None = None) -> Source:
    """What is trained on: the splits of `data.train_on`, one after the other.

    Raises DataError where one of them holds no picture.
    """
    first, *more = (
        open_split(tasks_file, tasks, split, left_out=left_out) for split in tasks_file.data.train_on
    )
    return Joined([first, *more]) if more else first


def find_left_out(tasks_file: TasksFile, tasks: Mapping[str, Task], progress: bool = False) -> LeftOut:
    """Reads every picture of every split, with its labels. Raises DataError where a split holds none at all."""
    return {
        split: unreadable(_files_of(tasks_file, tasks, split), f"reading {split}", progress)
        for split in SPLITS
    }


def _files_of(tasks_file: TasksFile, tasks: Mapping[str, Task], split: Split) -> DecodedSource:
    """A whole split of a source of files."""
    data = tasks_file.data
    assert not isinstance(data, ScenesData)
    if isinstance(data, FolderData):
        return FolderSource(data, split, tasks)
    if isinstance(data, CocoData):
        return CocoSource(data, split, tasks, tasks_file.tasks)
    if isinstance(data, CsvData):
        return CsvSource(data, split, tasks)
    if isinstance(data, PackedData):
        return PackedSource(data, split, tasks)
    if isinstance(data, LayoutData):
        return LayoutSource(data, split, tasks)
    return ListedSource(data, split, tasks)


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
