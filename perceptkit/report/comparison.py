"""`perceptkit compare`: runs side by side, those that differ in seed only as one row with mean and deviation.

    compare(paths, baselines) -> plain data       comparison_tables.py prints it, comparison_plots.py draws it

Delta-MTL refers to the mean of the single-task nets over their seeds; each run has its own, and a row the mean and the
deviation of these. MACs of a run with a router are the mean over pictures.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from perceptkit.errors import SpecError
from perceptkit.report.benchmark_file import compact_latency, machine_of
from perceptkit.report.reference import Reference, reference_of, single_run
from perceptkit.report.run_folder import Run, read_run
from perceptkit.report.seeds import Group, grouped
from perceptkit.report.tables import unlike, without_results

BATCH = 1
"""Pictures per call of the latency that is compared."""


def compare(
    paths: Sequence[Path],
    baselines: Sequence[Path] = (),
    latency_ms: Mapping[Path, float] | None = None,
    counted: Mapping[str, Sequence[str]] | None = None,
) -> dict[str, Any]:
    """Everything that is known of some runs, by row.

    Args:
        paths: run folders.
        baselines: single-task nets that delta-MTL refers to, together; they are rows too. By default those of `paths`
            whose method is `single`.
        latency_ms: of one picture by run folder, where it was measured just now; by default what benchmark.json says.
        counted: by task the metrics that delta-MTL counts; by default all but those that `compat` adds.

    Returns:
        Plain data. Each number is {"mean", "std", "values"}: std is that of a sample, None for fewer than two values;
        values has an entry for each run, None where it is unknown.

    Raises:
        SpecError: a path is no run folder, none is finished, a baseline is not one of single-task nets, or a metric
            that shall count is unknown.
    """
    read = {path.resolve(): read_run(path) for path in (*paths, *baselines)}
    runs = list(read.values())
    finished = [run for run in runs if run.results]
    if not finished:
        raise SpecError(f"none of these runs is finished: {', '.join(run.name for run in runs)}")
    groups, tasks, counted = grouped(finished), _tasks(finished), counted or {}
    _refuse_unknown(counted, tasks)
    reference = _reference([read[path.resolve()] for path in baselines], groups)
    reference = reference and replace(reference, counted=counted)
    latencies = _latencies(finished, latency_ms)
    rows = [_row(group, reference, latencies) for group in groups]
    if latency_ms is not None and reference is not None:  # else they were timed at different hours
        _add_part_of_reference(rows, reference, latencies)
    notes = [*_grouping(groups), *_reference_words(reference, groups), *without_results(runs)]
    notes += [*unlike(finished), *_latency_words(rows, finished, latency_ms is not None)]
    return {
        "tasks": tasks,
        "rows": rows,
        "constant": {
            task: values
            for run in reversed(finished)  # of the first run that has the task
            for task, values in (run.results.constant if run.results else {}).items()
        },
        "notes": notes,
    }


def stat(values: Sequence[float | None]) -> dict[str, Any]:
    """Mean and sample standard deviation of the values that are known.

    >>> stat([1.0, 3.0, None])
    {'mean': 2.0, 'std': 1.4142135623730951, 'values': [1.0, 3.0, None]}
    """
    known = [value for value in values if value is not None and math.isfinite(value)]
    mean = sum(known) / len(known) if known else None
    std = None
    if len(known) > 1 and mean is not None:
        std = math.sqrt(sum((value - mean) ** 2 for value in known) / (len(known) - 1))
    kept = [value if value is not None and math.isfinite(value) else None for value in values]
    return {"mean": mean, "std": std, "values": kept}


def macs_of(run: Run) -> float | None:
    """MACs of all tasks on one picture: of a router's the mean over the test split."""
    found = run.routing
    if found is not None and not found.is_static and found.learned is not None:
        return found.learned.macs
    return float(run.cost.rows["compact"].macs) if run.cost else None


def _reference(named: Sequence[Run], groups: Sequence[Group]) -> Reference | None:
    for run in named:
        if run.results is None:
            raise SpecError(f"{run.path} is not finished: there is nothing to compare with")
        if run.method != "single" and len(run.tasks) > 1:
            raise SpecError(
                f"{run.path} is no run of single-task nets: its sharing.method is {run.method}, "
                f"its tasks {', '.join(run.tasks)}"
            )
    if named:
        return reference_of(named)
    first = single_run([run for group in groups for run in group.runs])
    return reference_of(next((group.runs for group in groups if first in group.runs), ()))


def _refuse_unknown(counted: Mapping[str, Sequence[str]], tasks: Mapping[str, Any]) -> None:
    for task, names in counted.items():
        if task not in tasks:
            raise SpecError(f"no task {task!r} whose metrics could count; there are {', '.join(tasks)}")
        known = tasks[task]["info"]
        if wrong := [name for name in names if name not in known]:
            raise SpecError(f"{task} has no metric {wrong[0]!r} that could count; it has {', '.join(known)}")


