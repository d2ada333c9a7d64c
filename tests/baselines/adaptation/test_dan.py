"""New filters are combinations of the fixed ones."""

import pytest
import torch
from torch import nn

from perceptkit.baselines.adaptation.dan import Controller
from perceptkit.baselines.adaptation.table import build_strategy
from perceptkit.model import parametrized
from tests.baselines.adaptation.conftest import adaptation
from tests.baselines.adaptation.resnet26 import Trunk


def test_combination_by_hand():
    weight = torch.tensor([[1.0, 2.0], [10.0, 20.0]]).view(2, 2, 1, 1)
    controller = Controller(weight, groups=1)
    assert torch.equal(controller(weight), weight)
    controller.control.data.copy_(torch.tensor([[[-1.0, 1.0], [3.0, -2.0]]]))
    assert controller(weight).flatten().tolist() == [10.0, 20.0, -7.0, -14.0]


def test_groups_are_combined_among_themselves():
    conv = nn.Conv2d(4, 6, 3, groups=2)
    controller = Controller(conv.weight, conv.groups)
    assert controller.control.shape == (2, 3, 3)
    nn.init.normal_(controller.control)
    expected = torch.block_diag(*(torch.eye(3) + controller.control)) @ conv.weight.flatten(1)
    torch.testing.assert_close(controller(conv.weight).flatten(1), expected)


def test_depthwise_is_a_scale_per_channel():
    assert Controller(nn.Conv2d(4, 4, 3, groups=4).weight, 4).control.shape == (4, 1, 1)


def test_size_of_the_paper():
    net = Trunk()
    sizes = {name: m.weight.numel() for name, m in net.backbone.named_modules() if isinstance(m, nn.Conv2d)}
    build_strategy(adaptation("dan")).begin(net, None)
    share = {
        name: controller.control.numel() / sizes[name]
        for name, controller in parametrized.learned_through(net.backbone, Controller)
    }
    assert share.keys() == sizes.keys()
    assert share["blocks.1.conv1"] == pytest.approx(0.11, abs=2e-3)
    assert share["blocks.4.conv1"] == pytest.approx(0.22, abs=3e-3)
