"""W' = W with A in its centre, which is a 1x1 convolution beside it."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from perceptkit.baselines.adaptation.table import build_strategy
from perceptkit.errors import SpecError
from perceptkit.model import parametrized
from perceptkit.model.updates import CentreTap
from tests.baselines.adaptation.conftest import adaptation, begun
from tests.baselines.adaptation.resnet26 import Trunk, count, learned


def test_centre_tap_by_hand():
    tap = CentreTap(torch.zeros(1, 1, 3, 3))
    tap.adapter.data.fill_(5.0)
    expected = torch.ones(3, 3)
    expected[1, 1] = 6.0
    assert torch.equal(tap(torch.ones(1, 1, 3, 3))[0, 0], expected)


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize(
    ("groups", "kernel", "dilation"), [(1, 3, 1), (2, 3, 1), (4, 5, 1), (1, 7, 1), (1, 3, 2)]
)
def test_is_a_1x1_convolution_beside_it(stride, groups, kernel, dilation):
    padding = dilation * (kernel // 2)
    conv = nn.Conv2d(4, 8, kernel, stride, padding, dilation, groups).double()
    x, plain = torch.randn(2, 4, 9, 10).double(), conv.weight.detach().clone()
    parametrized.learn_through(conv, tap := CentreTap(conv.weight))
    nn.init.normal_(tap.adapter)
    beside = F.conv2d(x, tap.adapter[:, :, None, None], stride=stride, groups=groups)
    alone = F.conv2d(x, plain, conv.bias, stride, padding, dilation, groups)
    torch.testing.assert_close(conv(x), alone + beside)


def test_size_of_the_paper():
    net = Trunk()
    whole = count(net.backbone.parameters())
    build_strategy(adaptation("parallel_adapter")).begin(net, None)
    assert (learned(net), whole) == (645_216, 5_814_688)
    assert learned(net) / whole == pytest.approx(0.111, abs=1e-3)


def test_depthwise_convolutions_get_one_scale_per_channel_and_1x1_none():
    _, net, _ = begun("parallel_adapter", "tf_efficientnet_lite0")
    adapters = dict(parametrized.learned_through(net.backbone, CentreTap))
    assert adapters["blocks.1.0.conv_dw"].adapter.shape == (96, 1)
    assert adapters["conv_stem"].adapter.shape == (32, 3)
    assert not any("conv_pw" in name for name in adapters)


def test_convnext_has_adapters_in_its_blocks_and_none_where_patches_are_cut():
    _, net, _ = begun("parallel_adapter", "convnext_atto")
    names = [name for name, _ in parametrized.learned_through(net.backbone, CentreTap)]
    assert len(names) == 4 and all(name.endswith("conv_dw") for name in names)


@pytest.mark.parametrize("method", ["parallel_adapter", "series_adapter"])
def test_a_plain_vit_is_refused(method):
    with pytest.raises(SpecError, match=f"{method} puts an adapter .* use finetune, .*bn"):
        begun(method, "vit_tiny_patch16_224")
