"""u + A BN(u), and what it folds to."""

import pytest
import torch
from torch import nn

from perceptkit.baselines.adaptation.series_adapter import Adapted
from perceptkit.baselines.adaptation.table import build_strategy
from tests.baselines.adaptation.conftest import adaptation, answer, begun, disturb, domain
from tests.baselines.adaptation.resnet26 import Trunk, count, learned


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
    net = Trunk()
    whole = count(net.backbone.parameters())
    build_strategy(adaptation("series_adapter")).begin(net, None)
    assert 0.10 < learned(net) / whole < 0.13


def test_a_convolution_whose_output_no_norm_reads_alone_gets_a_bias():
    net = domain()
    net.backbone.layer1[0].bn1 = nn.Identity()
    strategy = build_strategy(adaptation("series_adapter"))
    plan = begun("finetune")[2]
    strategy.begin(net, plan)
    disturb(net)
    expected = answer(net.eval(), plan)
    strategy.fold(net)
    assert torch.allclose(answer(net, plan), expected, rtol=1e-4, atol=1e-5)
    assert [key for key in net.backbone.state_dict() if "conv" in key and "bias" in key] == [
        "layer1.0.conv1.bias"
    ]


def test_a_network_with_layernorms_keeps_its_keys():
    strategy, net, plan = begun("series_adapter", "convnext_atto")
    disturb(net)
    expected = answer(net, plan)
    strategy.fold(net)
    torch.testing.assert_close(answer(net, plan), expected, rtol=1e-5, atol=1e-5)
    assert [*net.state_dict()] == [*domain("convnext_atto").state_dict()]
