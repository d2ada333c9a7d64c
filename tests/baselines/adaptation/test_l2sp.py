"""Where weights are pulled to."""

import pytest
import torch

from tests.baselines.adaptation.conftest import begun, images, train


def test_value_and_gradient_by_hand():
    strategy, net, _ = begun("l2sp", alpha=0.4, beta=0.2)
    head = net.heads["task_new"].predict
    head.weight.data.fill_(0.0)
    head.bias.data.copy_(torch.tensor([1.0, 2.0, 3.0]))
    moved = net.backbone.conv1.weight
    with torch.no_grad():
        moved[0, 0, 0, 0] += 3.0
    penalty = strategy.penalty(net, 0.0, images(), {})
    assert penalty.item() == pytest.approx(0.4 / 2 * 9 + 0.2 / 2 * 14, rel=1e-5)
    penalty.backward()
    assert moved.grad[0, 0, 0, 0].item() == pytest.approx(0.4 * 3, rel=1e-5)
    assert moved.grad.count_nonzero() == 1
    assert torch.allclose(head.bias.grad, 0.2 * head.bias)


def test_the_base_s_weights_are_meant_after_a_resume_too():
    strategy, net, plan = begun("l2sp")
    train(strategy, net, plan)
    other, resumed, _ = begun("l2sp")
    resumed.load_state_dict(net.state_dict())
    assert other.penalty(resumed, 0.0, images(), {}) == strategy.penalty(net, 0.0, images(), {}) > 0


def test_follows_the_network_to_its_device_and_precision():
    strategy, net, _ = begun("l2sp")
    net.to("meta")
    assert strategy.penalty(net, 0.0, images().to("meta"), {}).device.type == "meta"
