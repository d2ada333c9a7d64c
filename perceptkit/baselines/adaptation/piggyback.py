"""Piggyback: a binary mask on every weight; the weights are fixed.

Mallya, Davis, Lazebnik. *Piggyback: Adapting a Single Network to Multiple Tasks by Learning to Mask Weights.* ECCV
2018. https://arxiv.org/abs/1801.06519

    W' = W b,   b = 1[m > threshold]        dL/dm = dL/db = W dL/dW'   (straight through the threshold)

Fixed: all of the trunk, norms and biases included. Learned: a real number m per weight of every convolution and linear
layer, which starts at 1e-2 (at twice the threshold where that is larger: all weights are used at first) and is held as
its difference to that. The authors train m with Adam at 1e-4: with SGD it moves by W dL/dW', a small number. A domain
stores b, one bit a weight: 1/32 of the trunk. Folds exactly: W' is the weight.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from perceptkit.model import parametrized
from perceptkit.model.layers import weighted_layers
from perceptkit.model.plan import Plan
from perceptkit.model.strategy import Strategy, freeze
from perceptkit.model.supernet import Supernet
from perceptkit.spec import adaptation as specs

START = 1e-2


class Mask(nn.Module):
    """Weights whose `mask` is not above the threshold are 0."""

    def __init__(self, weight: Tensor, threshold: float) -> None:
        super().__init__()
        self.threshold = threshold
        self.start = max(START, 2 * threshold)
        self.mask = nn.Parameter(torch.zeros_like(weight))

    def forward(self, weight: Tensor) -> Tensor:
        # m - m is 0 exactly, with a gradient of 1
        return weight * (self.is_used().to(weight) + (self.mask - self.mask.detach()))

    def is_used(self) -> Tensor:
        """b, as bool."""
        return self.start + self.mask.detach() > self.threshold


class Piggyback(Strategy):
    """See the module's docstring."""

    def __init__(self, spec: specs.Piggyback) -> None:
        super().__init__(spec)
        self.threshold = spec.threshold

    def begin(self, net: Supernet, plan: Plan) -> None:
        freeze(net.backbone)
        for layer in weighted_layers(net.backbone).values():
            parametrized.learn_through(layer, Mask(layer.weight, self.threshold))

    def fold(self, net: Supernet) -> None:
        parametrized.fold(net.backbone)

    def pack(self, net: Supernet) -> dict[str, Tensor]:
        """Masks as bits, eight a byte; neck and heads as they are."""
        stored = super().pack(net)
        for name, mask in parametrized.learned_through(net, Mask):
            stored[_key(name)] = packed(mask.is_used())
        return stored

    def unpack(self, net: Supernet, stored: Mapping[str, Tensor]) -> None:
        real = dict(stored)
        for name, mask in parametrized.learned_through(net, Mask):
            if _key(name) in stored:  # not of a block that no task keeps
                used = unpacked(stored[_key(name)], mask.mask.shape)
                real[_key(name)] = (used - 1) * mask.start
        super().unpack(net, real)

    def stored_bits(self, net: Supernet) -> int:
        """One per weight; what is left over in each layer's last byte is not counted."""
        return sum(mask.mask.numel() for _, mask in parametrized.learned_through(net.backbone, Mask))


def _key(layer: str) -> str:
    return f"{layer}.parametrizations.weight.0.mask"


def packed(used: Tensor) -> Tensor:
    """Bits as uint8, the first of eight the highest; the last byte is filled up with zeros."""
    bits = nn.functional.pad(used.flatten().int(), (0, -used.numel() % 8)).view(-1, 8)
    return (bits << _shifts(used)).sum(1).to(torch.uint8)


def unpacked(stored: Tensor, shape: torch.Size) -> Tensor:
    """The bits again, as float 0 and 1."""
    bits = (stored.int()[:, None] >> _shifts(stored)) & 1
    return bits.flatten()[: shape.numel()].view(shape).float()


def _shifts(like: Tensor) -> Tensor:
    return torch.arange(7, -1, -1, device=like.device, dtype=torch.int32)
