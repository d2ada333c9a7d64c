"""The curve of a budget sweep: what each budget cost in the end, and what it reached.

read_curve(folders), curve_from(sweep_json) -> Curve        as_table(curve), as_json(curve), write_plot(curve, path)
"""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from perceptkit.report.grid import DOWN, UP, Cell, Column, Row, Table, best_of, number
from perceptkit.report.run_folder import MetricInfo, read_run
from perceptkit.report.tables import DECIMALS, direction, scaled
from perceptkit.report.theme import LIGHT, Theme, panels, style
from perceptkit.train.run_folder import write_atomically

AXES = {
    "macs": "MACs, part of a hard-shared pass",
    "params": "parameters, part of the hard-shared network",
    "latency_ms": "ms per picture, by the table of blocks",
    "max_drop": "MACs, part of a hard-shared pass",
}
"""What `Point.cost` is, by kind of budget."""


@dataclass(frozen=True)
class Point:
    """One finished run."""

    run: str
    """Its folder's name."""
    budget: float
    cost: float
    """Of the decided plan, as AXES says."""
    is_within: bool
    """Whether blocks are fine enough to meet the budget."""
    params: int
    macs: int
    score: float
    """Mean quality on the test split, in [0, 1]."""
    primary: dict[str, float]
    """By task."""


@dataclass(frozen=True)
class Curve:
    """All of them, by rising budget."""

    kind: str
    points: tuple[Point, ...]
    metrics: dict[str, tuple[str, MetricInfo]]
    """By task: its primary metric."""
    unreached: tuple[float, ...] = ()
    """Budgets that no plan can meet, and so no run has, rising."""
    least: float | None = None
    """The smallest budget that a plan can meet, where there is any that none can."""

    @property
    def note(self) -> str:
        """What cannot be reached, in words; empty where everything can."""
        if not self.unreached:
            return ""
        asked = ", ".join(f"{budget:g}" for budget in self.unreached)
        return f"{asked} cannot be reached (least {self.least:g})"


def read_curve(folders: Sequence[Path]) -> Curve:
    """From finished runs with a budget. Raises SpecError for a folder that is no run."""
    points, kind, metrics = [], "", {}
    for folder in folders:
        run = read_run(folder)
        assert run.results is not None and run.cost is not None
        found = json.loads((folder / "budget.json").read_text(encoding="utf-8"))
        score = json.loads((folder / "results.json").read_text(encoding="utf-8"))["score"]
        price, kind = run.cost.rows["compact"], found["kind"]
        metrics = {
            name: (task.primary, task.info[task.primary])
            for name, task in run.results.tasks.items()
            if task.primary in task.info
        }
        primary = {name: run.results.tasks[name].metrics[key] for name, (key, _) in metrics.items()}
        points.append(
            Point(
                run.name, found["budget"], found["cost"], found["is_within"], price.params, price.macs,
                math.nan if score is None else score, primary,
            )
        )  # fmt: skip
    return Curve(kind, tuple(sorted(points, key=lambda point: point.budget)), metrics)


def as_json(curve: Curve) -> dict[str, Any]:
    """As plain data."""
    return {
        "kind": curve.kind,
        "cost": AXES[curve.kind],
        "points": [asdict(point) for point in curve.points],
        "metrics": {task: {"primary": key, **asdict(info)} for task, (key, info) in curve.metrics.items()},
        "unreached": list(curve.unreached),
        "least": curve.least,
    }


def curve_from(loaded: Mapping[str, Any]) -> Curve:
    """From what `as_json` gave, as read from sweep.json. Raises KeyError or TypeError where it is not that."""
    points = tuple(
        Point(**{**row, "score": math.nan if row["score"] is None else row["score"]})
        for row in loaded["points"]
    )
    metrics = {
        task: (told["primary"], MetricInfo(told["higher_is_better"], told["unit"]))
        for task, told in loaded["metrics"].items()
    }
    AXES[loaded["kind"]]  # a kind that is known
    # older sweeps were refused as a whole
    return Curve(loaded["kind"], points, metrics, tuple(loaded.get("unreached", ())), loaded.get("least"))


