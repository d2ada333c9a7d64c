"""Families that pool between their blocks, and whose blocks want another layout than a map, or more than x.

Shapes: B batch, C channels, h w pixels of a feature map, N tokens, H W pixels of the image.
"""

from math import prod
from typing import Any

import torch
from timm.models.maxxvit import MaxxVitBlock
from torch import Tensor, nn

from perceptkit.model.family import OPENING, Family, children, folded, halved, patches, place
from perceptkit.model.lookup import submodule
from perceptkit.model.vits import Vit


class HieraVit(Vit):
    """Hiera: tokens lie window by window, and each pooling makes the windows smaller."""

    def parts(self, model: Any) -> list[str]:
        return [OPENING, *children(model, "blocks")]

    def opening(self, model: Any, image_BCHW: Tensor) -> Tensor:
        return model.unroll(model._pos_embed(model.patch_embed(image_BCHW)))

    def to_map(self, model: Any, x: Tensor, image_HW: tuple[int, int]) -> Tensor | None:
        if x.ndim == 4:
            return x
        # the order of tokens changes only where their number does, so the first block with that many will do
        orders = model.reroll.schedule.items()
        block = next(i for i, (_, size) in orders if prod(size) == x.shape[1])
        return model.reroll(x, block).permute(0, 3, 1, 2)


class PvtV2(Family):
    """PVT v2: blocks work on tokens and are told the size of the map. Between the parts x is a map; tokens are a
    view of it, because its memory is channels-last."""

    def parts(self, model: Any) -> list[str]:
        names = ["patch_embed"]
        for stage in children(model, "stages"):
            has_downsample = model.get_submodule(stage).downsample is not None
            names += [f"{stage}.downsample"] if has_downsample else []
            names += [*children(model, f"{stage}.blocks"), f"{stage}.norm"]
        return names

    def run(self, model: Any, name: str, x: Tensor, shared: Any) -> Tensor:
        module = submodule(model, name)
        if place(name).endswith(("patch_embed", "downsample")):
            return module(x).permute(0, 3, 1, 2)
        size_hw = (x.shape[2], x.shape[3])
        tokens = x.flatten(2).transpose(1, 2)
        if place(name).endswith("norm"):
            return folded(module(tokens), size_hw).contiguous()
        return folded(module(tokens, size_hw), size_hw)


class MaxVit(Family):
    """MaxViT and CoAtNet: a MaxViT block is three residual blocks, the latter two in channels-last layout."""

    def parts(self, model: Any) -> list[str]:
        names = ["stem"]
        for stage in children(model, "stages"):
            for block in children(model, f"{stage}.blocks"):
                module = model.get_submodule(block)
                if not isinstance(module, MaxxVitBlock):
                    names.append(block)
                    continue
                inner = ["conv", "attn_block", "attn_grid"]
                names += [f"{block}.{part}" for part in inner if getattr(module, part) is not None]
        return [*names, "norm"]

    def run(self, model: Any, name: str, x: Tensor, shared: Any) -> Tensor:
        module = submodule(model, name)
        block, _, part = name.rpartition(".")
        if part in ("attn_block", "attn_grid") and not submodule(model, block).nchw_attn:
            return module(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        return module(x)


class EfficientFormers(Family):
    """EfficientFormer: a chain, but its last blocks work on tokens and nothing in it knows their grid."""

    def to_map(self, model: Any, x: Tensor, image_HW: tuple[int, int]) -> Tensor | None:
        if x.ndim == 4:
            return x
        return folded(x, (-(-image_HW[0] // 32), -(-image_HW[1] // 32)))


class Sam2Hiera(Family):
    """The image encoder of SAM 2: a chain of channels-last maps behind an opening."""

    def parts(self, model: Any) -> list[str]:
        return [OPENING, *children(model, "blocks")]

    def opening(self, model: Any, image_BCHW: Tensor) -> Tensor:
        return model._pos_embed(model.patch_embed(image_BCHW))


class SwinV2Cr(Family):
    """Swin v2 in its other implementation: stages turn the map to channels-last and back."""

    def parts(self, model: Any) -> list[str]:
        return ["patch_embed", *_stages(model)]

    def run(self, model: Any, name: str, x: Tensor, shared: Any) -> Tensor:
        module = submodule(model, name)
        return (
            module(x) if place(name) == "patch_embed" else module(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        )


class MvitV2(Vit):
    """MViT v2: blocks are told the size of the map and give it back; here it follows from the number of tokens."""

    def parts(self, model: Any) -> list[str]:
        blocks = (f"{stage}.blocks" for stage in children(model, "stages"))
        return [OPENING, *(name for container in blocks for name in children(model, container)), "norm"]

    def opening(self, model: Any, image_BCHW: Tensor) -> Tensor:
        x, _ = model.patch_embed(image_BCHW)
        if model.cls_token is not None:
            x = torch.cat((model.cls_token.expand(x.shape[0], -1, -1), x), dim=1)
        return x if model.pos_embed is None else x + model.pos_embed

    def shared(self, model: Any, image_HW: tuple[int, int]) -> dict[int, tuple[int, int]]:
        """Height and width by the number of tokens."""
        sizes = [halved(image_HW, 2 + i) for i in range(len(model.stages))]
        return {model.num_prefix_tokens + prod(size): size for size in sizes}

    def run(self, model: Any, name: str, x: Tensor, shared: Any) -> Tensor:
        if name.startswith("stages."):
            return submodule(model, name)(x, shared[x.shape[1]])[0]
        return super().run(model, name, x, shared)

    def to_map(self, model: Any, x: Tensor, image_HW: tuple[int, int]) -> Tensor | None:
        size_hw = self.shared(model, image_HW)[x.shape[1]]
        return folded(patches(x, size_hw), size_hw)


class LevitTokens(Family):
    """LeViT: tokens between its stem and the end. The variants made of convolutions are chains."""

    def parts(self, model: Any) -> list[str] | None:
        return None if model.use_conv else ["stem", *_stages(model)]

    def run(self, model: Any, name: str, x: Tensor, shared: Any) -> Tensor:
        x = submodule(model, name)(x)
        return x.flatten(2).transpose(1, 2) if place(name) == "stem" and not model.use_conv else x

    def to_map(self, model: Any, x: Tensor, image_HW: tuple[int, int]) -> Tensor | None:
        if x.ndim == 4:
            return x
        sizes = (halved(image_HW, 3 + i) for i in range(1 + len(model.stages)))
        size_hw = next((size for size in sizes if prod(size) == x.shape[1]), None)
        return None if size_hw is None else folded(x, size_hw)


def _stages(model: Any) -> list[str]:
    """Of models whose stages hold a `downsample`, perhaps of nothing, and `blocks`: the names of both, in order."""
    names = []
    for stage in children(model, "stages"):
        if not isinstance(model.get_submodule(f"{stage}.downsample"), nn.Identity):
            names.append(f"{stage}.downsample")
        names += children(model, f"{stage}.blocks")
    return names
