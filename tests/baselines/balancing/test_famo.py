"""FAMO: gradients and weights by hand."""

import math

import pytest
import torch

from perceptkit.baselines.balancing.balance import Network
from perceptkit.baselines.balancing.famo import Famo

ALL = torch.tensor([True, True])


def test_gradient_is_that_of_the_mean_log_loss():
    balance = Famo(torch.ones(2), lr=0.025, decay=0.0)
    balance.logit_K = torch.tensor([math.log(3), 0.0])  # z = 3/4, 1/4
    losses = torch.tensor([2.0, 0.5], requires_grad=True)
    balance.total(losses, ALL).backward()
    c = 1 / (0.75 / 2 + 0.25 / 0.5)
    torch.testing.assert_close(losses.grad, torch.tensor([0.75 * c / 2, 0.25 * c / 0.5]))
    assert losses.grad.sum().item() == pytest.approx(1)


def test_the_task_that_falls_least_gains_weight():
    balance = Famo(torch.ones(2), lr=0.025, decay=0.0)
    weight = torch.nn.Parameter(torch.ones(2))
    network = Network(lambda total: total.backward(), [weight], [weight])
    balance.backward(weight.square(), ALL, network)
    balance.after_update(lambda: torch.tensor([0.5, 1.0]))
    # fell by log 2 and by 0: J^T gives z (fell - mean) = (+, -); Adam's first step has the size of lr
    assert balance.logit_K.tolist() == pytest.approx([-0.025, 0.025], rel=1e-4)
    assert balance.shown_K()[1] > 0.5


def test_the_direction_is_autograds():
    balance = Famo(torch.ones(3), lr=1.0, decay=0.0)
    logits = torch.tensor([0.2, -0.4, 0.9], requires_grad=True)
    fell = torch.tensor([0.3, 0.1, -0.2])
    (expected,) = torch.autograd.grad(logits.softmax(0), logits, fell)
    z = logits.detach().softmax(0)
    torch.testing.assert_close(z * (fell - (z * fell).sum()), expected)
    assert balance.shown_K().tolist() == pytest.approx([1 / 3] * 3)


def test_a_task_without_a_label_takes_no_part():
    balance = Famo(torch.ones(2), lr=0.025, decay=0.0)
    weight = torch.nn.Parameter(torch.ones(2))
    network = Network(lambda total: total.backward(), [weight], [weight])
    balance.backward(weight.square() * torch.tensor([1.0, 0.0]), torch.tensor([True, False]), network)
    assert weight.grad.tolist() == pytest.approx([2, 0])
    balance.after_update(lambda: torch.tensor([0.5, 0.0]))
    assert balance.logit_K.tolist() == [0, 0]  # alone it has nothing to be weighed against


def test_momentum_and_decay_leave_a_task_without_a_label_alone():
    def steps(gap):
        balance = Famo(torch.ones(3), lr=0.025, decay=0.1)
        for labelled in ([True] * 3, *([[True, False, True]] if gap else []), [True] * 3):
            balance._before = (torch.tensor([1.0, 1.0, 1.0]), torch.tensor(labelled))
            before = balance.logit_K
            after = [0.9, 0.0, 1.2] if not all(labelled) else [0.5, 0.8, 1.0]
            balance.after_update(lambda after=after: torch.tensor(after))
            assert (balance.logit_K != before).tolist() == labelled
        return balance

    one = steps(gap=True)
    moments = one.adam.optimizer.state_dict()["state"]
    assert [int(moments[k]["step"]) for k in range(3)] == [3, 2, 3]
    # z among those that are labelled: 1/2, 1/2; they fell by log(1/0.9) and log(1/1.2)
    balance = Famo(torch.ones(3), lr=0.025, decay=0.0)
    balance._before = (torch.ones(3), torch.tensor([True, False, True]))
    balance.after_update(lambda: torch.tensor([0.9, 0.0, 1.2]))
    assert balance.logit_K.tolist() == pytest.approx([-0.025, 0, 0.025], rel=1e-4)


def test_state_is_whole():
    one, other = Famo(torch.ones(2), 0.025, 1e-3), Famo(torch.ones(2), 0.025, 1e-3)

    def step(balance, after):
        weight = torch.nn.Parameter(torch.ones(2))
        balance.backward(weight.square(), ALL, Network(lambda t: t.backward(), [weight], [weight]))
        balance.after_update(lambda: torch.tensor(after))

    step(one, [0.5, 1.0])
    other.load_state_dict(one.state_dict())
    for balance in (one, other):
        step(balance, [0.9, 0.1])
    assert torch.equal(one.shown_K(), other.shown_K()) and one.shown_K()[0] != 0.5
