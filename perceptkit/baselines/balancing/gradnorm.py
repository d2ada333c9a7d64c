"""Weights under which all tasks train at similar rates.

Chen, Badrinarayanan, Lee, Rabinovich. *GradNorm: Gradient Normalization for Adaptive Loss Balancing in Deep Multitask
Networks.* ICML 2018. https://arxiv.org/abs/1711.02257

    G_k    = || d(w_k L_k) / dW ||              W: the last layer that all tasks share
    r_k    = (L_k / L_k(0)) / mean_k            the inverse rate of training
    L_grad = sum_k | G_k - mean(G) r_k^alpha |  the target (mean, r) is a constant; minimised over w alone
    then w is scaled so that sum_k w_k = K

L_k(0) is the loss of the first batch that has a label of the task. Means are over the tasks that are labelled in the
batch, and it is their weights that are scaled, to the sum that they had; with several ranks norms and losses are
averaged over them, so that all have the same weights.
"""

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from perceptkit.baselines.balancing.balance import Balance, Network
from perceptkit.tasks.base import mean_over_ranks


class Gradnorm(Balance):
    """See the module's docstring.

    Args:
        weight_K: lambda.
        alpha: strength of the pull.
        lr: of w, by Adam.
    """

    task_weight_K: Tensor
    first_K: Tensor

    def __init__(self, weight_K: Tensor, alpha: float, lr: float) -> None:
        super().__init__(weight_K)
        self.alpha = alpha
        self.register_buffer("task_weight_K", torch.ones(len(weight_K)))
        self.register_buffer("first_K", torch.full((len(weight_K),), torch.nan))
        self.adam = Adam(self.task_weight_K, lr)

    def shown_K(self) -> Tensor:
        return self.task_weight_K

    def backward(self, losses_K: Tensor, labelled_K: Tensor, network: Network) -> Tensor:
        weighed_K = self.weight_K * losses_K
        norm_K = torch.stack(
            [
                _norm(torch.autograd.grad(loss, network.shared, retain_graph=True, allow_unused=True))
                if is_labelled
                else loss.new_zeros(())
                for loss, is_labelled in zip(weighed_K, labelled_K.tolist(), strict=True)
            ]
        )
        total = super().backward(losses_K, labelled_K, network)
        self.learn(mean_over_ranks(weighed_K.detach().clone()), mean_over_ranks(norm_K.detach()), labelled_K)
        return total

    def learn(self, losses_K: Tensor, norm_K: Tensor, labelled_K: Tensor) -> None:
        """One step of w.

        Args:
            losses_K: lambda_k L_k.
            norm_K: || d(lambda_k L_k) / dW ||.
            labelled_K: bool.
        """
        unseen_K = self.first_K.isnan() & labelled_K
        self.first_K = torch.where(unseen_K, losses_K, self.first_K)
        if labelled_K.sum() < 2:  # nothing to balance
            return
        gradient_K = gradient(self.task_weight_K, losses_K / self.first_K, norm_K, labelled_K, self.alpha)
        before_K = self.task_weight_K
        w_K = self.adam.step(before_K, gradient_K, labelled_K).clamp(min=1e-3)
        scaled_K = w_K * before_K[labelled_K].sum() / w_K[labelled_K].sum()
        self.task_weight_K = torch.where(labelled_K, scaled_K, before_K)

    def get_extra_state(self) -> Any:
        return self.adam.state()

    def set_extra_state(self, state: Any) -> None:
        self.adam.load(state)


def gradient(w_K: Tensor, ratio_K: Tensor, norm_K: Tensor, labelled_K: Tensor, alpha: float) -> Tensor:
    """d L_grad / d w: sign(G_k - mean(G) r_k^alpha) || d L_k / dW ||, 0 for tasks without a label.

    Args:
        w_K: weights.
        ratio_K: L_k / L_k(0).
        norm_K: of the unweighted gradients.
        labelled_K: bool.
        alpha: exponent.
    """
    G_K = w_K * norm_K
    mean_G, mean_ratio = G_K[labelled_K].mean(), ratio_K[labelled_K].mean()
    target_K = mean_G * (ratio_K / mean_ratio) ** alpha
    return torch.where(labelled_K, torch.sign(G_K - target_K) * norm_K, 0)


def _norm(gradients: Sequence[Tensor | None]) -> Tensor:
    found = [g.float().square().sum() for g in gradients if g is not None]
    return torch.stack(found).sum().sqrt() if found else torch.zeros(())


class Adam:
    """Adam of one small tensor whose gradient is computed by hand: `torch.optim.Adam` on parameters of its own, one for
    each element, so that an element without a gradient keeps its moments too.

    Args:
        like: the tensor, (K,).
        lr: learning rate.
        decay: weight decay, as an L2 penalty.
    """

    def __init__(self, like: Tensor, lr: float, decay: float = 0.0) -> None:
        self.values = [nn.Parameter(x.clone()) for x in like.detach()]
        self.optimizer = torch.optim.Adam(self.values, lr=lr, weight_decay=decay)

    def step(self, value_K: Tensor, gradient_K: Tensor, moves_K: Tensor) -> Tensor:
        """The tensor after one step from `value_K` of the elements that move, bool."""
        rows = zip(self.values, value_K.detach(), gradient_K.detach(), moves_K.tolist(), strict=True)
        for value, start, gradient, moves in rows:
            value.data = start.clone()
            value.grad = gradient.clone() if moves else None
        self.optimizer.step()
        return torch.stack([value.detach() for value in self.values])

    def state(self) -> Any:
        """For a checkpoint."""
        return copy.deepcopy(self.optimizer.state_dict())  # its tensors are written over

    def load(self, state: Any) -> None:
        """Goes on from what `state` gave."""
        self.optimizer.load_state_dict(state)
