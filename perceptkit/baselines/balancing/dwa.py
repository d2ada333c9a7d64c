"""Dynamic weight average: more weight to tasks whose loss fell least.

Liu, Johns, Davison. *End-to-End Multi-Task Learning with Attention.* CVPR 2019. https://arxiv.org/abs/1803.10704

    w_k(t) = L_k(t - 1) / L_k(t - 2)             L_k(t): mean over epoch t; 1 in the first two epochs
    weight = K softmax_k(w_k / T)                T = 2

The mean is over the batches that have a label of the task. An epoch without any does not count as one of the task's:
what is known of it stays, and w_k is 1 until there are two that count.
"""

import torch
from torch import Tensor

from perceptkit.baselines.balancing.balance import Balance
from perceptkit.tasks.base import mean_over_ranks


class Dwa(Balance):
    """See the module's docstring.

    Args:
        weight_K: lambda.
        temperature: T.
    """

    sum_K: Tensor
    count_K: Tensor
    mean_2K: Tensor

    def __init__(self, weight_K: Tensor, temperature: float) -> None:
        super().__init__(weight_K)
        self.temperature = temperature
        self.register_buffer("sum_K", torch.zeros(len(weight_K)))
        self.register_buffer("count_K", torch.zeros(len(weight_K)))
        self.register_buffer("mean_2K", torch.full((2, len(weight_K)), torch.nan))
        """Of the last epoch but one, and of the last, of those that had a label."""

    def shown_K(self) -> Tensor:
        before_K, last_K = self.mean_2K
        ratio_K = last_K / before_K
        ratio_K = torch.where(ratio_K.isfinite(), ratio_K, 1)
        return len(ratio_K) * (ratio_K / self.temperature).softmax(0)

    def total(self, losses_K: Tensor, labelled_K: Tensor) -> Tensor:
        self.sum_K += mean_over_ranks(losses_K.detach().clone()) * labelled_K
        self.count_K += labelled_K
        return super().total(losses_K, labelled_K)

    def end_epoch(self) -> None:
        after_2K = torch.stack([self.mean_2K[1], self.sum_K / self.count_K])
        self.mean_2K = torch.where(self.count_K > 0, after_2K, self.mean_2K)
        self.sum_K = torch.zeros_like(self.sum_K)
        self.count_K = torch.zeros_like(self.count_K)
