"""Data sets whose folders and files have fixed names: what a split holds. No torch, no numpy, no picture is opened.

Each layout is a file of its own (nyuv2.py, cityscapes.py, taskonomy.py), which says how it lies on disk.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple, TypeVar

from perceptkit.errors import DataError
from perceptkit.spec.json_file import read_json
from perceptkit.spec.once import once_per_version
from perceptkit.spec.tasks_file import DepthKind, LayoutData, Split
from perceptkit.spec.templates import shown

Item = TypeVar("Item")


class Entry(NamedTuple):
    """One picture."""

    id: str
    image: Path
    labels: Mapping[str, Path]
    """By what the layout calls them; a file may be absent: the label is missing."""


@dataclass(frozen=True)
class Layout:
    """One way in which a data set lies on disk."""

    name: str
    """For messages: `AdaShare's NYUv2`."""
    is_here: Callable[[Path], bool]
    """Whether a root looks like it."""
    expected: str
    """What a root holds, for messages."""
    parts: Mapping[Split, str]
    """The list or folder of each split, where the tasks file says nothing."""
    entries: Callable[[LayoutData, str], list[Entry]]
    """Of one list or folder. Raises DataError."""
    classes: tuple[int, ...]
    """Numbers of classes that its segmentation labels can have."""
    types: tuple[str, ...]
    """Task types that it has labels for."""
    label: Callable[[str, str | None, int], str]
    """label(task type, target, number of classes): which of an entry's labels a task reads."""
    lists: str | None = None
    """Name of the JSON file of lists, where there is one."""
    void: int | None = None
    """Stored id of unlabelled pixels, where there is one."""
    depth: DepthKind = "metric"
    """What its depth labels hold."""


LISTED_PARTS: Mapping[Split, str] = {"train": "train1", "val": "train2", "test": "test"}
"""train1 and train2 are parts of train, so that nothing is chosen on what is tested."""
FOLDER_PARTS: Mapping[Split, str] = {"train": "train", "val": "val", "test": "val"}


def part_of(layout: Layout, data: LayoutData, split: Split) -> str:
    """The list or folder that stands for a split."""
    if split == "val" and data.hold_out is not None:
        split = "train"
    written = (data.splits or {}).get(split)
    if written is None and split == "train" and data.hold_out is not None and layout.lists:
        return "train"  # what is held out comes from all of it
    return written or layout.parts[split]


def held_out(entries: list[Item], part: float | None, split: Split) -> list[Item]:
    """Those of train's entries that are val's (the last ones: neighbours stay together), or the others.

    Args:
        entries: of train, or of test.
        part: `hold_out` of the data; with None all of them are the split's.
        split: which one is wanted.
    """
    if part is None or split == "test":
        return entries
    cut = len(entries) - round(len(entries) * part)
    return entries[cut:] if split == "val" else entries[:cut]


def read_lists(data: LayoutData, usual: str, fields: tuple[str, ...]) -> dict[str, list[list[str]]]:
    """The JSON file of lists: `{"train": [[path, path, ...], ...], ...}`, each entry with one path per field.

    Raises DataError that names the file and the entry that is not as it should be.
    """
    return _read_lists(data.root / (data.lists or usual), fields)


@once_per_version
def _read_lists(path: Path, fields: tuple[str, ...]) -> dict[str, list[list[str]]]:
    where = shown(path)
    try:
        content: Any = read_json(path)
    except DataError as error:
        raise DataError(f"{where} {error}") from error
    if not isinstance(content, dict) or not all(isinstance(entries, list) for entries in content.values()):
        raise DataError(f"{where} is not a mapping of lists: train, train1, train2, test")
    for name, entries in content.items():
        for i, entry in enumerate(entries):
            if not isinstance(entry, list) or not all(isinstance(part, str) for part in entry):
                raise DataError(f"{where}: {name}[{i}] is not a list of paths ({', '.join(fields)})")
            if len(entry) != len(fields):
                wanted = f"expected {len(fields)}: {', '.join(fields)}"
                raise DataError(f"{where}: {name}[{i}] has {len(entry)} paths; {wanted}")
            for part in entry:
                if PurePosixPath(part).is_absolute() or ".." in PurePosixPath(part).parts:
                    raise DataError(f"{where}: {name}[{i}] names {part}, which is not below the root")
    return content


def entries_of_list(data: LayoutData, usual: str, fields: tuple[str, ...], part: str) -> list[Entry]:
    """The entries of one list; the first field is the picture, whose path without its ending is the id.

    Raises DataError.
    """
    lists = read_lists(data, usual, fields)
    if part not in lists:
        where = shown(data.root / (data.lists or usual))
        raise DataError(f"{where} has no list '{part}' but {', '.join(lists)}; name them in data.splits")
    return [
        Entry(
            str(PurePosixPath(paths[0]).with_suffix("")),
            data.root / paths[0],
            {field: data.root / path for field, path in zip(fields[1:], paths[1:], strict=True)},
        )
        for paths in lists[part]
    ]


def numbered(folder: Path, ending: str) -> list[str]:
    """Names of the files of a folder without their ending; whole numbers in their order, other names after them."""
    names = [path.stem for path in folder.glob(f"*{ending}") if not path.name.startswith(".")]
    return sorted(names, key=lambda name: (0, int(name), name) if name.isdecimal() else (1, 0, name))