def as_table(curve: Curve) -> Table:
    """A column for each budget; one that cannot be reached has nothing in it."""
    points = curve.points
    order = sorted([*curve.unreached, *(point.budget for point in points)])

    def row(label: str, values: Sequence[float], decimals: int, note: str, up: bool | None, kind: Any) -> Row:
        best = best_of(values, decimals, up) if up is not None else [False] * len(values)
        reached = zip(values, best, strict=True)
        cells = {
            point.budget: Cell(number(v, decimals), "best" if b else "")
            for point, (v, b) in zip(points, reached, strict=True)
        }
        return Row(label, tuple(cells.get(budget, Cell("")) for budget in order), note, kind)

    rows = [row("cost of the plan", [point.cost for point in points], 3, AXES[curve.kind], None, "total")]
    for label, values in (
        ("parameters", [float(point.params) for point in points]),
        ("MACs", [float(point.macs) for point in points]),
    ):
        scale, unit, decimals = scaled(values)
        rows.append(
            row(label, [value / scale for value in values], decimals, f"{unit} {DOWN}", None, "total")
        )
    rows.append(row("mean quality", [point.score for point in points], 3, UP, True, "total"))
    for task, (key, info) in curve.metrics.items():
        values = [point.primary[task] for point in points]
        label, decimals = f"{task} {key}", DECIMALS.get(info.unit, 3)
        rows.append(row(label, values, decimals, direction(info), info.higher_is_better, ""))
    coarse = [f"{point.budget:g}" for point in points if not point.is_within]
    notes = [f"Blocks are too coarse to meet {', '.join(coarse)} within 2 %."] if coarse else []
    notes += [f"{curve.note}."] if curve.note else []
    columns = tuple(Column(f"{budget:g}") for budget in order)
    return Table(f"budget: {curve.kind}", columns, tuple(rows), tuple(notes))


def write_plot(curve: Curve, path: Path) -> None:
    """Draws the curve as a PNG."""
    with style(LIGHT):
        made = draw(curve, LIGHT)
        write_atomically(path, partial(made.savefig, format="png"))


def draw(curve: Curve, theme: Theme) -> Figure:
    """A panel for the mean quality and one for each task's primary metric, over what the plan costs."""
    made, axes = panels(1 + len(curve.metrics), across=3, height=2.4)
    _panel(axes[0], curve, f"mean quality {UP}", lambda point: point.score, theme.accent, theme)
    for ax, (task, (key, info)) in zip(axes[1:], curve.metrics.items(), strict=True):
        title = f"{task} {key}{', ' if info.unit else ' '}{direction(info)}"
        _panel(ax, curve, title, lambda point, task=task: point.primary[task], theme.specific, theme)  # type: ignore[misc]
    return made


def _panel(
    ax: Axes, curve: Curve, title: str, value: Callable[[Point], float], colour: str, theme: Theme
) -> None:
    """Points in the order of what they cost, each with its budget beside it."""
    points = sorted(curve.points, key=lambda point: point.cost)
    ax.plot([p.cost for p in points], [value(p) for p in points], color=colour, marker="o", markersize=4.5)
    for point in points:
        ax.annotate(
            f"{point.budget:g}", (point.cost, value(point)), textcoords="offset points", xytext=(0, 7),
            ha="center", fontsize=7.5, color=theme.text,
            bbox={"boxstyle": "square,pad=0.1", "facecolor": theme.background, "edgecolor": "none", "alpha": 0.8},
        )  # fmt: skip
    ax.margins(x=0.1, y=0.22)
    ax.set_title(title)
    told = f"\n{curve.note}" if curve.note else ""
    ax.set_xlabel(f"{AXES[curve.kind]}\nbeside the points: {curve.kind} asked for{told}")
    ax.grid()
