"""Weights that are computed from a fixed weight and something learned: W' = f(W).

The layer stays the timm layer it was, and its forward runs one convolution or product, with W' as its weight. While
it learns, the state dict has `parametrizations.weight.original` (W) and `parametrizations.weight.0.*` (what f
learns) in place of `weight`; `fold` puts W' there.

What f learns is written so that zeros give W: an optimiser's weight decay then pulls towards the base.
"""

from collections.abc import Iterator
from typing import TypeVar

import torch
from torch import nn
from torch.nn.utils import parametrize

F = TypeVar("F", bound=nn.Module)


def learn_through(layer: nn.Module, function: nn.Module) -> None:
    """The layer's weight is fixed from now on, and `function` of it is used."""
    assert isinstance(layer.weight, nn.Parameter)
    layer.weight.requires_grad_(False)
    function.to(layer.weight)
    parametrize.register_parametrization(layer, "weight", function)


def learned_through(net: nn.Module, kind: type[F]) -> Iterator[tuple[str, F]]:
    """Name of the layer and its function, for all layers with a function of this kind."""
    for name, layer in net.named_modules():
        if parametrize.is_parametrized(layer, "weight"):
            function = layer.parametrizations.weight[0]  # a ParametrizationList
            if isinstance(function, kind):
                yield name, function


@torch.no_grad()
def fold(net: nn.Module) -> None:
    """Every layer has the weight it used, as a plain parameter, and the class it had.

    Not torch's remove_parametrizations: that deletes the attribute from the layer's class, which deep copies share,
    so that folding a copy would break the network it was copied from.
    """
    for layer in list(net.modules()):
        if parametrize.is_parametrized(layer, "weight"):
            weight = layer.weight.detach().clone()  # type: ignore[operator]  # a property now
            layer.__class__ = parametrize.type_before_parametrizations(layer)
            del layer.parametrizations
            others = dict(layer._parameters)
            layer._parameters.clear()  # so that the keys are in the order they had
            layer._parameters.update({"weight": nn.Parameter(weight), **others})
