"""Which layers of a trunk the strategies work on, told by what a layer is, never by its name.

spatial   a convolution with a centre tap and neighbours: odd kernel, larger than 1x1. A kernel no larger than its
          stride only cuts the picture into patches, and is left out
weighted  every convolution and linear layer
norm      BatchNorm, GroupNorm, LayerNorm, RMSNorm, and timm's variants of them
"""

from collections.abc import Iterator

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from perceptkit.errors import SpecError
from perceptkit.model.strategy import batchnorms, freeze

ANYWHERE = "finetune, l2sp, last_k, bn, piggyback, dan or taps"
"""Methods for networks without spatial convolutions."""


def spatial_convs(trunk: nn.Module) -> dict[str, nn.Conv2d]:
    """By name, from the image on."""
    return {
        name: module
        for name, module in trunk.named_modules()
        if isinstance(module, nn.Conv2d)
        and all(
            size % 2 == 1 and size > stride
            for size, stride in zip(module.kernel_size, module.stride, strict=True)
        )
        and max(module.kernel_size) > 1
    }


def adapted_convs(trunk: nn.Module, method: str) -> dict[str, nn.Conv2d]:
    """The spatial convolutions, which `method` needs. Raises SpecError where there is none."""
    convs = spatial_convs(trunk)
    if not convs:
        raise SpecError(
            f"adaptation.method {method} puts an adapter at every spatial convolution, and "
            f"{type(trunk).__name__} has none beyond its patch embedding; use {ANYWHERE}"
        )
    return convs


def weighted_layers(trunk: nn.Module) -> dict[str, nn.Conv2d | nn.Linear]:
    """By name, from the image on."""
    return {
        name: module for name, module in trunk.named_modules() if isinstance(module, nn.Conv2d | nn.Linear)
    }


def norms(trunk: nn.Module) -> Iterator[nn.Module]:
    """All norms."""
    for module in trunk.modules():
        # timm has norms that derive from none of torch's; all of LayerNorm's kin have this attribute
        if isinstance(module, _BatchNorm | nn.GroupNorm) or hasattr(module, "normalized_shape"):
            yield module


def learn_norms_only(trunk: nn.Module) -> None:
    """Nothing learns but the norms; where none is a BatchNorm, all biases learn too (BitFit), as LayerNorms alone
    shift too little."""
    freeze(trunk)
    for norm in norms(trunk):
        for parameter in norm.parameters(recurse=False):
            parameter.requires_grad_(True)
    if next(batchnorms(trunk), None) is None:
        learn_biases(trunk)


def learn_biases(trunk: nn.Module) -> None:
    """Biases of every layer learn."""
    for name, parameter in trunk.named_parameters():
        if name.rpartition(".")[2].endswith("bias"):
            parameter.requires_grad_(True)
