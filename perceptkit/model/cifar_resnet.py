"""CIFAR ResNets, registered with timm as cifar10_resnet8, 20, 32, 44, 56 and 110.

He, Zhang, Ren, Sun. *Deep Residual Learning for Image Recognition.* CVPR 2016, section 4.2.
https://arxiv.org/abs/1512.03385

A 3x3 convolution, then three stages of n basic blocks with 16, 32 and 64 channels at strides 1, 2 and 4:
6n + 2 layers. The shortcut of a stage transition is the paper's option A: every second pixel, zeros for the
channels that are new. It has no parameters, so skipping a transition costs nothing.

Half of the zeros are put before the channels and half after them, as in the widely used weights with these keys
(conv1, bn1, layer1.0.conv1, ..., linear). The paper does not say where they go.

BlockDrop's host and policy networks for CIFAR have these depths, but in the authors' code (Tushar-N/blockdrop,
models/base.py) that shortcut is the mean of 2x2 pixels with all zeros after the channels, and but for ResNet-32 on
CIFAR-10 pictures are not normalised; here they are, by MEAN and STD of ImageNet.

Shapes: B batch, C channels, H W pixels.
"""

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import timm
import torch
from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from torch import Tensor, nn
from torch.nn import functional as F

DEPTHS = (8, 20, 32, 44, 56, 110)
WIDTHS = (16, 32, 64)
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class OptionA(nn.Module):
    """(B, C, H, W) -> (B, C + new, H / 2, W / 2): subsampled, with channels of zeros on both sides."""

    def __init__(self, in_channels: int, new_channels: int) -> None:
        super().__init__()
        self.in_channels, self.new_channels = in_channels, new_channels

    def forward(self, x: Tensor) -> Tensor:
        before = self.new_channels // 2
        return F.pad(x[..., ::2, ::2], (0, 0, 0, 0, before, self.new_channels - before))

    def as_convolution(self) -> nn.Conv2d:
        """The same function, exactly, with weights of 0 and 1."""
        before, channels = self.new_channels // 2, self.in_channels + self.new_channels
        made = nn.Conv2d(self.in_channels, channels, 1, stride=2, bias=False).requires_grad_(False)
        made.weight.zero_()
        made.weight[before : before + self.in_channels, :, 0, 0] = torch.eye(self.in_channels)
        return made


def convolved_shortcuts(network: nn.Module) -> None:
    """Makes convolutions of the parameter-free shortcuts, in place, for programs that run those faster.

    Slicing and padding break onnxruntime's layout for convolutions (NCHWc): of a ResNet-32 they took 4 % of the time.
    """
    for module in list(network.modules()):
        for name, child in module.named_children():
            if isinstance(child, OptionA):
                setattr(module, name, child.as_convolution())


Shortcut: TypeAlias = Callable[[int, int], nn.Module]
"""Makes the shortcut of a block that grows, from its input channels and the number of new ones."""


