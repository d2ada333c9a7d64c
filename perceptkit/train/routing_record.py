"""What the router did with each picture of the test split, for the report: the key `test` of routing.json.

    policies     [{"keep", "pictures"}]            each different decision, the most frequent first
    pictures     {"id", "policy", "usage", "macs", "quality", "full_quality"}
                                                   columns with one entry per picture; the policy is a row above,
                                                   MACs include the router, qualities are by task and in [0, 1]
    difficulty   [{"by": "quality", "task", "class", "classes", "easiest", "hardest"}]
                                                   pictures on which the network with all blocks has the highest and
                                                   the lowest quality: by class where a task has classes, of which the
                                                   first ten are here and `classes` says how many the split has; over
                                                   all pictures, by the mean of the tasks (task and class null), where
                                                   not; empty where all have one policy
    clusters     [{"keep", "keep_rate", "policies", "pictures", "usage", "macs", "examples"}]
                                                   policies that are alike, around the one with this `keep`
    RUN/routing/NUMBER.png                         every picture that is named by its number in these lists

Nothing is drawn at random, and nothing picked by hand: of equals, pictures spread evenly over the split are shown.

Shapes: N pictures of the split, R routed blocks, U different policies, K tasks.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from perceptkit.data.source import Source
from perceptkit.policies import blockdrop
from perceptkit.policies.policy_clusters import distance, policy_clusters
from perceptkit.tasks.base import Task
from perceptkit.train.evaluate import Evaluation
from perceptkit.train.pictures import save_png
from perceptkit.train.ranks import sum_over_ranks
from perceptkit.train.routing_host import current
from perceptkit.train.rules import Comparison
from perceptkit.train.training import Training

CLASSES = 10
"""At most, each with its easiest and hardest pictures."""
OF_A_CLASS = 2
OF_ALL = 6
OF_A_CLUSTER = 5
"""Pictures shown."""
BY = "quality"
"""What is easy: files from before this was named show what costs least."""


def record_test(
    training: Training,
    test: Source,
    keep_NR: Tensor,
    class_N: Mapping[str, Tensor],
    compared: Comparison,
) -> dict[str, Any]:
    """The table of the test split; saves the pictures it names. Every rank must call it, rank 0 writes.

    Args:
        training: with the router, before anything is folded.
        test: the split.
        keep_NR: the router's decisions on it.
        class_N: of each picture, by task with classes; -1 without a label.
        compared: what the learned and the full model gave.
    """
    cost_R = current(training).cost_R.cpu()
    keep_UR, policy_N, count_U = by_frequency(keep_NR)
    usage_N = blockdrop.usage(keep_NR, cost_R)
    macs_N = compared.costs.of(keep_NR) + compared.costs.router
    qualities = [_by_task(training, found, len(test)) for found in (compared.learned, compared.full)]
    found = {
        "policies": [
            {"keep": keep_R, "pictures": count}
            for keep_R, count in zip(keep_UR.int().tolist(), count_U.tolist(), strict=True)
        ],
        "pictures": {
            "id": list(test.ids),
            "policy": policy_N.tolist(),
            "usage": _rounded(usage_N),
            "macs": macs_N.long().tolist(),
            "quality": qualities[0],
            "full_quality": qualities[1],
        },
        "difficulty": difficulty(qualities[1], class_N, training.tasks) if len(count_U) > 1 else [],
        "clusters": clusters(keep_NR, usage_N, macs_N),
    }
    if training.fabric.global_rank == 0:
        for number in sorted(named(found)):
            save_png(training.run / f"routing/{number}.png", test.load(number).image)
    return found


def by_frequency(keep_NR: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Different decisions (U, R), the most frequent first; each picture's row of them (N,); pictures of each (U,)."""
    keep_UR, policy_N, count_U = torch.unique(keep_NR, dim=0, return_inverse=True, return_counts=True)
    order_U = count_U.argsort(descending=True, stable=True)
    return keep_UR[order_U], order_U.argsort()[policy_N], count_U[order_U]


