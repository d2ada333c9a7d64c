"""Where samples come from: one Source per split, whatever is on disk, and however many sources there are."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeAlias

from perceptkit.data.coco import CocoSource
from perceptkit.data.csv_source import CsvSource
from perceptkit.data.decoded import DecodedSource
from perceptkit.data.folder import FolderSource
from perceptkit.data.labelled import PartlyLabelled, draw_labelled
from perceptkit.data.layout import LayoutSource
from perceptkit.data.listed import ListedSource
from perceptkit.data.mixed import Mixed
from perceptkit.data.packed import PackedSource
from perceptkit.data.readable import Readable, unreadable
from perceptkit.data.scenes.source import SceneSource
from perceptkit.data.source import Joined, Source
from perceptkit.spec.several import ALONE, SEPARATOR, parts, weights
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
from perceptkit.tasks.table import stored_as

LeftOut: TypeAlias = Mapping[Split, Mapping[str, str]]
"""By split: ids of pictures that cannot be read, each with the reason."""


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
    return _of_all(
        tasks_file,
        tasks,
        lambda name, part, read: _open_part(part, read, split, cache_dir, _of_source(left_out, name)),
    )


def open_train(tasks_file: TasksFile, tasks: Mapping[str, Task], left_out: LeftOut | None = None) -> Source:
    """What is trained on: of each source the splits of `train_on`, one after the other, with the labels that
    `labelled` leaves.

    Raises DataError where one of them holds no picture.
    """

    def open_one(name: str, part: TasksFile, read: Mapping[str, Task]) -> Source:
        of_source = _of_source(left_out, name)
        first, *more = (_open_part(part, read, split, None, of_source) for split in part.first.train_on)
        source = Joined([first, *more]) if more else first
        if part.labelled is None:
            return source
        labelled = draw_labelled(part.labelled, list(read), len(source), part.labelled_seed, name)
        return PartlyLabelled(source, read, part.first.size, labelled)

    return _of_all(tasks_file, tasks, open_one)


def find_left_out(tasks_file: TasksFile, tasks: Mapping[str, Task], progress: bool = False) -> LeftOut:
    """Reads every picture with its labels, where `on_bad` is skip. Raises DataError where a split holds none at all."""
    found: dict[Split, dict[str, str]] = {split: {} for split in SPLITS}
    for name, part in parts(tasks_file).items():
        if getattr(part.first, "on_bad", "error") == "error":
            continue
        for split in SPLITS:
            files = _files_of(part, _tasks_of(name, part, tasks), split)
            title = f"reading {split}" if name == ALONE else f"reading {split} of {name}"
            reasons = unreadable(files, title, progress)
            found[split] |= {in_source(name, image_id): why for image_id, why in reasons.items()}
    return found


def in_source(name: str, image_id: str) -> str:
    """The id of a source's picture among those of all sources."""
    return image_id if name == ALONE else f"{name}{SEPARATOR}{image_id}"


def _of_all(
    tasks_file: TasksFile,
    tasks: Mapping[str, Task],
    open_one: Callable[[str, TasksFile, Mapping[str, Task]], Source],
) -> Source:
    """What `open_one` gives for each source, together."""
    tasks_of = {name: _tasks_of(name, part, tasks) for name, part in parts(tasks_file).items()}
    found = {name: open_one(name, part, tasks_of[name]) for name, part in parts(tasks_file).items()}
    if ALONE in found:
        return found[ALONE]
    return Mixed(found, tasks_of, tasks, tasks_file.first.size, weights(tasks_file))


def _tasks_of(name: str, part: TasksFile, tasks: Mapping[str, Task]) -> dict[str, Task]:
    """Those of the tasks that have labels in one of several sources, as they are stored there."""
    if name == ALONE:
        return dict(tasks)
    return {
        task: read if part.tasks[task] == read.spec else stored_as(read, part.tasks[task])
        for task, read in tasks.items()
        if task in part.tasks
    }


def _of_source(left_out: LeftOut | None, name: str) -> LeftOut | None:
    """By the ids that pictures have in the source."""
    if left_out is None or name == ALONE:
        return left_out
    start = in_source(name, "")
    return {
        split: {
            image_id.removeprefix(start): why
            for image_id, why in reasons.items()
            if image_id.startswith(start)
        }
        for split, reasons in left_out.items()
    }


def _open_part(
    part: TasksFile, tasks: Mapping[str, Task], split: Split, cache_dir: Path | None, left_out: LeftOut | None
) -> Source:
    data = part.first
    if isinstance(data, ScenesData):
        return SceneSource(data, split, tasks, cache_dir)
    source = _files_of(part, tasks, split)
    if data.on_bad == "error":
        return source
    return Readable(source, unreadable(source, split) if left_out is None else left_out[split], split)


def _files_of(part: TasksFile, tasks: Mapping[str, Task], split: Split) -> DecodedSource:
    """A whole split of a source of files."""
    data = part.first
    assert not isinstance(data, ScenesData)
    if isinstance(data, FolderData):
        return FolderSource(data, split, tasks)
    if isinstance(data, CocoData):
        return CocoSource(data, split, tasks, part.tasks)
    if isinstance(data, CsvData):
        return CsvSource(data, split, tasks)
    if isinstance(data, PackedData):
        return PackedSource(data, split, tasks)
    if isinstance(data, LayoutData):
        return LayoutSource(data, split, tasks)
    return ListedSource(data, split, tasks)
