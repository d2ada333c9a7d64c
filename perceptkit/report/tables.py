"""The report's tables: what the runs reached, and what they cost.

Columns of results are runs, then the best constant predictor; a number that is no better than it is
marked. Delta-MTL needs single-task nets to compare with: the first run whose method is `single`.
"""

import math
from collections.abc import Sequence
from pathlib import Path

from perceptkit.report.delta_mtl import DeltaMtl
from perceptkit.report.grid import DOWN, UP, Cell, Column, Row, Table, best_of, markdown, number
from perceptkit.report.reference import reference_of, single_run
from perceptkit.report.run_folder import Cost, MetricInfo, Results, Run, TaskResult, read_run

__all__ = ["cost_table", "markdown", "results_table", "single_query_table", "summary_table"]

DECIMALS = {"deg": 1, "px": 2}
"""By unit; 3 for all others."""

SAME_AS = {"hard": "hard_shared", "stochastic_depth": "hard_shared", "single": "single_task_nets"}
"""By method, the row of the cost table that its compact model is."""
NETWORKS = {"compact": "compact", "hard_shared": "hard-shared", "single_task_nets": "single-task nets"}


def summary_table(paths: Sequence[Path]) -> str:
    """One Markdown table over runs: every metric, delta-MTL, parameters, MACs.

    Raises SpecError where a path is not a run folder.
    """
    runs = [read_run(path) for path in paths]
    table = results_table(runs)
    return markdown(Table(table.corner, table.columns, (*table.rows, *_price_rows(runs)), table.notes))


def results_table(runs: Sequence[Run]) -> Table:
    """Metric by task for each finished run, the constant predictor of the first of them last."""
    finished = [run for run in runs if run.results]
    deltas = _deltas(runs)
    constant = next((run.results.constant for run in finished if run.results), {})
    no_delta = (Cell(),) if constant else ()
    rows: list[Row] = []
    for task in dict.fromkeys(name for run in finished for name in run.tasks):
        found = [run.results.tasks.get(task) for run in finished if run.results]
        shown = next(result for result in found if result)
        cells = [Cell(_percent(delta.by_task.get(task, math.nan))) if delta else Cell() for delta in deltas]
        rows.append(Row(task, (*cells, *no_delta), shown.type if shown.type != task else "", "task"))
        for metric in sorted(shown.metrics, key=lambda name: name != shown.primary):
            value = constant.get(task, {}).get(metric, math.nan)
            rows.append(_metric_row(metric, shown, found, value, bool(constant)))
    if any(deltas):
        means = [delta.mean if delta else math.nan for delta in deltas]
        marks = best_of(means, 1, higher_is_better=True)
        cells = [
            Cell(_percent(mean), "best" if best else "") for mean, best in zip(means, marks, strict=True)
        ]
        rows.append(Row("delta-MTL", (*cells, *no_delta), UP, "total"))
    columns = [Column(*title) for title in _titles(finished)]
    if constant:
        columns.append(Column("constant predictor"))
    return Table("task, metric", tuple(columns), tuple(rows), tuple(_notes(runs, rows)))


def _metric_row(
    metric: str, shown: TaskResult, found: Sequence[TaskResult | None], constant: float, with_constant: bool
) -> Row:
    info = shown.info.get(metric)
    decimals = DECIMALS.get(info.unit, 3) if info else 3
    values = [result.metrics.get(metric, math.nan) if result else math.nan for result in found]
    best = best_of(values, decimals, info.higher_is_better) if info else [False] * len(values)
    cells = []
    for value, is_best in zip(values, best, strict=True):
        worse = info is not None and no_better(value, constant, info.higher_is_better)
        cells.append(Cell(number(value, decimals), "poor" if worse else "best" if is_best else ""))
    if with_constant:
        cells.append(Cell(number(constant, decimals)))
    return Row(metric, tuple(cells), direction(info), "primary" if metric == shown.primary else "")


