"""What every stage of a chain did to metrics, MACs and stored bytes, and what was exported in the end, as a table."""

import math

from perceptkit.report.chain_file import Chain
from perceptkit.report.grid import DOWN, UP, Cell, Column, Row, Table, number
from perceptkit.report.tables import DECIMALS, scaled

TITLES = {
    "base": "as it came",
    "adapt": "adapted",
    "fold": "plain weights",
    "route": "router learned",
    "finetune": "tuned together",
    "emitted": "the artifact",
}
"""What is said below a stage's name."""


def chain_table(chain: Chain | None) -> Table | None:
    """A column for each stage and each exported file; None where there is no stage, or one alone."""
    if chain is None or len(chain.rows) < 2:
        return None
    shown = (*chain.rows, *chain.exported)
    rows: list[Row] = []
    for task, about in chain.tasks.items():
        metric = about["primary"]
        info = about["info"][metric]
        decimals = DECIMALS.get(info["unit"], 3)
        arrow = f"{info['unit']} {UP if info['higher_is_better'] else DOWN}".strip()
        rows.append(Row(task, tuple(Cell() for _ in shown), kind="task"))
        for split in ("val", "test"):
            values = [getattr(row, split).get(task, {}).get(metric, math.nan) for row in shown]
            if not all(map(math.isnan, values)):
                cells = tuple(Cell(number(value, decimals)) for value in values)
                rows.append(Row(f"{metric}, {split}", cells, arrow))
    macs_scale, macs_unit, macs_decimals = scaled([row.macs for row in shown])
    bytes_scale, bytes_unit, bytes_decimals = scaled([row.bits / 8 for row in shown])
    macs = tuple(Cell(number(row.macs / macs_scale, macs_decimals)) for row in shown)
    stored = tuple(Cell(number(row.bits / 8 / bytes_scale, bytes_decimals)) for row in shown)
    rows.append(Row("MACs", macs, f"{macs_unit} {DOWN}", "total"))
    rows.append(Row("stored", stored, f"{bytes_unit}B {DOWN}", "total"))
    if chain.exported:
        off = tuple(Cell("" if math.isnan(row.off) else f"{row.off:.1e}") for row in shown)
        rows.append(Row("off the artifact", off, DOWN, "total"))
    columns = tuple(Column(row.stage, row.kind or TITLES.get(row.stage, "")) for row in shown)
    return Table("task, metric", columns, tuple(rows), _notes(chain))


def _notes(chain: Chain) -> tuple[str, ...]:
    stages = {row.stage for row in chain.rows}
    notes = [
        "Every stage on val, by the weights that it hands on; test is for the first of them and the artifact. MACs "
        "of one picture; where a router decides they are the mean over val, with its own. Stored: all that the network "
        "of that stage needs."
    ]
    if "base" in stages:
        notes.append(
            "base: the network that this run starts from, on this run's pictures; new tasks have no number."
        )
    if chain.exported:
        notes.append(
            "Files: what lies in exports/, by its size on disk. Off the artifact: the largest difference of an output, "
            "as a part of its head's scale; below 1e-4 metrics are the artifact's. Metrics of a file were measured "
            "with the file itself."
        )
    if chain.damaged:
        notes.append(f"Records in exports/ that cannot be read: {', '.join(chain.damaged)}.")
    return tuple(notes)
