"""What each task's loss came to on the pictures of each source, where a run has several: from the run's log."""

import math
from collections.abc import Sequence

from perceptkit.report.grid import Cell, Column, Row, Table, number
from perceptkit.report.run_folder import Row as LogRow
from perceptkit.report.run_folder import Run

PREFIX = "source_loss/"


def source_losses(run: Run) -> Table | None:
    """Training loss by source and task, in the first and the last epoch of the last stage; None with one source."""
    rows = run.of_kind("train")
    keys = list(dict.fromkeys(key for row in rows for key in row if key.startswith(PREFIX)))
    if not keys:
        return None
    of_stage = [row for row in rows if row["stage"] == rows[-1]["stage"]]
    epochs = [of_stage[0]["epoch"], of_stage[-1]["epoch"]]
    found: list[Row] = []
    by_source: dict[str, list[str]] = {}
    for key in keys:
        source, task = key.removeprefix(PREFIX).split("/", 1)
        by_source.setdefault(source, []).append(task)
    for source, tasks in by_source.items():
        found.append(Row(source, (Cell(), Cell()), kind="task"))
        for task in sorted(
            tasks, key=lambda name: run.tasks.index(name) if name in run.tasks else len(run.tasks)
        ):
            values = [_mean(of_stage, epoch, f"{PREFIX}{source}/{task}") for epoch in epochs]
            found.append(Row(task, tuple(Cell(number(value, 3)) for value in values)))
    columns = (Column("first epoch"), Column("last epoch", f"of {rows[-1]['stage']}"))
    return Table("source, task", columns, tuple(found), ("Training loss of the pictures that have a label.",))


def _mean(rows: Sequence[LogRow], epoch: int, key: str) -> float:
    values = [row[key] for row in rows if row["epoch"] == epoch and isinstance(row.get(key), int | float)]
    return sum(values) / len(values) if values else math.nan
