"""Consecutive skipped stage transitions become one: their 1x1 convolutions compose to a single one.

A task that skips two transitions in a row, with every block between them, computes P2(P1(x)). Both are
affine, so with the norms folded

    W2 (W1 x + b1) + b2  =  (W2 W1) x + (W2 b1 + b2),    stride s1 s2

exactly: a 1x1 convolution of stride s reads the pixels 0, s, 2s, ... and nothing else. Pools that average
commute with them and are kept, in their order, in front. What lies between must be of no other use: no
feature that the neck reads, no other branch.

Whether it is worth it: MACs almost always fall, since P1 runs at the higher resolution; stored parameters
fall only where nobody else needs P1 and P2, which in a block that some task keeps is never the case.
"""

from collections import Counter
from dataclasses import dataclass
from typing import Any, Literal

import torch
from timm.layers import ConvNormAct
from torch import nn
from torch.nn.utils import skip_init

from perceptkit.compact.network import CompactNet, Node
from perceptkit.model.blocks import num_params


@dataclass(frozen=True)
class _Affine:
    """A projection taken apart: pools, then a 1x1 convolution."""

    pools: tuple[nn.AvgPool2d, ...]
    conv: nn.Conv2d


def merge_projections(network: CompactNet, fewer: Literal["macs", "params"]) -> int:
    """Merges, in place, every pair that makes `fewer` fall. Returns how many calls that saves.

    The MACs are counted per pixel of the second one's output.
    """
    saved = 0
    kept_apart: set[tuple[str, str]] = set()
    while pair := _next_pair(network, kept_apart):
        first, second = (affine(network.net.backbone.get_submodule(name)) for name in pair)
        assert first is not None and second is not None
        merged = compose(first, second)
        inside, outside = second.conv.in_channels, second.conv.out_channels
        if fewer == "macs":
            per_pixel = first.conv.in_channels * inside * _stride(second) ** 2 + inside * outside
            better = first.conv.in_channels * outside < per_pixel
        else:
            better = num_params(merged) < _given_up(network, pair)
        if better:
            saved += _apply(network, pair, merged)
        else:
            kept_apart.add(pair)
    return saved


def affine(module: nn.Module) -> _Affine | None:
    """The pools and the one 1x1 convolution that a projection consists of; None where it is anything else."""
    if not isinstance(module, nn.Sequential | ConvNormAct | nn.Conv2d):
        return None
    layers = [m for m in module.modules() if not list(m.children()) and not isinstance(m, nn.Identity)]
    if not layers or not isinstance(layers[-1], nn.Conv2d):
        return None
    conv, pools = layers[-1], layers[:-1]
    if conv.kernel_size != (1, 1) or conv.padding not in ((0, 0), "valid", "same") or conv.groups != 1:
        return None
    if conv.stride[0] != conv.stride[1] or not all(_averages(pool) for pool in pools):
        return None
    return _Affine(tuple(pools), conv)  # type: ignore[arg-type]  # _averages has looked


@torch.no_grad()
def compose(first: _Affine, second: _Affine) -> nn.Sequential:
    """One projection that computes `second` of `first`, in double precision until the end."""
    a, b = first.conv, second.conv
    weight_a, weight_b = a.weight.double().flatten(1), b.weight.double().flatten(1)
    stride = a.stride[0] * b.stride[0]
    like: dict[str, Any] = {"device": a.weight.device, "dtype": a.weight.dtype}
    # skip_init: reading an artifact draws no random numbers
    merged = skip_init(nn.Conv2d, a.in_channels, b.out_channels, 1, stride=stride, bias=True, **like)
    assert isinstance(merged, nn.Conv2d) and merged.bias is not None
    bias = torch.zeros(b.out_channels, dtype=torch.float64, device=b.weight.device)
    if a.bias is not None:
        bias += weight_b @ a.bias.double()
    if b.bias is not None:
        bias += b.bias.double()
    merged.weight.copy_((weight_b @ weight_a)[:, :, None, None])
    merged.bias.copy_(bias)
    return nn.Sequential(*first.pools, *second.pools, merged).eval()


def _averages(pool: nn.Module) -> bool:
    """Whether it is a pool that leaves a constant as it is, at the borders too."""
    if type(pool) is not nn.AvgPool2d or pool.divisor_override is not None:
        return False
    return not pool.count_include_pad or pool.padding in (0, (0, 0))


def _stride(projection: _Affine) -> int:
    """Input pixels per output pixel along one side."""
    total = projection.conv.stride[0]
    for pool in projection.pools:
        stride: Any = pool.stride
        total *= stride if isinstance(stride, int) else stride[0]
    return total


def _next_pair(network: CompactNet, kept_apart: set[tuple[str, str]]) -> tuple[str, str] | None:
    """Names of two projections of which one reads what the other gives, and nobody else does."""
    for i, j in _couples(network):
        pair = network.nodes[i].module, network.nodes[j].module
        if pair in kept_apart:
            continue
        first, second = (affine(network.net.backbone.get_submodule(name)) for name in pair)
        # a strided convolution drops pixels that a pool after it would have to average without them
        if first is not None and second is not None and (first.conv.stride == (1, 1) or not second.pools):
            return pair
        kept_apart.add(pair)
    return None


def _couples(network: CompactNet) -> list[tuple[int, int]]:
    """Indices of projection nodes (i, j) where j is the only reader of i."""
    nodes, projections = network.nodes, network.projections
    readers = Counter(node.parent for node in nodes)
    for leaf in network.leaves:
        readers.update({at: 1 for at in {leaf.last, *leaf.features}})
    return [
        (node.parent - 1, j)
        for j, node in enumerate(nodes)
        if node.parent > 0 and node.module in projections and readers[node.parent] == 1
        if nodes[node.parent - 1].module in projections
    ]


def _matches(network: CompactNet, pair: tuple[str, str]) -> list[tuple[int, int]]:
    return [
        (i, j) for i, j in _couples(network) if (network.nodes[i].module, network.nodes[j].module) == pair
    ]


def _given_up(network: CompactNet, pair: tuple[str, str]) -> int:
    """Parameters that nobody needs any more once the pair is merged."""
    gone = {at for both in _matches(network, pair) for at in both}
    still_called = {node.module for i, node in enumerate(network.nodes) if i not in gone}
    total = 0
    for name in pair:
        called = name in still_called or network.projections[name] in still_called
        total += 0 if called else num_params(network.net.backbone.get_submodule(name))
    return total


def _apply(network: CompactNet, pair: tuple[str, str], merged: nn.Module) -> int:
    """Puts the merged projection in the place of every such pair of calls."""
    name = network.add_merged(merged)
    matches = _matches(network, pair)
    nodes = list(network.nodes)
    for i, j in matches:
        nodes[j] = Node(name, nodes[i].parent)
    network.rewire(nodes)  # the first ones lead nowhere now
    return len(matches)
