"""The networks that tools/bench.py compares with, written by hand: timm and torch, no perceptkit code.

A plan is a list of blocks that each task skips. The trunk of timm modules is unrolled into a tree of calls
once; `forward` walks it. Neck and heads have the parameter names of those in perceptkit, so weights can be
copied and outputs compared.

Shapes: B batch, C channels, H W pixels, h w pixels of a feature map.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import timm
import torch
from timm.layers import BatchNormAct2d
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.fusion import fuse_conv_bn_weights

Layer = Callable[[Tensor], Tensor]


@dataclass
class Link:
    """One module of the trunk, and how it is left out; `tap` marks what the neck reads."""

    run: Layer
    skip: Layer | None = None
    gated: bool = False
    tap: bool = False


@dataclass
class Branch:
    """Calls in a row, and where the tasks part afterwards."""

    tasks: list[str]
    calls: list[tuple[Layer, bool]] = field(default_factory=list)
    then: list["Branch"] = field(default_factory=list)


def links_of(trunk: nn.Module) -> list[Link]:
    """The chain of a timm ResNet, EfficientNet or ViT."""
    t: Any = trunk
    if hasattr(t, "layer1"):
        links = [Link(lambda x: t.maxpool(t.act1(t.bn1(t.conv1(x)))))]
        for stage in (t.layer1, t.layer2, t.layer3, t.layer4):
            links += [Link(block, block.downsample, gated=True) for block in stage]
            links[-1].tap = True
    elif hasattr(t, "conv_stem"):
        links = [Link(lambda x: t.bn1(t.conv_stem(x)))]
        for i, stage in enumerate(t.blocks):
            links += [Link(block, gated=block.has_skip) for block in stage]
            links[-1].tap = i in (1, 2, 4, 6)
    else:
        links = [Link(lambda x: t.norm_pre(t.patch_drop(t._pos_embed(t.patch_embed(x)))))]
        links += [Link(block, gated=True) for block in t.blocks]
        links.append(Link(t.norm, tap=True))
    return links


class PlainNeck(nn.Module):
    """A feature pyramid with one output at stride 4; plain ViT features rise there by transposed convolutions."""

    def __init__(self, in_channels: Sequence[int], channels: int, rises: int) -> None:
        super().__init__()
        self.lateral = nn.ModuleList(nn.Conv2d(c, channels, 1, bias=False) for c in in_channels)
        self.norm = nn.ModuleList(nn.BatchNorm2d(channels) for _ in in_channels)
        rise: list[nn.Module] = []
        for _ in range(rises):
            rise.append(nn.ConvTranspose2d(channels, channels, 2, stride=2, bias=False))
            rise += [nn.BatchNorm2d(channels), nn.ReLU()]
        self.rise = nn.Sequential(*rise)
        conv = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.smooth = nn.Sequential(conv, nn.BatchNorm2d(channels), nn.ReLU())

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        top = self.norm[-1](self.lateral[-1](features[-1]))
        for i in range(len(features) - 2, -1, -1):
            finer = self.norm[i](self.lateral[i](features[i]))
            top = finer + F.interpolate(top, size=finer.shape[-2:], mode="bilinear", align_corners=False)
        pyramid: Tensor = self.smooth(self.rise(top))
        return pyramid


class PlainHead(nn.Module):
    """conv3x3 - BatchNorm - ReLU - conv1x1."""

    def __init__(self, channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(channels)
        self.relu = nn.ReLU(inplace=True)
        self.predict = nn.Conv2d(channels, out_channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.predict(self.relu(self.norm(self.conv(x))))
        return logits


class PlainNet(nn.Module):
    """One timm trunk, one neck, a head per task.

    Args:
        name: timm's.
        out_channels: by task.
        channels: width of the neck.
        size: of the square input in pixels.
        skipped: blocks that each task skips; none by default.
    """

    def __init__(
        self,
        name: str,
        out_channels: Mapping[str, int],
        channels: int,
        size: int,
        skipped: Mapping[str, set[int]] | None = None,
    ) -> None:
        super().__init__()
        kwargs: dict[str, Any] = {"img_size": size} if name.startswith("vit") else {}
        trunk: Any = timm.create_model(name, num_classes=0, **kwargs)
        self.trunk: Any = trunk
        self.tokens = hasattr(trunk, "patch_embed")
        widths = (
            [trunk.num_features] if self.tokens else [info["num_chs"] for info in trunk.feature_info[-4:]]
        )
        self.neck = PlainNeck(widths, channels, rises=2 if self.tokens else 0)
        self.heads = nn.ModuleDict({t: PlainHead(channels, out) for t, out in out_channels.items()})
        self.plan = {task: (skipped or {}).get(task, set()) for task in out_channels}
        self.tree = Branch(list(out_channels))
        self.unroll()

    def unroll(self) -> None:
        """The tree of calls; again after modules were replaced."""
        self.tree = Branch(list(self.plan))
        _grow(self.tree, links_of(self.trunk), self.plan, 0)

    def forward(self, image_BCHW: Tensor) -> dict[str, Tensor]:
        outputs: dict[str, Tensor] = {}
        self.walk(self.tree, image_BCHW, [], image_BCHW.shape[-2:], outputs)
        return outputs

    def walk(
        self, branch: Branch, x: Tensor, features: list[Tensor], size: torch.Size, outputs: dict[str, Tensor]
    ) -> None:
        """One branch and those that part from it."""
        for call, tap in branch.calls:
            x = call(x)
            if tap:
                features = [*features, self.to_map(x, size) if self.tokens else x]
        for child in branch.then:
            self.walk(child, x, features, size, outputs)
        if not branch.then:
            self.answer(branch.tasks, features, size, outputs)

    def answer(
        self, tasks: Sequence[str], features: Sequence[Tensor], size: torch.Size, outputs: dict[str, Tensor]
    ) -> None:
        """Neck and heads."""
        pyramid = self.neck(features)
        for task in tasks:
            logits = self.heads[task](pyramid)
            outputs[task] = F.interpolate(logits, size=size, mode="bilinear", align_corners=False)

    def to_map(self, tokens: Tensor, size: torch.Size) -> Tensor:
        """(B, prefix + h w, C) -> (B, C, h, w)."""
        batch, _, channels = tokens.shape
        patches = tokens[:, self.trunk.num_prefix_tokens :]
        return patches.transpose(1, 2).reshape(batch, channels, size[0] // 16, size[1] // 16)


class UntouchedNet(PlainNet):
    """The same with timm's own `forward_intermediates` for the trunk: no block is touched."""

    def forward(self, image_BCHW: Tensor) -> dict[str, Tensor]:
        indices = 1 if self.tokens else 4
        features = self.trunk.forward_intermediates(
            image_BCHW, indices=indices, norm=self.tokens, intermediates_only=True
        )
        outputs: dict[str, Tensor] = {}
        self.answer(list(self.heads), features, image_BCHW.shape[-2:], outputs)
        return outputs


