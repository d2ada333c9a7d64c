"""Plots of a lesion study: what is lost without a block, without several, and in another order.

Every plot is a function of a run that returns a figure, or None where the run has nothing to show.

Shapes: K tasks, L blocks.
"""

import math
from collections.abc import Callable, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from perceptkit.report.analysis_file import Lesions, Outcome
from perceptkit.report.plan_pictures import block_axis, cell, right_of, table_axes
from perceptkit.report.run_folder import Run
from perceptkit.report.theme import Theme, panels

ALL = "all tasks"
ACROSS = 4


def lesion_deleted(run: Run, theme: Theme) -> Figure | None:
    """Tasks x blocks: the part of its quality that a task loses without the block."""
    found = run.lesions
    if found is None or not found.deleted:
        return None
    rows = _tasks(found)
    made, ax = table_axes(rows, found.blocks, extra_lines=0)
    size = 8.5 if len(found.blocks) <= 16 else 6.5
    for k, task in enumerate(rows):
        intact = _of(found.intact, task)
        for b, block in enumerate(found.blocks):
            if block not in found.deleted or not _runs(run, task, b):
                cell(
                    ax,
                    b,
                    k,
                    theme.band,
                    hatch="////" if block not in found.deleted else None,
                    edge=theme.hatch,
                )
                continue
            loss = lost(intact, _of(found.deleted[block], task))
            cell(ax, b, k, theme.keep_map(min(max(loss, 0.0), 1.0)) if math.isfinite(loss) else theme.band)
            text = (
                f"{100 * loss:.0f}".replace("-0", "0").replace("-", "\N{MINUS SIGN}")
                if math.isfinite(loss)
                else ""
            )
            ink = theme.background if loss > 0.55 else theme.text
            ax.text(b, k, text, ha="center", va="center_baseline", fontsize=size, color=ink)
        right_of(ax, len(found.blocks), k, f"{intact:.2f}" if math.isfinite(intact) else "", theme)
    ax.set_xlim(right=len(found.blocks) + 0.15)
    block_axis(ax, found.blocks, theme)
    return made


def lesion_random(run: Run, theme: Theme) -> Figure | None:
    """Quality by number of deleted blocks: the mean over draws, one deviation around it, and each draw."""
    found = run.lesions
    if found is None or not found.random:
        return None

    def draw(ax: Axes, task: str) -> None:
        counts = [0, *found.random]
        draws = [[_of(found.intact, task)], *([_of(o, task) for o in of] for of in found.random.values())]
        mean = np.array([np.mean(values) for values in draws])
        std = np.array([np.std(values, ddof=1) if len(values) > 1 else 0.0 for values in draws])
        ax.fill_between(counts, mean - std, mean + std, color=theme.accent, alpha=0.18, linewidth=0)
        for count, values in zip(counts, draws, strict=True):
            ax.plot([count] * len(values), values, linestyle="", marker="_", markersize=5, color=theme.muted)
        ax.plot(counts, mean, color=theme.accent, marker="o", markersize=3.5)
        ax.xaxis.set_major_locator(MaxNLocator(5, integer=True))

    return _panels(found, draw, "deleted blocks", theme)


def lesion_reordered(run: Run, theme: Theme) -> Figure | None:
    """Quality by how near the order of the blocks is to the trained one."""
    found = run.lesions
    if found is None or not found.reordered:
        return None

    def draw(ax: Axes, task: str) -> None:
        points = [(1.0, _of(found.intact, task)), *((tau, _of(o, task)) for tau, o in found.reordered)]
        ax.plot(*zip(*points, strict=True), linestyle="", marker="o", markersize=3.5, color=theme.accent)
        ax.invert_xaxis()
        ax.xaxis.set_major_locator(MaxNLocator(4))

    return _panels(found, draw, "Kendall's tau", theme)


def _panels(found: Lesions, draw: Callable[[Axes, str], None], across: str, theme: Theme) -> Figure:
    """A panel for all tasks and for each, with a line at what the network does as it is."""
    tasks = _tasks(found)
    made, axes = panels(len(tasks), ACROSS, height=1.9)
    for number, (ax, task) in enumerate(zip(axes, tasks, strict=True)):
        ax.set_title(task)
        intact = _of(found.intact, task)
        if math.isfinite(intact):
            ax.axhline(intact, color=theme.muted, linewidth=0.8, linestyle=(0, (3, 2)))
            draw(ax, task)
        ax.set_ylim(0, 1.12 * max(ax.get_ylim()[1] / 1.05, 0.01))
        ax.yaxis.set_major_locator(MaxNLocator(4))
        ax.grid(axis="y")
        if number % ACROSS == 0:
            ax.set_ylabel("quality")
        if number >= len(axes) - ACROSS:
            ax.set_xlabel(across)
    return made


def lost(intact: float, broken: float) -> float:
    """The part of a quality that is gone; NaN where there was none.

    >>> lost(0.5, 0.4)
    0.19999999999999996
    """
    return (intact - broken) / intact if intact else math.nan


def _tasks(found: Lesions) -> Sequence[str]:
    return [ALL, *found.tasks] if len(found.tasks) > 1 else found.tasks


def _of(outcome: Outcome, task: str) -> float:
    return outcome.score if task == ALL and ALL not in outcome.quality else outcome.quality[task]


def _runs(run: Run, task: str, b: int) -> bool:
    """Whether a task runs a block at all; the plan says so."""
    return run.plan is None or task not in run.plan.tasks or run.plan.row(task)[b]
