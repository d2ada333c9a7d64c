"""Pictures of plans and of the policy that led to them: tasks x blocks, from the image to the heads.

Shapes: K tasks, L blocks, E epochs of the search.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle
from matplotlib.ticker import MaxNLocator

from perceptkit.model.plan import Plan
from perceptkit.report.run_folder import Row, Run
from perceptkit.report.theme import Theme, figure, panels
from perceptkit.spec.sharing_options import WITHOUT_PLAN


def keep_table(run: Run, theme: Theme) -> Figure | None:
    """Who keeps what: shared (by several tasks), specific (to one), skipped; dropped where none keeps it.

    Where a router decides, a block counts as kept by the tasks that may run it, and numbers are upper bounds.
    """
    if run.plan is None or run.method == "single" or run.method in WITHOUT_PLAN:
        return None
    plan = run.plan
    kinds = block_kinds(plan)
    made, ax = table_axes(plan.tasks, plan.blocks, extra_lines=2)
    colours = {"shared": theme.shared, "specific": theme.specific}
    for k, choices in enumerate(plan.table):
        for b, choice in enumerate(choices):
            if choice == "skip":
                cell(ax, b, k, theme.band, hatch="////" if kinds[b] == "dropped" else None, edge=theme.hatch)
            else:
                cell(ax, b, k, theme.route if choice == "route" else colours[kinds[b]])
        right_of(ax, len(plan.blocks), k, f"{_kept(choices)}/{len(plan.blocks)}", theme)
    routed = bool(plan.skippable())
    counts = [sum(plan.row(t)[b] for t in plan.tasks) for b in range(len(plan.blocks))]
    lines = {
        "tasks that may run it" if routed else "tasks keeping it": counts,
        "runs per image, at most" if routed else "runs per image": counts
        if run.has_own_norms
        else executions(plan),
    }
    for offset, (label, counts) in enumerate(lines.items()):
        y = len(plan.tasks) + 0.15 + 0.72 * offset
        ax.text(-0.68, y, label, ha="right", va="center_baseline", fontsize=8, color=theme.muted)
        for b, count in enumerate(counts):
            ax.text(b, y, str(count), ha="center", va="center_baseline", fontsize=8, color=theme.muted)
    block_axis(ax, plan.blocks, theme)
    own = "specific to one task" if len(plan.tasks) > 1 else "kept"
    names = {"shared": "shared by several tasks", "specific": own}
    kept = {kinds[b] for row in plan.table for b, choice in enumerate(row) if choice == "keep"}
    keys = [Patch(color=colours[kind], label=names[kind]) for kind in names if kind in kept]
    if routed:
        keys.append(Patch(color=theme.route, label="decided per image"))
    if any(row[b] == "skip" and kinds[b] != "dropped" for row in plan.table for b in range(len(kinds))):
        keys.append(Patch(facecolor=theme.band, edgecolor=theme.rule, label="skipped"))
    if "dropped" in kinds:
        keys.append(Patch(facecolor=theme.band, edgecolor=theme.hatch, hatch="////", label="dropped by all"))
    made.legend(handles=keys, loc="outside lower center", ncols=len(keys), frameon=False, fontsize=8.5)
    return made


def _kept(choices: Sequence[str]) -> str:
    """How many blocks a task runs, as a range where some are decided per image."""
    always, at_most = choices.count("keep"), len(choices) - choices.count("skip")
    return str(always) if always == at_most else f"{always}\N{EN DASH}{at_most}"


def keep_probability(run: Run, theme: Theme) -> Figure | None:
    """Where the search stands: keep probabilities and, below each, its change since the first epoch; a dash for blocks
    that the curriculum has not opened, which are kept whatever their logits say."""
    rows = [row for row in run.of_kind("policy") if row.get("keep_prob")]
    if not rows:
        return None
    tasks = list(rows[-1]["keep_prob"])
    first_KL, last_KL = (_keep_prob(row, tasks) for row in (rows[0], rows[-1]))
    blocks = _block_names(run, last_KL.shape[1])
    made, ax = table_axes(tasks, blocks, extra_lines=0)
    closed = len(blocks) - rows[-1].get("open_blocks", len(blocks))
    with_change = len(blocks) <= 20 and len(rows) > 1
    for (k, b), keep in np.ndenumerate(last_KL):
        if b < closed:
            ax.text(b, k, "\N{EN DASH}", ha="center", va="center_baseline", fontsize=8.5, color=theme.text)
            continue
        cell(ax, b, k, theme.keep_map(keep))
        # a kept block's colour is dark on the light page and light on the dark one
        ink = theme.background if keep > 0.55 else theme.text
        y = k - 0.14 if with_change else k
        size = 8.5 if len(blocks) <= 16 else 6.5
        ax.text(b, y, f"{keep:.2f}".lstrip("0"), ha="center", va="center_baseline", fontsize=size, color=ink)
        change = keep - first_KL[k, b]
        if with_change and abs(change) >= 0.005:
            signed = f"{change:+.2f}".replace("0.", ".").replace("-", "\N{MINUS SIGN}")
            ax.text(b, k + 0.22, signed, ha="center", va="center_baseline", fontsize=6.5, color=ink)
    block_axis(ax, blocks, theme)
    return made


def search(run: Run, theme: Theme) -> Figure | None:
    """How the search went: each task's keep probabilities epoch by epoch, then tau and the open blocks."""
    rows = [row for row in run.of_kind("policy") if row.get("keep_prob")]
    if len(rows) < 2:
        return None
    tasks = list(rows[-1]["keep_prob"])
    blocks = np.arange(len(rows[-1]["keep_prob"][tasks[0]]))
    closed_LE = blocks[:, None] < np.array(
        [len(blocks) - row.get("open_blocks", len(blocks)) for row in rows]
    )
    across = 3 if len(tasks) < 6 else 4
    made, axes = panels(len(tasks) + 2, across)
    for number, (ax, task) in enumerate(zip(axes, tasks, strict=False)):
        keep_LE = np.array([row["keep_prob"][task] for row in rows], dtype=float).T
        keep_LE[closed_LE] = np.nan  # kept whatever their logits say
        picture = ax.imshow(
            keep_LE, aspect="auto", origin="lower", cmap=theme.keep_map, vmin=0, vmax=1,
            interpolation="nearest", extent=(0.5, len(rows) + 0.5, -0.5, keep_LE.shape[0] - 0.5),
        )  # fmt: skip
        ax.set_title(task)
        ax.spines[:].set_visible(False)
        ax.xaxis.set_major_locator(MaxNLocator(5, integer=True))
        ax.yaxis.set_major_locator(MaxNLocator(5, integer=True))
        if number % across == 0:
            ax.set_ylabel("block (0: image)")
    for ax in axes[-across:]:
        ax.set_xlabel("epoch")
    bar = made.colorbar(picture, ax=axes, shrink=0.6, aspect=30, pad=0.01, ticks=[0, 0.5, 1])
    bar.set_label("keep probability")
    bar.outline.set_visible(False)
    _over_epochs(axes[-2], "tau (temperature)", [row.get("tau", np.nan) for row in rows], theme)
    _over_epochs(axes[-1], "open blocks", [row.get("open_blocks", np.nan) for row in rows], theme)
    return made


