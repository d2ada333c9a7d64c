"""Why a model cannot be gated, on blocks whose fault is known, and on timm's own."""

import pytest
import timm
import torch
from torch import nn
from torch.nn import functional as F

from perceptkit.errors import SpecError
from perceptkit.model.trunk import find_steps


class TwoLayers(nn.Module):
    """A branch of two layers, and a norm; what a block does with it is up to the class below."""

    def __init__(self, channels=8):
        super().__init__()
        self.first, self.second = nn.Conv2d(channels, 8, 1), nn.Conv2d(8, 8, 1)
        self.norm = nn.BatchNorm2d(8)

    def branch(self, x):
        return self.second(F.relu(self.first(x)))


class Activated(TwoLayers):
    def forward(self, x):
        return F.silu(x + self.branch(x))


class Normed(TwoLayers):
    def forward(self, x):
        return F.relu(self.norm(x) + self.branch(x))


class Scaled(TwoLayers):
    def forward(self, x):
        return 0.5 * x + self.branch(x)


class Straight(TwoLayers):
    def forward(self, x):
        return self.branch(x)


class Joined(TwoLayers):
    def forward(self, x):
        return torch.cat([x, self.branch(x)], 1)


class Split(TwoLayers):
    def forward(self, x):
        return self.branch(x)[:, :, ::2]


class Residual(TwoLayers):
    def forward(self, x):
        return x + self.branch(x)


class Gated(TwoLayers):
    def forward(self, x, shift):
        return x + shift + self.branch(x)


class Net(nn.Module):
    """Two blocks in a row, as a timm model calls them."""

    def __init__(self, *blocks):
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.blocks = nn.Sequential(*blocks)

    def forward_features(self, image):
        return self.blocks(self.stem(image))


class Apart(nn.Module):
    """A stage that does more than call its blocks."""

    def __init__(self):
        super().__init__()
        self.inner = nn.Sequential(Residual(), Residual())

    def forward(self, x):
        return self.inner(2 * x)


class Told(Net):
    """Blocks are given more than the activation, as in a `forward` that adds branches of its own."""

    def __init__(self):
        super().__init__(Gated(), Gated())

    def forward_features(self, image):
        x = self.stem(image)
        return self.blocks[1](self.blocks[0](x, 1.0) + 1, 1.0)


def reason_of(model):
    with pytest.raises(SpecError) as error, torch.random.fork_rng():
        torch.manual_seed(0)
        find_steps(model, torch.randn(1, 3, 8, 8))
    return str(error.value)


@pytest.mark.parametrize(
    ("blocks", "reason"),
    [
        ((Activated(), Activated()), "blocks.0 gives SiLU(x) instead of x: it follows the addition"),
        ((Normed(), Normed()), "the shortcut of blocks.0 passes a norm"),
        ((Scaled(), Scaled()), "blocks.0 gives something else than its input"),
        ((Straight(), Straight()), "no shortcut leads around the whole of blocks.0: with its weights at zero"),
        ((Joined(), Joined(16)), "the input of blocks.1 comes back as a part of its output's channels only"),
        ((Split(), Split()), "blocks.1, like all of them, changes the shape"),
    ],
)  # fmt: skip
def test_a_block_says_what_is_wrong_with_it(blocks, reason):
    told = reason_of(Net(*blocks))
    kind = type(blocks[0]).__name__
    # a stem of 3 x 8 x 9 + 8 = 224, and blocks of 2 x (8 x 8 + 8) + 16 = 160 each; Joined: 64 more in its second
    share = "63%" if kind == "Joined" else "59%"
    assert told.startswith(f"Net (0.0 M) cannot be gated: {kind}, {share} of its parameters: ")
    assert reason in told
    assert told.endswith(
        "; try starnet_s050 (0.4 M), mobilenetv3_small_050 (0.6 M) or edgenext_xx_small (1.2 M)"
    )


def test_residual_blocks_inside_something_that_is_no_chain():
    told = reason_of(Net(Apart(), Apart()))
    assert "Residual, " in told
    assert "blocks.0.inner.0 is residual, but blocks.0 does more than call one module after the other" in told
    assert "blocks.0.inner is not given its input" in told


def test_a_forward_that_does_more_than_call_modules():
    told = reason_of(Told())
    assert "its forward does more than call one module after the other" in told
    assert "blocks.1 is not given the output of blocks.0" in told


def test_single_layers():
    layers = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3))
    layers.forward_features = layers.forward
    assert "it is a row of single layers" in reason_of(layers)


def test_probing_for_a_reason_changes_no_weight():
    net = Net(Normed(), Normed())
    before = {key: value.clone() for key, value in net.state_dict().items()}
    reason_of(net)
    assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items())


REFUSED = {
    "vgg11": "it is a row of single layers; .*; try convnext_base",
    "repvgg_a0": "RepVggBlock, 100% of its parameters: .* passes a norm, as in re-parametrised nets",
    "mobileone_s1": "MobileOneBlock, .* passes a norm, as in re-parametrised nets",
    "mobileone_s0": "MobileOneBlock, 100% of its parameters: .* passes a norm, as in re-parametrised nets",
    "densenet121": "DenseBlock, .* as a part of its output's channels only",
    "rexnet_100": "LinearBottleneck, .* as a part of its output's channels only",
    "lcnet_050": "DepthwiseSeparableConv, .* no shortcut leads around the whole of blocks",
    "cs3darknet_focus_s": "DarkBlock, .* residual, but stages.0 does more than call one module",
    "tiny_vit_5m_224": "TinyVitBlock, .* no shortcut leads around the whole of stages",
    "pit_ti_224": "does more than call one module after the other: pos_drop is not given the output of patch",
}


LARGE = ("vgg11", "mobileone_s0", "tiny_vit_5m_224")


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow if name in LARGE else ()) for name in REFUSED]
)
def test_refused_with_its_own_reason_and_alternatives_of_its_size(name):
    model = timm.create_model(name, pretrained=False, num_classes=0)
    size = 224 if "224" in name else 64
    with pytest.raises(SpecError, match=REFUSED[name]) as error:
        find_steps(model, torch.randn(1, 3, size, size))
    told = str(error.value)
    assert told.startswith(f"{name} (") and " M) cannot be gated: " in told
    assert told.rpartition("; try ")[2].count(" M)") == 3
