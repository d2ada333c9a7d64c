"""What a compact model is made for, once its norms are folded: `latency` or `size`.

                         latency                          size
    heads of one leaf    fused (compact/fuse.py)          fused: it costs no parameter
    skipped projections  merged where that saves MACs     merged where that saves stored parameters
    memory format        channels_last                    contiguous

`none` is the model of a plan and nothing more: what artifacts hold that were written before there was a choice.
All decisions follow from the plan and from shapes alone, never from weights: an artifact is read into a network
that was made anew.
"""

from typing import Literal, TypeAlias, get_args

import torch
from torch import nn

from perceptkit.compact.fuse import fuse_heads
from perceptkit.compact.merge import merge_projections
from perceptkit.compact.network import parts
from perceptkit.errors import SpecError

Optimize: TypeAlias = Literal["none", "latency", "size"]
DEFAULT: Optimize = "latency"
CHOICES = ("latency", "size")
"""What a user chooses from."""


def check_optimize(optimize: str) -> Optimize:
    """Raises SpecError for anything but `latency`, `size` and `none`."""
    for known in get_args(Optimize):
        if optimize == known:
            return known
    raise SpecError(f"{optimize!r} is nothing to optimise for; choose one of {', '.join(CHOICES)}")


def optimize_network(network: nn.Module, optimize: Optimize) -> nn.Module:
    """The same function, arranged for `optimize`; `network` is changed. Its norms must have been folded."""
    if optimize == "none":
        return network
    for part in parts(network):
        merge_projections(part, "macs" if optimize == "latency" else "params")
        fuse_heads(part)
    if optimize == "latency":
        network = network.to(memory_format=torch.channels_last)
    return network
