"""Weights under which all losses fall at one relative rate, from the losses alone.

Liu, Feng, Stone, Liu. *FAMO: Fast Adaptive Multitask Optimization.* NeurIPS 2023. https://arxiv.org/abs/2306.03792

    z = softmax(xi)
    total = c sum_k z_k log L_k,    c = (sum_k z_k / L_k)^-1        so that the weights z_k c / L_k sum to 1
    after the update of the network, on the same batch:
    xi <- xi - beta (J^T (log L_before - log L_after) + gamma xi),    J the Jacobian of softmax at xi

The step of xi is Adam's, with weight decay gamma, as in the authors' code. It costs one more forward pass a batch.
c is a constant of the step; the log has c as the loss. Tasks without a label in the batch are left out: of the softmax
and the sums, and of the step, Adam's own state included.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from perceptkit.baselines.balancing.balance import Balance, Network
from perceptkit.baselines.balancing.gradnorm import Adam
from perceptkit.tasks.base import mean_over_ranks

SMALLEST = 1e-8
"""Added to a loss before its logarithm, as the authors do."""


class Famo(Balance):
    """See the module's docstring.

    Args:
        weight_K: lambda; L_k is lambda_k times the task's loss, so it matters nothing but for the smallest losses.
        lr: beta.
        decay: gamma.
    """

    logit_K: Tensor

    def __init__(self, weight_K: Tensor, lr: float, decay: float) -> None:
        super().__init__(weight_K)
        self.register_buffer("logit_K", torch.zeros(len(weight_K)))
        self.adam = Adam(self.logit_K, lr, decay)
        self._before: tuple[Tensor, Tensor] | None = None

    def shown_K(self) -> Tensor:
        return self.logit_K.softmax(0)

    def total(self, losses_K: Tensor, labelled_K: Tensor) -> Tensor:
        z_K = self._z(labelled_K)
        loss_K = self.weight_K * losses_K + SMALLEST
        # L / (its mean over ranks) has the gradient that log L has in one process with all images
        ratio_K = loss_K / mean_over_ranks(loss_K.detach().clone())
        inverse = (z_K / mean_over_ranks(loss_K.detach().clone()))[labelled_K].sum()
        return (z_K * ratio_K)[labelled_K].sum() / inverse.clamp(min=SMALLEST)

    def backward(self, losses_K: Tensor, labelled_K: Tensor, network: Network) -> Tensor:
        self._before = (mean_over_ranks(losses_K.detach().clone()), labelled_K)
        return super().backward(losses_K, labelled_K, network)

    def after_update(self, losses_K: Callable[[], Tensor]) -> None:
        assert self._before is not None
        before_K, labelled_K = self._before
        after_K = mean_over_ranks(losses_K().detach().clone())
        fell_K = (self.weight_K * before_K + SMALLEST).log() - (self.weight_K * after_K + SMALLEST).log()
        z_K, fell_K = self._z(labelled_K), torch.where(labelled_K, fell_K, 0)
        self.logit_K = self.adam.step(self.logit_K, z_K * (fell_K - (z_K * fell_K).sum()), labelled_K)

    def _z(self, labelled_K: Tensor) -> Tensor:
        """softmax(xi) among the tasks that have a label; 0 for the others."""
        return torch.where(labelled_K, self.logit_K, -torch.inf).softmax(0).nan_to_num(0)

    def get_extra_state(self) -> Any:
        return self.adam.state()

    def set_extra_state(self, state: Any) -> None:
        self.adam.load(state)
