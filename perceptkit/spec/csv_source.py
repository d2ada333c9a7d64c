"""`source: csv`: what a split holds, which labels a task has, and the names of its classes. No torch.

A task's labels are in the column `target`, by default the task's own name. An empty cell is a missing label. With
`multi_label` a cell holds classes parted by `|`, nothing where no class is true, and `?` where the label is
missing; or each class is a column of its own of 0 and 1, all empty where the label is missing.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from perceptkit.errors import DataError, SpecError
from perceptkit.spec.classes import class_names
from perceptkit.spec.csv_table import CsvTable, Row, read_csv_table
from perceptkit.spec.excluded import kept
from perceptkit.spec.listed import thinned
from perceptkit.spec.problems import closest
from perceptkit.spec.tasks_file import SPLITS, ClassificationSpec, CsvData, Split, TaskBase
from perceptkit.spec.templates import fill, shown

CSV_TYPES = ("classification", "embedding")
"""Task types that a column can hold the labels of."""
MISSING = "?"
"""In a cell of `multi_label`: the picture has no label, which differs from no class being true."""


class CsvPicture(NamedTuple):
    """One picture."""

    id: str
    """Its path as written: no two pictures of a file have the same."""
    path: Path
    row: Row
    table: CsvTable

    @property
    def where(self) -> str:
        """Its file and line, in a message."""
        return self.table.where(self.row)


def csv_file(data: CsvData, split: Split) -> Path:
    """The file that lists a split."""
    return data.root / fill(data.file, data.splits.get(split, split))


def csv_pictures(data: CsvData, split: Split) -> list[CsvPicture]:
    """The pictures of one split in the order of the rows, thinned to `limit`. Paths are not looked at.

    Raises DataError or SpecError that names the file, and the line that is not as it should be.
    """
    table = read_csv_table(csv_file(data, split), data.image)
    rows: Sequence[Row] = table.rows
    if data.split is not None:
        at, words = table.column(data.split), list(data.splits.values())
        for row in rows:
            if row.cells[at] and row.cells[at] not in words:
                match = closest(row.cells[at], words)
                hint = f"did you mean '{match}'?" if match else "leave it empty to use the picture nowhere"
                message = (
                    f"has the split '{row.cells[at]}'; expected {', '.join(dict.fromkeys(words))}; {hint}"
                )
                raise DataError(f"{table.where(row)} {message}")
        rows = [row for row in rows if row.cells[at] == data.splits[split]]
    pictures = [CsvPicture(row.path, data.root / row.path, row, table) for row in rows]
    return kept(thinned(pictures, data.limit, split), lambda picture: picture.id, data, split)


def csv_labels(task: str, spec: TaskBase, picture: CsvPicture) -> tuple[str, ...] | None:
    """What a picture's row says of a task, as words; None where the label is missing.

    One word of a task with one label for each picture; any number of them with `multi_label`.

    Raises DataError that names the file and the line or the column.
    """
    table, cells = picture.table, picture.row.cells
    multi_label = getattr(spec, "multi_label", False)
    if multi_label and (columns := class_columns(task, spec, table)):
        written = [cells[table.columns.index(column)] for column in columns]
        if not any(written):
            return None
        for cell, column in zip(written, columns, strict=True):
            if cell not in ("0", "1"):
                shown_cell = f"holds '{cell}'" if cell else "holds nothing"
                raise DataError(
                    f"{picture.where} {shown_cell} in the column '{column}'; expected 0 or 1, or nothing in all"
                )
        return tuple(column for cell, column in zip(written, columns, strict=True) if cell == "1")
    cell = cells[table.column(spec.target or task)]
    if not multi_label:
        return (cell,) if cell else None
    if cell == MISSING:
        return None
    return tuple(part.strip() for part in cell.split("|") if part.strip())


def class_columns(task: str, spec: TaskBase, table: CsvTable) -> list[str]:
    """The declared classes of a multi-label task that has a column of 0 and 1 for each; none if it has one column."""
    if not isinstance(spec, ClassificationSpec) or spec.target is not None or task in table.columns:
        return []
    if spec.classes is None or isinstance(spec.classes, int):
        return []
    names = class_names(spec, table.file.parent)
    return names if set(names) <= set(table.columns) else []


def csv_classes(task: str, spec: ClassificationSpec, data: CsvData) -> list[str]:
    """The names of a task's classes: as declared, or else the labels of train, sorted.

    Raises SpecError or DataError where there are none.
    """
    return class_names(spec, data.root) if spec.classes is not None else csv_words(task, spec, data)


def csv_words(task: str, spec: TaskBase, data: CsvData) -> list[str]:
    """The labels of train, sorted.

    Raises SpecError or DataError where there are none.
    """
    whole = data.model_copy(update={"limit": None, "exclude": None})
    pictures = csv_pictures(whole, "train")
    found = {label for picture in pictures for label in csv_labels(task, spec, picture) or ()}
    if not found:
        where = f"{shown(csv_file(data, 'train'))}, column '{spec.target or task}'"
        raise SpecError(f"{where} holds no labels of train to take the classes from")
    return sorted(found, key=lambda label: (0, int(label), "") if label.isdecimal() else (1, 0, label))


def listed_twice(data: CsvData) -> list[str]:
    """Pictures that train has too, in words: results on what was trained on say nothing. Raises DataError."""
    whole = data.model_copy(update={"limit": None})
    of_train = {picture.id: picture for picture in csv_pictures(whole, "train")}
    return [
        f"{picture.where} lists '{picture.id}' for {split}, and {of_train[picture.id].where} for train"
        for split in SPLITS[1:]
        for picture in csv_pictures(whole, split)
        if picture.id in of_train
    ]
