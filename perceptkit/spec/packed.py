"""What `source: webdataset` and `source: huggingface` have in common: pictures and labels inside larger files."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

from perceptkit.errors import SpecError
from perceptkit.spec.classes import class_names
from perceptkit.spec.excluded import kept
from perceptkit.spec.huggingface import column_of, open_rows, parquet_files
from perceptkit.spec.listed import thinned
from perceptkit.spec.packed_labels import as_words
from perceptkit.spec.tasks_file import (
    ClassificationSpec,
    EdgesSpec,
    PackedData,
    SegmentationSpec,
    Split,
    TaskBase,
    WebDatasetData,
)
from perceptkit.spec.webdataset import open_shards, shard_files


class Packed(Protocol):
    """All pictures of one split, by their place. What reads raises DataError that names the file and the place."""

    @property
    def ids(self) -> Sequence[str]:
        """Names of the pictures, in order; no two are the same."""

    def file(self, index: int) -> Path:
        """The file that a picture is in."""

    def where(self, index: int) -> str:
        """File and place, in a message."""

    def picture(self, index: int) -> bytes:
        """A picture as it is stored."""

    def picture_size(self, index: int) -> int | None:
        """How many bytes it has; None where there is none."""

    def picture_where(self, index: int) -> str:
        """The picture in a message."""

    def label_where(self, index: int, task: str, spec: TaskBase) -> str:
        """A label in a message."""

    def stored(self, index: int, task: str, spec: TaskBase) -> Any:
        """A label as it is stored; None without one."""

    def all_stored(self, task: str, spec: TaskBase) -> Iterator[Any]:
        """The labels of all pictures."""

    def labelled(self, task: str, spec: TaskBase) -> list[bool]:
        """Whether each picture has a label of a task."""

    def class_names(self, task: str, spec: TaskBase) -> list[str] | None:
        """The names of a task's classes that the files say; None where they say none."""


def open_packed(data: PackedData, split: Split) -> Packed:
    """The whole of a split. Raises DataError or SpecError."""
    return open_shards(data, split) if isinstance(data, WebDatasetData) else open_rows(data, split)  # type: ignore[arg-type]


def packed_places(data: PackedData, split: Split) -> list[int]:
    """The places of the pictures that `limit` and `exclude` leave. Raises DataError or SpecError."""
    ids = open_packed(data, split).ids
    return kept(thinned(list(range(len(ids))), data.limit, split), lambda place: ids[place], data, split)


def files_of(data: PackedData, split: Split) -> list[Path]:
    """The files of a split. Raises DataError where there are none."""
    return shard_files(data, split) if isinstance(data, WebDatasetData) else parquet_files(data, split)  # type: ignore[arg-type]


def place_of(data: PackedData, task: str, spec: TaskBase) -> str:
    """Where a task's labels are, in words."""
    if isinstance(data, WebDatasetData):
        return f"KEY.{spec.target}" if ":" not in str(spec.target) else f"the field {spec.target}"
    return f"the column '{column_of(task, spec)}'"


def packed_classes(task: str, spec: SegmentationSpec | ClassificationSpec, data: PackedData) -> list[str]:
    """The names of a task's classes: as declared, or those of ClassLabels, or else the labels of train, sorted.

    Raises SpecError or DataError where there are none.
    """
    if spec.classes is not None:
        return class_names(spec, data.root)
    known = open_packed(data, "train").class_names(task, spec)
    return packed_words(task, spec, data) if known is None else known


def packed_words(task: str, spec: TaskBase, data: PackedData) -> list[str]:
    """The labels of train, sorted.

    Raises SpecError or DataError where there are none.
    """
    train = open_packed(data, "train")
    found = {
        word
        for i, stored in enumerate(train.all_stored(task, spec))
        for word in as_words(stored, spec, train.label_where(i, task, spec)) or ()
    }
    if not found:
        raise SpecError(f"train has no labels to take the classes from ({place_of(data, task, spec)})")
    return sorted(found, key=lambda label: (0, int(label), "") if label.isdecimal() else (1, 0, label))


def is_derived(spec: TaskBase) -> bool:
    """Whether a task's labels come from other tasks' labels."""
    return isinstance(spec, EdgesSpec) and bool(spec.derive)
