"""CIFAR ResNets: the published weights fit, the shortcuts without parameters can be skipped to."""

import os
from pathlib import Path

import pytest
import timm
import torch

from perceptkit.errors import SpecError
from perceptkit.model.cifar_resnet import DEPTHS, OptionA, convolved_shortcuts, register
from perceptkit.model.cost import measured_macs
from perceptkit.model.weights import create_backbone
from perceptkit.spec.recipe import BackboneSpec
from tests.model.conftest import make_net

SIZE = (32, 32)
WEIGHTS = Path(os.environ.get("PERCEPTKIT_WEIGHTS", Path(__file__).parents[3] / "shared/data/weights"))


def test_option_a_by_hand():
    x = torch.arange(8.0).view(1, 2, 2, 2)
    assert torch.equal(OptionA(2, 2)(x).flatten(), torch.tensor([0.0, 0, 4, 0]))


@pytest.mark.parametrize(
    ("depth", "params"), [(8, 0.08), (20, 0.27), (32, 0.46), (44, 0.66), (56, 0.85), (110, 1.7)]
)
def test_registered_with_the_size_of_the_paper(depth, params):
    register()
    register()  # a second time changes nothing, and timm does not warn
    model = timm.create_model(f"cifar10_resnet{depth}")
    assert sum(p.numel() for p in model.parameters()) / 1e6 == pytest.approx(params, abs=0.03)
    assert sum(isinstance(m, torch.nn.Conv2d | torch.nn.Linear) for m in model.modules()) == depth


@pytest.mark.parametrize(
    ("depth", "outputs", "flops"),
    [(32, 10, 1.377e8), (110, 10, 5.058e8), (8, 15, 2.45e7), (8, 54, 2.45e7)],
)
def test_flops_of_blockdrops_hosts_and_policy_nets(depth, outputs, flops):
    """As its authors count: two per MAC of convolutions and linear layers. Their shortcut is an average pool
    with zeros for new channels, ours subsamples: neither has any, so the figures are the same."""
    register()
    with torch.device("meta"):
        model, image = (
            timm.create_model(f"cifar10_resnet{depth}", num_classes=outputs),
            torch.zeros(1, 3, *SIZE),
        )
    assert 2 * measured_macs(lambda: model(image)) == pytest.approx(flops, rel=1e-3)


@pytest.mark.parametrize("depth", DEPTHS)
def test_every_block_can_be_skipped(depth):
    net = make_net(f"cifar10_resnet{depth}", SIZE)
    kinds = [block.kind for block in net.blocks]
    assert (kinds.count("identity"), kinds.count("shortcut")) == ((depth - 2) // 2 - 2, 2)
    assert [(step.stride, step.channels) for step in net.steps[-1:]] == [(4, 64)]


@pytest.mark.parametrize("depth", [20, 32, 44, 56])
def test_published_weights_fit(depth):
    path = WEIGHTS / f"cifar10_resnet{depth}.safetensors"
    if not path.is_file():
        pytest.skip(f"no {path.name}: set PERCEPTKIT_WEIGHTS to the folder that holds it")
    from safetensors.torch import load_file

    register()
    timm.create_model(f"cifar10_resnet{depth}").load_state_dict(load_file(path))  # strict, linear included
    model = create_backbone(BackboneSpec(name=f"cifar10_resnet{depth}", weights=str(path)), SIZE)
    assert torch.equal(model.conv1.weight, load_file(path)["conv1.weight"])


def test_intermediates_and_head():
    register()
    model = timm.create_model("cifar10_resnet20", num_classes=7).eval()
    image = torch.randn(1, 3, *SIZE)
    last, maps = model.forward_intermediates(image)
    assert [tuple(m.shape[1:]) for m in maps] == [(16, 32, 32), (32, 16, 16), (64, 8, 8)]
    assert torch.equal(last, model.forward_features(image)) and model(image).shape == (1, 7)
    assert torch.equal(model.forward_intermediates(image, indices=1, intermediates_only=True)[0], maps[2])
    assert model.get_classifier().out_features == 7


def test_timm_has_no_pretrained_weights_for_them():
    with pytest.raises(SpecError, match="set backbone.weights to a safetensors file"):
        create_backbone(BackboneSpec(name="cifar10_resnet20", weights="pretrained"), SIZE)


def test_a_shortcut_is_a_convolution_exactly():
    x = torch.randn(2, 4, 8, 6)
    shortcut = OptionA(4, 4)
    assert torch.equal(shortcut.as_convolution()(x), shortcut(x))
    model = timm.create_model("cifar10_resnet20", num_classes=10).eval()
    image = torch.randn(1, 3, 32, 32)
    with torch.no_grad():
        expected = model(image)
        convolved_shortcuts(model)
        assert not any(isinstance(module, OptionA) for module in model.modules())
        torch.testing.assert_close(model(image), expected)