def difficulty(
    quality: Mapping[str, Sequence[float]], class_N: Mapping[str, Tensor], tasks: Mapping[str, Task]
) -> list[dict[str, Any]]:
    """Pictures on which the network with all blocks does best and worst.

    Args:
        quality: of each picture with all blocks, by task, in [0, 1]; NaN without a label.
        class_N: as for `record_test`.
        tasks: by name.
    """
    groups = []
    for task, label_N in class_N.items():
        of_task = [c for c in label_N.unique().tolist() if c >= 0]
        for index in of_task[:CLASSES]:
            members = (label_N == index).nonzero()[:, 0].tolist()
            name = tasks[task].labels[index]
            ends = _best_and_worst(members, quality[task], OF_A_CLASS)
            groups.append({"by": BY, "task": task, "class": name, "classes": len(of_task), **ends})
    if class_N.keys() != tasks.keys():
        mean_N = torch.tensor(list(quality.values()), dtype=torch.float64).nanmean(0).tolist()
        known = [n for n, mean in enumerate(mean_N) if not math.isnan(mean)]
        groups.append({"by": BY, "task": None, "class": None, **_best_and_worst(known, mean_N, OF_ALL)})
    return groups


def _best_and_worst(members: Sequence[int], quality: Sequence[float], count: int) -> dict[str, list[int]]:
    return extremes(members, [-value for value in quality], count)


def extremes(members: Sequence[int], values: Sequence[float], count: int) -> dict[str, list[int]]:
    """The members with the least and the largest values, of which every picture of the split has one."""
    count = min(count, len(members) // 2)  # no picture is both
    easiest = least(members, [values[n] for n in members], count)
    others = [n for n in members if n not in easiest]
    return {"easiest": easiest, "hardest": least(others, [-values[n] for n in others], count)}


def least(numbers: Sequence[int], values: Sequence[float], count: int) -> list[int]:
    """Those `count` of the numbers with the least values; of more that share the very least, some from all over.

    >>> least([10, 11, 12, 13], [2, 1, 3, 1], 3), least(range(100), [0] * 99 + [-1], 1), least(range(9), [0] * 9, 3)
    ([11, 13, 10], [99], [0, 4, 8])
    """
    ranked = sorted(zip(values, numbers, strict=True))
    ties = [number for value, number in ranked if value == ranked[0][0]]
    if len(ties) <= count:
        return [number for _, number in ranked[:count]]
    return [ties[i] for i in np.linspace(0, len(ties) - 1, count).astype(int)]


def clusters(keep_NR: Tensor, usage_N: Tensor, macs_N: Tensor) -> list[dict[str, Any]]:
    """Groups of policies, the one with most pictures first."""
    keep_UR, policy_N, count_U = by_frequency(keep_NR)
    centres, group_U = policy_clusters(keep_UR, count_U)
    away_N = distance(keep_UR, keep_UR[list(centres)]).gather(1, group_U[:, None])[policy_N, 0]
    found = []
    for group, centre in enumerate(centres):
        members = (group_U[policy_N] == group).nonzero()[:, 0]
        found.append(
            {
                "keep": keep_UR[centre].int().tolist(),
                "keep_rate": _rounded(keep_NR[members].double().mean(0)),
                "policies": int((group_U == group).sum()),
                "pictures": len(members),
                "usage": usage_N[members].double().mean().item(),
                "macs": macs_N[members].mean().item(),
                "examples": least(members.tolist(), away_N[members].tolist(), OF_A_CLUSTER),
            }
        )
    return sorted(found, key=lambda row: -row["pictures"])


def named(found: Mapping[str, Any]) -> set[int]:
    """Numbers of all pictures that are shown."""
    lists = [row["examples"] for row in found["clusters"]]
    lists += [row[end] for row in found["difficulty"] for end in ("easiest", "hardest")]
    return {number for numbers in lists for number in numbers}


def _by_task(training: Training, evaluation: Evaluation, num: int) -> dict[str, list[float]]:
    """Quality of each picture of the split by task, from what every rank has of it."""
    fabric = training.fabric
    quality_NK = torch.zeros(num, len(training.tasks), device=fabric.device)
    # the loader deals a split to the ranks like cards
    quality_NK[fabric.global_rank :: fabric.world_size] = evaluation.quality_NK.to(fabric.device)
    columns = sum_over_ranks(quality_NK).cpu().T
    return {name: _rounded(column) for name, column in zip(training.tasks, columns, strict=True)}


def _rounded(values: Tensor) -> list[float]:
    """Four decimals: one line per picture stays short."""
    return [round(value, 4) for value in values.tolist()]
