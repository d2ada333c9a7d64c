"""Plans that were drawn from the learned policy: what each is, and how much what came of them differs."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from perceptkit.report.grid import DOWN, UP, Cell, Column, Row, Table, number

Metrics = Mapping[str, Mapping[str, float]]


@dataclass(frozen=True)
class Spread:
    """A number of one kind, over all samples."""

    values: Mapping[str, float]
    """`kept_fraction`, `params`, `macs`, `val_loss`, `val_score`."""
    metrics: Metrics | None
    """Of the test, by task; None where not every plan was retrained."""


@dataclass(frozen=True)
class SampledPlan:
    """One of the distinct plans."""

    count: int
    values: Mapping[str, float]
    """As in `Spread`; NaN for what was not measured of it."""


@dataclass(frozen=True)
class SampledPlans:
    """The part `samples` of results.json."""

    drawn: int
    chosen: int
    plans: tuple[SampledPlan, ...]
    mean: Spread
    std: Spread


KEYS = ("kept_fraction", "params", "macs", "val_loss", "val_score")


def read_samples(loaded: Mapping[str, Any]) -> SampledPlans:
    """Raises KeyError, TypeError or ValueError where it is not what a run writes."""
    plans = tuple(SampledPlan(int(row["count"]), _values(row)) for row in loaded["rows"])
    chosen = int(loaded["chosen"])
    if not 0 <= chosen < len(plans):
        raise ValueError(f"plan {chosen} of {len(plans)} was chosen")
    return SampledPlans(int(loaded["drawn"]), chosen, plans, _spread(loaded["mean"]), _spread(loaded["std"]))


def _spread(loaded: Mapping[str, Any]) -> Spread:
    metrics = loaded.get("metrics")
    by_task = metrics and {
        task: {name: _number(v) for name, v in values.items()} for task, values in metrics.items()
    }
    return Spread(_values(loaded), by_task or None)


def _values(loaded: Mapping[str, Any]) -> dict[str, float]:
    return {key: _number(loaded[key]) for key in KEYS}


def _number(value: Any) -> float:
    return math.nan if value is None else float(value)


def plans_table(samples: SampledPlans) -> Table:
    """What each plan costs and how good it was on val, the chosen one stressed."""
    rows = []
    for i, plan in enumerate(samples.plans):
        note = "chosen" if i == samples.chosen else ""
        cells = (Cell(str(plan.count)), *_cells(plan.values))
        rows.append(Row(f"plan {i + 1}", cells, note, "primary" if i == samples.chosen else ""))
    rows.append(Row("mean", (Cell(str(samples.drawn)), *_cells(samples.mean.values)), kind="total"))
    rows.append(Row("standard deviation", (Cell(), *_cells(samples.std.values))))
    columns = (
        Column("drawn", "times"),
        Column("kept", "%"),
        Column("parameters", "M"),
        Column("MACs", "M"),
        Column("val loss", f"searched weights {DOWN}"),
        Column("val score", f"retrained {UP}"),
    )
    return Table("plan", columns, tuple(rows))


def _cells(values: Mapping[str, float]) -> tuple[Cell, ...]:
    scales = {"kept_fraction": (100, 1), "params": (1e-6, 3), "macs": (1e-6, 2)}
    found = []
    for key in KEYS:
        scale, decimals = scales.get(key, (1, 3))
        found.append(Cell(number(values[key] * scale, decimals)))
    return tuple(found)
