"""`data.exclude`: pictures that a split is without, as `perceptkit check --fix-list` names them.

train	a3	is 'b7' of val too          split, id and, if you like, a reason, with tabs between them
# a comment
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from perceptkit.errors import DataError
from perceptkit.spec.shipped import read_text
from perceptkit.spec.tasks_file import SPLITS, FilesData, Split
from perceptkit.spec.templates import shown

Item = TypeVar("Item")


def read_excluded(path: Path) -> dict[Split, list[str]]:
    """The ids of a list, by split.

    Raises SpecError where it cannot be read, DataError where it is not there and for a line that is none of a list.
    """
    if not path.is_file():
        raise DataError(f"there is no file {shown(path)}; perceptkit check --fix-list writes one")
    found: dict[Split, list[str]] = {}
    for number, line in enumerate(read_text(path).splitlines(), start=1):
        if not line.strip() or line.startswith("#"):
            continue
        split, _, rest = line.partition("\t")
        image_id = as_listed(rest.partition("\t")[0])
        if not image_id:
            message = "expected a split and an id with a tab between them, as --fix-list writes them"
            raise DataError(f"{shown(path)}: line {number} is no picture; {message}")
        if split not in SPLITS:
            raise DataError(
                f"{shown(path)}: line {number} has the split '{split}'; expected {', '.join(SPLITS)}"
            )
        found.setdefault(split, []).append(image_id)
    return found


def of_source(
    listed: dict[Split, list[str]], name: str, others: Sequence[str], separator: str
) -> dict[Split, list[str]]:
    """What a list says of one of several sources: ids may begin with a source's name, and are then of no other."""
    start = name + separator
    starts = tuple(other + separator for other in others if other != name)
    return {
        split: [image_id.removeprefix(start) for image_id in ids if not image_id.startswith(starts)]
        for split, ids in listed.items()
    }


def excluded(data: FilesData, split: Split) -> set[str]:
    """The ids that a split is without, as they are listed; none before the list was read."""
    return set(map(as_listed, data.exclude.get(split, ()))) if isinstance(data.exclude, dict) else set()


def as_listed(image_id: str) -> str:
    """An id as a fix list has it: tabs and runs of spaces are one space."""
    return " ".join(image_id.split())


def kept(items: list[Item], id_of: Callable[[Item], str], data: FilesData, split: Split) -> list[Item]:
    """Those of a split that are not excluded, in their order. Raises DataError where none is left."""
    left_out = excluded(data, split)
    if not left_out or not items:
        return items
    left = [item for item in items if as_listed(id_of(item)) not in left_out]
    if not left:
        raise DataError(f"{split}: 'exclude' lists all of its {len(items)} pictures")
    return left
