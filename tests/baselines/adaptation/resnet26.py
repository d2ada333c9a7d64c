"""ResNet-26 of Rebuffi et al., as far as its layers go: the papers' percentages are of this network."""

from torch import nn


class Block(nn.Module):
    """Two 3x3 convolutions; the shortcut has no parameters."""

    def __init__(self, in_channels, channels):
        super().__init__()
        stride = channels // in_channels
        self.conv1 = nn.Conv2d(in_channels, channels, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)


class ResNet26(nn.Module):
    """A stem and three stages of four blocks; not meant to be run."""

    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 32, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(32)
        widths = [32] + [64] * 4 + [128] * 4 + [256] * 4
        self.blocks = nn.Sequential(*(Block(a, b) for a, b in zip(widths, widths[1:], strict=False)))
        self.end_bn = nn.BatchNorm2d(256)


class Trunk:
    """What strategies that look at the trunk alone need of a supernet."""

    def __init__(self):
        self.backbone = ResNet26()


def count(parameters):
    return sum(p.numel() for p in parameters)


def learned(net, without_norms=True):
    """Parameters that learn."""
    of_norms = {
        id(p) for m in net.backbone.modules() if isinstance(m, nn.BatchNorm2d) for p in m.parameters()
    }
    return count(
        p for p in net.backbone.parameters() if p.requires_grad and not (without_norms and id(p) in of_norms)
    )
