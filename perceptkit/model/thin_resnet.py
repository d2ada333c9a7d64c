"""A thin ResNet that starts as a part of a wider one: filters chosen by SOMP, what reads them made to fit.

Channels that are added to each other must be chosen alike: those of a residual stream, which the stem or a projection
and the last convolution of every block write, are one group, and its matrix has the filters of all its writers side by
side. Filters count as they act, with their norm folded in: W_i gamma_i / sigma_i. For each group somp.py gives S and A;

    writer of the group    rows S of its weights and of its norm
    reader of the group    W <- W A over the input channels, since what it reads is nearly A times what is left

ReLU lies in between, so that it is a start and no copy; where the other filters are multiples of the chosen ones by
positive numbers, it is exact. Rows are chosen before readers are made to fit: in a residual stream every writer reads,
through its block, what the stream itself holds, and there is no layer to begin with. (The paper's VGG has a next layer
each time; residual streams are ours.)

Shapes: O output, I input channels, h w pixels of a kernel.
"""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from timm.models.resnet import BasicBlock, Bottleneck, ResNet
from torch import Tensor, nn

from perceptkit.errors import SpecError
from perceptkit.model.somp import somp


class Layer(NamedTuple):
    """A convolution with its norm, and the groups of channels that it reads and writes."""

    conv: str
    norm: str
    reads: str
    writes: str


IMAGE = "image"
"""The group of the picture's channels: all stay."""


@torch.no_grad()
def start_thin(thin: nn.Module, wide: nn.Module, key: str = "backbone") -> None:
    """Gives `thin` weights of `wide`, a network of the same layers and more channels; in place.

    Raises SpecError, which names `key`, where these are no such networks.
    """
    layers = list(_layers(wide, key))
    if [*_layers(thin, key)] != layers:
        raise SpecError(f"{key}.wide: the two networks differ in more than their channels")
    found = {IMAGE: (list(range(3)), torch.eye(3, dtype=torch.double))}
    for group in dict.fromkeys(layer.writes for layer in layers):
        writers = [layer for layer in layers if layer.writes == group]
        count = len(_conv(thin, writers[0]).weight)
        filters_dm = torch.cat([_as_it_acts(wide, layer) for layer in writers], dim=1)
        if count > len(filters_dm):
            raise SpecError(
                f"{key}.wide: {writers[0].conv} has {len(filters_dm)} channels there, fewer than the {count} here"
            )
        if count == len(filters_dm):  # nothing to choose, in the order of the filters
            found[group] = list(range(count)), torch.eye(count, dtype=torch.double)
        else:
            found[group] = somp(filters_dm, count)
    for layer in layers:
        (_, a_dI), (rows, _) = found[layer.reads], found[layer.writes]
        weight_OIhw = _conv(wide, layer).weight[rows].double()
        made = torch.einsum("oihw,ij->ojhw", weight_OIhw, a_dI.to(weight_OIhw))
        _conv(thin, layer).weight.copy_(made)
        ours, theirs = (
            thin.get_submodule(layer.norm).state_dict(),
            wide.get_submodule(layer.norm).state_dict(),
        )
        for name, value in ours.items():
            value.copy_(theirs[name][rows] if value.ndim else theirs[name])


def _layers(model: nn.Module, key: str) -> Iterator[Layer]:
    """In the order of execution. Raises SpecError where the model is no plain ResNet."""
    name = type(model).__name__
    if not isinstance(model, ResNet):
        raise SpecError(
            f"{key}.wide: which channels of {name} must be chosen alike is known of timm's ResNet alone; drop this "
            "key, or take a resnet"
        )
    if not isinstance(model.conv1, nn.Conv2d):
        raise SpecError(f"{key}.wide: the stem of this {name} is more than one convolution; drop this key")
    stream = "stem"
    yield Layer("conv1", "bn1", IMAGE, stream)
    for stage in ("layer1", "layer2", "layer3", "layer4"):
        for number, block in enumerate(model.get_submodule(stage).children()):
            at = f"{stage}.{number}"
            if reason := _unfit(block):
                raise SpecError(f"{key}.wide: {at} {reason}; drop this key, or take a plain resnet")
            before, depth = stream, 2 if isinstance(block, BasicBlock) else 3
            if block.downsample is not None:
                stream = at
                parts = [(part, n) for n, part in model.get_submodule(f"{at}.downsample").named_children()]
                (conv,) = (n for part, n in parts if isinstance(part, nn.Conv2d))
                (norm,) = (n for part, n in parts if isinstance(part, nn.BatchNorm2d))
                yield Layer(f"{at}.downsample.{conv}", f"{at}.downsample.{norm}", before, stream)
            reads = before
            for i in range(1, depth + 1):
                writes = stream if i == depth else f"{at}.conv{i}"
                yield Layer(f"{at}.conv{i}", f"{at}.bn{i}", reads, writes)
                reads = writes


def _unfit(block: nn.Module) -> str:
    """Why a block's channels cannot be chosen; empty where they can."""
    if not isinstance(block, BasicBlock | Bottleneck):
        return f"is a {type(block).__name__}"
    if block.se is not None:
        return "has attention over its channels"
    if any(isinstance(m, nn.Conv2d) and m.groups > 1 for m in block.modules()):
        return "has grouped convolutions"
    if not isinstance(block.bn1, nn.BatchNorm2d):
        return "has norms other than BatchNorm"
    return ""


def _conv(model: nn.Module, layer: Layer) -> nn.Conv2d:
    conv = model.get_submodule(layer.conv)
    assert isinstance(conv, nn.Conv2d)
    return conv


def _as_it_acts(model: nn.Module, layer: Layer) -> Tensor:
    """Filters with their norm folded in, (O, I h w)."""
    norm = model.get_submodule(layer.norm)
    assert isinstance(norm, nn.BatchNorm2d) and norm.running_var is not None
    scale_O = norm.weight.double() / (norm.running_var.double() + norm.eps).sqrt()
    return _conv(model, layer).weight.double().flatten(1) * scale_O[:, None]
