"""torchjd's aggregators behind our interface."""

import pytest
import torch
from torch import nn

from perceptkit.baselines.balancing.balance import Network
from perceptkit.baselines.balancing.jacobian import Jacobian, make_aggregator
from perceptkit.errors import SpecError

pytest.importorskip("torchjd")
ALL = torch.tensor([True, True])


def gradients(aggregator, directions, labelled=ALL, weight_K=(1.0, 1.0)):
    """Of two tasks whose gradients by `shared` are given, each with a weight of its own besides."""
    shared, own, idle = (
        nn.Parameter(torch.zeros(2)),
        nn.Parameter(torch.zeros(2)),
        nn.Parameter(torch.zeros(1)),
    )
    losses = torch.stack([torch.tensor(d) @ shared + own[k] for k, d in enumerate(directions)])
    balance = Jacobian(torch.tensor(weight_K), aggregator)
    balance.backward(losses, labelled, Network(lambda total: None, [shared, own, idle], []))
    assert idle.grad is None
    return shared.grad.tolist(), own.grad.tolist()


def test_the_mean_is_the_mean():
    shared, own = gradients("Mean", ([1.0, 0.0], [0.0, 2.0]), weight_K=(1.0, 3.0))
    assert shared == pytest.approx([0.5, 3.0]) and own == pytest.approx([0.5, 1.5])


def test_two_tasks_that_agree_and_two_that_do_not():
    shared, _ = gradients("Sum", ([1.0, 1.0], [-1.0, 1.0]))
    assert shared == pytest.approx([0.0, 2.0])
    shared, _ = gradients("MGDA", ([2.0, 0.0], [2.0, 0.0]))
    assert shared == pytest.approx([2.0, 0.0])


def test_upgrad_never_climbs_for_any_task():
    shared, own = gradients("UPGrad", ([1.0, 1.0], [-2.0, 0.1]))
    for k, direction in enumerate(([1.0, 1.0], [-2.0, 0.1])):
        assert torch.tensor(direction) @ torch.tensor(shared) + own[k] >= -1e-4


def test_a_task_without_a_label_takes_no_part():
    shared, own = gradients("Mean", ([1.0, 0.0], [0.0, 2.0]), torch.tensor([True, False]))
    assert shared == pytest.approx([1.0, 0.0]) and own == pytest.approx([1.0, 0.0])


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("UpGrad", "torchjd has no 'UpGrad'; it has .*UPGrad"),
        ("Constant", "Constant cannot be made by its name alone"),
    ],
)
def test_refusals(name, message):
    with pytest.raises(SpecError, match=message):
        make_aggregator(name)
