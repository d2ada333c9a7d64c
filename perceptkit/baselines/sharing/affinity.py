"""Task affinity: whether the same pictures are easy or hard for two tasks.

Lu, Kumar, Zhai, Cheng, Javidi, Feris. *Fully-adaptive Feature Sharing in Multi-Task Networks.* CVPR 2017.
https://arxiv.org/abs/1611.05377

    e_i(n)  = 1 if m_i(n) >= mean_n m_i(n) else 0
    A(i, j) = E_n[e_i(n) e_j(n) + (1 - e_i(n)) (1 - e_j(n))]

m_i(n) is the error of task i on picture n: hard pictures are those above the task's mean. A is symmetric, in [0, 1],
and 1 where two tasks agree on every picture.

Differs: the paper's error is a margin of attributes that all are yes or no. Here tasks are of different types, so
the error is 1 - the picture's quality in [0, 1]; pictures without a label of either task do not count. Two tasks
that have nothing in common agree on p_i p_j + (1 - p_i)(1 - p_j) of the pictures, p being the parts that are hard:
`by_chance`.

Shapes: N pictures, K tasks.
"""

from collections.abc import Sequence
from typing import Any

from torch import Tensor


def hard_pictures(error_NK: Tensor) -> Tensor:
    """e: which pictures are hard for which task, bool (N, K); False where the error is NaN."""
    return error_NK >= error_NK.nanmean(0)


def task_affinity(error_NK: Tensor) -> Tensor:
    """A, (K, K); NaN for two tasks that no picture has labels of."""
    hard_NK, known_NK = hard_pictures(error_NK), ~error_NK.isnan()
    both_NKK = known_NK[:, :, None] & known_NK[:, None, :]
    agree_NKK = (hard_NK[:, :, None] == hard_NK[:, None, :]) & both_NKK
    return agree_NKK.sum(0).double() / both_NKK.sum(0)


def by_chance(error_NK: Tensor) -> Tensor:
    """The affinity of tasks that have nothing in common, (K, K)."""
    hard_K = hard_pictures(error_NK).sum(0).double() / (~error_NK.isnan()).sum(0)
    return hard_K[:, None] * hard_K + (1 - hard_K[:, None]) * (1 - hard_K)


def affinity_record(quality_NK: Tensor, tasks: Sequence[str], split: str) -> dict[str, Any]:
    """What affinity.json holds, from the quality of every picture in [0, 1], NaN without a label."""
    error_NK = 1 - quality_NK.double()
    return {
        "split": split,
        "pictures": len(quality_NK),
        "tasks": list(tasks),
        "affinity": task_affinity(error_NK).tolist(),
        "by_chance": by_chance(error_NK).tolist(),
    }
