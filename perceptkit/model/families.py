"""timm families whose forward does more than call one module after the other.

Most timm trunks are chains of modules: what one gives is what the next one takes. Where it is not so, what lies
between the modules is written out here, family by family:

    parts     names of the modules from image to features; "" is the opening, all that comes before the blocks
    opening   the image as tokens, positions and class token included
    shared    what blocks are given besides the activation; made once per forward
    run       one part
    to_map    a part's output as a map for neck and heads

Nothing is taken on trust: model/trunk.py runs the parts and compares with timm's own forward, bit by bit.

Shapes: B batch, C channels, h w pixels of a feature map, N tokens, H W pixels of the image.
"""

from collections.abc import Iterator
from math import prod
from typing import Any

import torch
from timm.models.beit import Beit
from timm.models.efficientformer import EfficientFormer
from timm.models.eva import Eva
from timm.models.hiera import Hiera
from timm.models.maxxvit import MaxxVit, MaxxVitBlock
from timm.models.pvt_v2 import PyramidVisionTransformerV2
from timm.models.vision_transformer import VisionTransformer
from timm.models.vision_transformer_relpos import VisionTransformerRelPos
from torch import Tensor, nn

from perceptkit.model.lookup import submodule

OPENING = ""


class Family:
    """A plain chain of modules, found by recording; also what the families below share."""

    def parts(self, model: Any) -> list[str] | None:
        """Names in the order of execution; None where a recording finds them."""
        return None

    def opening(self, model: Any, image_BCHW: Tensor) -> Tensor:
        """What comes before the first block: (B, N, C)."""
        raise NotImplementedError

    def shared(self, model: Any, image_HW: tuple[int, int]) -> Any:
        """What blocks are given besides the activation."""
        return None

    def run(self, model: Any, name: str, x: Tensor, shared: Any) -> Tensor:
        """One part, as timm runs it."""
        return self.opening(model, x) if name == OPENING else submodule(model, name)(x)

    def to_map(self, model: Any, x: Tensor, image_HW: tuple[int, int]) -> Tensor | None:
        """(B, C, h, w): maps as they are, tokens without the prefix ones folded back; None if there is no way."""
        if x.ndim == 4:
            return x.permute(0, 3, 1, 2) if getattr(model, "output_fmt", "NCHW") == "NHWC" else x
        patch = patch_size(model)
        if x.ndim != 3 or patch is None:
            return None
        tokens = x[:, getattr(model, "num_prefix_tokens", 0) :]
        return folded(tokens, (-(-image_HW[0] // patch[0]), -(-image_HW[1] // patch[1])))


class Vit(Family):
    """ViT, DeiT, DINOv2, ...: tokens, positions and class token are glued together by methods."""

    def parts(self, model: Any) -> list[str]:
        return [OPENING, *_children(model, "blocks"), "norm"]

    def opening(self, model: Any, image_BCHW: Tensor) -> Tensor:
        tokens = model._pos_embed(model.patch_embed(image_BCHW))
        return model.norm_pre(model.patch_drop(tokens))


class EvaVit(Vit):
    """EVA-02, DINOv3, ...: every block turns its queries and keys by the same rotary embedding."""

    def opening(self, model: Any, image_BCHW: Tensor) -> Tensor:
        tokens, _ = model._pos_embed(model.patch_embed(image_BCHW))
        return model.norm_pre(tokens)

    def shared(self, model: Any, image_HW: tuple[int, int]) -> Tensor | None:
        """The rotary embedding of this grid; in mixed mode one per block. It does not know of dropped patches."""
        if model.rope is None:
            return None
        if model.dynamic_img_size:
            return model.rope.get_embed(shape=model.patch_embed.dynamic_feat_size(image_HW))
        if hasattr(model.rope, "feat_shape"):
            return model.rope.get_embed()
        return model.rope.get_embed(shape=model.patch_embed.grid_size)

    def run(self, model: Any, name: str, x: Tensor, shared: Any) -> Tensor:
        if name.startswith("blocks."):
            own = model.rope_mixed and shared is not None
            return submodule(model, name)(x, rope=shared[int(name.split(".")[1])] if own else shared)
        return super().run(model, name, x, shared)


class BeitVit(Vit):
    """BEiT v1 v2: no opening of its own to call, and perhaps one relative position bias for all blocks."""

    def opening(self, model: Any, image_BCHW: Tensor) -> Tensor:
        x = model.patch_embed(image_BCHW)
        x = torch.cat((model.cls_token.expand(x.shape[0], -1, -1), x), dim=1)
        return model.pos_drop(x if model.pos_embed is None else x + model.pos_embed)

    def shared(self, model: Any, image_HW: tuple[int, int]) -> Tensor | None:
        return None if model.rel_pos_bias is None else model.rel_pos_bias()

    def run(self, model: Any, name: str, x: Tensor, shared: Any) -> Tensor:
        if name.startswith("blocks."):
            return submodule(model, name)(x, shared_rel_pos_bias=shared)
        return super().run(model, name, x, shared)


class RelPosVit(Vit):
    """ViTs with relative positions: no positions in the opening."""

    def opening(self, model: Any, image_BCHW: Tensor) -> Tensor:
        x = model.patch_embed(image_BCHW)
        if model.cls_token is None:
            return x
        return torch.cat((model.cls_token.expand(x.shape[0], -1, -1), x), dim=1)

    def shared(self, model: Any, image_HW: tuple[int, int]) -> Tensor | None:
        return None if model.shared_rel_pos is None else model.shared_rel_pos.get_bias()

    def run(self, model: Any, name: str, x: Tensor, shared: Any) -> Tensor:
        if name.startswith("blocks."):
            return submodule(model, name)(x, shared_rel_pos=shared)
        return super().run(model, name, x, shared)


class HieraVit(Vit):
    """Hiera: tokens lie window by window, and each pooling makes the windows smaller."""

    def parts(self, model: Any) -> list[str]:
        return [OPENING, *_children(model, "blocks")]

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
        for stage in _children(model, "stages"):
            has_downsample = model.get_submodule(stage).downsample is not None
            names += [f"{stage}.downsample"] if has_downsample else []
            names += [*_children(model, f"{stage}.blocks"), f"{stage}.norm"]
        return names

    def run(self, model: Any, name: str, x: Tensor, shared: Any) -> Tensor:
        module = submodule(model, name)
        if name.endswith(("patch_embed", "downsample")):
            return module(x).permute(0, 3, 1, 2)
        size_hw = (x.shape[2], x.shape[3])
        tokens = x.flatten(2).transpose(1, 2)
        if name.endswith("norm"):
            return folded(module(tokens), size_hw).contiguous()
        return folded(module(tokens, size_hw), size_hw)


class MaxVit(Family):
    """MaxViT and CoAtNet: a MaxViT block is three residual blocks, the latter two in channels-last layout."""

    def parts(self, model: Any) -> list[str]:
        names = ["stem"]
        for stage in _children(model, "stages"):
            for block in _children(model, f"{stage}.blocks"):
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


CHAIN = Family()
FAMILIES: tuple[tuple[type[nn.Module], Family], ...] = (
    (VisionTransformer, Vit()),
    (Eva, EvaVit()),
    (Beit, BeitVit()),
    (VisionTransformerRelPos, RelPosVit()),
    (Hiera, HieraVit()),
    (PyramidVisionTransformerV2, PvtV2()),
    (MaxxVit, MaxVit()),
    (EfficientFormer, EfficientFormers()),
)


def family(model: nn.Module) -> Family:
    """How this model is taken apart."""
    for kind, found in FAMILIES:
        if isinstance(model, kind):
            return found
    return CHAIN


def folded(tokens_BNC: Tensor, size_hw: tuple[int, int]) -> Tensor:
    """Tokens, row by row, as a map (B, C, h, w)."""
    return tokens_BNC.unflatten(1, size_hw).permute(0, 3, 1, 2)


def patch_size(model: Any) -> tuple[int, int] | None:
    """Height and width of the patches that a trunk cuts the image into; None where pixels overlap."""
    embed = getattr(model, "patch_embed", None) or getattr(model, "stem", None)
    size = getattr(embed, "patch_size", None)
    if not isinstance(size, tuple | list):
        return None
    stride = getattr(getattr(embed, "proj", None), "stride", size)
    return tuple(size) if tuple(stride) == tuple(size) else None


def covered_size(model: Any, image_HW: tuple[int, int]) -> tuple[int, int]:
    """Pixels that the features stand for: more than the image's where patches stick out of it."""
    patch_h, patch_w = patch_size(model) or (1, 1)
    return -(-image_HW[0] // patch_h) * patch_h, -(-image_HW[1] // patch_w) * patch_w


def _children(model: nn.Module, container: str) -> Iterator[str]:
    return (f"{container}.{name}" for name, _ in model.get_submodule(container).named_children())