def samples_spread_table(results: Results) -> Table | None:
    """Each metric of the chosen plan beside mean and deviation over all samples; None where the others have none."""
    samples = results.samples
    if samples is None or samples.mean.metrics is None or samples.std.metrics is None:
        return None
    rows: list[Row] = []
    for task, shown in results.tasks.items():
        rows.append(Row(task, (Cell(),) * 3, shown.type if shown.type != task else "", "task"))
        for metric in sorted(shown.metrics, key=lambda name: name != shown.primary):
            info = shown.info.get(metric)
            decimals = DECIMALS.get(info.unit, 3) if info else 3
            of_task = [by_task.get(task, {}) for by_task in (samples.mean.metrics, samples.std.metrics)]
            values = [shown.metrics[metric], *(found.get(metric, math.nan) for found in of_task)]
            cells = tuple(Cell(number(value, decimals)) for value in values)
            rows.append(Row(metric, cells, direction(info), "primary" if metric == shown.primary else ""))
    columns = (Column("this run"), Column("mean", f"of {samples.drawn}"), Column("standard deviation"))
    return Table("task, metric", columns, tuple(rows))


def direction(info: MetricInfo | None) -> str:
    """The unit and an arrow towards better; empty where the metric is not described."""
    return f"{info.unit} {UP if info.higher_is_better else DOWN}".strip() if info else ""


def beats_constant(run: Run) -> tuple[int, int]:
    """In how many tasks the primary metric beats the constant predictor's, of how many that compare."""
    assert run.results
    wins = comparable = 0
    for name, task in run.results.tasks.items():
        value = task.metrics.get(task.primary, math.nan)
        constant = run.results.constant.get(name, {}).get(task.primary, math.nan)
        if task.primary in task.info and not math.isnan(value) and not math.isnan(constant):
            comparable += 1
            wins += not no_better(value, constant, task.info[task.primary].higher_is_better)
    return wins, comparable


def no_better(value: float, constant: float, higher_is_better: bool) -> bool:
    """Whether a value is not better than the constant predictor's; False where one of them is unknown."""
    if math.isnan(value) or math.isnan(constant):
        return False
    return value <= constant if higher_is_better else value >= constant


def _deltas(runs: Sequence[Run]) -> list[DeltaMtl | None]:
    """Delta-MTL by finished run; None for the single-task nets themselves and where there are none."""
    single = single_run(runs)
    reference = reference_of([single]) if single else None
    return [
        None if reference is None or run is single else reference.delta(run.results)
        for run in runs
        if run.results
    ]


def mean_delta(runs: Sequence[Run]) -> float:
    """Delta-MTL of the first finished run, in percent; NaN where there is nothing to compare it with."""
    delta = next(iter(_deltas(runs)), None)
    return delta.mean if delta else math.nan


def _percent(value: float) -> str:
    return text + " %" if (text := number(value, 1, signed=True)) else ""


def _titles(runs: Sequence[Run]) -> list[tuple[str, str]]:
    """Method and folder name; folders of the same name also say where they lie."""
    names = [run.name for run in runs]
    titles = []
    for run in runs:
        folder = f"{run.path.resolve().parent.name}/{run.name}" if names.count(run.name) > 1 else run.name
        titles.append((run.method or folder, folder if run.method not in ("", folder) else ""))
    return titles


def _notes(runs: Sequence[Run], rows: Sequence[Row]) -> list[str]:
    notes = []
    finished = [run for run in runs if run.results]
    single = single_run(runs)
    if single and len(finished) > 1:
        notes.append(
            "delta-MTL, and the percentages beside the tasks: relative change against the single-task nets "
            f"({single.name}), averaged over the metrics of a task, then over tasks."
        )
    if any(cell.mark == "poor" for row in rows for cell in row.cells):
        notes.append("(!) No better than the best constant predictor.")
    return [*notes, *without_results(runs), *unlike(finished)]


def without_results(runs: Sequence[Run]) -> list[str]:
    """A sentence for each run that is not finished, or whose results cannot be read."""
    return [
        f"Without results: {run.name}; {why.rpartition(': ')[0]}."
        for run in runs
        if not run.results
        for why in [next(line for line in run.missing if line.startswith("results.json"))]
    ]


def unlike(finished: Sequence[Run]) -> list[str]:
    """What keeps finished runs from being compared like for like, a sentence each."""
    notes = []
    for what, said in (
        ("backbones", [run.backbone for run in finished]),
        ("splits", [run.results.split for run in finished if run.results]),
        ("input sizes", ["x".join(map(str, run.cost.input_CHW[1:])) for run in finished if run.cost]),
    ):
        if len(set(said)) > 1:
            notes.append(f"Not like for like: different {what} ({', '.join(dict.fromkeys(said))}).")
    return notes


