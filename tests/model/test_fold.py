"""Folded BatchNorm computes the same, and what must not be folded is left alone."""

import torch
from timm.layers import BatchNormAct2d, convert_sync_batchnorm
from torch import nn

from perceptkit.model.conv_bn import conv_bn_pairs
from perceptkit.model.fold import fold_batchnorm


def randomise(network: nn.Module) -> nn.Module:
    generator = torch.Generator().manual_seed(0)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            for values in (module.weight.data, module.running_var):
                values.copy_(torch.rand(values.shape, generator=generator) + 0.5)
            for values in (module.bias.data, module.running_mean):
                values.copy_(torch.randn(values.shape, generator=generator))
    return network.eval()


def test_conv_bn_by_hand():
    network = nn.Sequential(nn.Conv2d(1, 1, 1, bias=False), nn.BatchNorm2d(1, eps=0.0)).eval()
    network[0].weight.data.fill_(2.0)
    network[1].running_mean.fill_(1.0)
    network[1].running_var.fill_(4.0)
    network[1].weight.data.fill_(3.0)
    network[1].bias.data.fill_(5.0)
    assert fold_batchnorm(network, torch.ones(1, 1, 2, 2)) == 1
    assert network[0].weight.item() == 3.0 and network[0].bias.item() == 3.5  # 2*3/2 ; 5 - 1*3/2
    assert isinstance(network[1], nn.Identity)


def test_network_with_activation_norms_is_the_same():
    network = randomise(
        nn.Sequential(nn.Conv2d(3, 8, 3), BatchNormAct2d(8), nn.Conv2d(8, 8, 3, groups=8), nn.BatchNorm2d(8))
    )
    image = torch.randn(2, 3, 12, 12)
    before = network(image)
    assert fold_batchnorm(network, image) == 2
    torch.testing.assert_close(network(image), before, rtol=1e-5, atol=1e-5)
    assert not any(isinstance(m, nn.BatchNorm2d) for m in network.modules())


class Fork(nn.Module):
    """The convolution's output goes to two norms: neither can be folded."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.a, self.b = nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.BatchNorm2d(4)

    def forward(self, x):
        y = self.conv(x)
        return self.a(y) + self.b(y)


def test_a_fork_is_not_folded():
    assert conv_bn_pairs(randomise(Fork()), torch.randn(1, 3, 4, 4)) == []


class PreActivation(nn.Module):
    """The convolution's output goes to the norm and around it."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)

    def forward(self, x):
        y = self.conv(x)
        return y + self.norm(y)


def test_what_a_shortcut_reads_too_is_not_folded():
    assert conv_bn_pairs(randomise(PreActivation()), torch.randn(1, 3, 4, 4)) == []


def test_pre_activation_norm_is_not_folded():
    network = randomise(nn.Sequential(nn.BatchNorm2d(3), nn.Conv2d(3, 4, 1), nn.ReLU(), nn.BatchNorm2d(4)))
    assert conv_bn_pairs(network, torch.randn(1, 3, 4, 4)) == []


def test_a_convolution_that_an_activation_overwrote_is_not_folded():
    """In place, the tensor that the norm gets is the one that the convolution gave, with other values."""
    network = randomise(nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU(inplace=True), nn.BatchNorm2d(4)))
    assert conv_bn_pairs(network, torch.randn(1, 3, 4, 4)) == []


def test_a_norm_that_is_called_twice_is_folded_if_its_convolution_is():
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.norm = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)

        def forward(self, x):
            return self.norm(self.conv(self.norm(self.conv(x))))

    network, image = randomise(Twice()), torch.randn(1, 3, 4, 4)
    before = network(image)
    assert fold_batchnorm(network, image) == 1
    torch.testing.assert_close(network(image), before, rtol=1e-5, atol=1e-5)


def test_transposed_convolutions_are_folded_unless_grouped():
    image = torch.randn(2, 4, 3, 3)
    for groups in (1, 2):
        up = nn.ConvTranspose2d(4, 6, 2, stride=2, groups=groups, bias=False)
        network = randomise(nn.Sequential(up, nn.BatchNorm2d(6)))
        before = network(image)
        assert fold_batchnorm(network, image) == (groups == 1)
        torch.testing.assert_close(network(image), before, rtol=1e-5, atol=1e-5)


def test_norms_of_several_ranks_are_folded():
    network = nn.Sequential(nn.Conv2d(3, 4, 1), BatchNormAct2d(4), nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4))
    network = convert_sync_batchnorm(randomise(network))
    image = torch.randn(2, 3, 4, 4)
    before = network(image)
    assert fold_batchnorm(network, image) == 2
    torch.testing.assert_close(network(image), before, rtol=1e-5, atol=1e-5)
    assert isinstance(network[1], nn.ReLU) and isinstance(network[3], nn.Identity)
