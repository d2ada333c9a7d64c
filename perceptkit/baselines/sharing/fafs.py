"""Fully-adaptive feature sharing: from the heads down, tasks part where the same pictures are not hard for both.

Lu, Kumar, Zhai, Cheng, Javidi, Feris. *Fully-adaptive Feature Sharing in Multi-Task Networks with Applications in
Person Attribute Classification.* CVPR 2017. https://arxiv.org/abs/1611.05377

A network that all tasks share is trained first. Then, from its last block to its first, c branches (sets of tasks; at
the start each task is one) that part above a block are brought into d <= c groups, each with a copy of the block:

    A(i, j)     how often tasks i and j agree on whether a picture is hard            (affinity.py)
    A~(k, l)  = mean_{i in k} min_{j in l} A(i, j),   A_b = (A~ + A~^T) / 2           branches k, l
    F_s(g)    = mean_{group G of g} (1 - mean_{k in G} min_{l in G} A_b(k, l))        how unlike those are that share
    F_c(g)    = (d - 1) L0 2^p                                                        what d copies cost
    g*        = argmin_g F_c(g) + F_s(g)

p is how often the feature map is halved between the block and the last one: branching low is dearer. L0 is
`sharing.branch_cost`; the paper's weight of F_s is in it. A~, F_s and F_c are as their readers recall them, not checked
against the PDF. The groups are the branches below. With one group
left, everything below is shared. Copies start with the weights that were shared, and the tree is trained.

Differs: the best g of each d is found by trying all up to MOST branches, and beyond by average linkage, where the paper
clusters spectrally. All levels are decided from the errors after one warm-up, unless `sharing.level_epochs` has the
network trained between two levels, as the paper does. Its thin initialisation is `backbone.wide` (model/somp.py).

Shapes: K tasks, c branches.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.spatial.distance import squareform

from perceptkit.model.task_tree import TaskTree

BRANCH_COST = 0.1
"""L0 where the recipe does not say; not the paper's, which is on another scale."""
MOST = 7
"""Branches of which all groupings are tried: 877 for seven, 4,140 for eight."""

Grouping = tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class Candidate:
    """The best way to make so many groups of the branches above a block."""

    groups: tuple[tuple[str, ...], ...]
    """Their tasks."""
    separation: float
    """F_s."""
    cost: float
    """F_c."""

    @property
    def total(self) -> float:
        """What is minimised."""
        return self.separation + self.cost


def grow(
    affinity_KK: np.ndarray, tasks: Sequence[str], halvings: Sequence[int], branch_cost: float = BRANCH_COST
) -> tuple[TaskTree, list[list[Candidate]]]:
    """The tree.

    Args:
        affinity_KK: A, without NaN.
        tasks: K names.
        halvings: p by block, next to the image first.
        branch_cost: L0.

    Returns:
        The tree, and the candidates of every block, next to the image first; none for those that are shared because the
        one above them is.
    """
    tree = TaskTree.parting_after(len(halvings), tasks, len(halvings))
    tried: list[list[Candidate]] = []
    for _ in halvings:
        tree, found = grow_level(tree, len(tried), affinity_KK, tasks, halvings, branch_cost)
        tried.append(found)
    return tree, tried[::-1]


def grow_level(
    tree: TaskTree,
    done: int,
    affinity_KK: np.ndarray,
    tasks: Sequence[str],
    halvings: Sequence[int],
    branch_cost: float = BRANCH_COST,
) -> tuple[TaskTree, list[Candidate]]:
    """One more level, below those that are decided; arguments as for `grow`.

    Args:
        tree: in which all tasks share what is not decided.
        done: how many levels are, counted from the last block.

    Returns:
        The tree, and the candidates of the level; none where all tasks share the level above.
    """
    level = len(halvings) - 1 - done
    order = {task: i for i, task in enumerate(tasks)}
    above = tree.levels[level + 1] if done else tuple((task,) for task in tasks)
    if len(above) == 1:
        return tree, []
    branches = [tuple(order[task] for task in group) for group in above]
    similar_cc = branch_affinity(affinity_KK, branches)
    found: list[Candidate] = []
    for d in range(1, len(branches) + 1):
        grouping = best_grouping(similar_cc, d)
        merged = sorted(tuple(sorted(i for b in group for i in branches[b])) for group in grouping)
        names = tuple(tuple(tasks[i] for i in group) for group in merged)
        found.append(
            Candidate(names, separation(similar_cc, grouping), (d - 1) * branch_cost * 2.0 ** halvings[level])
        )
    best = min(found, key=lambda candidate: round(candidate.total, 12))  # the fewest of equals
    return TaskTree((*tree.levels[:level], best.groups, *tree.levels[level + 1 :])), found


def branch_affinity(affinity_KK: np.ndarray, branches: Sequence[Sequence[int]]) -> np.ndarray:
    """A_b, (c, c)."""
    one_way_cc = np.array([[affinity_KK[np.ix_(k, m)].min(1).mean() for m in branches] for k in branches])
    return (one_way_cc + one_way_cc.T) / 2


def separation(similar_cc: np.ndarray, grouping: Grouping) -> float:
    """F_s; `similar_cc` is A_b."""
    return float(np.mean([1 - similar_cc[np.ix_(group, group)].min(1).mean() for group in grouping]))


def best_grouping(similar_cc: np.ndarray, count: int) -> Grouping:
    """The grouping into `count` groups with the least F_s; of equals the first."""
    branches = len(similar_cc)
    if branches <= MOST:
        options = (grouping for grouping in groupings(branches) if len(grouping) == count)
        return min(options, key=lambda grouping: round(separation(similar_cc, grouping), 12))
    if count == branches:
        return tuple((b,) for b in range(branches))
    apart_cc = 1 - similar_cc
    np.fill_diagonal(apart_cc, 0)
    of_branch = fcluster(linkage(squareform(apart_cc, checks=False), "average"), count, "maxclust")
    return tuple(tuple(np.flatnonzero(of_branch == g).tolist()) for g in np.unique(of_branch))


def groupings(count: int) -> Iterator[Grouping]:
    """All ways to put so many branches into groups.

    >>> list(groupings(2))
    [((0, 1),), ((0,), (1,))]
    """
    if count == 0:
        yield ()
        return
    for before in groupings(count - 1):
        for g, group in enumerate(before):
            yield (*before[:g], (*group, count - 1), *before[g + 1 :])
        yield (*before, (count - 1,))
