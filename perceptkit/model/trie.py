"""The prefix trie of a plan: which activations are distinct, and who shares them.

Two tasks have the same activations up to the first block in which their plans differ, and never again
after it. So the distinct activations are the nodes of the trie of the tasks' rows:

    a: keep keep skip          (0 keep: a b c) - (1 keep: a b) - (2 skip: a)
    b: keep keep keep                                         `- (2 keep: b)
    c: keep skip keep                          `- (1 skip: c)  - (2 keep: c)
"""

from collections.abc import Sequence
from dataclasses import dataclass

from perceptkit.model.plan import Plan


@dataclass(frozen=True)
class Node:
    """One block as executed (or skipped) by the tasks that have come the same way."""

    block: int
    kept: bool
    parent: int | None
    """Index of the parent in the list of nodes; None at the first block."""
    tasks: tuple[str, ...]


def trie(plan: Plan, tasks: Sequence[str] | None = None) -> list[Node]:
    """All nodes, parents before children, for all tasks of the plan or some of them."""
    chosen = tuple(tasks) if tasks is not None else plan.tasks
    nodes: list[Node] = []
    frontier: list[tuple[int | None, tuple[str, ...]]] = [(None, chosen)]
    for block in range(len(plan.blocks)):
        reached: list[tuple[int | None, tuple[str, ...]]] = []
        for parent, group in frontier:
            for kept in (True, False):
                same = tuple(task for task in group if plan.row(task)[block] is kept)
                if same:
                    nodes.append(Node(block, kept, parent, same))
                    reached.append((len(nodes) - 1, same))
        frontier = reached
    return nodes


def leaves(plan: Plan, tasks: Sequence[str] | None = None) -> list[tuple[str, ...]]:
    """The groups of tasks whose rows are the same from the first block to the last."""
    chosen = tuple(tasks) if tasks is not None else plan.tasks
    groups: dict[tuple[bool, ...], list[str]] = {}
    for task in chosen:
        groups.setdefault(plan.row(task), []).append(task)
    return [tuple(group) for group in groups.values()]
