"""ResNet-26: the counts that its papers state, and blocks that can all be skipped."""

import pytest
import timm
import torch
from torch import nn

from perceptkit.model.cost import measured_macs
from perceptkit.model.decathlon_resnet import NAME, PooledShortcut, register
from perceptkit.model.plan import Plan
from perceptkit.model.weights import backbone_names, create_backbone
from perceptkit.spec.recipe import BackboneSpec
from tests.model.conftest import make_net

SIZE = (64, 64)


def make(**args):
    register()
    register()  # a second time changes nothing, and timm does not warn
    return timm.create_model(NAME, **args)


def test_shortcut_by_hand():
    x = torch.tensor([[1.0, 3, 5], [1, 3, 7], [2, 4, 8]]).view(1, 1, 3, 3)
    means = [[2.0, 6.0], [3.0, 8.0]]  # the odd column and row stand for themselves
    assert torch.equal(PooledShortcut(1, 2)(x)[0], torch.tensor([means, [[0.0] * 2] * 2, [[0.0] * 2] * 2]))


def test_size_of_the_paper():
    model = make(num_classes=0)
    convolutions = [m for m in model.modules() if isinstance(m, nn.Conv2d)]
    norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
    assert len(convolutions) == 25
    assert sum(m.weight.numel() for m in convolutions) == 5_806_944
    assert sum(m.num_features for m in norms) == 3872
    assert NAME in backbone_names("decathlon*")


@pytest.mark.parametrize(("pixels", "flops"), [(64, 1.71e9), (72, 2.16e9)])
def test_flops(pixels, flops):
    """Two per MAC of convolutions and of the classifier."""
    with torch.device("meta"):
        model, image = make(), torch.zeros(1, 3, pixels, pixels)
    assert 2 * measured_macs(lambda: model(image)) == pytest.approx(flops, rel=3e-3)


def test_no_relu_after_the_stem_and_one_at_the_end():
    model, seen = make(num_classes=5).eval(), []
    model.layer1[0].register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    features = model.forward_features(torch.randn(2, 3, *SIZE))
    assert seen[0].min() < 0 and features.min() == 0 and features.shape == (2, 256, 8, 8)


def test_every_block_can_be_skipped():
    net = make_net(NAME, SIZE)
    assert [block.kind for block in net.blocks] == ["shortcut", "identity", "identity", "identity"] * 3
    assert [(block.stride, block.channels) for block in net.blocks[::4]] == [(2, 64), (4, 128), (8, 256)]


@torch.no_grad()
def test_all_blocks_are_the_models_own_forward():
    net = make_net(NAME, SIZE)
    model = create_backbone(BackboneSpec(name=NAME, weights="none"), SIZE).eval()
    model.load_state_dict(net.backbone.state_dict())
    seen = []
    net.backbone.act.register_forward_hook(lambda module, args, output: seen.append(output))
    image = torch.randn(2, 3, *SIZE)
    net(image, Plan.all_keep(list(net.tasks), [block.name for block in net.blocks]))
    assert torch.equal(seen[0], model.forward_features(image))


def test_intermediates_are_those_of_the_stages():
    model, image = make(num_classes=7).eval(), torch.randn(1, 3, 72, 72)
    last, maps = model.forward_intermediates(image)
    assert [tuple(m.shape[1:]) for m in maps] == [(64, 36, 36), (128, 18, 18), (256, 9, 9)]
    assert [info["reduction"] for info in model.feature_info] == [2, 4, 8]
    assert torch.equal(last, model.forward_features(image)) and model(image).shape == (1, 7)


def test_spottune_s_router_is_one_block_in_each_stage():
    """As in the released code: 1.16 M convolution weights, a fifth of the host's MACs."""
    router, host = make(num_classes=24, depth=8).eval(), make(num_classes=0).eval()
    convolutions = [m for m in router.modules() if isinstance(m, nn.Conv2d)]
    assert sum(m.weight.numel() for m in convolutions) == pytest.approx(1.16e6, rel=0.01)
    image = torch.zeros(1, 3, *SIZE)
    share = measured_macs(lambda: router(image)) / measured_macs(lambda: host(image))
    assert share == pytest.approx(0.20, abs=0.01)
