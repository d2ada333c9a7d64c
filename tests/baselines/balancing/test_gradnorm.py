"""GradNorm: its gradient against autograd's on its own formula, and that rates become equal."""

import pytest
import torch
from torch import nn

from perceptkit.baselines.balancing.balance import Network
from perceptkit.baselines.balancing.gradnorm import Gradnorm, gradient

ALL = torch.tensor([True, True, True])


@pytest.mark.parametrize("alpha", [0.0, 0.5, 1.5])
def test_gradient_is_that_of_the_formula(alpha):
    w = torch.tensor([0.5, 1.5, 1.0], requires_grad=True)
    ratio, norm = torch.tensor([0.9, 0.2, 0.5]), torch.tensor([3.0, 0.1, 1.0])
    G = w * norm
    target = (G.mean() * (ratio / ratio.mean()) ** alpha).detach()
    (G - target).abs().sum().backward()
    torch.testing.assert_close(gradient(w.detach(), ratio, norm, ALL, alpha), w.grad)


def test_two_tasks_by_hand():
    # norms 4 and 1 at equal rates: mean 2.5; the first is above it, the second below
    w, norm = torch.ones(2), torch.tensor([4.0, 1.0])
    assert gradient(w, torch.ones(2), norm, ALL[:2], 1.5).tolist() == [4, -1]
    # the second lags behind by 1 : 3 (mean ratio 1): targets 2.5 * 0.5, 2.5 * 1.5 at alpha 1
    assert gradient(w, torch.tensor([0.5, 1.5]), norm, ALL[:2], 1.0).tolist() == [4, -1]


def test_gradients_of_unequal_tasks_become_equal():
    shared = nn.Parameter(torch.zeros(2))
    balance = Gradnorm(torch.ones(2), alpha=0.0, lr=0.01)
    scale = torch.tensor([3.0, 1.0])
    for _ in range(300):
        shared.grad = None
        losses = scale * (shared - torch.tensor([1.0, -1.0])).square() / 2
        network = Network(lambda total: total.backward(), [shared], [shared])
        balance.backward(losses, ALL[:2], network)
    # norms 3 and 1 at shared = 0, weights sum to 2: 0.5 * 3 = 1.5 * 1
    assert balance.shown_K().tolist() == pytest.approx([0.5, 1.5], abs=0.05)
    assert balance.shown_K().sum().item() == pytest.approx(2)
    torch.testing.assert_close(shared.grad, torch.tensor([-1.5, 1.5]), rtol=0.1, atol=0)


def test_a_task_without_a_label_takes_no_part():
    balance = Gradnorm(torch.ones(3), alpha=1.5, lr=0.025)
    seen = torch.tensor([True, False, True])
    balance.learn(torch.tensor([2.0, 0.0, 4.0]), torch.tensor([1.0, 0.0, 1.0]), seen)
    assert balance.first_K.isnan().tolist() == [False, True, False]
    before = balance.shown_K()
    balance.learn(
        torch.tensor([2.0, 0.0, 0.0]), torch.tensor([1.0, 0.0, 0.0]), torch.tensor([True, False, False])
    )
    assert torch.equal(balance.shown_K(), before)  # one task has nothing to be balanced with


def test_momentum_does_not_move_a_task_without_a_label():
    balance = Gradnorm(torch.ones(3), alpha=1.5, lr=0.025)
    balance.learn(torch.tensor([2.0, 3.0, 4.0]), torch.tensor([1.0, 5.0, 2.0]), ALL)
    before = balance.shown_K()
    seen = torch.tensor([True, False, True])
    balance.learn(torch.tensor([1.0, 0.0, 4.0]), torch.tensor([1.0, 0.0, 2.0]), seen)
    after = balance.shown_K()
    assert (after != before).tolist() == seen.tolist()
    assert after.sum().item() == pytest.approx(3)
    steps = balance.adam.optimizer.state_dict()["state"]
    assert [int(steps[k]["step"]) for k in range(3)] == [2, 1, 2]


def test_state_is_whole():
    one, other = Gradnorm(torch.ones(2), 1.5, 0.025), Gradnorm(torch.ones(2), 1.5, 0.025)

    def step(balance, a, b):
        balance.learn(torch.tensor([a, b]), torch.tensor([b, a]), ALL[:2])

    step(one, 3.0, 1.0)
    other.load_state_dict(one.state_dict())
    for balance in (one, other):
        step(balance, 2.0, 1.0)
    assert torch.equal(one.shown_K(), other.shown_K()) and one.shown_K()[0] != 1