def _price_rows(runs: Sequence[Run]) -> list[Row]:
    """Parameters and MACs of what each finished run made: the compact model, or one net per task."""
    finished = [run for run in runs if run.results]
    prices = [run.cost.rows["compact"] if run.cost else None for run in finished]
    no_price = (Cell(),) if any(run.results.constant for run in finished if run.results) else ()
    rows = []
    for label, key in (("parameters", "params"), ("MACs", "macs")):
        values = [math.nan if price is None else float(getattr(price, key)) for price in prices]
        scale, unit, decimals = scaled(values)
        marks = best_of([value / scale for value in values], decimals, higher_is_better=False)
        cells = [
            Cell(number(value / scale, decimals), "best" if best else "")
            for value, best in zip(values, marks, strict=True)
        ]
        rows.append(Row(label, (*cells, *no_price), f"{unit} {DOWN}", "total"))
    return rows if finished else []


def scaled(values: Sequence[float]) -> tuple[float, str, int]:
    """How to print large numbers side by side: the power of ten, its letter, and decimals.

    >>> scaled([2_561_312, 17_914_112]), scaled([402_118_400])
    ((1000000.0, 'M', 2), (1000000.0, 'M', 1))
    """
    largest = max((value for value in values if math.isfinite(value)), default=0)
    scale, unit = next(((s, u) for s, u in ((1e9, "G"), (1e6, "M")) if largest >= s), (1e3, "k"))
    return scale, unit, 1 if largest >= 100 * scale else 2


def cost_table(cost: Cost, method: str, routed: bool = False, own_norms: bool = False) -> Table:
    """What the run made beside one hard-shared pass and T single-task nets, with ratios to both.

    `routed`: a router decides on some of the blocks that are counted. `own_norms`: every task has norms of its own.
    """
    count = len(cost.per_task_macs)
    prices = {key: cost.rows[key] for key in _networks(cost, method)}
    params_scale, params_unit, params_decimals = scaled([price.params for price in prices.values()])
    macs_scale, macs_unit, macs_decimals = scaled([price.macs for price in prices.values()])
    references = {"hard-shared": prices.get("hard_shared"), f"{count} single": prices.get("single_task_nets")}
    compared = {title: price for title, price in references.items() if price and len(prices) > 1}

    def ratios(key: str, value: int) -> list[Cell]:
        return [_ratio(value, getattr(price, key)) for price in compared.values()]

    rows = []
    for key, price in prices.items():
        cells = (
            Cell(number(price.params / params_scale, params_decimals)),
            *ratios("params", price.params),
            Cell(number(price.macs / macs_scale, macs_decimals)),
            *ratios("macs", price.macs),
            Cell(number(price.backbone_macs / macs_scale, macs_decimals)),
        )
        name = f"{count} {NETWORKS[key]}" if key == "single_task_nets" else NETWORKS[key]
        rows.append(Row(name, cells, kind="primary" if key == "compact" else ""))
    ratio = [Column("ratio to", title) for title in compared]
    columns = (Column("parameters", params_unit), *ratio, Column("MACs", macs_unit), *ratio)
    size = "x".join(map(str, cost.input_CHW))
    note = f"MACs: multiply-accumulates for one {size} image, all tasks, heads included."
    if routed:
        note += " Blocks that the router may skip are counted, the router is not."
    if own_norms:
        note += (
            " Every task has norms of its own, so no activation is shared. Parameters are those that were trained; in"
            " the artifact norms are folded, and convolutions are each task's own too."
        )
    return Table("network", (*columns, Column("backbone", f"MACs, {macs_unit}")), tuple(rows), (note,))


def _networks(cost: Cost, method: str) -> list[str]:
    """The rows worth printing: the compact form of hard sharing or of single-task nets is just these.

    Unless a router's static policy left blocks out of it.
    """
    same = cost.rows.get(SAME_AS.get(method, ""))
    return [key for key in NETWORKS if key in cost.rows and not (key == "compact" and cost.rows[key] == same)]


def single_query_table(cost: Cost) -> Table:
    """What the compact model costs when it is asked for one task only."""
    macs_scale, macs_unit, macs_decimals = scaled(list(cost.per_task_macs.values()))
    everything = cost.rows["compact"].macs
    rows = tuple(
        Row(task, (Cell(number(macs / macs_scale, macs_decimals)), _ratio(macs, everything)))
        for task, macs in cost.per_task_macs.items()
    )
    return Table("one task only", (Column("MACs", macs_unit), Column("ratio to", "all tasks")), rows)


def _ratio(value: float, reference: float) -> Cell:
    return Cell(number(value / reference, 2) if reference else "")
