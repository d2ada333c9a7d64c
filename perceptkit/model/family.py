"""How a timm model is taken apart: what each family of model/families.py says of itself.

    parts     names of the modules from image to features; "" is the opening, all that comes before the blocks
    opening   the image as tokens, positions and class token included
    shared    what blocks are given besides the activation; made once per forward
    run       one part
    to_map    a part's output as a map for neck and heads
    features  what of the output of timm's `forward_features` the parts have to give, bit by bit

Shapes: B batch, C channels, h w pixels of a feature map, N tokens, H W pixels of the image.
"""

from collections.abc import Iterator
from typing import Any

from timm.layers import HybridEmbed
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

    def features(self, model: Any, output: Tensor) -> Tensor:
        """What the parts have to give, bit by bit, of what timm's `forward_features` gave."""
        return output


def place(name: str) -> str:
    """A part's place in timm's model: its name without that of one of several copies there.

    >>> place("blocks.0.tuned"), place("norm.task_seg"), place("blocks.0")
    ('blocks.0', 'norm', 'blocks.0')
    """
    parent, _, last = name.rpartition(".")
    return parent if last in ("base", "tuned") or last.startswith("task_") else name


def folded(tokens_BNC: Tensor, size_hw: tuple[int, int]) -> Tensor:
    """Tokens, row by row, as a map (B, C, h, w)."""
    return tokens_BNC.unflatten(1, size_hw).permute(0, 3, 1, 2)


def halved(size_HW: tuple[int, int], times: int) -> tuple[int, int]:
    """Height and width of a map after that many halvings, each rounded up, as padded convolutions do."""
    return -(-size_HW[0] >> times), -(-size_HW[1] >> times)


def patches(tokens_BNC: Tensor, size_hw: tuple[int, int]) -> Tensor:
    """The tokens that are patches; those before them, class tokens for example, are left out."""
    return tokens_BNC[:, tokens_BNC.shape[1] - size_hw[0] * size_hw[1] :]


def patch_size(model: Any) -> tuple[int, int] | None:
    """Height and width of the patches that a trunk cuts the image into; None where pixels overlap."""
    names = ("patch_embed", "stem", "embeds")
    embed = next((getattr(model, name) for name in names if getattr(model, name, None) is not None), None)
    if isinstance(embed, HybridEmbed):  # patches of what a convolutional trunk gives
        ratio = embed.feat_ratio(as_scalar=False)
        return None if isinstance(ratio, int) else ratio
    size = getattr(embed, "patch_size", None)
    if not isinstance(size, tuple | list):
        return None
    stride = getattr(getattr(embed, "proj", None), "stride", size)
    return tuple(size) if tuple(stride) == tuple(size) else None


def covered_size(model: Any, image_HW: tuple[int, int]) -> tuple[int, int]:
    """Pixels that the features stand for: more than the image's where patches stick out of it."""
    patch_h, patch_w = patch_size(model) or (1, 1)
    return -(-image_HW[0] // patch_h) * patch_h, -(-image_HW[1] // patch_w) * patch_w


def children(model: nn.Module, container: str) -> Iterator[str]:
    """Full names of what a container of the model holds, in its order."""
    return (f"{container}.{name}" for name, _ in model.get_submodule(container).named_children())
