"""Delta-MTL: how much better a multi-task net is than single-task nets, in one number.

Sun, Panda, Feris, Saenko. *AdaShare: Learning What To Share For Efficient Deep Multi-Task Learning.*
NeurIPS 2020. https://arxiv.org/abs/1911.12423

    Delta_{T_i} = 100 % * 1/|M_i| * sum_{j <= |M_i|} (-1)^{s_j} (M_{i,j} - M^STL_{i,j}) / M^STL_{i,j}
    Delta_T     = 1/|T| * sum_{i <= |T|} Delta_{T_i}

M_{i,j} is metric j of task i, STL the single-task net of the same backbone, s_j = 1 where lower is better.
Each task weighs the same, and each metric the same within its task, but for those that are `NOT_COUNTED`. Positive is
better.
"""

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass

NOT_COUNTED = frozenset({"err", "mean_cos"})
"""What `compat: adashare` adds, segmentation's cross-entropy and the mean cosine of normals: where the paper reports
miou and pixel_acc, and five numbers of angles, its delta has no more. Depth's rmse counts here, and is none of its
five. On Tiny-Taskonomy these two are all that it reports of their tasks. `perceptkit compare --count` says what counts
instead."""


@dataclass(frozen=True)
class DeltaMtl:
    """Delta_{T_i} by task and their mean, in percent."""

    by_task: Mapping[str, float]
    mean: float


def delta_task(
    metrics: Mapping[str, float],
    single: Mapping[str, float],
    higher_is_better: Mapping[str, bool],
    counted: Collection[str] | None = None,
) -> float:
    """Delta_{T_i} of one task, in percent.

    A metric of `counted`, by default one that is not `NOT_COUNTED`, counts when its direction is known, both values are
    finite and the single-task value is not 0 (a relative change of nothing does not exist). NaN where no metric counts.

    >>> delta_task({"miou": 45.0, "rmse": 0.75}, {"miou": 40.0, "rmse": 0.5}, {"miou": True, "rmse": False})
    -18.75
    """
    changes = []
    for name, higher in higher_is_better.items():
        value, reference = metrics.get(name, math.nan), single.get(name, math.nan)
        asked = name not in NOT_COUNTED if counted is None else name in counted
        if asked and reference != 0 and math.isfinite(value) and math.isfinite(reference):
            change = (value - reference) / reference
            changes.append(change if higher else -change)
    return 100 * sum(changes) / len(changes) if changes else math.nan


def delta_mtl(
    metrics: Mapping[str, Mapping[str, float]],
    single: Mapping[str, Mapping[str, float]],
    higher_is_better: Mapping[str, Mapping[str, bool]],
    counted: Mapping[str, Collection[str]] | None = None,
) -> DeltaMtl:
    """Delta_T over the tasks of `metrics`; its mean is NaN unless every one of them can be compared."""
    by_task = {
        task: delta_task(
            values, single.get(task, {}), higher_is_better.get(task, {}), (counted or {}).get(task)
        )
        for task, values in metrics.items()
    }
    mean = sum(by_task.values()) / len(by_task) if by_task else math.nan
    return DeltaMtl(by_task, mean)
