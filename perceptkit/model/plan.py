"""A plan: who keeps, skips or routes which block.  Plain data, saved as JSON.

The index convention of the whole project is written here once: `SKIP, KEEP = 0, 1`. The reference
codes disagree (AdaShare stores keep at index 0), so porting their logits needs a named conversion.

Shapes: K tasks, L blocks (index 0 next to the image).
"""

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from perceptkit.errors import PlanError

SKIP, KEEP = 0, 1
Choice = Literal["skip", "keep", "route"]
CHOICES: tuple[Choice, ...] = ("skip", "keep", "route")


@dataclass(frozen=True)
class Plan:
    """A task x block table of choices.

    A block that is routed is routed for every task that does not skip it: the router decides by picture and block,
    and what tasks share stays shared.

    A network that was adapted to a domain may hold two copies of a block, the base's and a tuned one: `dual` names
    those of which the router decides by picture which copy runs. They are kept, never skipped by picture.

    Raises PlanError when the table's shape or entries do not fit `tasks` and `blocks`, a block is routed for one
    task and kept for another, or there are two copies of a block that is skipped by picture or kept by no task.
    """

    tasks: tuple[str, ...]
    blocks: tuple[str, ...]
    table: tuple[tuple[Choice, ...], ...]
    dual: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if len(self.table) != len(self.tasks):
            raise PlanError(f"the plan has {len(self.table)} rows for {len(self.tasks)} tasks")
        for task, row in zip(self.tasks, self.table, strict=True):
            if len(row) != len(self.blocks):
                raise PlanError(f"task {task!r} has {len(row)} choices for {len(self.blocks)} blocks")
            for choice in row:
                if choice not in CHOICES:
                    raise PlanError(f"task {task!r}: {choice!r} is not one of {', '.join(CHOICES)}")
        for b, block in enumerate(self.blocks):
            if {"keep", "route"} <= {row[b] for row in self.table}:
                raise PlanError(f"block {block} is routed for one task and kept for another")
        for block in self.dual:
            if block not in self.blocks:
                raise PlanError(f"there are two copies of {block!r}, which is not a block")
            if {row[self.blocks.index(block)] for row in self.table} & {"route"} or not self._runs(block):
                raise PlanError(f"there are two copies of block {block}, which must be kept by some task")

    def _runs(self, block: str) -> bool:
        return any(row[self.blocks.index(block)] != "skip" for row in self.table)

    @classmethod
    def all_keep(cls, tasks: Sequence[str], blocks: Sequence[str]) -> "Plan":
        """Hard sharing: every task keeps every block."""
        return cls.from_keep(tasks, blocks, [[True] * len(blocks) for _ in tasks])

    @classmethod
    def from_keep(
        cls, tasks: Sequence[str], blocks: Sequence[str], keep_KL: Sequence[Sequence[bool]]
    ) -> "Plan":
        """From a K x L table of booleans."""
        rows = tuple(tuple("keep" if keep else "skip" for keep in row) for row in keep_KL)
        return cls(tuple(tasks), tuple(blocks), rows)  # type: ignore[arg-type]  # literals, not str

    def row(self, task: str) -> tuple[bool, ...]:
        """For each block, whether `task` executes it (or may, where it is routed)."""
        return tuple(choice != "skip" for choice in self.table[self.tasks.index(task)])

    def routed(self) -> tuple[int, ...]:
        """Indices of the blocks that a router decides on by picture: the columns of its keep table, in this order."""
        return tuple(
            b
            for b, block in enumerate(self.blocks)
            if block in self.dual or any(row[b] == "route" for row in self.table)
        )

    def has_copies(self, block: int) -> bool:
        """Whether the router decides which of two copies of this block runs, and not whether it runs."""
        return self.blocks[block] in self.dual

    def skippable(self) -> tuple[int, ...]:
        """Of the routed blocks those that a picture may skip: the others have two copies, of which one runs."""
        return tuple(b for b in self.routed() if not self.has_copies(b))

    def with_routed(self, blocks: Collection[int]) -> "Plan":
        """The same plan with exactly these blocks routed, where a task does not skip them."""

        def choice(b: int, before: Choice) -> Choice:
            if before == "skip" or self.has_copies(b):
                return before
            return "route" if b in blocks else "keep"

        return replace(
            self, table=tuple(tuple(choice(b, c) for b, c in enumerate(row)) for row in self.table)
        )

    def resolved(self, keep_R: Sequence[bool]) -> "Plan":
        """The plan of the pictures for which the router decides so: one entry per routed block, none is routed then.

        Which copy of a block runs is not in it.
        """
        column = dict(zip(self.routed(), keep_R, strict=True))

        def choice(b: int, before: Choice) -> Choice:
            return before if before != "route" else "keep" if column[b] else "skip"

        table = tuple(tuple(choice(b, c) for b, c in enumerate(row)) for row in self.table)
        return replace(self, table=table, dual=())

    def kept_by_any(self) -> tuple[bool, ...]:
        """For each block, whether any task executes it: the blocks whose parameters are needed."""
        return tuple(any(row[b] != "skip" for row in self.table) for b in range(len(self.blocks)))

    def kept_fraction(self) -> float:
        """Mean keep over tasks and blocks, in [0, 1]; a routed block counts as kept."""
        entries = [choice != "skip" for row in self.table for choice in row]
        return sum(entries) / len(entries) if entries else 1.0

    def only(self, tasks: Sequence[str]) -> "Plan":
        """The same choices for some of the tasks."""
        chosen = Plan(tuple(tasks), self.blocks, tuple(self.table[self.tasks.index(t)] for t in tasks))
        return replace(chosen, dual=tuple(block for block in self.dual if chosen._runs(block)))

    def to_json(self) -> str:
        """One object: tasks, blocks, and the choices by task."""
        choices = {task: list(row) for task, row in zip(self.tasks, self.table, strict=True)}
        table = {"version": 1, "tasks": self.tasks, "blocks": self.blocks, "choices": choices}
        return json.dumps(table | ({"dual": self.dual} if self.dual else {}), indent=1)

    @classmethod
    def from_json(cls, text: str) -> "Plan":
        """Reads what `to_json` wrote. Raises PlanError on anything else."""
        try:
            loaded: Mapping = json.loads(text)
            rows = tuple(tuple(loaded["choices"][task]) for task in loaded["tasks"])
            dual = tuple(loaded.get("dual", ()))
            return cls(tuple(loaded["tasks"]), tuple(loaded["blocks"]), rows, dual)
        except (ValueError, KeyError, TypeError) as error:
            raise PlanError(f"not a plan: {error}") from error
