"""Attention written out, for programs that do not know torch's fused kernel."""

from typing import TypeVar

from torch import nn

Network = TypeVar("Network", bound=nn.Module)


def plain_attention(network: Network) -> Network:
    """The same network, in place, with attention as matrix products and softmax.

    ONNX export takes the fused kernel apart by itself, but fails on some of timm's: with a mask or bias (BEiT,
    MaxViT, relative positions) the memory layout that it assumed no longer holds, and Hiera's has five dimensions.
    """
    for module in network.modules():
        if getattr(module, "fused_attn", False):
            setattr(module, "fused_attn", False)  # noqa: B010  # timm's own switch, unknown to mypy
    return network
