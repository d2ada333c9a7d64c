"""The heads: a convolutional one for maps, linear ones for answers about the whole picture.

Shapes: B batch, C channels, h w pixels at stride 4.
"""

from torch import Tensor, nn
from torch.nn import functional as F


class DenseHead(nn.Module):
    """conv3x3 - BatchNorm - ReLU - conv1x1: (B, in_channels, h, w) -> (B, out_channels, h, w) logits.

    Args:
        in_channels: channels of the neck's map, and of the hidden one.
        out_channels: channels of the output.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        # BatchNorm has its own shift, so this bias could never change anything
        self.conv = nn.Conv2d(in_channels, in_channels, kernel_size=3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(in_channels)
        self.relu = nn.ReLU(inplace=True)
        self.predict = nn.Conv2d(in_channels, out_channels, kernel_size=1)

    def forward(self, feature_BChw: Tensor) -> Tensor:
        logits_BChw: Tensor = self.predict(self.relu(self.norm(self.conv(feature_BChw))))
        return logits_BChw


class GlobalHead(nn.Module):
    """One linear layer on pooled features: (B, in_channels) -> (B, out_channels) logits."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.predict = nn.Linear(in_channels, out_channels)

    def forward(self, feature_BC: Tensor) -> Tensor:
        logits_BC: Tensor = self.predict(feature_BC)
        return logits_BC


class EmbeddingHead(GlobalHead):
    """One linear layer, then divided by the norm: (B, in_channels) -> (B, out_channels) of length 1."""

    def forward(self, feature_BC: Tensor) -> Tensor:
        vector_BC = super().forward(feature_BC)
        # a sum of squares leaves the range of float16 soon
        return F.normalize(vector_BC.float(), dim=1).to(vector_BC.dtype)
