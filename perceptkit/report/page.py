"""The report: one HTML page that needs nothing but itself, light and dark, on a phone and on paper."""

import json
import math
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import yaml
from jinja2 import Environment, PackageLoader, StrictUndefined

from perceptkit.report import tables
from perceptkit.report.adaptation_section import adaptation_section
from perceptkit.report.analysis_section import analysis_section
from perceptkit.report.budget_section import budget_section
from perceptkit.report.chain_table import chain_table
from perceptkit.report.grid import Table, number
from perceptkit.report.pictures import inline_png, inline_thumbnail
from perceptkit.report.plan_pictures import block_kinds
from perceptkit.report.plots import write_plots
from perceptkit.report.reference import single_run
from perceptkit.report.routing_section import routing_section
from perceptkit.report.run_folder import Run, read_run
from perceptkit.report.samples_table import plans_table
from perceptkit.report.source_losses import source_losses
from perceptkit.train.run_folder import write_text

METHODS = {
    "adashare": "AdaShare",
    "hard": "hard sharing",
    "single": "single-task nets",
    "branch": "branching after the first blocks",
    "fafs": "fully-adaptive feature sharing",
    "random": "random plan",
    "stochastic_depth": "stochastic depth",
    "cross_stitch": "cross-stitch network",
    "sluice": "sluice network",
    "nddr": "NDDR",
    "mtan": "MTAN",
}
NO_PLAN = {
    "single": "Each task has a network of its own; nothing is shared.",
    "branch": "All tasks share the first blocks; each has a copy of the rest.",
    "fafs": "Tasks part where the same pictures are not hard for them; each group has a copy of the block.",
    "cross_stitch": "Each task has a trunk of its own; cross-stitch units mix their features after every stage.",
    "sluice": "Each task has a trunk of its own; after every stage subspaces of their features are mixed.",
    "nddr": "Each task has a trunk of its own; after every stage their features are stacked and reduced by 1x1 "
    "convolutions.",
    "mtan": "All tasks share one trunk; each has attention of its own over the features of every stage.",
}
"""What is said of runs that have no plan in which tasks keep and skip blocks."""


@dataclass(frozen=True)
class Figure:
    """A number that the page opens with."""

    value: str
    unit: str
    caption: str
    detail: str = ""


def write_report(run: Path, baselines: Sequence[Path] = ()) -> Path:
    """Writes RUN/plots/*.png and RUN/report.html; what an unfinished run lacks, the page says.

    Args:
        run: a run folder.
        baselines: other run folders to stand beside it in the results table.

    Returns:
        The page's path.

    Raises:
        SpecError: `run` or a baseline is not a run folder.
    """
    this, *others = (read_run(path) for path in (run, *baselines))
    plots = {
        name: {theme: inline_png(path) for theme, path in paths.items()}
        for name, paths in write_plots(this, run / "plots", others).items()
    }
    page = run / "report.html"
    write_text(page, render(this, others, plots))
    return page


