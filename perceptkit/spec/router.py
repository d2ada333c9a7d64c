"""The net that decides by picture: which blocks run, or which copy of them."""

from typing import Annotated, Any

from pydantic import Field, PositiveInt

from perceptkit.spec.strict import Strict


class RouterSpec(Strict):
    """The small net that decides, from the picture alone, which blocks run."""

    name: str = "resnet8"
    """`resnet8` or `resnet10` (BlockDrop's, for CIFAR and ImageNet), `conv3` (three convolutions, for small hosts at
    batch 1), `patches` (two linear layers, of 4x4 pixels and of 2x2 of these, after `downscale`; fewer calls still),
    or any name that `timm.create_model` knows."""
    weights: str = "none"
    """`none`, `pretrained` (from timm), or the path of a safetensors file with timm's keys; for `resnet10` that may be
    a ResNet-18's, for `resnet8` a deeper CIFAR ResNet's, of which the first block of each stage is taken."""
    args: dict[str, Any] = {}
    """Passed on to `timm.create_model`."""
    downscale: PositiveInt = 2
    """Pixels along one side of the picture that are averaged to one before the router sees them."""
    keep: Annotated[float, Field(gt=0, lt=1)] = 0.9
    """Probability with which every block is kept before training."""
