"""How the losses of several tasks become one gradient: the interface, and the plain weighted sum.

    total = sum_k lambda_k L_k                      lambda_k: `weight` in the tasks file

All other methods multiply lambda_k L_k by weights of their own, so that a user's preference still counts. What a method
learns is a buffer or a parameter, hence part of the checkpoint. A task without a label in a batch (on no rank) takes no
part: its loss is a zero that means nothing, and what a method has learned of it stays as it is, to the bit.

Shapes: K tasks.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Network:
    """What a method may ask of the network that learns."""

    backward: Callable[[Tensor], Any]
    """backward(total): Fabric's, which scales losses in fp16."""
    weights: Sequence[nn.Parameter]
    """All that learn."""
    shared: Sequence[nn.Parameter]
    """Of them those of the last layer that all tasks use."""
    penalty: Tensor | None = None
    """What is minimised besides, whatever the tasks weigh: of the method of sharing."""


class Balance(nn.Module):
    """The weighted sum; base of all methods.

    Args:
        weight_K: lambda.
    """

    weight_K: Tensor

    def __init__(self, weight_K: Tensor) -> None:
        super().__init__()
        self.register_buffer("weight_K", weight_K.float(), persistent=False)

    def shown_K(self) -> Tensor:
        """By what lambda_k L_k is multiplied, for the log."""
        return torch.ones_like(self.weight_K)

    def total(self, losses_K: Tensor, labelled_K: Tensor) -> Tensor:
        """What is minimised.

        Args:
            losses_K: of one batch, float32, with a gradient.
            labelled_K: bool, whether any rank's part of the batch has a label of the task.
        """
        return (self.shown_K() * self.weight_K * losses_K)[labelled_K].sum()

    def backward(self, losses_K: Tensor, labelled_K: Tensor, network: Network) -> Tensor:
        """Gradients of the network's weights, and what the method learns from them. Returns the total, detached.

        `losses_K` and `labelled_K` are as for `total`.
        """
        total = self.total(losses_K, labelled_K)
        if network.penalty is not None:
            total = total + network.penalty
        network.backward(total)
        return total.detach()

    def after_update(self, losses_K: Callable[[], Tensor]) -> None:
        """After the step of the network. `losses_K()` computes the same batch's losses anew, without a gradient."""

    def end_epoch(self) -> None:
        """After the last step of an epoch."""
