"""What `comparison.compare` found, as tables: one over everything, then one for each task with all of its metrics."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from perceptkit.report.grid import DOWN, UP, Cell, Column, Row, Table, best_of, markdown, number
from perceptkit.report.run_folder import MetricInfo
from perceptkit.report.tables import DECIMALS, direction, no_better, scaled

PLUS_MINUS = "\N{PLUS-MINUS SIGN}"
Stat = Mapping[str, Any]
NONE: Stat = {"mean": None, "std": None, "values": []}


def as_markdown(found: Mapping[str, Any]) -> str:
    """All tables and notes."""
    return "\n".join(markdown(table) for table in tables_of(found))


def tables_of(found: Mapping[str, Any]) -> list[Table]:
    """The table over everything, whose notes are those of the comparison, and a table for each task."""
    tasks = [_task_table(found, name, task) for name, task in found["tasks"].items()]
    notes = list(found["notes"])
    if any(cell.mark == "poor" for table in tasks for row in table.rows for cell in row.cells):
        notes.append("(!) No better than the best constant predictor.")
    return [_overview(found, notes), *tasks]


def _overview(found: Mapping[str, Any], notes: Sequence[str]) -> Table:
    rows, constant = found["rows"], found["constant"]
    columns = [_counts(rows)] if any(len(row["runs"]) > 1 for row in rows) else []
    if any(row["delta_mtl"] for row in rows):
        columns.append(_delta("delta-MTL", rows, lambda row: row["delta_mtl"]))
    for name, task in found["tasks"].items():
        columns.append(_metric(name, task["primary"], name, task, rows, constant, named=True))
    columns.append(_cost("parameters", rows, lambda row: row["params"]))
    columns.append(_cost("MACs", rows, lambda row: row["macs"], "all tasks"))
    columns.append(_column("MACs", "of hard-shared", rows, lambda row: row["of_hard_shared"], 2, False))
    columns.append(_column("latency", f"ms {DOWN}", rows, lambda row: row["latency_ms"], 2, False))
    if any("latency_of_single" in row for row in rows):
        of_single = _column("latency", "of single", rows, lambda row: row["latency_of_single"], 2, False)
        columns.append(of_single)
    return _table("run", rows, columns, bool(constant), tuple(notes))


def _task_table(found: Mapping[str, Any], name: str, task: Mapping[str, Any]) -> Table:
    rows = [row for row in found["rows"] if name in row["metrics"]]
    constant = found["constant"]
    columns = []
    if any(row["delta_by_task"] for row in rows):
        columns.append(_delta("delta", rows, lambda row: row["delta_by_task"].get(name)))
    names = dict.fromkeys(metric for row in rows for metric in row["metrics"][name])
    for metric in sorted(names, key=lambda m: m != task["primary"]):
        columns.append(_metric(name, metric, metric, task, rows, constant))
    columns.append(_cost("MACs", rows, lambda row: row["per_task_macs"].get(name), "this task alone"))
    label = name if task["type"] == name else f"{name} ({task['type']})"
    return _table(label, rows, columns, name in constant, ())


Made = tuple[Column, list[Cell], Cell]
"""A column's heading, its cells by row, and that of the constant predictor."""


def _table(
    corner: str,
    rows: Sequence[Mapping[str, Any]],
    columns: Sequence[Made],
    with_constant: bool,
    notes: tuple[str, ...],
) -> Table:
    lines = [
        Row(row["title"], tuple(cells[i] for _, cells, _ in columns), _method(row))
        for i, row in enumerate(rows)
    ]
    if with_constant:
        lines.append(Row("constant predictor", tuple(last for _, _, last in columns)))
    return Table(corner, tuple(column for column, _, _ in columns), tuple(lines), notes)


def _method(row: Mapping[str, Any]) -> str:
    return row["method"] if row["method"] not in row["title"] else ""


def _counts(rows: Sequence[Mapping[str, Any]]) -> Made:
    return Column("seeds"), [Cell(str(len(row["runs"]))) for row in rows], Cell()


def _delta(title: str, rows: Sequence[Mapping[str, Any]], of: Callable[[Any], Stat | None]) -> Made:
    return _column(title, f"% {UP}", rows, of, 1, True, signed=True)


def _metric(
    task: str,
    metric: str,
    title: str,
    told: Mapping[str, Any],
    rows: Sequence[Mapping[str, Any]],
    constant: Mapping[str, Mapping[str, float]],
    named: bool = False,
) -> Made:
    """One metric; `named`: the column says which."""
    found = told["info"].get(metric)
    info = MetricInfo(found["higher_is_better"], found["unit"]) if found else None
    decimals = DECIMALS.get(info.unit, 3) if info else 3
    worst = constant.get(task, {}).get(metric, math.nan)
    note = direction(info)
    column, cells, _ = _column(
        title, f"{metric} {note}".strip() if named else note, rows,
        lambda row: row["metrics"].get(task, {}).get(metric), decimals, info.higher_is_better if info else None,
    )  # fmt: skip
    means = [_mean(row["metrics"].get(task, {}).get(metric)) for row in rows]
    if info is not None:
        cells = [
            Cell(cell.text, "poor") if no_better(mean, worst, info.higher_is_better) else cell
            for cell, mean in zip(cells, means, strict=True)
        ]
    return column, cells, Cell(number(worst, decimals))


def _cost(
    title: str, rows: Sequence[Mapping[str, Any]], of: Callable[[Any], Stat | None], note: str = ""
) -> Made:
    scale, unit, decimals = scaled([_mean(of(row)) for row in rows])
    words = f"{unit}{', ' if note else ''}{note} {DOWN}"
    return _column(title, words, rows, of, decimals, False, scale)


def _column(
    title: str,
    note: str,
    rows: Sequence[Mapping[str, Any]],
    of: Callable[[Any], Stat | None],
    decimals: int,
    higher_is_better: bool | None,
    scale: float = 1.0,
    signed: bool = False,
) -> Made:
    """`of` gives a row's number; the best is marked where it is known which way is better."""
    means = [_mean(of(row)) / scale for row in rows]
    best = [False] * len(rows)
    if higher_is_better is not None:
        best = best_of(means, decimals, higher_is_better)
    cells = []
    for row, mean, is_best in zip(rows, means, best, strict=True):
        text, std = number(mean, decimals, signed), (of(row) or NONE)["std"]
        if std is not None:
            text += f" {PLUS_MINUS} {number(std / scale, decimals)}"
        cells.append(Cell(text, "best" if is_best else ""))
    return Column(title, note), cells, Cell()


def _mean(found: Stat | None) -> float:
    return math.nan if found is None or found["mean"] is None else float(found["mean"])
