"""Plots of what a router does: which blocks it varies, whom it gives more, and what that costs.

Every plot is a function of runs, the one reported first, that returns a figure, or None where there is nothing to show.

Shapes: N pictures, R routed blocks.
"""

import math
from collections.abc import Callable, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from perceptkit.report.routing_file import GROUPS, RULES, RoutingFile, RuleRow, by_difficulty
from perceptkit.report.run_folder import Run
from perceptkit.report.tables import direction, scaled
from perceptkit.report.theme import Theme, figure, panels

GAMMA = "\N{GREEK SMALL LETTER GAMMA}"
MARKERS = {
    "learned": "o",
    "all": "*",
    "most_frequent": "D",
    "first_k": "s",
    "random_k": "^",
    "dist_k": "v",
    "random_drop": "X",
}


def keep_rate(runs: Sequence[Run], theme: Theme) -> Figure | None:
    """By block: how many pictures keep it, and how much that varies over pictures."""
    found = runs[0].routing
    if found is None:
        return None
    rate_R, blocks = np.array(found.keep_rate), np.arange(len(found.blocks))
    made = figure(9, 3.5)
    upper, lower = made.subplots(2, 1, sharex=True, height_ratios=(2, 1))
    upper.bar(blocks, rate_R, width=0.72, color=theme.route)
    upper.plot(
        blocks, found.seen["keep_rate"], label="on what it learned from", color=theme.text, linestyle="",
        marker="_", markersize=16, markeredgewidth=1.4,
    )  # fmt: skip
    upper.set_title("keep rate")
    upper.set_ylim(0, 1.05)
    upper.legend(loc="lower right", bbox_to_anchor=(1, 0.98), frameon=False, fontsize=8)
    lower.bar(blocks, np.sqrt(rate_R * (1 - rate_R)), width=0.72, color=theme.route)
    lower.set_title("standard deviation over pictures")
    lower.set_ylim(0, 0.525)
    lower.set_yticks([0, 0.25, 0.5])
    crowded = len(blocks) > 12 or max(map(len, found.blocks)) > 11
    slanted = {"rotation": 50, "ha": "right", "rotation_mode": "anchor"} if crowded else {}
    lower.set_xticks(blocks, list(found.blocks), **slanted)
    lower.set_xlim(-0.6, len(blocks) - 0.4)
    for ax in (upper, lower):
        ax.grid(axis="y")
        ax.tick_params(axis="x", length=0)
    return made


def difficulty(runs: Sequence[Run], theme: Theme) -> Figure | None:
    """How MACs spread over pictures, and for each task what easy and hard pictures get."""
    found = runs[0].routing
    if found is None or found.pictures is None:
        return None
    macs_N = np.array(found.pictures.macs)
    if macs_N.min() == macs_N.max():
        return None
    scale, unit, _ = scaled(list(macs_N))
    series = {
        task: groups
        for task, column in found.pictures.full_quality.items()
        if (groups := by_difficulty(np.array(column), macs_N / scale))
    }
    made, axes = panels(1 + len(series), 3, height=2.2)
    full = found.row("all", False)
    _spread(axes[0], macs_N / scale, full.macs / scale if full else math.nan, theme)
    axes[0].set_xlabel(f"MACs, {unit}")
    axes[0].xaxis.set_major_locator(MaxNLocator(5))
    highest = max((float((mean + std).max()) for _, mean, std in series.values()), default=0)
    lowest = min((float((mean - std).min()) for _, mean, std in series.values()), default=0)
    for number, (ax, (task, (quality, mean, std))) in enumerate(
        zip(axes[1:], series.items(), strict=True), 1
    ):
        ax.set_title(task)
        place = range(GROUPS)
        ax.fill_between(place, mean - std, mean + std, color=theme.route, alpha=0.18, linewidth=0)
        ax.plot(place, mean, color=theme.route, marker="o", markersize=4)
        ax.set_xticks(place, [f"{value:.2f}" for value in quality])
        ax.set_ylim(lowest - 0.05 * (highest - lowest), highest + 0.05 * (highest - lowest))
        ax.grid(axis="y")
        ax.set_xlabel("quality with all blocks")
        if number % 3 == 0 or number == 1:
            ax.set_ylabel(f"MACs, {unit}")
    for ax in axes:
        ax.yaxis.set_major_locator(MaxNLocator(5))
    return made


