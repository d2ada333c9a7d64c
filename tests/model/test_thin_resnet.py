"""A thin ResNet from a wider one: exact where it can be, refused where it cannot."""

import pytest
import timm
import torch
from safetensors.torch import save_file

from perceptkit.errors import SpecError
from perceptkit.model.thin_resnet import _layers, start_thin
from perceptkit.model.weights import create_backbone
from perceptkit.spec.recipe import BackboneSpec

THIN, WIDE = [4, 6, 8, 10], [8, 12, 16, 20]


def network(name="resnet18", channels=THIN, **how):
    torch.manual_seed(sum(channels))
    model = timm.create_model(name, num_classes=0, channels=channels, zero_init_last=False, **how)
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.weight.data.uniform_(0.5, 1.5)
            module.bias.data.normal_()
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 1.5)
    return model.eval()


@torch.no_grad()
def doubled(thin, wide):
    """Makes every channel of `wide` two of `thin`; whoever reads both reads half of each."""
    for layer in _layers(thin, "x"):
        ours, theirs = (net.get_submodule(layer.conv).weight for net in (thin, wide))
        out, read = (
            theirs.shape[axis] // ours.shape[axis] for axis in (0, 1)
        )  # timm's stem is 64 wide always
        theirs.copy_(ours.repeat(out, read, 1, 1) / read)
        for name, value in wide.get_submodule(layer.norm).state_dict().items():
            ours = thin.get_submodule(layer.norm).state_dict()[name]
            value.copy_(ours.repeat(out) if value.ndim else ours)


@pytest.mark.parametrize("name", ["resnet18", "resnet50", "resnet26d"])
def test_channels_that_say_the_same_are_left_out_exactly(name):
    how = {"stem_type": ""} if name == "resnet26d" else {}
    thin, wide, made = (network(name, channels, **how).double() for channels in (THIN, WIDE, THIN))
    doubled(thin, wide)
    start_thin(made, wide)
    image = torch.randn(2, 3, 64, 64).double()
    with torch.no_grad():
        expected, found = thin.forward_features(image), made.forward_features(image)
    for one, other in (
        (expected, found),
        (found, expected),
    ):  # the same channels, in the order of their choice
        for channel in one.unbind(1):
            assert min((other - channel[:, None]).abs().amax((0, 2, 3))) < 1e-6 * one.abs().max()


def test_as_many_channels_are_the_same_network():
    one, other = network(), network()
    torch.nn.init.normal_(other.conv1.weight)
    start_thin(other, one)
    image = torch.randn(1, 3, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(other.forward_features(image), one.forward_features(image))


def test_the_recipe_names_the_wider_network(tmp_path):
    save_file(network(channels=WIDE).state_dict(), tmp_path / "wide.safetensors")
    args, wide = {"channels": THIN}, {"channels": WIDE}
    spec = BackboneSpec(name="resnet18", weights=str(tmp_path / "wide.safetensors"), args=args, wide=wide)
    made = create_backbone(spec, (32, 32))
    by_hand = network()
    start_thin(by_hand, network(channels=WIDE))
    assert torch.equal(made.layer4[1].conv2.weight, by_hand.layer4[1].conv2.weight)
    assert len(made.layer1[0].conv1.weight) == 4
    create_backbone(spec, (32, 32), load=False)  # an artifact brings its own
    with pytest.raises(SpecError, match="a classifier of the wider network does not fit"):
        create_backbone(spec, (32, 32), num_classes=3)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("test_vit", "is known of timm's ResNet alone"),
        ("resnet18d", "the stem of this ResNet is more than one convolution"),
        ("seresnet18", "layer1.0 has attention over its channels"),
        ("resnext26ts", "is known of timm's ResNet alone"),
        ("resnext50_32x4d", "layer1.0 has grouped convolutions"),
    ],
)
def test_what_is_refused(name, message):
    with torch.device("meta"):
        model = timm.create_model(name, num_classes=0)
    with pytest.raises(SpecError, match=f"backbone.wide: .*{message}"):
        start_thin(model, model)


def test_two_networks_of_different_layers_or_too_many_channels():
    with pytest.raises(SpecError, match="differ in more than their channels"):
        start_thin(network("resnet34"), network(channels=WIDE))
    with pytest.raises(SpecError, match="layer1.0.downsample.0 has 4 channels there, fewer than the 8 here"):
        start_thin(network(channels=WIDE), network())
