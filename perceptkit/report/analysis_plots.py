"""Plots on how tasks relate and how decided a policy is.

Every plot is a function of a run that returns a figure, or None where the run has nothing to show.

Shapes: K tasks, L blocks, E epochs of the search.
"""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from perceptkit.report.analysis_file import entropy_bits, open_keep_prob, policy_correlation
from perceptkit.report.run_folder import Run
from perceptkit.report.theme import Theme, figure, panels


def policy_entropy(run: Run, theme: Theme) -> Figure | None:
    """Entropy of the open blocks' choices in bits, epoch by epoch: of all tasks, then of each."""
    rows = [row for row in run.of_kind("policy") if row.get("keep_prob")]
    if len(rows) < 2:
        return None
    tasks = list(rows[-1]["keep_prob"])
    bits_EK = np.array([entropy_bits(open_keep_prob(row)[1]).mean(axis=1) for row in rows])
    series = {"all tasks": bits_EK.mean(axis=1)} if len(tasks) > 1 else {}
    series |= {task: bits_EK[:, k] for k, task in enumerate(tasks)}
    across = 4
    made, axes = panels(len(series), across, height=1.6)
    for number, (ax, (title, bits_E)) in enumerate(zip(axes, series.items(), strict=True)):
        ax.set_title(title)
        ax.plot(range(1, len(bits_E) + 1), bits_E, color=theme.accent, marker="o", markersize=3)
        ax.set_ylim(0, 1.05)
        ax.grid(axis="y")
        ax.xaxis.set_major_locator(MaxNLocator(5, integer=True))
        if number % across == 0:
            ax.set_ylabel("bits per block")
        if number >= len(axes) - across:
            ax.set_xlabel("epoch")
    return made


def task_relations(run: Run, theme: Theme) -> Figure | None:
    """Two matrices of tasks: correlation of their policies, and whether the same pictures are hard for both."""
    shown = []
    rows = [row for row in run.of_kind("policy") if row.get("keep_prob")]
    if rows and len(rows[-1]["keep_prob"]) > 1:
        tasks, keep_KL = open_keep_prob(rows[-1])
        correlation_KK = policy_correlation(keep_KL)
        shown.append(("correlation of policies", tasks, correlation_KK, correlation_KK))
    if run.affinity is not None and len(run.affinity.tasks) > 1:
        found = run.affinity
        # above chance: 1 where tasks agree on every picture, 0 where they do as unrelated ones would
        with np.errstate(divide="ignore", invalid="ignore"):
            above_KK = (found.affinity_KK - found.by_chance_KK) / (1 - found.by_chance_KK)
        shown.append(("task affinity", found.tasks, found.affinity_KK, above_KK))
    if not shown:
        return None
    made = figure(9, 1.3 + 0.42 * max(len(tasks) for _, tasks, _, _ in shown))
    axes = made.subplots(1, 2, squeeze=False)[0]
    for ax, (title, tasks, printed_KK, coloured_KK) in zip(axes, shown, strict=False):
        _matrix(ax, title, tasks, printed_KK, coloured_KK, theme)
    for unused in axes[len(shown) :]:
        unused.set_axis_off()
    return made


def _matrix(
    ax: Axes,
    title: str,
    tasks: Sequence[str],
    printed_KK: np.ndarray,
    coloured_KK: np.ndarray,
    theme: Theme,
) -> None:
    """Numbers in cells, coloured from -1 (orange) over 0 (the page) to 1 (blue)."""
    ax.set_title(title, pad=8)
    colours = LinearSegmentedColormap.from_list(
        "relation", [theme.specific, theme.background, theme.shared]
    ).with_extremes(bad=theme.band)
    ax.imshow(np.ma.masked_invalid(coloured_KK), cmap=colours, vmin=-1, vmax=1, aspect="auto")
    for (i, j), value in np.ndenumerate(printed_KK):
        known = np.isfinite(value)
        text = f"{value:.2f}".replace("-", "\N{MINUS SIGN}") if known else "\N{EN DASH}"
        ink = theme.background if known and abs(coloured_KK[i, j]) > 0.75 else theme.text
        ax.text(j, i, text, ha="center", va="center_baseline", fontsize=8, color=ink)
    ax.set_xticks(range(len(tasks)), list(tasks), rotation=35, ha="right", rotation_mode="anchor")
    ax.set_yticks(range(len(tasks)), list(tasks))
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)
