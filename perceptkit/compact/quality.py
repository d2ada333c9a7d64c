"""What a file that computes something else costs a task: its metrics before and after, on the user's own pictures.

Before is float32 and after are fewer bits, or before are the router's own decisions and after those of a codebook that
may drop blocks. A difference of numbers says little there: what counts is what it does to the metrics. By how much a
task is worse is its *drop*, of its primary metric, in percent of what was before:

    100 (before - after) / |before|     where higher is better
    100 (after - before) / |before|     where lower is better

A task that drops by more than is allowed is `lost`: the file is written all the same, since it is what it says it is,
but its record says `"ok": false`, and whoever asked for it is warned.
"""

from collections.abc import Mapping
from math import inf, isfinite, isnan
from typing import Any

from perceptkit.errors import SpecError
from perceptkit.tasks.base import Task

MAX_DROP = 5.0
"""Percent allowed where nobody says how many: five times what most metrics moved by when it was measured (README)."""

OWN_DECISIONS = ("own decisions", "codebook")
"""Names of the metrics of a codebook before and after."""

Metrics = Mapping[str, Mapping[str, float]]


def check_max_drop(max_drop: float) -> float:
    """Raises SpecError for what is no percentage of 0 or more."""
    if isnan(max_drop) or max_drop < 0:
        raise SpecError(f"--max-drop is a percentage, 0 or more, not {max_drop:g}")
    return max_drop


def drop(before: float, after: float, higher_is_better: bool) -> float:
    """In percent, below 0 for a gain; infinite where what was 0 is worse, 0 where there is no label."""
    if isnan(before):
        return 0.0
    if isnan(after):
        return inf
    worse = before - after if higher_is_better else after - before
    if before == 0:
        return inf if worse > 0 else 0.0
    return 100 * worse / abs(before)


def lost_tasks(
    before: Metrics, after: Metrics, tasks: Mapping[str, Task], max_drop: float
) -> dict[str, float]:
    """By task that drops by more than `max_drop` percent, by how many; the worst first."""
    drops = {
        name: drop(
            metrics[tasks[name].primary],
            after[name][tasks[name].primary],
            tasks[name].metric_info[tasks[name].primary].higher_is_better,
        )
        for name, metrics in before.items()
    }
    return {name: drops[name] for name in sorted(drops, key=lambda n: -drops[n]) if drops[name] > max_drop}


def names_of(entry: Mapping[str, Any]) -> tuple[str, str]:
    """What a record calls its metrics before and after."""
    return OWN_DECISIONS if "dynamic_skip" in entry else ("float32", entry.get("precision", ""))


def compared(
    before: Metrics, after: Metrics, tasks: Mapping[str, Task], names: tuple[str, str], max_drop: float
) -> dict[str, Any]:
    """For the record of a file: `accuracy`, `max_drop`, `lost` and `ok`.

    Args:
        before, after: metrics by task, without the loss and in the file.
        tasks: the model's; those that were not measured do not count.
        names: of before and after, as `names_of` has them.
        max_drop: in percent.
    """
    lost, (was, now) = lost_tasks(before, after, tasks, max_drop), names
    return {
        "ok": not lost,
        "max_drop": max_drop,
        "lost": {
            name: {
                "metric": tasks[name].primary,
                was: before[name][tasks[name].primary],
                now: after[name][tasks[name].primary],
                "drop": percent if isfinite(percent) else None,
            }
            for name, percent in lost.items()
        },
        "accuracy": {
            task: {metric: {was: value, now: after[task][metric]} for metric, value in metrics.items()}
            for task, metrics in before.items()
        },
    }


def warnings_of(entry: Mapping[str, Any]) -> list[str]:
    """One sentence for each task that lost more than is allowed, read from a record; empty where none did."""
    names, said = names_of(entry), []
    for task, row in entry.get("lost", {}).items():
        before, after = (f"{row[key]:.4f}" if row[key] is not None else "-" for key in names)
        by = f"{row['drop']:.1f} %" if row["drop"] is not None else "all"
        said.append(
            f"in {names[1]} {task} loses {by} of its {row['metric']} ({before} -> {after}), more than the "
            f"{entry['max_drop']:g} % of --max-drop: {_remedy(names[1], entry)}"
        )
    return said


def _remedy(precision: str, entry: Mapping[str, Any]) -> str:
    if book := entry.get("codebook"):
        own = ", or drop --nearest" if book["nearest"] else ""
        return f"give more --policies ({book['policies']} networks now){own}"
    alone = "keep it in float32 in a file of its own (--per-task without "
    if precision != "int8":
        wider = "use --precision bf16, whose range is float32's, or " if precision == "fp16" else ""
        return f"{wider}{alone}--precision)"
    kept = " (its head was left in float already)" if entry.get("float_heads") else ""
    calibrated = entry["calibrated_on"]["pictures"]
    return f"calibrate on more pictures (--pictures, {calibrated} now), or {alone}--int8){kept}"
