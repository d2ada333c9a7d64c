"""u + A BN(u), and what it folds to."""

import pytest
import torch
from torch import nn

from perceptkit.baselines.adaptation.series_adapter import Adapted
from perceptkit.baselines.adaptation.table import build_strategy
from perceptkit.errors import SpecError
from perceptkit.model.layers import spatial_convs
from tests.baselines.adaptation.conftest import adaptation, all_keep, answer, begun, disturb, domain
from tests.baselines.adaptation.resnet26 import ResNet26, count


def one_pixel(bias=False):
    """One channel, one pixel: u = 2 x (+ 1), BN(u) = 3 (u - 1) / 2 + 5, A = 10."""
    adapted = Adapted(nn.Conv2d(1, 1, 1, bias=bias)).eval()
    adapted.conv.weight.data.fill_(2.0)
    if bias:
        adapted.conv.bias.data.fill_(1.0)
    adapted.norm.eps = 0.0
    adapted.norm.running_mean.fill_(1.0)
    adapted.norm.running_var.fill_(4.0)
    adapted.norm.weight.data.fill_(3.0)
    adapted.norm.bias.data.fill_(5.0)
    adapted.adapter.weight.data.fill_(10.0)
    return adapted


def test_by_hand():
    # u = 6; BN(u) = 3 * 5 / 2 + 5 = 12.5; u + 10 * 12.5
    assert one_pixel()(torch.full((1, 1, 1, 1), 3.0)).item() == 131.0


@pytest.mark.parametrize("bias", [False, True])
def test_folded_by_hand(bias):
    conv, b = one_pixel(bias).folded()
    # s = 1.5, t = 3.5: W' = (1 + 10 * 1.5) * 2, b' = 10 * 3.5 (+ 16 * 1)
    assert conv.weight.item() == 32.0 and b.item() == (51.0 if bias else 35.0)


@pytest.mark.parametrize("groups", [1, 2, 4])
def test_folding_is_exact(groups):
    adapted = Adapted(nn.Conv2d(4, 8, 3, 2, 1, groups=groups)).double().eval()
    x = torch.randn(2, 4, 7, 7).double()
    adapted.norm.running_var.uniform_(0.5, 2.0)
    for values in (adapted.norm.running_mean, adapted.norm.weight.data, adapted.norm.bias.data):
        values.normal_()
    nn.init.normal_(adapted.adapter.weight)
    expected = adapted(x)
    conv, bias = adapted.folded()
    conv.bias = nn.Parameter(bias)
    torch.testing.assert_close(conv(x), expected)


def test_size_of_the_paper():
    """As parallel adapters, and a norm of its own for every convolution."""
    trunk = ResNet26()
    whole, spatial = count(trunk.parameters()), spatial_convs(trunk)
    adapters = sum(conv.out_channels**2 for conv in spatial.values())
    assert count(Adapted(spatial["conv1"]).adapter.parameters()) == 32**2
    assert adapters / whole == pytest.approx(0.1185, abs=1e-4)


@pytest.mark.parametrize("name", ["resnetv2_18", "resnet18 without a norm"])
def test_a_convolution_without_a_place_for_the_shift_is_refused(name):
    net = domain(name.split()[0])
    if name.startswith("resnet18"):
        net.backbone.layer1[0].bn1 = nn.Identity()
    with pytest.raises(SpecError, match="cannot be folded into .*: no norm .*; use parallel_adapter"):
        build_strategy(adaptation("series_adapter")).begin(net, all_keep(net))


def test_a_network_with_layernorms_keeps_its_keys():
    strategy, net, plan = begun("series_adapter", "convnext_atto")
    disturb(net)
    expected = answer(net, plan)
    strategy.fold(net)
    torch.testing.assert_close(answer(net, plan), expected, rtol=1e-5, atol=1e-5)
    assert [*net.state_dict()] == [*domain("convnext_atto").state_dict()]
