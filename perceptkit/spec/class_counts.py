"""How often each class of a task is labelled, split by split.

Shapes: H W pixels of a label file.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from perceptkit.spec.check_labels import id_counts, percent
from perceptkit.spec.tasks_file import ClassificationSpec, KeypointsSpec, SegmentationSpec, TaskBase

SHOWN_CLASSES = 40


@dataclass
class ClassCounts:
    """Of one task."""

    names: Sequence[str]
    """Of its classes, points or kinds of point."""
    noun: str
    """What is counted beside pictures: pixels or points; empty for classes of whole pictures."""
    of_opened: bool = False
    """Whether only the pictures that were opened are counted."""
    pictures: dict[str, np.ndarray] = field(default_factory=dict)
    """By split, int64 (N,): pictures in which the class occurs."""
    amounts: dict[str, np.ndarray] = field(default_factory=dict)
    """By split, int64 (N,): pixels or points of the class."""

    def add(self, split: str, found: Mapping[int, int]) -> None:
        """Adds one picture: how much of which class is in it."""
        for table, by_one in ((self.pictures, True), (self.amounts, False)):
            counts = table.setdefault(split, np.zeros(len(self.names), np.int64))
            for index, amount in found.items():
                counts[index] += 1 if by_one else amount

    def copy(self) -> "ClassCounts":
        """One that can be added to."""
        empty = ClassCounts(self.names, self.noun, self.of_opened)
        empty.include(self)
        return empty

    def include(self, other: "ClassCounts") -> None:
        """Adds all that another source has of the same classes."""
        for table, theirs in ((self.pictures, other.pictures), (self.amounts, other.amounts)):
            for split, counts in theirs.items():
                table[split] = table.get(split, 0) + counts

    def lines(self, task: str, splits: Sequence[str]) -> list[str]:
        """A table: classes x splits."""
        if not self.pictures:
            return []
        share = f" (and its share of all labelled {self.noun})" if self.noun else ""
        among = ", of those that were opened" if self.of_opened else ""
        rows = [["class", *splits]]
        rows += [
            [name, *(self._cell(split, i) for split in splits)]
            for i, name in enumerate(self.names[:SHOWN_CLASSES])
        ]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = [f"{task}: pictures with each class{share}{among}"]
        for row in rows:
            first, *others = (
                f"{cell:>{w}}" if i else f"{cell:<{w}}"
                for i, (cell, w) in enumerate(zip(row, widths, strict=True))
            )
            lines.append("  ".join(["", first, *others]).rstrip())
        more = len(self.names) - SHOWN_CLASSES
        return [*lines, f"  and {more} more classes; --json has all"] if more > 0 else lines

    def as_json(self) -> dict[str, Any]:
        """By split and class: the number of pictures, and that of pixels or points."""
        return {
            split: {
                name: {"pictures": int(pictures[i])}
                | ({self.noun: int(self.amounts[split][i])} if self.noun else {})
                for i, name in enumerate(self.names)
            }
            for split, pictures in self.pictures.items()
        }

    def _cell(self, split: str, index: int) -> str:
        if split not in self.pictures:
            return "0"
        amounts, shown = self.amounts[split], str(self.pictures[split][index])
        if not self.noun or not amounts.sum():
            return shown
        return f"{shown} ({percent(amounts[index] / amounts.sum())} %)"


def counts_of_task(spec: TaskBase, names: Sequence[str]) -> ClassCounts | None:
    """A table without numbers; None for a task that has no classes."""
    if isinstance(spec, SegmentationSpec):
        return ClassCounts(names, "pixels", of_opened=True)
    if isinstance(spec, KeypointsSpec):
        own = spec.kinds if spec.kinds is not None else spec.names or []
        return ClassCounts(own, "points", of_opened="{id}" in (spec.target or ""))
    return ClassCounts(names, "") if isinstance(spec, ClassificationSpec) else None


def pixels_of_classes(spec: SegmentationSpec, values_HW: np.ndarray, num_classes: int) -> dict[int, int]:
    """How many pixels of a label map each class has; ids that are no class are left out."""
    if values_HW.dtype.kind not in "bui":
        return {}
    pairs = zip(*(column.tolist() for column in id_counts(values_HW)), strict=True)
    return {i: count for i, count in pairs if 0 <= i < num_classes and i != spec.ignore_index}


def points_of_kinds(spec: KeypointsSpec, points: Any) -> dict[int, int]:
    """How many labelled points of each name or kind one picture has; what is no point is left out."""
    names = spec.kinds if spec.kinds is not None else spec.names or []
    found: dict[int, int] = {}
    for index in _points(spec, points, names):
        found[index] = found.get(index, 0) + 1
    return found


def _points(spec: KeypointsSpec, points: Any, names: Sequence[str]) -> Iterator[int]:
    if spec.kinds is None:
        for name, point in points.items() if isinstance(points, dict) else ():
            labelled = isinstance(point, list) and (
                len(point) == 2 or (len(point) == 3 and point[2] in (1, 2))
            )
            if name in names and labelled:
                yield names.index(name)
        return
    for point in points if isinstance(points, list) else ():
        kind = point[2] if isinstance(point, list) and len(point) == 3 else None
        if kind in names:
            yield names.index(kind)
        elif isinstance(kind, int) and not isinstance(kind, bool) and 0 <= kind < len(names):
            yield kind
