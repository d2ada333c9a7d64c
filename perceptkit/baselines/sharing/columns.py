"""Soft sharing: a column per task, each a trunk with neck and head, and units that pass features between the trunks.

    x_t <- stage_{s,t}(x_t)                for every task t
    x_1 .. x_T <- unit_s(x_1, .., x_T)     after every stage s

What a unit computes is the method's: cross_stitch.py, sluice.py, nddr.py. In networks without residual blocks units
follow pooling layers; here they follow the stages of any trunk (whole.py says which those are).

A unit acts on channels, wherever a trunk has them: maps as (B, C, h, w) or channels last, tokens as (B, N, C).

Shapes: B batch, T tasks, C channels, H W pixels of the input.
"""

import copy
from collections.abc import Mapping, Sequence
from typing import Any, Self, cast

import torch
from torch import Tensor, nn

from perceptkit.baselines.sharing.whole import WholeNetwork, stage_ends, with_heads
from perceptkit.model.refusal import refusal
from perceptkit.model.supernet import Supernet, head_key
from perceptkit.model.trunk import run_part, shared_inputs, to_map

OWN = 0.9
"""What each task's own features start with in a mixture; the others share the rest evenly."""


class Columns(WholeNetwork):
    """Columns and the units between them; what a unit is, a method's file says.

    Args:
        nets: a network with one task each, of the same backbone.
        unit_lr_scale: factor of the learning rate of the units.
    """

    takes_one_task = False

    def __init__(self, nets: Mapping[str, Supernet], unit_lr_scale: float = 1.0) -> None:
        first = next(iter(nets.values()))
        super().__init__(first, {name: net.tasks[name] for name, net in nets.items()})
        self.nets = nn.ModuleDict({head_key(name): net for name, net in nets.items()})
        self.unit_lr_scale = unit_lr_scale
        self.ends = stage_ends(first.steps, first.taps)
        axes = channel_axes(first, self.ends)
        self.units = nn.ModuleList(
            self.unit(len(nets), first.steps[end].channels, axis)
            for end, axis in zip(self.ends, axes, strict=True)
        )

    def unit(self, num_tasks: int, channels: int, axis: int) -> nn.Module:
        """A fresh unit: list of T tensors -> list of T tensors, channels along `axis`."""
        raise NotImplementedError

    def columns(self) -> list[Supernet]:
        """The network of each task."""
        return [cast(Supernet, net) for net in self.nets.values()]

    def run(self, image_BCHW: Tensor, tasks: Sequence[str]) -> dict[str, Tensor]:
        """All trunks side by side; necks and heads of these tasks only."""
        columns = self.columns()
        size_HW = (image_BCHW.shape[2], image_BCHW.shape[3])
        shared = [shared_inputs(net.backbone, size_HW) for net in columns]
        x_T = [image_BCHW] * len(columns)
        maps_ST: list[list[Tensor]] = []
        for i, step in enumerate(columns[0].steps):
            x_T = [
                run_part(net.backbone, step.name, x, extra)
                for net, x, extra in zip(columns, x_T, shared, strict=True)
            ]
            if i in self.ends:
                x_T = self.units[self.ends.index(i)](x_T)
                maps_ST.append(
                    [to_map(net.backbone, x, size_HW) for net, x in zip(columns, x_T, strict=True)]
                )
        outputs: dict[str, Tensor] = {}
        for t, (key, net) in enumerate(zip(self.nets, columns, strict=True)):
            name = next((name for name in tasks if head_key(name) == key), None)
            if name is not None:
                maps_S = self.summary(t, [maps_T[t] for maps_T in maps_ST])
                features = [m for end, m in zip(self.ends, maps_S, strict=True) if end in net.taps]
                outputs |= net.run_heads(features, maps_S[-1], [name], size_HW)
        return {name: outputs[name] for name in tasks}

    def summary(self, t: int, maps_S: list[Tensor]) -> list[Tensor]:
        """What neck and head of task number t read of the features after each unit."""
        return maps_S

    def head(self, task: str) -> nn.Module:
        """The head of a task."""
        net = cast(Supernet, self.nets[head_key(task)])
        return net.heads[head_key(task)]

    def plain(self) -> Supernet:
        """A copy of the first column, with the heads of all tasks."""
        heads = {name: self.head(name) for name in self.tasks}
        made = with_heads(self.columns()[0], heads, self.tasks)
        made.neck = copy.deepcopy(next((net.neck for net in self.columns() if net.neck is not None), None))
        return made

    def only(self, tasks: Sequence[str]) -> Self:
        """A copy without necks and heads of the other tasks; all trunks stay, since each reads the others."""
        made = copy.deepcopy(self)
        made.tasks = {name: task for name, task in self.tasks.items() if name in tasks}
        kept = {head_key(name) for name in made.tasks}
        for key, net in made.nets.items():
            if key not in kept:
                column: Any = net
                column.tasks, column.heads, column.neck = {}, nn.ModuleDict(), None
        return made


def own_share(num_inputs: int) -> Tensor:
    """(n, n): OWN on the diagonal, the rest evenly beside it; rows sum to 1."""
    if num_inputs == 1:
        return torch.ones(1, 1)
    rest = torch.full((num_inputs, num_inputs), (1 - OWN) / (num_inputs - 1))
    return rest.fill_diagonal_(OWN)


@torch.no_grad()
def channel_axes(net: Supernet, ends: Sequence[int]) -> list[int]:
    """Along which axis of the activations after these steps the channels are: 1 for maps, -1 else.

    Raises SpecError where they are neither.
    """
    was_training = net.training
    net.eval()
    backbone, axes = net.backbone, []
    device = next(net.parameters()).device
    x: Tensor = torch.zeros(1, 3, *net.size_HW, device=device)
    shared = shared_inputs(backbone, net.size_HW)
    for i, step in enumerate(net.steps):
        x = run_part(backbone, step.name, x, shared)
        if i in ends:
            axis = 1 if to_map(backbone, x, net.size_HW) is x else -1
            if x.shape[axis] != step.channels:
                raise refusal(backbone, f"the channels of what {step.name} gives are along no known axis")
            axes.append(axis)
    net.train(was_training)
    return axes


def along(weight_C: Tensor, like: Tensor, axis: int) -> Tensor:
    """A number per channel, shaped to be multiplied with `like`, in its type."""
    weight_C = weight_C.to(like.dtype)
    return weight_C.view(-1, *[1] * (like.ndim - 2)) if axis == 1 else weight_C
