"""The picture of a benchmark: time of one batch by variant, a panel per batch size."""

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from perceptkit.report.theme import LIGHT, Theme, figure, style
from perceptkit.train.run_folder import write_atomically


def write_benchmark_plot(found: Mapping[str, Any], path: Path) -> None:
    """Draws what `runtime.benchmark.benchmark` returned as a PNG."""
    with style(LIGHT):
        made = draw(found, LIGHT)
        write_atomically(path, partial(made.savefig, format="png"))


def draw(found: Mapping[str, Any], theme: Theme) -> Figure:
    """Bars are medians, the thin lines quartiles, the numbers how many times faster than the reference."""
    rows: Mapping[str, Any] = found["rows"]
    batches = list(next(iter(rows.values()))["batches"])
    made = figure(3.4 + 2.4 * len(batches), 0.9 + 0.32 * len(rows))
    axes = made.subplots(1, len(batches), squeeze=False, sharey=True)[0]
    for ax, batch in zip(axes, batches, strict=True):
        _panel(ax, rows, batch, found["reference"], theme)
    axes[0].set_yticks(range(len(rows)), [row["title"] for row in rows.values()])
    axes[0].tick_params(axis="y", length=0, labelcolor=theme.text)
    axes[0].invert_yaxis()
    return made


def _panel(ax: Axes, rows: Mapping[str, Any], batch: str, reference: str, theme: Theme) -> None:
    times = [row["batches"][batch]["ms"] for row in rows.values()]
    medians = [time["median"] for time in times]
    around = [
        [time["median"] - time["q1"] for time in times],
        [time["q3"] - time["median"] for time in times],
    ]
    colours = [
        theme.muted if row["title"] == rows[reference]["title"] else theme.accent for row in rows.values()
    ]
    ax.barh(range(len(rows)), medians, height=0.62, color=colours)
    ax.errorbar(medians, range(len(rows)), xerr=around, fmt="none", ecolor=theme.text, elinewidth=0.8)
    for line, (time, row) in enumerate(zip(times, rows.values(), strict=True)):
        speedup = row["batches"][batch]["speedup"]["median"]
        ax.text(time["q3"], line, f"  {speedup:.1f}x", va="center", fontsize=8, color=theme.text)
    ax.set_xlim(0, 1.18 * max(time["q3"] for time in times))
    ax.set_title(f"batch {batch}")
    ax.set_xlabel("ms per batch")
    ax.grid(axis="x")
