"""The router: a small net that sees the picture once, before the backbone runs, and says which blocks it needs.

One decision per picture and routed block, all at once, for all tasks together: tasks share activations for as long
as their plans agree, and a decision of their own would part them.

Wu, Nagarajan et al. *BlockDrop: Dynamic Inference Paths in Residual Networks.* CVPR 2018, section 3.2.
https://arxiv.org/abs/1711.08393

Shapes: B batch, C channels, H W pixels, R routed blocks (0 next to the image).
"""

import copy
import math
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from perceptkit.errors import SpecError
from perceptkit.model.weights import create_backbone
from perceptkit.spec.recipe import BackboneSpec
from perceptkit.spec.router import RouterSpec

PRESETS = {
    "resnet8": BackboneSpec(name="cifar10_resnet8", weights="none"),
    "resnet10": BackboneSpec(name="resnet18", weights="none", args={"layers": [1, 1, 1, 1]}),
}
"""BlockDrop's policy networks, for CIFAR (with the shortcut of model/cifar_resnet.py) and for ImageNet. A file of
weights may be of a ResNet with more blocks."""

CONV3 = "conv3"
"""Three convolutions, for hosts so small that a deeper router's calls cost more than its MACs: on a CPU, at batch 1, a
call takes tens of microseconds whatever it computes, and ResNet-8 has seven convolutions beside a ResNet-32's 31."""

PATCHES = "patches"
"""Linear layers of patches of 4x4 pixels, and of 2x2 of these: two matrix products for three convolutions."""


class Router(nn.Module):
    """forward(image_BCHW) -> logits_BR; a block is kept where its logit is at least 0.

    Args:
        trunk: a timm model without classifier: (B, C, h, w) -> (B, features).
        num_routed: R.
        size_HW: of the picture in pixels.
        downscale: pixels along one side that are averaged to one before the net sees them.
        keep: probability with which every block is kept before training.
    """

    def __init__(
        self, trunk: nn.Module, num_routed: int, size_HW: tuple[int, int], downscale: int, keep: float
    ) -> None:
        super().__init__()
        self.downscale = downscale
        self.trunk = trunk
        with torch.no_grad():
            self.trunk.eval()  # norms must not learn from the probe
            features = self.features(torch.zeros(1, 3, *size_HW))
            self.trunk.train()
        self.decide = nn.Linear(features.shape[1], num_routed)
        # small weights: at first all pictures get the same answer, that of the bias
        nn.init.normal_(self.decide.weight, std=1e-3)
        nn.init.constant_(self.decide.bias, math.log(keep / (1 - keep)))

    def forward(self, image_BCHW: Tensor) -> Tensor:
        """(B, R) logits of normalised images."""
        return self.decide(self.features(image_BCHW))

    def keep(self, image_BCHW: Tensor) -> Tensor:
        """(B, R) bool: the most probable decision."""
        return self(image_BCHW) >= 0

    def bare(self) -> Callable[[Tensor], Tensor]:
        """`forward` as it is now, by calls of functions alone where that is possible; hooks are not called.

        In a small net on a CPU modules take a quarter to a third of the time: their calls, and finding the weights.
        """
        trunk = self.trunk
        if not isinstance(trunk, _Convolutions) or not trunk.is_folded:
            return self
        features = _mean_of_patches if isinstance(trunk, _Patches) else _mean_of_places
        return partial(
            _bare_logits, features, trunk.layers(), self.decide.weight, self.decide.bias, self.downscale
        )

    def narrowed(self, columns: Sequence[int]) -> "Router":
        """The router of some of its blocks."""
        small = copy.deepcopy(self)
        small.decide = nn.Linear(self.decide.in_features, len(columns), device=self.decide.weight.device)
        with torch.no_grad():
            small.decide.weight.copy_(self.decide.weight[list(columns)])
            small.decide.bias.copy_(self.decide.bias[list(columns)])
        return small

    def features(self, image_BCHW: Tensor) -> Tensor:
        """(B, features) what `decide` reads."""
        small = F.avg_pool2d(image_BCHW, self.downscale) if self.downscale > 1 else image_BCHW
        return self.trunk(small)


