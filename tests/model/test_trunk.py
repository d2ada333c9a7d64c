"""The chain of steps equals timm's own forward, and what it calls a block can be skipped."""

import copy
import pickle

import pytest
import timm
import torch

from perceptkit.model.trunk import find_steps, run_part, shared_inputs
from tests.model.conftest import make_net

FAMILIES = {
    # name: (identity, shortcut) blocks; ResNet-18: 8 residual blocks, 3 of them stage transitions
    "resnet18": (5, 3),
    "resnet10t": (1, 3),
    "test_resnet": (1, 3),
    "test_convnext": (9, 0),
    "convnext_atto": (12, 0),
    "tf_efficientnet_lite0": (9, 0),
    "mobilenetv3_small_050": (7, 0),
    "regnety_002": (9, 4),
    "test_vit": (6, 0),
}


def run_chain(model, steps, x):
    shared = shared_inputs(model, x.shape[2:])
    for step in steps:
        x = run_part(model, step.name, x, shared)
    return x


@pytest.mark.parametrize("name", FAMILIES)
def test_blocks_by_family(name):
    net = make_net(name)
    kinds = [block.kind for block in net.blocks]
    assert (kinds.count("identity"), kinds.count("shortcut")) == FAMILIES[name]
    assert [s.block for s in net.steps if s.block is not None] == list(range(len(net.blocks)))


@pytest.mark.parametrize("name", ["resnet18", "test_convnext", "regnety_002", "test_vit"])
def test_chain_equals_timm(name, image):
    arguments = {"img_size": (64, 96)} if "vit" in name else {}
    model = timm.create_model(name, pretrained=False, num_classes=0, **arguments).eval()
    steps = find_steps(model, image)
    with torch.no_grad():
        assert torch.equal(run_chain(model, steps, image), model.forward_features(image))


def test_probing_changes_no_weight(image):
    model = timm.create_model("test_resnet", pretrained=False, num_classes=0)
    before = copy.deepcopy(model.state_dict())
    find_steps(model, image)
    assert model.training
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


def test_efficientnet_loses_its_classifier_convolution():
    net = make_net("tf_efficientnet_lite0")
    assert net.steps[-1].channels == 320
    assert not any("conv_head" in key for key in net.state_dict())


def test_strides_and_channels():
    net = make_net("resnet18")
    assert [(b.stride, b.channels) for b in net.blocks] == [
        (4, 64), (4, 64), (8, 128), (8, 128), (16, 256), (16, 256), (32, 512), (32, 512),
    ]  # fmt: skip


def test_state_dict_keys_stay_timms():
    net = make_net("resnet18")
    timms = timm.create_model("resnet18", pretrained=False, num_classes=0).state_dict()
    own = {key.removeprefix("backbone.") for key in net.state_dict() if key.startswith("backbone.")}
    assert own == set(timms)


def test_copies_and_pickles_are_whole(image):
    net = make_net("test_resnet")
    keep = {t: [True] * len(net.blocks) for t in net.tasks}
    expected = net(image, keep)["a"]
    for twin in (copy.deepcopy(net), pickle.loads(pickle.dumps(net))):
        assert torch.equal(twin(image, keep)["a"], expected)
        with torch.no_grad():
            twin.backbone.bn1.weight.zero_()
        assert torch.equal(net(image, keep)["a"], expected)  # nothing is shared with the original
