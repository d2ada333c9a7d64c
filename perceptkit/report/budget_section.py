"""The page's section on the budget: what was asked for, what the plan costs, and the curve of a sweep."""

import json
import math
from dataclasses import dataclass

from perceptkit.report.budget_curve import Curve, as_table, curve_from
from perceptkit.report.budget_file import BudgetFile, asked_in
from perceptkit.report.grid import Cell, Column, Row, Table, number
from perceptkit.report.run_folder import Run

UNITS = {
    "macs": "of a hard-shared pass",
    "params": "of the hard-shared network",
    "latency_ms": "ms",
    "max_drop": "of a hard-shared pass",
}
"""What a cost is, by kind of budget."""
ASKED = {
    "macs": "{:g} of the MACs of a hard-shared pass",
    "params": "{:g} of the parameters of the hard-shared network",
    "latency_ms": "{:g} ms per picture, as the sum over a table of blocks",
    "max_drop": "at most {:.2%} less quality on val than all blocks have, for as few MACs as may be",
}


@dataclass(frozen=True)
class Section:
    """Everything the template shows."""

    words: str
    found: tuple[Table, ...]
    sweep: Table | None
    sweep_words: str


def budget_section(run: Run) -> Section | None:
    """None for a run without a budget."""
    asked = asked_in(run.specs.get("recipe") or {}) if run.specs else None
    if asked is None and run.budget is not None:
        asked = run.budget.kind, run.budget.asked
    if asked is None:
        return None
    kind, amount = asked
    words = f"Asked for: {ASKED[kind].format(amount)}."
    tables: tuple[Table, ...] = ()
    if run.budget is not None:
        words = f"{words} {_outcome(run.budget)}"
        tables = (found_table(run.budget, run), *([tried_table(run.budget)] if kind == "max_drop" else []))
    else:
        words += " The plan is decided within it when the search is over."
    curve = sweep_of(run)
    if curve is None:
        return Section(words, tables, None, "")
    return Section(
        words, tables, as_table(curve), f"This run is one of {len(curve.points)} that differ in their budget."
    )


def sweep_of(run: Run) -> Curve | None:
    """The curve of the sweep that the run is a part of, from sweep.json in the folder above, if there is one."""
    try:
        loaded = json.loads((run.path.resolve().parent / "sweep.json").read_text(encoding="utf-8"))
        curve = curve_from(loaded)
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return curve if any(point.run == run.name for point in curve.points) else None


def _outcome(found: BudgetFile) -> str:
    unit = UNITS[found.kind]
    costs = f"The plan costs {number(found.cost, 3)} {unit}"
    other = ""
    if found.ended_with is not None:
        other = (
            f" It was the best on val; the search ended with one that costs {number(found.ended_with, 3)}."
        )
    distance = found.distance
    if found.kind == "max_drop":
        lost = "" if math.isnan(distance) else f" and loses {(1 + distance) * found.asked:.2%} of the quality"
        return f"{costs}{lost}.{other}"
    told = f"{costs}, {abs(distance):.1%} {'above' if distance > 0 else 'below'} the budget."
    if found.is_within or other:
        return f"{told}{other}"
    if math.isinf(found.next_above):
        return f"{told} No plan that was found spends more."
    return f"{told} Blocks are too coarse for less: the next plan that was found above it costs {found.next_above:.3f}."


def found_table(found: BudgetFile, run: Run) -> Table:
    """One row: asked for, expected at the end of the search, most probable, decided, distance, multiplier."""
    last = next((row for row in reversed(run.of_kind("policy")) if "expected_cost" in row), {})
    unit = UNITS[found.kind]
    is_drop = found.kind == "max_drop"
    cells = (
        Cell(number(100 * found.asked if is_drop else found.asked, 2 if is_drop else 3)),
        Cell(number(float(last.get("expected_cost", math.nan)), 3)),
        Cell(number(found.most_probable, 3)),
        Cell(number(found.cost, 3)),
        Cell(number(100 * found.distance, 1, signed=True)),
        Cell(number(float(last.get("multiplier", math.nan)), 3)),
    )
    columns = (
        Column("asked for", "% of quality" if is_drop else ""),
        Column("expected", "end of search"),
        Column("most probable", "plan"),
        Column("decided", "plan"),
        Column("distance", "% of asked"),
        Column("multiplier", "end of search"),
    )
    return Table("budget", columns, (Row(found.kind, cells, unit, "primary"),))


def tried_table(found: BudgetFile) -> Table:
    """Of `max_drop`: the plans that were tried on val with the weights of the search, by falling cost."""
    rows = tuple(
        Row(
            "all blocks" if trial.cost == 1 and trial.drop == 0 else "plan",
            (Cell(number(trial.cost, 3)), Cell(number(100 * trial.drop, 2))),
            "decided" if trial.cost == found.cost else "",
            "primary" if trial.cost == found.cost else "",
        )
        for trial in sorted(found.tried, key=lambda trial: -trial.cost)
    )
    columns = (Column("MACs", UNITS["max_drop"]), Column("loss of quality", "% on val"))
    return Table("tried", columns, rows)