def render(run: Run, baselines: Sequence[Run], plots: Mapping[str, Mapping[str, str]]) -> str:
    """The page as text; `plots` are data URIs by name and theme."""
    # names in a run are the user's own: everything is escaped
    environment = Environment(
        loader=PackageLoader("perceptkit", "report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("page.html.jinja").render(
        run=run,
        subtitle=_subtitle(run),
        position=_position(run),
        figures=_figures(run, [run, *baselines]),
        results=tables.results_table([run, *baselines]) if run.results else None,
        costs=_costs(run),
        samples=_samples(run),
        plan_words=_plan_words(run),
        budget=budget_section(run),
        analysis=analysis_section(run),
        routing=routing_section(run, [run, *baselines]),
        adaptation=adaptation_section(run),
        chain=chain_table(run.chain),
        examples=_examples(run),
        source_losses=source_losses(run),
        plots=plots,
        search_epoch=max((int(row["epoch"]) + 1 for row in run.of_kind("policy")), default=0),
        throughput=_throughput(run),
        settings=yaml.safe_dump(dict(run.specs), sort_keys=False, allow_unicode=True) if run.specs else "",
        environment=json.dumps(run.environment, indent=1, ensure_ascii=False) if run.environment else "",
        command=_command(run.environment),
        written=datetime.now().strftime("%Y-%m-%d %H:%M"),
    )


def _costs(run: Run) -> list[Table]:
    if run.cost is None:
        return []
    routed = run.plan is not None and bool(run.plan.skippable())
    of_all = tables.cost_table(run.cost, run.method, routed, run.has_own_norms)
    return [of_all, tables.single_query_table(run.cost)]


def _samples(run: Run) -> list[Table]:
    if run.results is None or run.results.samples is None:
        return []
    spread = tables.samples_spread_table(run.results)
    return [plans_table(run.results.samples), *([spread] if spread else [])]


def _subtitle(run: Run) -> list[str]:
    parts = [METHODS.get(run.method, run.method), run.backbone]
    if run.routing:
        parts.insert(1, "BlockDrop" + (", static" if run.routing.is_static else ""))
    if run.has_own_norms:
        parts.insert(1, "norms per task")
    if run.cost:
        parts.append("x".join(map(str, run.cost.input_CHW[1:])) + " px")
    if run.results:
        parts += [f"seed {run.results.seed}", f"{run.results.split} split"]
    return [part for part in parts if part]


def _position(run: Run) -> str:
    """Where an unfinished run stands; empty for a finished one."""
    if run.finished:
        return ""
    if not run.rows:
        return "It has not logged a step yet."
    last = run.rows[-1]
    epochs = run.stages.get(last["stage"])
    of = f" of {epochs}" if epochs else ""
    return f"Last seen in stage {last['stage']}, epoch {int(last['epoch']) + 1}{of}, step {last['step']}."


def _figures(run: Run, runs: Sequence[Run]) -> list[Figure]:
    figures = []
    if run.results:
        delta = tables.mean_delta(runs)
        single = single_run(runs)
        if single and not math.isnan(delta):
            figures.append(Figure(number(delta, 1, signed=True), "%", f"delta-MTL against {single.name}"))
        wins, comparable = tables.beats_constant(run)
        if comparable:
            figures.append(Figure(f"{wins}/{comparable}", "", "tasks beat the best constant predictor"))
    if run.cost:
        made = run.cost.rows["compact"]
        hard, nets = run.cost.rows.get("hard_shared"), run.cost.rows.get("single_task_nets")
        for value, what, key in (
            (made.params, "parameters", "params"),
            (made.macs, "MACs per image", "macs"),
        ):
            scale, unit, decimals = tables.scaled([value])
            compared = [
                f"{value / getattr(price, key):.2f}x {name}"
                for name, price in (("hard-shared", hard), ("single-task", nets))
                if price and price != made and getattr(price, key)
            ]
            figures.append(Figure(number(value / scale, decimals), unit, what, ", ".join(compared)))
    figures[-1:] = _routed_macs(run) or figures[-1:]
    if run.results:
        span, unit = _span(run.results.train_seconds)
        stages = [f"{name} {' '.join(_span(s))}" for name, s in run.results.stage_seconds.items()]
        figures.append(Figure(span, unit, "training", ", ".join(stages) if len(stages) > 1 else ""))
    return figures


def _routed_macs(run: Run) -> list[Figure]:
    """What a picture costs on average, in place of what all blocks cost."""
    found = run.routing
    learned, full = (found.learned, found.row("all", False)) if found else (None, None)
    if found is None or learned is None or found.is_static:
        return []
    scale, unit, decimals = tables.scaled([learned.macs])
    spread = number(learned.macs_std / scale, decimals)
    detail = f"\N{PLUS-MINUS SIGN} {spread} over images"
    if full and full.macs:
        detail = f"{learned.macs / full.macs:.2f}x all blocks, {detail}"
    caption = "MACs per image on average, router included"
    return [Figure(number(learned.macs / scale, decimals), unit, caption, detail)]


def _span(seconds: float) -> tuple[str, str]:
    """A length of time as a number and its unit.

    >>> _span(42), _span(600), _span(7200)
    (('42', 's'), ('10.0', 'min'), ('2.0', 'h'))
    """
    if seconds < 120:
        return f"{seconds:.0f}", "s"
    if seconds < 7200:
        return f"{seconds / 60:.1f}", "min"
    return f"{seconds / 3600:.1f}", "h"


def _plan_words(run: Run) -> str:
    """The plan in a sentence."""
    if run.method in NO_PLAN:
        tree = f" {'; '.join(run.tree)}." if run.tree else ""
        return NO_PLAN[run.method] + tree
    if run.plan is None:
        return ""
    kinds, routed = block_kinds(run.plan), len(run.plan.skippable())
    parts = [f"{kinds.count(kind)} {kind}" for kind in ("shared", "specific", "dropped") if kind in kinds]
    words = (
        f"{len(kinds)} blocks: {', '.join(parts)}." if len(run.plan.tasks) > 1 else f"{len(kinds)} blocks."
    )
    keeps = f"{run.plan.kept_fraction():.0%} of them"
    if not routed:
        return f"{words} On average a task keeps {keeps}."
    return f"{words} On average a task keeps at most {keeps}: a router decides on {routed}, image by image."


def _examples(run: Run) -> list[dict[str, Any]]:
    """Rows of the grid: the image, then a label and a prediction per task; empty strings for no picture."""
    return [
        {
            "id": example.id,
            "image": inline_thumbnail(example.image),
            "tasks": {
                task: {
                    "label": inline_thumbnail(drawn.label) if drawn.label else "",
                    "prediction": inline_thumbnail(drawn.prediction),
                }
                for task in run.tasks
                for drawn in [example.tasks.get(task)]
                if drawn
            },
        }
        for example in run.examples
    ]


def _throughput(run: Run) -> str:
    """Speed, waiting and memory of the training loop, in a sentence."""
    logged = {
        key: sorted(row[key] for row in run.of_kind("train") if isinstance(row.get(key), int | float))
        for key in ("images_per_s", "data_wait", "peak_mib")
    }
    speeds, waits, peaks = logged.values()
    parts = []
    if speeds:
        parts.append(f"{speeds[len(speeds) // 2]:.0f} images/s")
    if waits:
        parts.append(f"{waits[len(waits) // 2]:.1%} of the time waiting for data (medians)")
    if peaks:
        parts.append(f"{peaks[-1]:,.0f} MiB peak memory")
    return f"{', '.join(parts)}." if parts else ""


def _command(environment: Mapping[str, Any]) -> str:
    """As one would type it: the entry point by its name, a script through python."""
    command = environment.get("command")
    if not isinstance(command, list) or not command:
        return ""
    program, *arguments = map(str, command)
    if Path(program).name in ("perceptkit", "cli.py", "__main__.py"):
        start = ["perceptkit"]
    else:
        start = ["python", program] if program.endswith(".py") else [program]
    return shlex.join([*start, *arguments])
