"""MTAN: masks by the paper's equations, features of the trunk untouched."""

import pytest
import torch

from perceptkit.baselines.sharing.mtan import Attention, PassOn
from perceptkit.model import cost
from perceptkit.model.blocks import num_params
from tests.baselines.sharing.conftest import (
    SIZE,
    all_kept,
    answer,
    make,
    noise,
    refuse_another_compact_model,
    run_to_the_end,
)


def test_a_mask_by_hand():
    """g: 2 u, then ReLU; h: 1 * that - 0.5, then sigmoid; with norms that do nothing."""
    attention = Attention(1, 1).eval()
    attention.g[0].weight.data.fill_(2)
    attention.h[0].weight.data.fill_(1)
    attention.h[1].bias.data.fill_(-0.5)
    u = torch.tensor([0.5, -1.0]).view(2, 1, 1, 1)
    expected = torch.sigmoid(torch.tensor([2 * 0.5 - 0.5, 0 - 0.5]))
    torch.testing.assert_close(attention(u).flatten(), expected, rtol=0, atol=1e-4)


def test_attended_features_by_hand():
    """a^_2 = a_2([u_2; f(a^_1)]) * p_2, with a_1 = a(u_1): the second stage sees what the first attended to."""
    net = make("mtan", chosen=("seg", "depth"))
    at = [0, *net.ends]
    channels = [net.net.steps[i].channels for i in net.ends]
    sizes = [64 // net.net.steps[i].stride for i in net.ends]
    maps = [torch.randn(1, c, s, s) for c, s in zip(channels, sizes, strict=True)]
    assert len(at) == 5
    with torch.no_grad():
        attended = net.attend("depth", maps, maps)
        layers, first = net.attention["task_depth"], maps[0]
        mask = layers[0].h(layers[0].g(first))
        torch.testing.assert_close(attended[0], mask * first)
        passed = torch.nn.functional.max_pool2d(net.pass_on[0].layers(attended[0]), 2)
        mask = layers[1](torch.cat([maps[1], passed], dim=1))
        torch.testing.assert_close(attended[1], mask * maps[1])
    assert all(
        ((a / m) >= 0).all() and ((a / m) <= 1.0001).all() for a, m in zip(attended, maps, strict=True)
    )


def test_pooling_meets_the_next_stage():
    like = torch.zeros(1, 4, 3, 5)
    assert PassOn(2, 4, 2)(torch.zeros(1, 2, 5, 9), like).shape == like.shape  # rounded up
    assert PassOn(2, 4, 2)(torch.zeros(1, 2, 8, 9), like).shape == like.shape  # resized
    assert PassOn(2, 4, 1)(like[:, :2], like).shape == like.shape


def test_open_masks_are_hard_sharing():
    net = make("mtan")
    for attention in net.attention.values():
        for layer in attention:
            layer.h[1].weight.data.fill_(0)
            layer.h[1].bias.data.fill_(100)
    expected, got = answer(net.plain(), noise()), answer(net, noise())
    for task in net.tasks:
        torch.testing.assert_close(got[task], expected[task])


def test_cost():
    net = make("mtan")
    rows = cost.table(net, all_kept(net), SIZE)["rows"]
    own = num_params(net.attention) + num_params(net.pass_on)
    assert rows["compact"]["params"] == rows["hard_shared"]["params"] + own
    assert rows["hard_shared"]["macs"] < rows["compact"]["macs"]


@pytest.mark.parametrize("name", ["test_resnet", "test_vit", "test_convnext", "swin_tiny_patch4_window7_224"])
def test_any_trunk(name):
    outputs = answer(make("mtan", name), noise(1))
    assert all(output.isfinite().all() for output in outputs.values())


def test_some_tasks_and_the_compact_model():
    net = make("mtan")
    part = net.only(["room"])
    torch.testing.assert_close(answer(part, noise())["room"], answer(net, noise())["room"])
    assert part.net.neck is None and num_params(part) < num_params(net)
    refuse_another_compact_model(net)


@pytest.mark.slow
def test_a_run(small_run, tmp_path):
    run_to_the_end(small_run, tmp_path / "run", "mtan")
