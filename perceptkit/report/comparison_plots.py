"""Pictures of a comparison: delta-MTL over what a network costs, with a bar for the deviation over seeds."""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from perceptkit.report.grid import DOWN, UP
from perceptkit.report.labels import place_labels
from perceptkit.report.tables import scaled
from perceptkit.report.theme import LIGHT, Theme, figure, style
from perceptkit.train.run_folder import write_atomically

AXES = {"macs": "MACs of all tasks on one image", "params": "parameters"}
"""By key of a row: what the horizontal axis says."""


def write_comparison_plots(found: Mapping[str, Any], folder: Path) -> list[Path]:
    """delta_mtl_macs.png and delta_mtl_params.png; none of them where there is no delta-MTL."""
    written = []
    for key in AXES:
        with style(LIGHT):
            made = draw(found["rows"], key, LIGHT)
            if made is None:
                continue
            path = folder / f"delta_mtl_{key}.png"
            write_atomically(path, partial(made.savefig, format="png"))
            written.append(path)
    return written


def draw(rows: Sequence[Mapping[str, Any]], key: str, theme: Theme) -> Figure | None:
    """Delta-MTL of every row over one of its costs; None where no row has both."""
    shown = [
        row
        for row in rows
        if row["delta_mtl"] and row["delta_mtl"]["mean"] is not None and row[key]["mean"] is not None
    ]
    if not shown:
        return None
    scale, unit, _ = scaled([row[key]["mean"] for row in shown])
    made = figure(6.6, 4.2)
    ax = made.subplots()
    ax.axhline(0, color=theme.muted, linewidth=0.8, linestyle=(0, (3, 2)))
    points, lines = [], []
    for row in shown:
        x, y = row[key]["mean"] / scale, row["delta_mtl"]["mean"]
        colour = theme.muted if row["method"] == "single" else theme.accent
        x_std, y_std = (row[key]["std"] or 0) / scale, row["delta_mtl"]["std"] or 0
        ax.errorbar(
            x, y, xerr=x_std or None, yerr=y_std or None, fmt="o", markersize=6, color=colour, elinewidth=1.1,
            capsize=3, zorder=3,
        )  # fmt: skip
        points.append((x, y, row["title"]))
        lines += [(x - x_std, y, x + x_std, y), (x, y - y_std, x, y + y_std)]
    ax.margins(0.12)
    low, high = ax.get_xlim()
    ax.set_xlim(max(0, low), high + 0.1 * (high - low))
    lines.append((low, 0, high, 0))
    ax.grid()
    ax.set_xlabel(f"{AXES[key]}, {unit} {DOWN}")
    ax.set_ylabel(f"delta-MTL, % {UP}")
    place_labels(ax, points, lines, theme)
    return made
