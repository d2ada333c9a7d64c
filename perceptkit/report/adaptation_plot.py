"""Which blocks were tuned: by block, who runs the tuned copy and how much of the weights is new."""

import numpy as np
from matplotlib.figure import Figure

from perceptkit.report.run_folder import Run
from perceptkit.report.theme import Theme, figure


def tuned_blocks(run: Run, theme: Theme) -> Figure | None:
    """Bars by block; for SpotTune the part of the pictures first, with its spread over them."""
    found = run.adaptation
    if found is None:
        return None
    choices = found.choices if found.choices and found.choices.rate else None
    in_file = dict.fromkeys((*(choices.blocks if choices else ()), *found.layers_tuned))
    order = list(run.plan.blocks) if run.plan else []
    blocks = sorted(in_file, key=lambda name: order.index(name) if name in order else len(order))
    if not blocks:
        return None
    place = {name: b for b, name in enumerate(blocks)}
    count = (2 if choices else 0) + bool(found.layers_tuned)
    made = figure(9, 1.1 + 1.3 * count)
    axes = list(made.subplots(count, 1, sharex=True, squeeze=False)[:, 0])
    if choices:
        columns, rate_R = [place[name] for name in choices.blocks], np.array(choices.rate)
        for ax, title, values, top in (
            (axes[0], "part of the pictures that run the tuned copy", rate_R, 1.0),
            (axes[1], "standard deviation over pictures", np.sqrt(rate_R * (1 - rate_R)), 0.5),
        ):
            ax.bar(columns, values, width=0.72, color=theme.route)
            ax.set_title(title)
            ax.set_ylim(0, 1.05 * top)
            ax.set_yticks([0, top / 2, top])
        if choices.test_rate and choices.seen_rate:
            axes[0].plot(
                columns, choices.seen_rate, label="on what it learned from", color=theme.text, linestyle="",
                marker="_", markersize=16, markeredgewidth=1.4,
            )  # fmt: skip
            axes[0].legend(loc="lower right", bbox_to_anchor=(1, 0.98), frameon=False, fontsize=8)
    if found.layers_tuned:
        ax = axes[-1]
        ax.set_title("part of the weights that are not the base's")
        ax.bar([place[name] for name in found.layers_tuned], list(found.layers_tuned.values()), width=0.72,
               color=theme.accent)  # fmt: skip
        for name, part in found.layers_tuned.items():
            if part == 0:
                ax.text(place[name], 0.04, "0", ha="center", va="bottom", fontsize=8, color=theme.muted)
        for name in in_file.keys() - found.layers_tuned.keys():
            ax.text(
                place[name], 0.04, "both\ncopies", ha="center", va="bottom", fontsize=7.5, color=theme.muted
            )
        ax.set_ylim(0, 1.05)
        ax.set_yticks([0, 0.5, 1])
    crowded = len(blocks) > 12 or max(map(len, blocks)) > 11
    slanted = {"rotation": 50, "ha": "right", "rotation_mode": "anchor"} if crowded else {}
    axes[-1].set_xticks(range(len(blocks)), blocks, **slanted)
    axes[-1].set_xlim(-0.6, len(blocks) - 0.4)
    for ax in axes:
        ax.grid(axis="y")
        ax.tick_params(axis="x", length=0)
    return made
