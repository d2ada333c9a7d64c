"""The ResNet-26 of the Visual Decathlon, registered with timm as decathlon_resnet26.

Rebuffi, Bilen, Vedaldi. *Efficient parametrization of multi-domain deep neural networks.* CVPR 2018.
https://arxiv.org/abs/1803.10082

The host of residual adapters and of SpotTune. A 3x3 convolution with 32 channels and no relu after its norm; three
stages of four basic blocks with 64, 128 and 256 channels, each beginning with stride 2; a norm and a relu before the
classifier. The shortcut of a stage transition is the mean of 2 x 2 pixels, and zeros for the channels that are new.

It was made for pictures whose shorter side has 72 pixels: trained on crops of 64, tested on 72.

Shapes: B batch, C channels, H W pixels.
"""

from typing import Any

import timm
from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from torch import Tensor, nn
from torch.nn import functional as F

from perceptkit.model.cifar_resnet import MEAN, STD, CifarResNet

NAME = "decathlon_resnet26"
STEM, WIDTHS, DEPTH = 32, (64, 128, 256), 26


class PooledShortcut(nn.Module):
    """(B, C, H, W) -> (B, C + new, H / 2, W / 2), rounded up: means, with channels of zeros after them."""

    def __init__(self, in_channels: int, new_channels: int) -> None:
        super().__init__()
        self.new_channels = new_channels

    def forward(self, x: Tensor) -> Tensor:
        # where a side is odd the last mean is of what there is: the 3x3 convolution beside it rounds up too
        pooled = F.avg_pool2d(x, 2, ceil_mode=True, count_include_pad=False)
        return F.pad(pooled, (0, 0, 0, 0, 0, self.new_channels))


class DecathlonResNet(CifarResNet):
    """See the module's docstring. `num_classes` of 0 leaves the classifier out; `in_chans` are the image's.

    `depth` is 6 n + 2 for n blocks in each stage; 8 gives SpotTune's own router.
    """

    def __init__(self, num_classes: int = 1000, in_chans: int = 3, depth: int = DEPTH) -> None:
        super().__init__(depth, num_classes, in_chans, STEM, WIDTHS, PooledShortcut)
        self.act1 = nn.Identity()
        self.norm = nn.BatchNorm2d(WIDTHS[-1])
        self.act = nn.ReLU()

    def forward_features(self, image_BCHW: Tensor) -> Tensor:
        """(B, 256, H / 8, W / 8)."""
        return self.act(self.norm(super().forward_features(image_BCHW)))

    def forward_intermediates(self, x: Tensor, *args: Any, **kwargs: Any) -> Any:
        """What each stage gives, before the last norm; arguments as for CifarResNet."""
        found = super().forward_intermediates(x, *args, **kwargs)
        return (self.act(self.norm(found[0])), found[1]) if isinstance(found, tuple) else found


default_cfgs = generate_default_cfgs(
    {
        NAME: {
            "url": "", "num_classes": 1000, "input_size": (3, 72, 72), "pool_size": (9, 9), "crop_pct": 1.0,
            "interpolation": "bilinear", "mean": MEAN, "std": STD, "first_conv": "conv1",
            "classifier": "linear", "license": "apache-2.0",
        }
    }
)  # fmt: skip
"""Read by timm when the model is registered."""


def register() -> None:
    """Makes the model known to timm, once: `timm.create_model("decathlon_resnet26")`."""
    if not timm.is_model(NAME):
        register_model(decathlon_resnet26)


def decathlon_resnet26(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """The model, as timm makes it; there are no weights that timm could load."""
    return build_model_with_cfg(
        DecathlonResNet, NAME, pretrained, feature_cfg={"out_indices": (0, 1, 2)}, **kwargs
    )


register()
