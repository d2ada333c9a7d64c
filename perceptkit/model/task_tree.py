"""Which tasks share each block, where tasks part and never meet again: a tree, as plain data.

A level for each block, next to the image first; at each level the tasks are in groups, and a group runs one copy of the
block. A group splits on the way to the heads or stays; groups never merge.

    levels = [[[seg, depth, room]], [[seg, depth], [room]]]        two blocks; the second has two copies
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from itertools import groupby

from perceptkit.errors import SpecError

Group = tuple[str, ...]


@dataclass(frozen=True)
class TaskTree:
    """Groups of tasks by block."""

    levels: tuple[tuple[Group, ...], ...]

    @classmethod
    def parting_after(cls, count: int, tasks: Sequence[str], num_blocks: int) -> "TaskTree":
        """All tasks share the first `count` blocks, and then each is alone."""
        together, alone = (tuple(tasks),), tuple((task,) for task in tasks)
        return cls(tuple(together if level < count else alone for level in range(num_blocks)))

    @classmethod
    def of(
        cls, levels: Sequence[Sequence[Sequence[str]]], tasks: Sequence[str], num_blocks: int
    ) -> "TaskTree":
        """From plain lists, in the order of `tasks`; those that `tasks` lacks are left out.

        Raises SpecError where that is no tree of these tasks and so many blocks.
        """
        if len(levels) != num_blocks:
            raise SpecError(
                f"sharing.tree: {len(levels)} levels; this backbone has {num_blocks} blocks, each a level"
            )
        order = {task: i for i, task in enumerate(tasks)}
        made: list[tuple[Group, ...]] = []
        for number, groups in enumerate(levels):
            listed = [task for group in groups for task in group]
            if len(set(listed)) < len(listed) or not set(order) <= set(listed):
                raise SpecError(
                    f"sharing.tree: level {number} has {', '.join(listed) or 'no task'}; expected each of "
                    f"{', '.join(tasks)} once"
                )
            known = (
                tuple(sorted((t for t in group if t in order), key=order.__getitem__)) for group in groups
            )
            made.append(tuple(sorted((group for group in known if group), key=lambda group: order[group[0]])))
            if number and (apart := _first_reunion(made[-2], made[-1])):
                raise SpecError(
                    f"sharing.tree: {' and '.join(apart)} share level {number} but not the one before; tasks that have "
                    "parted cannot meet again"
                )
        return cls(tuple(made))

    def group(self, level: int, task: str) -> Group:
        """The tasks that share a level with this one, itself included."""
        return next(group for group in self.levels[level] if task in group)

    def only(self, tasks: Collection[str]) -> "TaskTree":
        """The tree of some of the tasks."""
        some = (
            (tuple(task for task in group if task in tasks) for group in groups) for groups in self.levels
        )
        return TaskTree(tuple(tuple(group for group in groups if group) for groups in some))

    def to_lists(self) -> list[list[list[str]]]:
        """Plain data for JSON and YAML, which `of` reads."""
        return [[list(group) for group in groups] for groups in self.levels]

    def words(self, blocks: Sequence[str]) -> list[str]:
        """A line for each run of levels that are alike, next to the image first.

        >>> TaskTree.parting_after(2, ["seg", "depth"], 3).words(["layer1.0", "layer1.1", "layer2.0"])
        ['layer1.0 to layer1.1: seg + depth', 'layer2.0: seg | depth']
        """
        lines, at = [], 0
        for groups, run in groupby(self.levels):
            count = len(list(run))
            first, last = blocks[at], blocks[at + count - 1]
            where = first if count == 1 else f"{first} to {last}"
            lines.append(f"{where}: {' | '.join(' + '.join(group) for group in groups)}")
            at += count
        return lines


def _first_reunion(below: Sequence[Group], above: Sequence[Group]) -> tuple[str, str] | None:
    """Two tasks of one group that were not in one before."""
    of_task = {task: i for i, group in enumerate(below) for task in group}
    for group in above:
        for task in group[1:]:
            if of_task[task] != of_task[group[0]]:
                return group[0], task
    return None
