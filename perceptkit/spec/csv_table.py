"""A CSV that lists pictures, one a row, with labels of any number of tasks.

    path,split,species,tags                 path;cat;dog
    a/0001.jpg,train,oak,tree|big           a/0001.jpg;1;0
    a/0002.jpg,val,,?                       a/0002.jpg;;

The first row names the columns. What parts cells is the comma, semicolon or tab with which the wanted column is
there; cells may be quoted, and hold line breaks then. A byte order mark is fine. Paths start from the data root and
stay below it.
"""

import csv
import io
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath

from perceptkit.errors import DataError
from perceptkit.spec.once import once_per_version
from perceptkit.spec.problems import did_you_mean
from perceptkit.spec.shipped import read_text
from perceptkit.spec.templates import shown

DELIMITERS = (",", ";", "\t")


@dataclass(frozen=True)
class Row:
    """One picture."""

    path: str
    """Below the data root, as written."""
    cells: tuple[str, ...]
    """In the order of the columns, without blanks around them."""
    line: int
    """Where it starts in the file, counted from 1."""


@dataclass(frozen=True)
class CsvTable:
    """One file."""

    file: Path
    columns: tuple[str, ...]
    rows: tuple[Row, ...]

    def column(self, name: str) -> int:
        """Where a column is. Raises DataError that lists the columns."""
        if name not in self.columns:
            raise DataError(f"{shown(self.file)} has no column '{name}'{_columns(name, self.columns)}")
        return self.columns.index(name)

    def where(self, row: Row) -> str:
        """Of a row, in a message."""
        return f"{shown(self.file)}: line {row.line}"


@once_per_version
def read_csv_table(file: Path, image: str) -> CsvTable:
    """Reads a file, once per process and version of it.

    Args:
        file: the CSV.
        image: the column of paths.

    Raises:
        DataError: names the file, and the line that is not as it should be. SpecError: it is no text.
    """
    text, where = read_text(file), shown(file)
    header_line = text.lstrip().split("\n", 1)[0].strip()
    if not header_line:
        raise DataError(f"{where} is empty; its first row names the columns")
    headers = {delimiter: next(csv.reader([header_line], delimiter=delimiter)) for delimiter in DELIMITERS}
    named = [d for d, header in headers.items() if image in [name.strip() for name in header]]
    delimiter = named[0] if named else max(DELIMITERS, key=lambda d: len(headers[d]))
    (first, header), *records = _records(where, text, delimiter)
    columns = tuple(header)
    twice = [name for i, name in enumerate(columns) if name in columns[:i]]
    if twice:
        raise DataError(f"{where}: line {first} has two columns '{twice[0]}'")
    if image not in columns:
        hint = f"{_columns(image, columns)}; data.image says which holds the paths"
        raise DataError(f"{where} has no column '{image}'{hint}")
    at = columns.index(image)
    rows: dict[str, Row] = {}
    for line, cells in records:
        if len(cells) != len(columns):
            raise DataError(
                f"{where}: line {line} has {len(cells)} cells; the first row names {len(columns)} columns"
            )
        if fault := _fault_of(path := cells[at]):
            raise DataError(f"{where}: line {line} {fault}")
        if path in rows:
            raise DataError(f"{where}: line {line} lists '{path}' again; line {rows[path].line} does")
        rows[path] = Row(path, cells, line)
    return CsvTable(file, columns, tuple(rows.values()))


def _records(where: str, text: str, delimiter: str) -> list[tuple[int, tuple[str, ...]]]:
    """Rows that are not blank, each with the line it starts in. Raises DataError."""
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    found, start = [], 1
    try:
        for cells in reader:
            if any(cell.strip() for cell in cells):
                found.append((start, tuple(cell.strip() for cell in cells)))
            start = reader.line_num + 1
    except csv.Error as error:
        hint = "; is a quote not closed?" if "end of data" in str(error) else ""
        raise DataError(f"{where}: line {start} is not CSV ({error}){hint}") from error
    return found


def _fault_of(path: str) -> str:
    """What is wrong with the path of a picture, in the words after `line 7`."""
    if not path:
        return "has no path of a picture"
    if PurePosixPath(path).is_absolute() or PureWindowsPath(path).drive:
        return f"names {path}, which is absolute; paths start from data.root"
    if not path.isprintable():
        return f"names {ascii(path)}, with characters that cannot be printed; rename the picture"
    if "\\" in path:
        return f"names {path}; part folders by /"
    return f"names {path}, which is not below data.root" if ".." in PurePosixPath(path).parts else ""


def _columns(name: str, columns: tuple[str, ...]) -> str:
    """The column that is meant, or all of them."""
    hint = did_you_mean(name, columns)
    return hint if hint.startswith("; did") else f"; it has {', '.join(columns)}"
