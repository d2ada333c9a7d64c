"""A table as data: cells that know how to align and what to stress; Markdown from it. The page makes HTML."""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

NOTHING = "\N{EN DASH}"
UP, DOWN = "\N{UPWARDS ARROW}", "\N{DOWNWARDS ARROW}"

Mark = Literal["", "best", "poor"]


@dataclass(frozen=True)
class Cell:
    """One number as it is printed."""

    text: str = ""
    mark: Mark = ""

    @property
    def whole(self) -> str:
        """What stands left of the decimal point."""
        return self.text.partition(".")[0]

    @property
    def fraction(self) -> str:
        """The decimal point and what stands right of it."""
        return self.text[len(self.whole) :]


@dataclass(frozen=True)
class Column:
    """A heading and, smaller, what it needs to be understood."""

    title: str
    note: str = ""


@dataclass(frozen=True)
class Row:
    """A label and its cells; the kind `task` opens a group, `primary` and `total` are stressed."""

    label: str
    cells: tuple[Cell, ...]
    note: str = ""
    kind: Literal["", "task", "primary", "total"] = ""


@dataclass(frozen=True)
class Table:
    """Rows under columns, the first column being the rows' labels."""

    corner: str
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    notes: tuple[str, ...] = field(default=())

    def tail(self, k: int) -> int:
        """Characters from the decimal point on, in the longest cell of column k."""
        return max((len(row.cells[k].fraction) for row in self.rows), default=0)

    @property
    def has_best(self) -> bool:
        """Whether any cell is marked as the best of its row."""
        return any(cell.mark == "best" for row in self.rows for cell in row.cells)


def number(value: float, decimals: int, signed: bool = False) -> str:
    """A number for a cell; a real minus sign; empty for NaN.

    >>> number(0.5, 1), number(float("nan"), 1), number(2.25, 1, signed=True)
    ('0.5', '', '+2.2')
    """
    if math.isnan(value):
        return ""
    if math.isinf(value):
        return "inf" if value > 0 else "\N{MINUS SIGN}inf"
    text = f"{value:{'+' if signed else ''}.{decimals}f}"
    if float(text) == 0:
        text = text.lstrip("+-")
    return text.replace("-", "\N{MINUS SIGN}")


def best_of(values: Sequence[float], decimals: int, higher_is_better: bool) -> list[bool]:
    """Which values are the best as printed; none where there is nothing to choose from."""
    finite = [round(value, decimals) for value in values if math.isfinite(value)]
    if len(finite) < 2 or len(set(finite)) < 2:
        return [False] * len(values)
    best = max(finite) if higher_is_better else min(finite)
    return [math.isfinite(value) and round(value, decimals) == best for value in values]


def markdown(table: Table) -> str:
    """The table for a README: bold is best, decimal points align in the source text too."""
    if not table.columns:
        return "".join(f"{_escape(note)}\n" for note in table.notes)
    heads = [table.corner, *(_escape(f"{c.title} ({c.note})" if c.note else c.title) for c in table.columns)]
    labels = [_label(row) for row in table.rows]
    tails = [
        max((len(_stressed(row, k)) - _point(row, k) for row in table.rows), default=0)
        for k in range(len(table.columns))
    ]
    columns = [labels] + [
        [_stressed(row, k).ljust(_point(row, k) + tails[k]) for row in table.rows]
        for k in range(len(table.columns))
    ]
    widths = [max(len(text) for text in [head, *column]) for head, column in zip(heads, columns, strict=True)]
    first, *others = widths
    lines = [
        [heads[0].ljust(first), *(head.rjust(w) for head, w in zip(heads[1:], others, strict=True))],
        ["-" * first, *("-" * (w - 1) + ":" for w in others)],
    ]
    for i, label in enumerate(labels):
        cells = (column[i].rjust(w) for column, w in zip(columns[1:], others, strict=True))
        lines.append([label.ljust(first), *cells])
    text = "\n".join("| " + " | ".join(line) + " |" for line in lines)
    return text + "".join(f"\n\n{_escape(note)}" for note in table.notes) + "\n"


def _escape(text: str) -> str:
    """Plain text in Markdown; an underscore inside a word needs no escape."""
    escaped = re.sub(r"([\\`*\[\]<>|]|(?<![^\W_])_|_(?![^\W_]))", r"\\\1", text)
    return " ".join(escaped.split())


def _label(row: Row) -> str:
    name = _escape(row.label)
    if row.kind in ("task", "total"):
        name = f"**{name}**"
    return " ".join(filter(None, (name, _escape(row.note))))


def _stressed(row: Row, k: int) -> str:
    cell = row.cells[k]
    if not cell.text:
        return NOTHING if row.kind in ("", "primary") else ""
    return {"best": f"**{cell.text}**", "poor": f"{cell.text} (!)", "": cell.text}[cell.mark]


def _point(row: Row, k: int) -> int:
    """Characters before the decimal point in `_stressed`."""
    cell = row.cells[k]
    if not cell.text:
        return len(_stressed(row, k))
    return len(cell.whole) + (2 if cell.mark == "best" else 0)