def _grow(branch: Branch, links: Sequence[Link], plan: Mapping[str, set[int]], block: int) -> None:
    """Appends calls to `branch` until its tasks part; then one branch for those that keep and those that skip."""
    for i, link in enumerate(links):
        if not link.gated:
            branch.calls.append((link.run, link.tap))
            continue
        keep = [task for task in branch.tasks if block not in plan[task]]
        skip = [task for task in branch.tasks if block in plan[task]]
        passed: Layer = link.skip if link.skip is not None else nn.Identity()
        block += 1
        if not skip or not keep:
            call = link.run if keep else passed
            if not isinstance(call, nn.Identity) or link.tap:
                branch.calls.append((call, link.tap))
            continue
        for tasks, call in ((keep, link.run), (skip, passed)):
            child = Branch(tasks, [(call, link.tap)])
            _grow(child, links[i + 1 :], plan, block)
            branch.then.append(child)
        return


@torch.no_grad()
def fold(net: PlainNet) -> PlainNet:
    """Folds the norms that directly follow a convolution in the order of definition. In eval mode, in place."""
    for parent in list(net.modules()):
        before: nn.Module | None = None
        for name, child in list(parent.named_children()):
            if isinstance(child, nn.BatchNorm2d) and isinstance(before, nn.Conv2d | nn.ConvTranspose2d):
                setattr(parent, name, _folded(before, child))
            before = child
    for i, conv in enumerate(net.neck.lateral):
        net.neck.norm[i] = _folded(conv, net.neck.norm[i])
    net.unroll()
    return net


def _folded(conv: nn.Module, norm: nn.Module) -> nn.Module:
    """`conv` takes the norm in; gives what stays in the norm's place."""
    assert isinstance(conv, nn.Conv2d | nn.ConvTranspose2d) and isinstance(norm, nn.BatchNorm2d)
    assert norm.running_mean is not None and norm.running_var is not None
    conv.weight, conv.bias = fuse_conv_bn_weights(
        conv.weight, conv.bias, norm.running_mean, norm.running_var, norm.eps, norm.weight, norm.bias,
        transpose=conv.transposed,
    )  # fmt: skip
    return norm.act if isinstance(norm, BatchNormAct2d) else nn.Identity()
