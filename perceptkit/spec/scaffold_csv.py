"""`perceptkit init` for a CSV that lists pictures, with a column of splits or a file for each split."""

import csv
import re
from pathlib import Path
from typing import Any

from perceptkit.errors import PerceptkitError
from perceptkit.spec.csv_table import DELIMITERS, CsvTable, read_csv_table
from perceptkit.spec.folder_files import PICTURES, split_of
from perceptkit.spec.label_guess import NotGuessed, guess_words
from perceptkit.spec.scaffold_text import size_line, stand_ins, task_lines, written
from perceptkit.spec.shipped import read_text
from perceptkit.spec.tasks_file import Split

LOOKED_AT = 20
"""Rows whose pictures are looked for."""


def csv_lines(folder: Path, root: str) -> list[str] | None:
    """The lines below `data:` for a CSV with paths of pictures; None where there is none.

    Args:
        folder: what to propose a tasks file from.
        root: the same, as the file will name it.
    """
    files = sorted(path for path in folder.glob("*.csv") if path.name[0] != ".")
    by_template: dict[str, dict[Split, Path]] = {}
    for path in files:
        word, parts = _split_word(path), re.split(r"([_.-])", path.stem)
        template = "".join("{split}" if part == word else part for part in parts) + path.suffix
        split = split_of(word or "") or "train"
        by_template.setdefault(template, {}).setdefault(split, path)
    for template, of_split in sorted(by_template.items(), key=lambda item: "{split}" not in item[0]):
        if "train" in of_split and (found := _lines(folder, root, template, of_split)) is not None:
            return found
    return None


def _lines(folder: Path, root: str, template: str, files: dict[Split, Path]) -> list[str] | None:
    image = _image_column(folder, files["train"])
    if image is None:
        return None
    try:
        tables = {split: read_csv_table(path, image) for split, path in files.items()}
    except PerceptkitError:
        return None
    train = tables["train"]
    split_column = None if "{split}" in template else _split_column(train)
    if split_column is not None:
        at = train.column(split_column)
        words = {split: row.cells[at] for row in train.rows if (split := split_of(row.cells[at])) is not None}
        chosen, note = stand_ins(words, "row")
    else:
        words = {split: word for split, path in files.items() if (word := _split_word(path)) is not None}
        chosen, note = stand_ins(words, "file")
    lines = [
        "  source: csv",
        f"  root: {written(root)}  # relative to this file",
        f"  file: {written(template)}",
        f"  image: {written(image)}  # ? {sum(len(table.rows) for table in tables.values())} rows",
    ]
    if split_column is not None:
        lines.append(f"  split: {written(split_column)}")
    elif "{split}" not in template:
        lines.append("  # to do: split: the column that says which of train, val and test a row is of")
    if words and any(chosen.get(split) != split for split in ("train", "val", "test")):
        lines.append(f"  splits: {written(chosen)}{note}")
    lines.append(size_line(path for row in train.rows if (path := folder / row.path).is_file()))
    guesses: dict[str, Any] = {}
    unknown: dict[str, str] = {}
    for column in train.columns:
        if column in (image, split_column):
            continue
        try:
            guesses[column] = guess_words(_labels(tables, column, split_column, chosen))
        except NotGuessed as reason:
            unknown[f"column '{column}'"] = str(reason)
    return [*lines, *task_lines(guesses, unknown)]


def _labels(
    tables: dict[Split, CsvTable], column: str, split_column: str | None, words: dict[Split, str]
) -> dict[str, list[Any]]:
    """The cells of a column by split; None for empty ones."""
    found: dict[str, list[Any]] = {}
    for split, table in tables.items():
        if column not in table.columns:
            raise NotGuessed(f"{table.file.name} has no such column")
        at = table.column(column)
        by = None if split_column is None else table.column(split_column)
        for row in table.rows:
            of_row = (
                split if by is None else next((s for s, word in words.items() if word == row.cells[by]), None)
            )
            if of_row is not None:
                found.setdefault(of_row, []).append(row.cells[at] or None)
    return found


def _split_word(path: Path) -> str | None:
    """The part of a file's name that is called after a split."""
    return next((part for part in re.split(r"[_.-]", path.stem) if split_of(part)), None)


def _image_column(folder: Path, path: Path) -> str | None:
    """The first column whose first cells are paths of pictures below the folder."""
    try:
        text = read_text(path)
    except PerceptkitError:
        return None
    for delimiter in DELIMITERS:
        try:
            rows = [row for row in csv.reader(text.splitlines()[: LOOKED_AT + 1], delimiter=delimiter) if row]
        except csv.Error:
            continue
        for i, name in enumerate(rows[0] if rows else ()):
            cells = [row[i].strip() for row in rows[1:] if i < len(row)]
            are_pictures = [cell.lower().endswith(PICTURES) and (folder / cell).is_file() for cell in cells]
            if any(are_pictures):
                return name.strip().lstrip("\ufeff")
    return None


def _split_column(table: CsvTable) -> str | None:
    """The first column whose words are all names of splits, train among them."""
    for i, column in enumerate(table.columns):
        words = {row.cells[i] for row in table.rows if row.cells[i]}
        if words and all(split_of(word) for word in words) and "train" in map(split_of, words):
            return column
    return None