def _spread(ax: Axes, macs_N: np.ndarray, full: float, theme: Theme) -> None:
    """A histogram over pictures, with the mean and what all blocks cost."""
    ax.set_title("all pictures")
    ax.hist(macs_N, bins=min(24, len(set(macs_N.tolist()))), color=theme.route)
    ax.set_ylabel("pictures")
    top = ax.get_ylim()[1]
    ax.set_ylim(0, 1.22 * top)
    for value, name in ((macs_N.mean(), "mean"), (full, "all blocks")):
        if math.isfinite(value):
            ax.axvline(value, color=theme.text, linewidth=1, linestyle=(0, (3, 2)))
            right = value > (macs_N.min() + max(macs_N.max(), full)) / 2
            ax.annotate(
                name, (value, 1.2 * top), xytext=(-3 if right else 3, 0), textcoords="offset points",
                ha="right" if right else "left", va="top", fontsize=7.5, color=theme.muted,
            )  # fmt: skip
    ax.grid(axis="y")


def tradeoff(runs: Sequence[Run], theme: Theme) -> Figure | None:
    """Each task's main metric against MACs: the routers of all runs, labelled by gamma, and their rivals."""
    if runs[0].routing is None or runs[0].results is None:
        return None
    routed = [run.routing for run in runs if run.routing]
    tasks = runs[0].results.tasks
    every = [row for found in routed for row in found.rows]
    scale, unit, _ = scaled([row.macs for row in every])
    across = 3 if len(tasks) > 2 else 2
    made, axes = panels(len(tasks), across, height=2.7)
    made.set_figwidth(9)  # a single panel is wide as well: its points have labels
    for number, (ax, (name, task)) in enumerate(zip(axes, tasks.items(), strict=True)):
        info = task.info.get(task.primary)
        ax.set_title(f"{name}   {task.primary} {direction(info)}")
        for row in every:
            _point(ax, row, _metric(row, name, task.primary), scale, theme)
        _learned(ax, routed, name, task.primary, scale, theme)
        _limits(ax, every, name, task.primary)
        ax.grid()
        if number >= len(axes) - across:
            ax.set_xlabel(f"MACs, {unit}")
    rules = [rule for rule in RULES if any(row.rule == rule for row in every)]
    keys = [
        Line2D([], [], linestyle="", marker=MARKERS[r], color=_colour(r, theme), label=RULES[r], markersize=6)
        for r in rules
    ]
    if any(not row.tuned for row in every):
        hollow = Line2D([], [], linestyle="", marker="s", color=theme.muted, fillstyle="none", markersize=6)
        hollow.set_label("hollow: not fine-tuned")
        keys.append(hollow)
    made.legend(handles=keys, loc="outside lower center", ncols=min(4, len(keys)), frameon=False, fontsize=8)
    return made


def _metric(row: RuleRow, task: str, metric: str) -> float:
    return row.metrics.get(task, {}).get(metric, math.nan)


def _colour(rule: str, theme: Theme) -> str:
    return {"learned": theme.route, "most_frequent": theme.specific, "all": theme.text}.get(rule, theme.muted)


def _point(ax: Axes, row: RuleRow, value: float, scale: float, theme: Theme) -> None:
    colour = _colour(row.rule, theme)
    ax.plot(
        [row.macs / scale], [value], linestyle="", marker=MARKERS.get(row.rule, "P"), color=colour,
        markersize=9 if row.rule == "all" else 6.5, markerfacecolor=colour if row.tuned else theme.background,
        zorder=4 if row.rule == "learned" else 3,
    )  # fmt: skip


def _learned(
    ax: Axes, routed: Sequence[RoutingFile], task: str, metric: str, scale: float, theme: Theme
) -> None:
    """A line through the routers from cheap to costly, each with its gamma."""
    points = sorted(
        (row.macs / scale, _metric(row, task, metric), found.gamma)
        for found in routed
        if (row := found.learned) is not None
    )
    ax.plot([x for x, _, _ in points], [y for _, y, _ in points], color=theme.route, zorder=2)
    for x, y, gamma in points:
        if math.isfinite(y):
            ax.annotate(
                f"{GAMMA} {gamma}", (x, y), xytext=(0, 7), textcoords="offset points", ha="center",
                fontsize=8, color=theme.text,
            )  # fmt: skip


def _limits(ax: Axes, rows: Sequence[RuleRow], task: str, metric: str) -> None:
    """Room for what was fine-tuned and for all blocks; an untuned rule far below would flatten the rest."""
    values = [_metric(row, task, metric) for row in rows if row.tuned or row.rule == "all"]
    finite = [value for value in values if math.isfinite(value)]
    if len({*finite}) > 1 and sum(row.tuned for row in rows) > 1:
        low, high = min(finite), max(finite)
        ax.set_ylim(low - 0.25 * (high - low), high + 0.3 * (high - low))
    else:
        ax.margins(y=0.2)
    ax.margins(x=0.12)
    ax.xaxis.set_major_locator(MaxNLocator(5))
    ax.yaxis.set_major_locator(MaxNLocator(5))


ROUTING_PLOTS: dict[str, Callable[[Sequence[Run], Theme], Figure | None]] = {
    "routing_keep_rate": keep_rate,
    "routing_difficulty": difficulty,
    "routing_tradeoff": tradeoff,
}
