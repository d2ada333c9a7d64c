"""The CSV of a classification task.

    id,label                        id,label                    id,cat,dog
    0001,kitchen                    0001,cat|dog                0001,1,1
    0002,bath                       0002,                       0002,0,0
    one class per picture           several (multi_label)       several, a 0/1 column per class

The header is optional except where it names the columns. An empty label is a missing one, unless
`multi_label`, where it says that no class is true. An image without a row has no label.
"""

import csv
from dataclasses import dataclass
from pathlib import Path

from perceptkit.errors import DataError
from perceptkit.spec.shipped import read_text

ID_WORDS = ("id", "image", "image_id", "img", "file", "filename", "name")


@dataclass(frozen=True)
class LabelTable:
    """Labels by image id, as written."""

    labels: dict[str, tuple[str, ...]]
    columns: tuple[str, ...] = ()
    """Class names, where each class has its own column."""


def read_label_csv(path: Path, multi_label: bool) -> LabelTable:
    """Reads the labels of one CSV.

    Raises:
        DataError: names the file and the line that cannot be a label.
    """
    rows = [(i, [cell.strip() for cell in row]) for i, row in enumerate(csv.reader(_lines(path)), start=1)]
    rows = [(i, row) for i, row in rows if any(row)]
    columns: tuple[str, ...] = ()
    if rows and rows[0][1][0].lower() in ID_WORDS:
        header = rows.pop(0)[1]
        columns = tuple(header[1:]) if len(header) > 2 else ()
    labels: dict[str, tuple[str, ...]] = {}
    for line, row in rows:
        if len(row) != 1 + (len(columns) or 1):
            raise DataError(f"{path}: line {line} has {len(row)} cells; expected {1 + (len(columns) or 1)}")
        if row[0] in labels:
            raise DataError(f"{path}: line {line} labels the image '{row[0]}' a second time")
        if columns:
            labels[row[0]] = _true_columns(path, line, row[1:], columns)
        elif row[1]:
            labels[row[0]] = tuple(part.strip() for part in row[1].split("|")) if multi_label else (row[1],)
        elif multi_label:
            labels[row[0]] = ()
    return LabelTable(labels, columns)


def _lines(path: Path) -> list[str]:
    return read_text(path).splitlines()


def _true_columns(path: Path, line: int, cells: list[str], columns: tuple[str, ...]) -> tuple[str, ...]:
    for cell, column in zip(cells, columns, strict=True):
        if cell not in ("0", "1"):
            raise DataError(f"{path}: line {line} holds '{cell}' in the column '{column}'; expected 0 or 1")
    return tuple(column for cell, column in zip(cells, columns, strict=True) if cell == "1")
