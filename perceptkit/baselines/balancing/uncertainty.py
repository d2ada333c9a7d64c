"""Weighting by the noise of each task.

Kendall, Gal, Cipolla. *Multi-Task Learning Using Uncertainty to Weigh Losses for Scene Geometry and Semantics.*
CVPR 2018. https://arxiv.org/abs/1705.07115

    L = sum_k c_k exp(-s_k) L_k + s_k / 2,    s_k = log sigma_k^2,    c_k = 1/2 for regression, 1 for classification

A task that is learned has its s_k at the loss's own scale: at the minimum c_k exp(-s_k) L_k = 1/2. s_k starts at 0 and
is trained with the weights, by their optimiser, without weight decay. Each is a parameter by itself, so that momentum
does not move that of a task without a label.
"""

import torch
from torch import Tensor, nn

from perceptkit.baselines.balancing.balance import Balance


class Uncertainty(Balance):
    """See the module's docstring.

    Args:
        weight_K: lambda.
        regresses_K: bool, whether a task's loss is of a regression.
    """

    scale_K: Tensor

    def __init__(self, weight_K: Tensor, regresses_K: Tensor) -> None:
        super().__init__(weight_K)
        self.log_variances = nn.ParameterList(nn.Parameter(torch.zeros(())) for _ in weight_K)
        self.register_buffer("scale_K", torch.where(regresses_K, 0.5, 1.0), persistent=False)

    def shown_K(self) -> Tensor:
        return self.scale_K * torch.exp(-torch.stack(list(self.log_variances)))

    def total(self, losses_K: Tensor, labelled_K: Tensor) -> Tensor:
        s_K = torch.stack(
            [
                s if is_labelled else s.detach()
                for s, is_labelled in zip(self.log_variances, labelled_K.tolist(), strict=True)
            ]
        )
        weighed_K = self.scale_K * torch.exp(-s_K) * self.weight_K * losses_K
        return (weighed_K + s_K / 2)[labelled_K].sum()