def build_router(spec: RouterSpec, num_routed: int, size_HW: tuple[int, int], load: bool = True) -> Router:
    """The router of a recipe with its initial weights.

    Args:
        spec: from the recipe.
        num_routed: how many blocks it decides on.
        size_HW: of the picture in pixels.
        load: False leaves all weights random: an artifact brings its own.

    Raises:
        SpecError: its net is unknown, does not take pictures of this size, or its weights cannot be loaded.
    """
    small_HW = (size_HW[0] // spec.downscale, size_HW[1] // spec.downscale)
    if min(small_HW) < 1:
        raise SpecError(
            f"routing.router {spec.name!r} does not take pictures of {small_HW[0]}x{small_HW[1]} pixels: that is what "
            f"downscale {spec.downscale} leaves of {size_HW[0]}x{size_HW[1]}"
        )
    if spec.name == PATCHES and min(small_HW) < _Patches.LEAST:
        raise SpecError(
            f"routing.router {PATCHES!r} does not take pictures of {small_HW[0]}x{small_HW[1]} pixels, which is what "
            f"downscale {spec.downscale} leaves of {size_HW[0]}x{size_HW[1]}: lower downscale, {_Patches.LEAST} pixels "
            f"along a side are the least"
        )
    trunk = _own(spec) if spec.name in (CONV3, PATCHES) else _timm_trunk(spec, small_HW, load)

    try:
        return Router(trunk, num_routed, size_HW, spec.downscale, spec.keep)
    except (RuntimeError, ValueError, AssertionError) as error:
        first = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise SpecError(
            f"routing.router {spec.name!r} does not take pictures of {small_HW[0]}x{small_HW[1]} pixels: {first}"
        ) from error


def _timm_trunk(spec: RouterSpec, size_HW: tuple[int, int], load: bool) -> nn.Module:
    preset = PRESETS.get(spec.name)
    if preset is None:
        made = BackboneSpec(name=spec.name, weights=spec.weights, args=spec.args)
    else:
        made = preset.model_copy(update={"weights": spec.weights, "args": preset.args | spec.args})
    # BlockDrop's ResNet-10 starts as the stem and the first block of each stage of a ResNet-18
    return create_backbone(
        made,
        size_HW,
        load,
        key="routing.router",
        presets=[*PRESETS, CONV3, PATCHES],
        fewer_blocks=preset is not None,
    )


def _own(spec: RouterSpec) -> nn.Module:
    """A net of 64 features that timm has not."""
    if spec.weights != "none" or spec.args:
        raise SpecError(f"routing.router {spec.name!r} has neither weights nor args")
    return _Conv3() if spec.name == CONV3 else _Patches()


class _Convolutions(nn.Sequential):
    """forward(image_BCHW) -> (B, features): convolutions with norm and ReLU each, and the mean of all places.

    Once its norms are folded it calls functions: of so small a net, calling modules was a quarter of the time.

    Args:
        convolutions: without bias; their weights are drawn anew, of each when its turn comes.
    """

    def __init__(self, convolutions: Iterable[nn.Conv2d]) -> None:
        layers: list[nn.Module] = []
        for conv in convolutions:
            nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
            layers += [conv, nn.BatchNorm2d(conv.out_channels), nn.ReLU()]
        super().__init__(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten())

    def forward(self, image_BCHW: Tensor) -> Tensor:
        if not self.is_folded:
            return super().forward(image_BCHW)
        return _mean_of_places(self.layers(), image_BCHW)

    @property
    def is_folded(self) -> bool:
        """Whether its norms are gone."""
        return isinstance(self._modules["1"], nn.Identity)

    def layers(self) -> list["Layer"]:
        """Of each convolution."""
        found = [conv for conv in self._modules.values() if isinstance(conv, nn.Conv2d)]
        return [(conv.weight, conv.bias, conv.stride, conv.padding) for conv in found]


class _Conv3(_Convolutions):
    """Three 3x3 convolutions that halve height and width each, with 16, 32 and 64 channels."""

    def __init__(self) -> None:
        super().__init__(
            nn.Conv2d(channels, out, 3, 2, 1, bias=False) for channels, out in pairwise((3, 16, 32, 64))
        )


class _Patches(_Convolutions):
    """32 features of every patch of 4x4 pixels, 64 of every 2x2 of these; what is left over at the right and at the
    bottom is not seen. `Router.bare` computes them by `_mean_of_patches`."""

    LEAST = 8
    """Pixels along a side."""

    def __init__(self) -> None:
        super().__init__([nn.Conv2d(3, 32, 4, 4, bias=False), nn.Conv2d(32, 64, 2, 2, bias=False)])


Layer = tuple[Tensor, Tensor | None, tuple[int, ...], str | tuple[int, ...]]
"""Weight, bias, stride and padding of a convolution."""


def _bare_logits(
    features: Callable[[Sequence[Layer], Tensor], Tensor],
    layers: Sequence[Layer],
    weight: Tensor,
    bias: Tensor,
    downscale: int,
    image_BCHW: Tensor,
) -> Tensor:
    small = F.avg_pool2d(image_BCHW, downscale) if downscale > 1 else image_BCHW
    return F.linear(features(layers, small), weight, bias)


def _mean_of_places(layers: Sequence[Layer], image_BCHW: Tensor) -> Tensor:
    x = image_BCHW
    for weight, bias, stride, padding in layers:
        x = F.conv2d(x, weight, bias, stride, padding).relu_()
    # faster than a mean, and in ONNX of the convolutions' layout
    return F.avg_pool2d(x, x.shape[2:]).flatten(1)


def _mean_of_patches(layers: Sequence[Layer], image_BCHW: Tensor) -> Tensor:
    """As `_mean_of_places`; a convolution as wide as its stride is a matrix product, which a CPU is faster with."""
    x = image_BCHW
    for weight, bias, *_ in layers:
        side = weight.shape[-1]
        if x.shape[2] % side or x.shape[3] % side:
            x = x[..., : x.shape[2] // side * side, : x.shape[3] // side * side]
        x = F.conv2d(F.pixel_unshuffle(x, side), weight.reshape(len(weight), -1, 1, 1), bias).relu_()
    return F.avg_pool2d(x, x.shape[2:]).flatten(1)
