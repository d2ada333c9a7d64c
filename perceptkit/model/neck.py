"""A light feature pyramid: features at several strides -> one map at stride 4 for the dense heads.

Lin et al., *Feature Pyramid Networks for Object Detection*, CVPR 2017, https://arxiv.org/abs/1612.03144:
a 1x1 lateral convolution per stride, summed from coarse to fine. Here one 3x3 convolution smooths the
finest sum, the only one that the heads read. Trunks without a feature at stride 4, as plain ViTs, get the
simple pyramid of ViTDet (Li et al., ECCV 2022, https://arxiv.org/abs/2203.16527): transposed convolutions,
each of stride 2, lead from the finest feature to stride 4.

Shapes: B batch, C channels, h w pixels of a feature map.
"""

from collections.abc import Sequence
from math import log2

from torch import Tensor, nn
from torch.nn import functional as F

FINEST = 4
"""Stride of the neck's output."""


class Neck(nn.Module):
    """Features from fine to coarse -> (B, channels, H / 4, W / 4).

    Args:
        in_channels: channels of each feature, fine to coarse.
        channels: width of the pyramid.
        finest: stride of the first feature.
    """

    def __init__(self, in_channels: Sequence[int], channels: int, finest: int = FINEST) -> None:
        super().__init__()
        self.lateral = nn.ModuleList(nn.Conv2d(c, channels, 1, bias=False) for c in in_channels)
        self.norm = nn.ModuleList(nn.BatchNorm2d(channels) for _ in in_channels)
        self.rise = nn.Sequential()
        for _ in range(round(log2(finest / FINEST))):
            up = nn.ConvTranspose2d(channels, channels, 2, stride=2, bias=False)
            self.rise.extend([up, nn.BatchNorm2d(channels), nn.ReLU()])
        self.smooth = nn.Sequential(
            nn.Conv2d(channels, channels, 3, padding=1, bias=False), nn.BatchNorm2d(channels), nn.ReLU()
        )

    def forward(self, features: Sequence[Tensor], size_HW: tuple[int, int]) -> Tensor:
        """`size_HW` is the network input's; the output has a quarter of it, rounded up."""
        top: Tensor | None = None
        for feature, lateral, norm in reversed(list(zip(features, self.lateral, self.norm, strict=True))):
            x = norm(lateral(feature))
            if top is not None:
                x = x + F.interpolate(top, size=x.shape[-2:], mode="bilinear", align_corners=False)
            top = x
        assert top is not None
        top = self.rise(top)
        height, width = -(-size_HW[0] // FINEST), -(-size_HW[1] // FINEST)
        if top.shape[-2:] != (height, width):  # patches of 14, or sizes that strides do not divide
            top = F.interpolate(top, size=(height, width), mode="bilinear", align_corners=False)
        return self.smooth(top)
