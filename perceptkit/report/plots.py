"""The report's curves over training, and the list of all its plots.

Every plot is a function of a run that returns a figure, or None where the run has nothing to show.
"""

import math
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from perceptkit.report import analysis_plots, lesion_plots, plan_pictures
from perceptkit.report.adaptation_plot import tuned_blocks
from perceptkit.report.budget_plot import budget_search, budget_sweep
from perceptkit.report.routing_plots import ROUTING_PLOTS
from perceptkit.report.run_folder import Row, Run
from perceptkit.report.tables import direction
from perceptkit.report.theme import THEMES, Theme, panels, style
from perceptkit.train.run_folder import write_atomically

ACROSS = 3
"""Panels side by side."""
ROUTER = {
    "reward": "reward",
    "usage": "usage of the routed blocks",
    "right": "right answers",
    "unique": "different policies",
    "gamma": "gamma (penalty of a wrong answer)",
    "open_blocks": "open blocks",
}
"""Keys of the log's rows of kind `routing`, and what they are."""


def write_plots(run: Run, folder: Path, baselines: Sequence[Run] = ()) -> dict[str, dict[str, Path]]:
    """Writes NAME.png and NAME_dark.png of every plot the run has something for.

    Args:
        run: what is reported.
        folder: where the files go.
        baselines: other runs, for the plots that compare.

    Returns:
        Paths by the plot's name, then by the theme's name.
    """
    written: dict[str, dict[str, Path]] = {}
    for name in (*PLOTS, *ROUTING_PLOTS):
        for theme in THEMES:
            path = folder / (f"{name}.png" if theme.name == "light" else f"{name}_{theme.name}.png")
            with style(theme):
                if name in PLOTS:
                    figure = PLOTS[name](run, theme)
                else:
                    figure = ROUTING_PLOTS[name]([run, *baselines], theme)
                if figure is None:
                    break
                write_atomically(path, partial(figure.savefig, format="png"))
            written.setdefault(name, {})[theme.name] = path
    return written


def loss(run: Run, theme: Theme) -> Figure | None:
    """Training loss by task over the steps, the stages marked."""
    rows = run.of_kind("train")
    series = {task: _series(rows, f"loss/{task}") for task in _logged(rows, "loss/", run.tasks)}
    logged = {task: points for task, points in series.items() if points[0]}
    return _multiples(logged, rows, theme, smooth=True, unit="loss")


def validation(run: Run, theme: Theme) -> Figure | None:
    """Each task's primary metric on the validation split, the stages marked."""
    rows = run.of_kind("val")
    series = {}
    for task in run.tasks:
        result = run.results.tasks.get(task) if run.results else None
        keys = [key for row in rows for key in row if key.startswith(f"{task}/")]
        metric = result.primary if result else next(iter(keys), "/").partition("/")[2]
        points = _series(rows, f"{task}/{metric}")
        if points[0]:
            arrow = direction(result.info.get(metric) if result else None)
            series[f"{task}   {metric} {arrow}"] = points
    return _multiples(series, rows, theme, smooth=False)


def router(run: Run, theme: Theme) -> Figure | None:
    """How the router was learned: what the log says of it after each epoch."""
    rows = run.of_kind("routing")
    series = {title: points for key, title in ROUTER.items() if (points := _series(rows, key))[0]}
    return _multiples(series, run.rows, theme, smooth=False)


Points = tuple[list[float], list[float]]


def _series(rows: Sequence[Row], key: str) -> Points:
    found = [
        (row["step"], row[key])
        for row in rows
        if isinstance(row.get(key), int | float) and math.isfinite(row[key])
    ]
    return [step for step, _ in found], [value for _, value in found]


def _logged(rows: Sequence[Row], prefix: str, order: Sequence[str]) -> list[str]:
    """Names of the keys that start with `prefix`, in the run's order of tasks."""
    names = dict.fromkeys(key[len(prefix) :] for row in rows for key in row if key.startswith(prefix))
    return sorted(names, key=lambda name: order.index(name) if name in order else len(order))


