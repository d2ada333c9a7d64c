"""Hard sharing by hand: one trunk whose gradient is the weighted sum of those of the tasks."""

import math

import pytest

from perceptkit.model import cost
from perceptkit.model.supernet import head_key
from perceptkit.train.losses import weighted_sum
from tests.baselines.sharing.conftest import all_kept
from tests.baselines.sharing.one_weight import GRADIENTS, MAP, SIZE, losses_of, make_net


def test_the_objective_by_hand():
    net = make_net("a", "b")
    losses = losses_of(net)
    assert losses["a"].item() == pytest.approx(-math.log(3 / 4))
    assert losses["b"].item() == pytest.approx(-math.log(1 / 8))
    assert weighted_sum(losses, net.tasks).item() == pytest.approx(2 * math.log(4 / 3) + math.log(8))


def test_the_trunks_gradient_is_the_weighted_sum_over_tasks():
    net = make_net("a", "b")
    weighted_sum(losses_of(net), net.tasks).backward()
    found = net.backbone.block.conv.weight.grad.item()
    assert found == pytest.approx(2 * -math.log(3) / 8 + 7 * math.log(7) / 16)
    assert found == pytest.approx(2 * GRADIENTS["a"] + GRADIENTS["b"])


def test_a_heads_gradient_is_its_own_tasks():
    net = make_net("a", "b")
    weighted_sum(losses_of(net), net.tasks).backward()
    # lambda (p - y) f with f = 2
    a, b = (net.heads[head_key(name)].predict.weight.grad.flatten().tolist() for name in "ab")
    assert a == pytest.approx([2 * (3 / 4 - 1) * 2, 2 * (1 / 4) * 2])
    assert b == pytest.approx([(1 / 8 - 1) * 2, (7 / 8) * 2])


def test_one_trunk_is_paid():
    net = make_net("a", "b")
    row = cost.table(net, all_kept(net), SIZE)["rows"]["compact"]
    assert row == {"params": 1 + 2 * (2 + 2), "macs": MAP + 2 * 2, "backbone_macs": MAP}
