"""What networks have in common whose sharing is no plan: every task runs all blocks, and there is more than one trunk
or something beside it.

They stand in the place of a Supernet: trained by the same loop, with the same heads, data and metrics, counted by
model/cost.py, and written as an artifact as they are (compact/whole.py).

Shapes: B batch, H W pixels of the input.
"""

import copy
from collections.abc import Mapping, Sequence
from typing import Self

from torch import Tensor, nn

from perceptkit.errors import PlanError
from perceptkit.model.plan import Plan
from perceptkit.model.supernet import KeepRows, Supernet, head_key
from perceptkit.model.trunk import Step
from perceptkit.tasks.base import Task

STAGES = 4
"""Into which a trunk is cut whose features all have one stride."""


class WholeNetwork(nn.Module):
    """A network behind the interface of a Supernet.

    Args:
        like: what says how pictures are normalised and which blocks there are.
        tasks: by name.
    """

    takes_one_task = True
    """Whether the network of one task alone is a part of it."""
    unit_lr_scale = 1.0
    """Factor of the learning rate of what is in `units`, where it has some."""

    def __init__(self, like: Supernet, tasks: Mapping[str, Task]) -> None:
        super().__init__()
        self.tasks = dict(tasks)
        self.mean, self.std, self.size_HW, self.blocks = like.mean, like.std, like.size_HW, like.blocks

    def forward(
        self, image_BCHW: Tensor, keep: Plan | KeepRows, tasks: Sequence[str] | None = None
    ) -> dict[str, Tensor]:
        """Outputs of all tasks, or of `tasks` only.

        Raises PlanError for a `keep` that skips a block.
        """
        refuse_skips(keep)
        chosen = list(tasks) if tasks is not None else list(self.tasks)
        return self.run(image_BCHW, chosen)

    def run(self, image_BCHW: Tensor, tasks: Sequence[str]) -> dict[str, Tensor]:
        """Outputs of these tasks."""
        raise NotImplementedError

    def head(self, task: str) -> nn.Module:
        """The head of a task."""
        raise NotImplementedError

    def plain(self) -> Supernet:
        """A copy of one trunk and neck with the heads of all tasks: what it is compared with."""
        raise NotImplementedError

    def only(self, tasks: Sequence[str]) -> Self:
        """A copy that answers some of the tasks, without what only the others need."""
        raise NotImplementedError

    def num_necks(self) -> int:
        """Necks that run where all tasks are asked for: one for each dense task, unless some read one map."""
        return sum(task.dense for task in self.tasks.values())

    def penalties(self) -> dict[str, Tensor]:
        """What is added to the losses of the tasks in a training step, by its name in the log."""
        return {}


def refuse_skips(keep: Plan | KeepRows) -> None:
    """Raises PlanError where something is not kept."""
    rows = keep.table if isinstance(keep, Plan) else keep.values()
    if any(choice is not True and choice != "keep" for row in rows for choice in row):
        raise PlanError("this network has no blocks that can be skipped")


def stage_ends(steps: Sequence[Step], taps: Sequence[int]) -> list[int]:
    """Indices of the steps that end a stage: the last one at each stride, and the last of all.

    A trunk of one stride, as a plain ViT, is cut into STAGES parts with about as many blocks each.
    """
    ends = list(taps)
    if len(taps) < 2:
        at = [i for i, step in enumerate(steps) if step.block is not None]
        parts = min(STAGES, len(at))
        ends = [at[round(len(at) * part / parts) - 1] for part in range(1, parts)] + ends
    return sorted({*ends, len(steps) - 1})


def with_heads(net: Supernet, heads: Mapping[str, nn.Module], tasks: Mapping[str, Task]) -> Supernet:
    """A copy of a network with copies of these heads in the place of its own."""
    made: Supernet = copy.deepcopy(net)
    made.tasks = dict(tasks)
    made.heads = nn.ModuleDict({head_key(name): copy.deepcopy(heads[name]) for name in tasks})
    return made
