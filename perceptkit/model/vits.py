"""Families whose blocks all work on tokens of one stride: ViT and its kin.

Shapes: B batch, C channels, h w patches, N tokens, H W pixels of the image.
"""

from typing import Any

import torch
from timm.layers import resample_abs_pos_embed_nhwc
from torch import Tensor

from perceptkit.model.family import OPENING, Family, children, folded, halved, patches, place
from perceptkit.model.lookup import submodule


class Vit(Family):
    """ViT, DeiT, DINOv2, ...: tokens, positions and class token are glued together by methods."""

    def parts(self, model: Any) -> list[str]:
        return [OPENING, *children(model, "blocks"), "norm"]

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


class NaFlex(Vit):
    """NaFlexViT with ordinary pictures: one module embeds; variants with rotary embeddings are not for this."""

    def opening(self, model: Any, image_BCHW: Tensor) -> Tensor:
        embedded = model._forward_embeds(image_BCHW, patch_coord=None, patch_valid=None, attn_mask=None)
        return embedded["patches"]


class SamVit(Vit):
    """The image encoder of SAM: blocks are channels-last maps, and a neck of convolutions follows them."""

    def parts(self, model: Any) -> list[str]:
        return [OPENING, *children(model, "blocks"), "neck"]

    def opening(self, model: Any, image_BCHW: Tensor) -> Tensor:
        x = model.patch_embed(image_BCHW)
        if model.pos_embed is not None:
            x = x + resample_abs_pos_embed_nhwc(model.pos_embed, x.shape[1:3])
        return model.norm_pre(model.patch_drop(model.pos_drop(x))).permute(0, 3, 1, 2)

    def run(self, model: Any, name: str, x: Tensor, shared: Any) -> Tensor:
        if name.startswith("blocks."):
            return submodule(model, name)(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        return super().run(model, name, x, shared)


class LateToken(Vit):
    """The class token is there for some of the parts only."""

    def to_map(self, model: Any, x: Tensor, image_HW: tuple[int, int]) -> Tensor | None:
        patch_h, patch_w = model.patch_embed.patch_size
        size_hw = (-(-image_HW[0] // patch_h), -(-image_HW[1] // patch_w))
        return folded(patches(x, size_hw), size_hw)


class CaitVit(LateToken):
    """CaiT: what its class-attention blocks do with the class token is a classifier, and the heads here have their
    own; patches do not change in them."""

    def opening(self, model: Any, image_BCHW: Tensor) -> Tensor:
        return model.pos_drop(model.patch_embed(image_BCHW) + model.pos_embed)

    def features(self, model: Any, output: Tensor) -> Tensor:
        return output[:, model.num_prefix_tokens :]


class XcitVit(Vit):
    """XCiT: blocks are told the size of the map, and the class token comes late."""

    def parts(self, model: Any) -> list[str]:
        return [OPENING, *children(model, "blocks"), *children(model, "cls_attn_blocks"), "norm"]

    def opening(self, model: Any, image_BCHW: Tensor) -> Tensor:
        x, size_hw = model.patch_embed(image_BCHW)
        if model.pos_embed is not None:
            position = model.pos_embed(x.shape[0], *size_hw)
            x = x + position.reshape(x.shape[0], -1, x.shape[1]).permute(0, 2, 1)
        return model.pos_drop(x)

    def shared(self, model: Any, image_HW: tuple[int, int]) -> tuple[int, int]:
        """Height and width of the map: patches are convolutions that halve it."""
        return halved(image_HW, {16: 4, 8: 3}[model.patch_embed.patch_size])

    def run(self, model: Any, name: str, x: Tensor, shared: Any) -> Tensor:
        if name.startswith("blocks."):
            return submodule(model, name)(x, *shared)
        if place(name) == "cls_attn_blocks.0":
            x = torch.cat((model.cls_token.expand(x.shape[0], -1, -1), x), dim=1)
        return super().run(model, name, x, shared)

    def to_map(self, model: Any, x: Tensor, image_HW: tuple[int, int]) -> Tensor | None:
        size_hw = self.shared(model, image_HW)
        return folded(patches(x, size_hw), size_hw)


class ConVit(LateToken):
    """ConViT: the class token joins before the first block that is not convolutional."""

    def opening(self, model: Any, image_BCHW: Tensor) -> Tensor:
        x = model.patch_embed(image_BCHW)
        return model.pos_drop(x + model.pos_embed if model.use_pos_embed else x)

    def run(self, model: Any, name: str, x: Tensor, shared: Any) -> Tensor:
        if place(name) == f"blocks.{model.local_up_to_layer}" and model.cls_token is not None:
            x = torch.cat((model.cls_token.expand(x.shape[0], -1, -1), x), dim=1)
        return super().run(model, name, x, shared)