def _multiples(
    series: dict[str, Points], rows: Sequence[Row], theme: Theme, smooth: bool, unit: str = ""
) -> Figure | None:
    """One panel per entry, named on top; what they all show stands beside the first of each line."""
    if not series:
        return None
    made, axes = panels(len(series), ACROSS)
    stages = stage_spans(rows)
    for number, (ax, (title, (steps, values))) in enumerate(zip(axes, series.items(), strict=True)):
        ax.set_title(title)
        mark_stages(ax, stages, theme)
        ax.grid(axis="y")
        if smooth and len(values) >= 20:
            ax.plot(steps, values, color=theme.accent, linewidth=0.8, alpha=0.35)
            ax.plot(steps, smoothed(values), color=theme.accent)
        else:
            ax.plot(steps, values, color=theme.accent, marker="o" if len(values) < 2 else "", markersize=4)
        _frame(ax, values)
        if number >= len(axes) - ACROSS:
            ax.set_xlabel("step")
        if number % ACROSS == 0:
            ax.set_ylabel(unit)
    return made


def _frame(ax: Axes, values: Sequence[float]) -> None:
    """The whole curve, but no spike that would flatten all the rest of it; few ticks."""
    low, almost_all = min(values), float(np.percentile(values, 97))
    high = min(max(values), low + 8 * (almost_all - low)) if almost_all > low else max(values)
    margin = 0.08 * (high - low) or 0.1 * abs(high) or 0.1
    # room for the stage names above the curve
    ax.set_ylim(low - margin, high + 3 * margin)
    ax.yaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 2.5, 5, 10]))
    ax.xaxis.set_major_locator(MaxNLocator(5, integer=True))


def smoothed(values: Sequence[float]) -> list[float]:
    """Centred moving average over a thirtieth of the curve; the window shrinks towards the ends.

    >>> smoothed([0.0, 3.0, 0.0])
    [0.0, 1.0, 0.0]
    """
    half = max(1, len(values) // 60)
    return [
        float(np.mean(values[i - reach : i + reach + 1]))
        for i in range(len(values))
        for reach in [min(half, i, len(values) - 1 - i)]
    ]


def stage_spans(rows: Sequence[Row]) -> list[tuple[str, float, float]]:
    """(stage, where it begins, where it ends) in steps; a stage begins where the one before it ended."""
    ends: dict[str, float] = {}
    for row in rows:
        ends[row["stage"]] = row["step"]
    begins = [0.0, *ends.values()]
    return [(stage, begin, end) for (stage, end), begin in zip(ends.items(), begins, strict=False)]


def mark_stages(ax: Axes, stages: Sequence[tuple[str, float, float]], theme: Theme) -> None:
    """A band behind every second stage, a line at every boundary, the names on top."""
    if not stages:
        return
    first, last = stages[0][1], stages[-1][2]
    ax.set_xlim(first, max(last, first + 1))
    for number, (stage, begin, end) in enumerate(stages):
        if number:
            ax.axvline(begin, color=theme.muted, linewidth=0.8, linestyle=(0, (3, 2)), alpha=0.8)
        if number % 2:
            ax.axvspan(begin, end, color=theme.band, linewidth=0)
        if len(stages) > 1 and end - begin > 0.022 * len(stage) * (last - first):  # where the name has room
            ax.text(
                (begin + end) / 2, 0.985, stage, transform=ax.get_xaxis_transform(), ha="center", va="top",
                fontsize=7, color=theme.muted,
            )  # fmt: skip


PLOTS: dict[str, Callable[[Run, Theme], Figure | None]] = {
    "keep_table": plan_pictures.keep_table,
    "keep_probability": plan_pictures.keep_probability,
    "search": plan_pictures.search,
    "policy_entropy": analysis_plots.policy_entropy,
    "budget_search": budget_search,
    "budget_sweep": budget_sweep,
    "task_relations": analysis_plots.task_relations,
    "lesion_deleted": lesion_plots.lesion_deleted,
    "lesion_random": lesion_plots.lesion_random,
    "lesion_reordered": lesion_plots.lesion_reordered,
    "loss": loss,
    "validation": validation,
    "router": router,
    "tuned_blocks": tuned_blocks,
}
