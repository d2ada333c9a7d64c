"""MTAN: one trunk for all tasks, and for each task attention over the features of every stage.

Liu, Johns, Davison. *End-to-End Multi-Task Learning with Attention.* CVPR 2019.
https://arxiv.org/abs/1803.10704. Stage j of the trunk gives u_j, the output of its first block, and p_j, that of its
last. For task t:

    a^_{t,j} = a_{t,j} * p_j                                        elementwise
    a_{t,1} = h_{t,1}(g_{t,1}(u_1))
    a_{t,j} = h_{t,j}(g_{t,j}([u_j ; f_j(a^_{t,j-1})]))             j >= 2

    g: 1x1 convolution, BatchNorm, ReLU
    h: 1x1 convolution, BatchNorm, sigmoid: masks in [0, 1]
    f: 3x3 convolution, BatchNorm, ReLU, then max pooling to the size of stage j; one for all tasks

The a^ take the place of the trunk's features for neck and head of the task. The trunk itself does not see them. The
neck is shared, as in hard sharing, and runs once per dense task.

Differs: the paper's SegNet has blocks of convolutions, here u and p come from the stages of any trunk, laid out as
maps; in a stage of one block they are the same; there is no attention in a decoder, since neck and heads are those of
all methods.

Shapes: T tasks, C channels, H W pixels of the input.
"""

import copy
from collections.abc import Sequence
from typing import Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from perceptkit.baselines.sharing.whole import WholeNetwork, stage_ends, with_heads
from perceptkit.model.supernet import Supernet, head_key
from perceptkit.model.trunk import run_part, shared_inputs, to_map


class Attention(nn.Module):
    """a_{t,j} = h(g(.)) of one task at one stage: a mask per channel and position."""

    def __init__(self, in_channels: int, channels: int) -> None:
        super().__init__()
        self.g = nn.Sequential(
            nn.Conv2d(in_channels, channels, 1, bias=False), nn.BatchNorm2d(channels), nn.ReLU()
        )
        self.h = nn.Sequential(
            nn.Conv2d(channels, channels, 1, bias=False), nn.BatchNorm2d(channels), nn.Sigmoid()
        )

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """The mask."""
        return self.h(self.g(x_BCHW))


class PassOn(nn.Module):
    """f_j: the attended features of the stage before, at the width and size of stage j."""

    def __init__(self, in_channels: int, channels: int, pool: int) -> None:
        super().__init__()
        self.pool = pool
        self.layers = nn.Sequential(
            nn.Conv2d(in_channels, channels, 3, padding=1, bias=False), nn.BatchNorm2d(channels), nn.ReLU()
        )

    def forward(self, x_BCHW: Tensor, like: Tensor) -> Tensor:
        """At the size of `like`."""
        x_BCHW = self.layers(x_BCHW)
        if self.pool > 1:
            x_BCHW = F.max_pool2d(x_BCHW, self.pool, ceil_mode=True)
        if x_BCHW.shape[-2:] != like.shape[-2:]:  # sizes that strides do not divide
            x_BCHW = F.interpolate(x_BCHW, size=like.shape[-2:], mode="bilinear", align_corners=False)
        return x_BCHW


class MtanNet(WholeNetwork):
    """See the module's docstring.

    Args:
        net: with all tasks; it becomes a part of this network.
    """

    def __init__(self, net: Supernet) -> None:
        super().__init__(net, net.tasks)
        self.net = net
        self.ends = stage_ends(net.steps, net.taps)
        self.starts = stage_starts(net, self.ends)
        last = [net.steps[end] for end in self.ends]
        first = [net.steps[start] for start in self.starts]
        self.pass_on = nn.ModuleList(
            PassOn(a.channels, b.channels, max(1, b.stride // a.stride))
            for a, b in zip(last, last[1:], strict=False)
        )
        self.attention = nn.ModuleDict()
        for name in self.tasks:
            self.attention[head_key(name)] = nn.ModuleList(
                Attention(u.channels + (p.channels if j else 0), p.channels)
                for j, (u, p) in enumerate(zip(first, last, strict=True))
            )

    def run(self, image_BCHW: Tensor, tasks: Sequence[str]) -> dict[str, Tensor]:
        """The trunk once, then attention, neck and head of each task."""
        net, backbone = self.net, self.net.backbone
        size_HW = (image_BCHW.shape[2], image_BCHW.shape[3])
        shared = shared_inputs(backbone, size_HW)
        x, maps = image_BCHW, {}
        for i, step in enumerate(net.steps):
            x = run_part(backbone, step.name, x, shared)
            if i in self.starts or i in self.ends:
                maps[i] = to_map(backbone, x, size_HW)
        u_J, p_J = [maps[i] for i in self.starts], [maps[i] for i in self.ends]
        outputs: dict[str, Tensor] = {}
        for name in tasks:
            attended_J = self.attend(name, u_J, p_J)
            features = [a for end, a in zip(self.ends, attended_J, strict=True) if end in net.taps]
            outputs |= net.run_heads(features, attended_J[-1], [name], size_HW)
        return outputs

    def attend(self, task: str, u_J: Sequence[Tensor], p_J: Sequence[Tensor]) -> list[Tensor]:
        """a^_{t,j} of every stage j."""
        attended: list[Tensor] = []
        for j, attention in enumerate(self.attention[head_key(task)]):  # type: ignore[arg-type, var-annotated]
            u = u_J[j]
            if j:
                u = torch.cat([u, self.pass_on[j - 1](attended[-1], u)], dim=1)
            mask = attention(u)
            if mask.shape[-2:] != p_J[j].shape[-2:]:  # a stage whose first block is not its first step
                mask = F.interpolate(mask, size=p_J[j].shape[-2:], mode="bilinear", align_corners=False)
            attended.append(mask * p_J[j])
        return attended

    def head(self, task: str) -> nn.Module:
        """The head of a task."""
        return self.net.heads[head_key(task)]

    def plain(self) -> Supernet:
        """A copy of the trunk, the neck and the heads."""
        return with_heads(self.net, {name: self.head(name) for name in self.tasks}, self.tasks)

    def only(self, tasks: Sequence[str]) -> Self:
        """A copy with attention and heads of some of the tasks."""
        made = copy.deepcopy(self)
        made.tasks = {name: task for name, task in self.tasks.items() if name in tasks}
        made.net = with_heads(self.net, {name: self.head(name) for name in made.tasks}, made.tasks)
        if not any(task.dense for task in made.tasks.values()):
            made.net.neck = None
        keys = [head_key(name) for name in made.tasks]
        made.attention = nn.ModuleDict({key: made.attention[key] for key in keys})
        return made


def stage_starts(net: Supernet, ends: Sequence[int]) -> list[int]:
    """The first block of every stage; of a stage without a block the step that ends it."""
    starts, begin = [], 0
    for end in ends:
        inside = [i for i in range(begin, end + 1) if net.steps[i].block is not None]
        starts.append(inside[0] if inside else end)
        begin = end + 1
    return starts