def _over_epochs(ax: Axes, title: str, values: Sequence[float], theme: Theme) -> None:
    """One value per epoch."""
    ax.set_title(title)
    ax.plot(range(1, len(values) + 1), values, color=theme.accent, marker="o", markersize=3)
    ax.grid(axis="y")
    ax.set_ylim(bottom=0)
    ax.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    ax.yaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10], integer=title == "open blocks"))


def block_kinds(plan: Plan) -> list[str]:
    """For each block: `shared` (two or more tasks keep it), `specific` (one), `dropped` (none)."""
    counts = [sum(plan.row(task)[b] for task in plan.tasks) for b in range(len(plan.blocks))]
    return ["dropped" if count == 0 else "specific" if count == 1 else "shared" for count in counts]


def executions(plan: Plan) -> list[int]:
    """How often each block runs for one image and all tasks.

    Two tasks share a block's activations exactly while their choices below it agree, so block l runs once
    for each distinct prefix, among the tasks that keep l.
    """
    rows = [plan.row(task) for task in plan.tasks]
    return [len({row[:b] for row in rows if row[b]}) for b in range(len(plan.blocks))]


def _keep_prob(row: Row, tasks: Sequence[str]) -> np.ndarray:
    """(K, L) keep probabilities of one policy row."""
    return np.array([row["keep_prob"][task] for task in tasks], dtype=float)


def _block_names(run: Run, count: int) -> Sequence[str]:
    if run.plan and len(run.plan.blocks) == count:
        return run.plan.blocks
    return [str(b) for b in range(count)]


def table_axes(tasks: Sequence[str], blocks: Sequence[str], extra_lines: int) -> tuple[Figure, Axes]:
    """Room for a table of tasks and blocks, and for lines below it."""
    lines = len(tasks) + 0.75 * extra_lines
    made = figure(9, 0.42 * lines + 0.95)
    ax = made.subplots()
    ax.set_xlim(-0.55, len(blocks) - 0.45 + (0.6 if extra_lines else 0))
    ax.set_ylim(lines - 0.5, -0.55)
    ax.set_yticks(range(len(tasks)), list(tasks), fontsize=9.5)
    ax.tick_params(axis="both", length=0)
    for label in ax.get_yticklabels():
        label.set_color(ax.title.get_color())
    ax.spines[:].set_visible(False)
    return made, ax


def block_axis(ax: Axes, blocks: Sequence[str], theme: Theme) -> None:
    """Names above the table; a line between blocks whose names differ before their last part."""
    crowded = len(blocks) > 12 or max(map(len, blocks)) > 11
    ax.xaxis.tick_top()
    slanted: dict[str, Any] = {"rotation": 55, "ha": "left", "rotation_mode": "anchor"} if crowded else {}
    ax.set_xticks(range(len(blocks)), list(blocks), fontsize=8, **slanted)
    groups = [name.rpartition(".")[0] for name in blocks]
    for b in range(1, len(blocks)):
        if groups[b] != groups[b - 1]:
            ax.axvline(b - 0.5, color=theme.muted, linewidth=0.9)


def cell(
    ax: Axes, b: int, k: int, colour: str | tuple[float, ...], hatch: str | None = None, edge: str = "none"
) -> None:
    """The cell of block b and task k."""
    corner = (b - 0.46, k - 0.43)
    ax.add_patch(Rectangle(corner, 0.92, 0.86, facecolor=colour, edgecolor=edge, hatch=hatch, linewidth=0))


def right_of(ax: Axes, num_blocks: int, k: int, text: str, theme: Theme) -> None:
    """A note at the end of task k's line."""
    ax.text(num_blocks - 0.4, k, text, ha="left", va="center_baseline", fontsize=8.5, color=theme.muted)