def _row(group: Group, reference: Reference | None, latencies: Mapping[Path, float]) -> dict[str, Any]:
    runs = group.runs
    tasks = list(dict.fromkeys(task for run in runs for task in run.tasks))
    results = [run.results for run in runs if run.results]
    deltas = [reference.delta(found) for found in results] if reference else []
    metrics = {}
    for task in tasks:
        names = dict.fromkeys(name for found in results for name in found.metrics.get(task, {}))
        metrics[task] = {
            name: stat([found.metrics.get(task, {}).get(name) for found in results]) for name in names
        }
    return {
        "title": group.title,
        "method": runs[0].method,
        "backbone": runs[0].backbone,
        "runs": [str(run.path) for run in runs],
        "seeds": group.seeds,
        "metrics": metrics,
        "delta_mtl": stat([delta.mean for delta in deltas]) if reference else None,
        "delta_by_task": {task: stat([delta.by_task.get(task) for delta in deltas]) for task in tasks}
        if reference
        else {},
        "params": stat([float(run.cost.rows["compact"].params) if run.cost else None for run in runs]),
        "macs": stat([macs_of(run) for run in runs]),
        "of_hard_shared": stat([_of_hard_shared(run) for run in runs]),
        "per_task_macs": {task: stat([_macs_of_task(run, task) for run in runs]) for task in tasks},
        "latency_ms": stat([latencies.get(run.path.resolve()) for run in runs]),
    }


def _add_part_of_reference(
    rows: Sequence[dict[str, Any]], reference: Reference, latencies: Mapping[Path, float]
) -> None:
    """To each row its latencies over the mean of the single-task nets'; nets of one task each are not one model."""
    whole = [run for run in reference.runs if set(run.tasks) == set(reference.metrics)]
    known = [ms for run in whole if (ms := latencies.get(run.path.resolve())) is not None]
    if known:
        mean = sum(known) / len(known)
        for row in rows:
            values = row["latency_ms"]["values"]
            row["latency_of_single"] = stat([value if value is None else value / mean for value in values])


def _of_hard_shared(run: Run) -> float | None:
    """MACs as a part of one hard-shared pass."""
    hard, macs = run.cost.rows.get("hard_shared") if run.cost else None, macs_of(run)
    return macs / hard.macs if hard and macs is not None and hard.macs else None


def _macs_of_task(run: Run, task: str) -> float | None:
    """Of one task alone; nothing is known of it where a router decides."""
    if run.cost is None or (run.routing is not None and not run.routing.is_static):
        return None
    return run.cost.per_task_macs.get(task)


def _tasks(finished: Sequence[Run]) -> dict[str, Any]:
    """By task what its metrics are, as the first run that has it says."""
    tasks: dict[str, Any] = {}
    for run in finished:
        for name, task in run.results.tasks.items() if run.results else ():
            info = {m: {"higher_is_better": i.higher_is_better, "unit": i.unit} for m, i in task.info.items()}
            tasks.setdefault(name, {"type": task.type, "primary": task.primary, "info": info})
    return tasks


def _latencies(finished: Sequence[Run], measured: Mapping[Path, float] | None) -> dict[Path, float]:
    if measured is not None:
        return {path.resolve(): value for path, value in measured.items()}
    found = {run.path.resolve(): compact_latency(run.path, BATCH) for run in finished}
    return {path: value for path, value in found.items() if value is not None}


def _grouping(groups: Sequence[Group]) -> list[str]:
    notes = []
    for group in groups:
        if len(group.runs) > 1:
            named = ", ".join(
                f"{run.name} (seed {run.results.seed})" for run in group.runs if run.results is not None
            )
            notes.append(f"{group.title}: {len(group.runs)} runs that differ in seed only: {named}.")
            if len(set(group.seeds)) < len(group.seeds):
                notes.append(
                    f"{group.title}: some of its runs have the same seed; its deviation is too small."
                )
    if any(len(group.runs) > 1 for group in groups):
        notes.append("A number after \N{PLUS-MINUS SIGN} is the standard deviation over these runs.")
    return notes


def _reference_words(reference: Reference | None, groups: Sequence[Group]) -> list[str]:
    if reference is None:
        return ["No delta-MTL: none of the runs is of single-task nets; name one with --baseline."]
    names = [g.title for g in groups if any(run in reference.runs for run in g.runs)]
    seeds = " over its seeds" if len(names) == 1 and len(reference.runs) > 1 else ""
    only = [f"Of {task} it counts {', '.join(names)} alone." for task, names in reference.counted.items()]
    return [
        f"delta-MTL: relative change against the single-task nets ({', '.join(names)}{', the mean' if seeds else ''}"
        f"{seeds}), averaged over the metrics of a task, then over tasks, in percent.",
        *only,
    ]


def _latency_words(rows: Sequence[Mapping[str, Any]], finished: Sequence[Run], measured: bool) -> list[str]:
    notes = []
    unknown = [
        path
        for row in rows
        for path, value in zip(row["runs"], row["latency_ms"]["values"], strict=True)
        if value is None
    ]
    if len(unknown) < len(finished):
        how = (
            "measured now, interleaved in one process" if measured else "each as its own benchmark.json says"
        )
        notes.append(f"Latency: median milliseconds for one picture, {how}.")
    if not measured and len({machine_of(run.path) for run in finished} - {()}) > 1:
        notes.append("Not like for like: latencies of different devices or numbers of threads.")
    if unknown:
        command = f"perceptkit benchmark {unknown[0]} --variants compact --batch {BATCH}"
        other = "" if measured else ", or all side by side with --latency"
        notes.append(f"No latency of {', '.join(unknown)}: measure it with `{command}`{other}.")
    return notes
