"""NDDR-CNN: the features of all tasks are stacked, and each task takes from the stack what it needs.

Gao, Ma, Zhao, Liu, Yuille. *NDDR-CNN: Layerwise Feature Fusing in Multi-Task CNNs by Neural Discriminative
Dimensionality Reduction.* CVPR 2019. https://arxiv.org/abs/1801.08297. After a stage, with F_t the features of task t:

    F~_t = BatchNorm(W_t [F_1, .., F_T])        W_t: (C, T C), a 1x1 convolution

W_t starts as (b I, .., a I, .., b I) with a on the task's own features and a + (T - 1) b = 1; a = 0.9 here. Weight
decay, which the paper counts as a part of the layer, is the recipe's `optim.weight_decay`, and the layers may learn
faster than the rest by `sharing.unit_lr_scale`.

Differs: a layer follows each stage of any trunk; no activation follows it, since trunks with pre-activation or tokens
have features of both signs; without the shortcuts from all layers to the last that the paper also tries.

Shapes: B batch, T tasks, C channels, N tokens.
"""

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn

from perceptkit.baselines.sharing.columns import Columns, own_share


class NddrUnit(nn.Module):
    """One layer: a convolution and a norm per task."""

    def __init__(self, num_tasks: int, channels: int, axis: int) -> None:
        super().__init__()
        self.axis = axis
        self.reduce = nn.ModuleList(
            nn.Sequential(nn.Conv2d(num_tasks * channels, channels, 1, bias=False), nn.BatchNorm2d(channels))
            for _ in range(num_tasks)
        )
        for layer, share_T in zip(self.reduce, own_share(num_tasks), strict=True):
            stacked = torch.cat([share * torch.eye(channels) for share in share_T], dim=1)
            cast(nn.Conv2d, cast(nn.Sequential, layer)[0]).weight.data.copy_(stacked[:, :, None, None])

    def forward(self, x_T: Sequence[Tensor]) -> list[Tensor]:
        """Features of all tasks -> what each takes from them."""
        like = x_T[0]
        stacked = torch.cat([as_map(x, self.axis) for x in x_T], dim=1)
        return [from_map(layer(stacked), like, self.axis) for layer in self.reduce]


class NddrNet(Columns):
    """See the module's docstring."""

    def unit(self, num_tasks: int, channels: int, axis: int) -> nn.Module:
        """A layer that reduces the stack."""
        return NddrUnit(num_tasks, channels, axis)


def as_map(x: Tensor, axis: int) -> Tensor:
    """(B, C, h, w); tokens as (B, C, N, 1)."""
    if axis == 1:
        return x
    x = x.movedim(-1, 1)
    return x if x.ndim == 4 else x.unsqueeze(-1)


def from_map(x_BCHW: Tensor, like: Tensor, axis: int) -> Tensor:
    """The other way round, laid out as `like`."""
    if axis == 1:
        return x_BCHW
    return (x_BCHW if like.ndim == 4 else x_BCHW.squeeze(-1)).movedim(1, -1)
