"""The budget over the search: what the policy is expected to cost, what its plan would cost, and the multiplier."""

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from perceptkit.report import budget_curve
from perceptkit.report.budget_file import asked_in
from perceptkit.report.budget_section import UNITS, sweep_of
from perceptkit.report.run_folder import Run
from perceptkit.report.theme import Theme, panels


def budget_search(run: Run, theme: Theme) -> Figure | None:
    """After every epoch of the search; the budget is a dashed line, where it is a cost."""
    rows = [row for row in run.of_kind("policy") if isinstance(row.get("expected_cost"), int | float)]
    asked = asked_in(run.specs.get("recipe") or {}) if run.specs else None
    if not rows or asked is None:
        return None
    kind, amount = asked
    epochs = [int(row["epoch"]) + 1 for row in rows]
    mark = "o" if len(rows) < 2 else ""
    made, (costs, multiplier) = panels(2, 2, height=2.3)
    costs.set_title(f"cost, {UNITS[kind]}")
    costs.plot(
        epochs, [row["expected_cost"] for row in rows], color=theme.accent, marker=mark, label="expected"
    )
    planned = [row["plan_cost"] for row in rows]
    costs.step(epochs, planned, where="mid", color=theme.specific, marker=mark, label="plan as decided then")
    if kind != "max_drop":
        costs.axhline(amount, color=theme.text, linewidth=0.9, linestyle=(0, (4, 3)), label="asked for")
    costs.margins(y=0.15)
    costs.legend(frameon=False, fontsize=7.5, labelcolor=theme.text)
    multiplier.set_title("multiplier")
    multiplier.plot(epochs, [row["multiplier"] for row in rows], color=theme.accent, marker=mark)
    multiplier.margins(y=0.15)
    for ax in (costs, multiplier):
        ax.grid(axis="y")
        ax.set_xlabel("epoch of the search")
        ax.xaxis.set_major_locator(MaxNLocator(5, integer=True))
        ax.yaxis.set_major_locator(MaxNLocator(5))
    return made


def budget_sweep(run: Run, theme: Theme) -> Figure | None:
    """The curve of the sweep that the run is a part of."""
    curve = sweep_of(run)
    return budget_curve.draw(curve, theme) if curve is not None else None
