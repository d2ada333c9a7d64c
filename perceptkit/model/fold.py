"""Folds BatchNorm into the convolution before it.

In eval mode BatchNorm is the affine map y = g * (x - m) / sqrt(v + eps) + b per channel, so
conv -> BN is one convolution with weight * g / sqrt(v + eps) and bias b + (bias - m) * g / sqrt(v + eps).

Which pairs there are, model/conv_bn.py finds out.
"""

from collections.abc import Callable, Sequence

import torch
from timm.layers import BatchNormAct2d, SyncBatchNormAct
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

from perceptkit.model.conv_bn import CONVOLUTIONS, NORMS, conv_bn_pairs


@torch.no_grad()
def fold_pair(network: nn.Module, conv_name: str, bn_name: str) -> None:
    """Folds one BatchNorm; what stays in its place is its activation (timm) or nothing."""
    conv, bn = network.get_submodule(conv_name), network.get_submodule(bn_name)
    assert isinstance(conv, CONVOLUTIONS) and isinstance(bn, NORMS)
    assert bn.running_mean is not None and bn.running_var is not None
    weight, bias = fuse_conv_bn_weights(
        conv.weight, conv.bias, bn.running_mean, bn.running_var, bn.eps, bn.weight, bn.bias, conv.transposed
    )
    conv.weight, conv.bias = weight, bias
    rest = bn.act if isinstance(bn, BatchNormAct2d | SyncBatchNormAct) else nn.Identity()
    parent, _, child = bn_name.rpartition(".")
    setattr(network.get_submodule(parent), child, rest)


def fold_batchnorm(
    network: nn.Module, image_BCHW: Tensor, passes: Sequence[Callable[[Tensor], object]] = ()
) -> int:
    """Folds every BatchNorm that can be, in place. Returns how many.

    Call it in eval mode. `image_BCHW` is any input of the right shape; `passes` run all of the network between them,
    where its own forward does not.
    """
    pairs = conv_bn_pairs(network, image_BCHW, passes)
    for conv, bn in pairs:
        fold_pair(network, conv, bn)
    return len(pairs)
