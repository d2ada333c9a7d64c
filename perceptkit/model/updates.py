"""Small additive updates of fixed weights, as functions of them (model/parametrized.py).

    centre tap   W' = W with A added to the middle of every kernel: the same as a 1x1 convolution A beside it
    low rank     W' = W + B A, of rank r (LoRA: Hu et al., ICLR 2022, https://arxiv.org/abs/2106.09685)

Both are zero at first: nothing changes until they have learned.
"""

import math

import torch
from torch import Tensor, nn


class CentreTap(nn.Module):
    """Adds a 1x1 kernel (out, in / groups) to the centre of a larger one."""

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.adapter = nn.Parameter(torch.zeros_like(weight[:, :, 0, 0]))

    def forward(self, weight: Tensor) -> Tensor:
        height, width = weight.shape[2:]
        beside_H, beside_W = height // 2, width // 2
        around = (beside_W, beside_W, beside_H, beside_H)
        return weight + nn.functional.pad(self.adapter[:, :, None, None], around)


class LowRank(nn.Module):
    """Adds B A to a weight of `out` rows that hold n numbers each: A is (r, n), B is (out, r)."""

    def __init__(self, weight: Tensor, rank: int) -> None:
        super().__init__()
        rows, columns = weight.shape[0], weight[0].numel()
        rank = min(rank, rows, columns)
        self.down = nn.Parameter(weight.new_empty(rank, columns))
        self.up = nn.Parameter(weight.new_zeros(rows, rank))
        nn.init.kaiming_uniform_(self.down, a=math.sqrt(5))

    def forward(self, weight: Tensor) -> Tensor:
        return weight + (self.up @ self.down).view_as(weight)
