"""What delta-MTL refers to: single-task nets, trained by the same code as what they are compared with."""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from perceptkit.report.delta_mtl import DeltaMtl, delta_mtl
from perceptkit.report.run_folder import Results, Run


@dataclass(frozen=True)
class Reference:
    """Single-task nets: one run, or several that differ in seed or have one task each."""

    runs: tuple[Run, ...]
    metrics: Mapping[str, Mapping[str, float]]
    """By task and metric, the mean over those of the runs that have it."""
    counted: Mapping[str, Collection[str]] = field(default_factory=dict)
    """By task the metrics that count; of other tasks all do that delta_mtl.py counts."""

    def delta(self, results: Results) -> DeltaMtl:
        """Delta-MTL of a run against these nets."""
        directions = {name: task.higher_is_better for name, task in results.tasks.items()}
        return delta_mtl(results.metrics, self.metrics, directions, self.counted)


def single_run(runs: Sequence[Run]) -> Run | None:
    """The first finished run of method `single`."""
    return next((run for run in runs if run.results and run.results.method == "single"), None)


def reference_of(runs: Sequence[Run]) -> Reference | None:
    """The reference that these runs give together; None where none of them is finished."""
    values: dict[str, dict[str, list[float]]] = {}
    for results in (run.results for run in runs if run.results):
        for task, metrics in results.metrics.items():
            for name, value in metrics.items():
                if math.isfinite(value):
                    values.setdefault(task, {}).setdefault(name, []).append(value)
    if not values:
        return None
    means = {task: {name: sum(v) / len(v) for name, v in found.items()} for task, found in values.items()}
    return Reference(tuple(runs), means)
