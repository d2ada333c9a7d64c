"""Where samples come from: one Source per split, whatever is on disk."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

from perceptkit.data.folder import FolderSource
from perceptkit.data.sample import Sample
from perceptkit.data.scenes.source import SceneSource
from perceptkit.spec.tasks_file import FolderData, Split, TasksFile
from perceptkit.tasks.base import Task


class Source(Protocol):
    """A sequence of samples that can be loaded in any order, by any process."""

    @property
    def ids(self) -> Sequence[str]:
        """Names of the samples, in order."""

    def __len__(self) -> int: ...

    def load(self, index: int) -> Sample:
        """One sample at the network's size. Raises DataError that names the file."""


def open_split(
    tasks_file: TasksFile, tasks: Mapping[str, Task], split: Split, cache_dir: Path | None = None
) -> Source:
    """The source of one split.

    Raises DataError where a split that is asked for holds no picture.
    """
    if isinstance(tasks_file.data, FolderData):
        return FolderSource(tasks_file.data, split, tasks)
    return SceneSource(tasks_file.data, split, tasks, cache_dir)