class BasicBlock(nn.Module):
    """Two 3x3 convolutions, and a relu after the sum; one that adds channels halves height and width."""

    def __init__(self, in_channels: int, channels: int, shortcut: Shortcut = OptionA) -> None:
        super().__init__()
        grows = channels != in_channels
        stride = 2 if grows else 1
        self.conv1 = nn.Conv2d(in_channels, channels, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.downsample = shortcut(in_channels, channels - in_channels) if grows else None

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x if self.downsample is None else self.downsample(x)
        y = F.relu(self.bn1(self.conv1(x)))
        return F.relu(self.bn2(self.conv2(y)) + shortcut)


class CifarResNet(nn.Module):
    """The part of timm's model interface that perceptkit and `timm.create_model` need.

    Args:
        depth: 6n + 2.
        num_classes: 0 for no classifier.
        in_chans: of the image.
        stem: channels of the first convolution.
        widths: channels of the stages; one that begins with more than it is given halves height and width.
        shortcut: of the blocks that do.
    """

    def __init__(
        self,
        depth: int,
        num_classes: int = 10,
        in_chans: int = 3,
        stem: int = WIDTHS[0],
        widths: tuple[int, int, int] = WIDTHS,
        shortcut: Shortcut = OptionA,
    ) -> None:
        super().__init__()
        blocks, rest = divmod(depth - 2, 6)
        if rest or blocks < 1:
            raise ValueError(f"depth {depth} is not 6n + 2")
        self.num_classes, self.num_features = num_classes, widths[-1]
        self.conv1 = nn.Conv2d(in_chans, stem, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(stem)
        self.act1: nn.Module = nn.ReLU()
        self.layer1 = _stage(stem, widths[0], blocks, shortcut)
        self.layer2 = _stage(widths[0], widths[1], blocks, shortcut)
        self.layer3 = _stage(widths[1], widths[2], blocks, shortcut)
        first = 2 if widths[0] != stem else 1
        self.feature_info = [
            {"num_chs": width, "reduction": first * 2**i, "module": f"layer{i + 1}"}
            for i, width in enumerate(widths)
        ]
        self.linear: nn.Module = nn.Identity()
        self.reset_classifier(num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                nn.init.kaiming_normal_(module.weight)

    def get_classifier(self) -> nn.Module:
        """The last layer."""
        return self.linear

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """A new last layer; none for 0 classes. Pooling is always the mean."""
        self.num_classes = num_classes
        self.linear = nn.Linear(self.num_features, num_classes) if num_classes else nn.Identity()

    def forward_features(self, image_BCHW: Tensor) -> Tensor:
        """(B, 64, H / 4, W / 4), as the default widths have it."""
        x = self.act1(self.bn1(self.conv1(image_BCHW)))
        return self.layer3(self.layer2(self.layer1(x)))

    def forward_intermediates(
        self,
        x: Tensor,
        indices: int | Sequence[int] | None = None,
        norm: bool = False,
        stop_early: bool = False,
        output_fmt: str = "NCHW",
        intermediates_only: bool = False,
    ) -> Any:
        """What each stage gives, or the stages of `indices`; the last ones where it is a number."""
        if output_fmt != "NCHW":
            raise ValueError("the features are NCHW maps")
        maps, x = [], self.act1(self.bn1(self.conv1(x)))
        for stage in (self.layer1, self.layer2, self.layer3):
            x = stage(x)
            maps.append(x)
        if isinstance(indices, int):
            maps = maps[-indices:]
        elif indices is not None:
            maps = [maps[i] for i in indices]
        return maps if intermediates_only else (x, maps)

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """Mean over the map, then the classifier."""
        pooled = x.mean((2, 3))
        return pooled if pre_logits else self.linear(pooled)

    def forward(self, image_BCHW: Tensor) -> Tensor:
        return self.forward_head(self.forward_features(image_BCHW))


def _stage(in_channels: int, channels: int, blocks: int, shortcut: Shortcut) -> nn.Sequential:
    return nn.Sequential(
        BasicBlock(in_channels, channels, shortcut),
        *(BasicBlock(channels, channels) for _ in range(blocks - 1)),
    )


default_cfgs = generate_default_cfgs(
    {
        f"cifar10_resnet{depth}": {
            "url": "", "num_classes": 10, "input_size": (3, 32, 32), "pool_size": (8, 8), "crop_pct": 1.0,
            "interpolation": "bilinear", "mean": MEAN, "std": STD, "first_conv": "conv1",
            "classifier": "linear", "license": "apache-2.0",
        }
        for depth in DEPTHS
    }
)  # fmt: skip
"""Read by timm when the models are registered."""


def register() -> None:
    """Makes the models known to timm, once: `timm.create_model("cifar10_resnet20")`."""
    for depth in DEPTHS:
        if not timm.is_model(f"cifar10_resnet{depth}"):
            register_model(_entry(depth))


def _entry(depth: int) -> Callable[..., nn.Module]:
    name = f"cifar10_resnet{depth}"

    def create(pretrained: bool = False, **kwargs: Any) -> nn.Module:
        return build_model_with_cfg(
            CifarResNet, name, pretrained, depth=depth, feature_cfg={"out_indices": (0, 1, 2)}, **kwargs
        )

    create.__name__ = name  # timm registers functions by their name
    return create


register()
