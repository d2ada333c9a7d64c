"""Cross-stitch networks: a network per task, whose features are linear combinations of those of all.

Misra, Shrivastava, Gupta, Hebert. *Cross-Stitch Networks for Multi-task Learning.* CVPR 2016.
https://arxiv.org/abs/1604.03539. For two tasks A and B, at position (i, j) of a feature map:

    [ x~_A^ij ]   [ a_AA  a_AB ] [ x_A^ij ]
    [ x~_B^ij ] = [ a_BA  a_BB ] [ x_B^ij ]

and for T tasks x~_t = sum_u a_{t,u} x_u. Each channel has its own a. They start as a convex combination: 0.9 for the
task's own features, the rest evenly for the others.

Differs: a unit follows each stage of the trunk; the columns start as the recipe's backbone says, not as networks that
were trained for their task alone before; weight decay does not act on a.

Shapes: T tasks, C channels.
"""

from collections.abc import Sequence
from functools import reduce

import torch
from torch import Tensor, nn

from perceptkit.baselines.sharing.columns import Columns, along, own_share


def cross_stitch(x_T: Sequence[Tensor], alpha_TTC: Tensor, axis: int) -> list[Tensor]:
    """x~_t = sum_u a_{t,u} x_u, with a number per channel."""
    mixed = []
    for alpha_TC in alpha_TTC:
        parts = [along(alpha_C, x, axis) * x for alpha_C, x in zip(alpha_TC, x_T, strict=True)]
        mixed.append(reduce(torch.add, parts))
    return mixed


class CrossStitchUnit(nn.Module):
    """The numbers a of one place in the network."""

    def __init__(self, num_tasks: int, channels: int, axis: int) -> None:
        super().__init__()
        self.axis = axis
        self.alpha = nn.Parameter(own_share(num_tasks)[:, :, None].repeat(1, 1, channels))

    def forward(self, x_T: Sequence[Tensor]) -> list[Tensor]:
        """Features of all tasks -> their mixtures."""
        return cross_stitch(x_T, self.alpha, self.axis)


class CrossStitchNet(Columns):
    """See the module's docstring."""

    def unit(self, num_tasks: int, channels: int, axis: int) -> nn.Module:
        """A unit that mixes channel by channel."""
        return CrossStitchUnit(num_tasks, channels, axis)
