"""The expected cost by hand and by enumeration of all plans, and a multiplier that finds its budget."""

import itertools
import math
from functools import partial

import pytest
import torch

from perceptkit.model import cost
from perceptkit.policies.adashare import AdaSharePolicy, keep_prob, temperature
from perceptkit.policies.budget import (
    DUAL_RATE,
    LARGEST,
    MAX_TASKS,
    Multiplier,
    Prices,
    asked_of_open,
    cost_of,
    dense_cost,
    expected_cost,
    param_prices,
    run_prices,
    smallest_cost,
)
from tests.model.conftest import SIZE, make_net, some_plan

TWO_BLOCKS = Prices(fixed=10.0, kept_L=(4.0, 6.0), skipped_L=(1.0, 0.0), neck=3.0, dense_K=(True, True))


def some_prices(num_tasks, num_blocks, is_union=False, seed=0):
    generator = torch.Generator().manual_seed(seed)
    kept, skipped = torch.rand(2, num_blocks, generator=generator, dtype=torch.double).tolist()
    if is_union:
        return Prices(2.0, tuple(kept), (0.0,) * num_blocks, 0.0, (True,) * num_tasks, is_union=True)
    dense = tuple(task != 1 for task in range(num_tasks))  # one of them is global
    return Prices(2.0, tuple(kept), tuple(0.2 * s for s in skipped), 0.7, dense)


def all_plans(num_tasks, num_blocks):
    rows = list(itertools.product([False, True], repeat=num_tasks * num_blocks))
    return torch.tensor(rows).view(-1, num_tasks, num_blocks)


def test_two_tasks_by_hand():
    a_KL = torch.tensor([[0.9, 0.5], [0.8, 0.4]], dtype=torch.double)
    # block 0: both have the image; run unless both skip, 1 - .1*.2; skipped unless both keep, 1 - .9*.8
    first = 4 * 0.98 + 1 * 0.28
    # they agree on it with q = .9*.8 + .1*.2 = .74. Block 1, together: 1 - .5*.6 runs; apart: .5 + .4
    second = 6 * (0.74 * 0.7 + 0.26 * 0.9)
    # and on both with .74 * (.5*.4 + .5*.6) = .37: one neck, else two
    necks = 3 * (2 - 0.37)
    assert expected_cost(a_KL, TWO_BLOCKS).item() == pytest.approx(10 + first + second + necks)


def test_two_tasks_with_shared_draws_by_hand():
    a_KL = torch.tensor([[0.9, 0.5], [0.8, 0.4]], dtype=torch.double)
    # block 0: u < .8 both keep, u < .9 one does
    first = 4 * 0.9 + 1 * 0.2
    # they agree with .9. Together block 1 runs for u < .5, apart as often as each keeps it
    second = 6 * (0.9 * 0.5 + 0.1 * 0.9)
    necks = 3 * (2 - 0.9 * 0.9)
    assert expected_cost(a_KL, TWO_BLOCKS, shared_draws=True).item() == pytest.approx(
        10 + first + second + necks
    )


@pytest.mark.parametrize("is_union", [False, True])
@pytest.mark.parametrize(("num_tasks", "num_blocks"), [(1, 4), (2, 4), (3, 3), (4, 3)])
def test_equals_the_mean_over_all_plans(num_tasks, num_blocks, is_union):
    prices = some_prices(num_tasks, num_blocks, is_union)
    generator = torch.Generator().manual_seed(1)
    a_KL = torch.rand(num_tasks, num_blocks, generator=generator, dtype=torch.double)
    plans_NKL = all_plans(num_tasks, num_blocks)
    probability_N = torch.where(plans_NKL, a_KL, 1 - a_KL).flatten(1).prod(dim=1)
    mean = (probability_N * cost_of(plans_NKL, prices)).sum().item()
    assert expected_cost(a_KL, prices).item() == pytest.approx(mean, rel=1e-12)


@pytest.mark.parametrize("is_union", [False, True])
@pytest.mark.parametrize(("num_tasks", "num_blocks"), [(2, 4), (3, 3), (4, 3)])
def test_shared_draws_equal_the_mean_over_their_outcomes(num_tasks, num_blocks, is_union):
    """Of one block there are K + 1 outcomes: the thresholds at which one task more keeps it."""
    prices = some_prices(num_tasks, num_blocks, is_union)
    generator = torch.Generator().manual_seed(2)
    a_KL = torch.rand(num_tasks, num_blocks, generator=generator, dtype=torch.double)
    mean = 0.0
    for outcome in itertools.product(range(num_tasks + 1), repeat=num_blocks):
        probability, columns = 1.0, []
        for block, place in enumerate(outcome):
            edges = [0.0, *sorted(a_KL[:, block].tolist()), 1.0]
            probability *= edges[place + 1] - edges[place]
            u = (edges[place] + edges[place + 1]) / 2
            columns.append(a_KL[:, block] > u)
        mean += probability * cost_of(torch.stack(columns, 1)[None], prices).item()
    assert expected_cost(a_KL, prices, shared_draws=True).item() == pytest.approx(mean, rel=1e-12)


@pytest.mark.parametrize("shared_draws", [False, True])
def test_certain_policies_cost_what_their_plan_costs(shared_draws):
    prices = some_prices(5, 6)
    plan_KL = torch.rand(5, 6, generator=torch.Generator().manual_seed(0)) < 0.5
    expected = expected_cost(plan_KL.double(), prices, shared_draws).item()
    assert expected == pytest.approx(cost_of(plan_KL[None], prices).item())


@pytest.mark.parametrize("name", ["resnet18", "test_vit"])
def test_plans_cost_what_the_one_place_that_counts_says(name):
    net = make_net(name)
    steps = cost.measure(net, SIZE)
    for seed in range(4):
        plan = some_plan(net, seed)
        keep_1KL = torch.tensor([[plan.row(task) for task in plan.tasks]])
        assert cost_of(keep_1KL, run_prices(net, steps)).item() == cost.macs(net, plan, steps)[0]
        assert cost_of(keep_1KL, param_prices(net)).item() == cost.params(net, plan)


def test_bounds():
    prices = some_prices(3, 4)
    assert smallest_cost(prices) == pytest.approx(2.0 + sum(prices.skipped_L) + 0.7)
    assert dense_cost(prices) == pytest.approx(2.0 + sum(prices.kept_L) + 0.7)
    closed = 2.0 + sum(prices.kept_L[:3]) + prices.skipped_L[3] + 0.7
    assert smallest_cost(prices, closed=3) == pytest.approx(closed)
    assert prices.times(2.0).neck == 1.4 and dense_cost(prices.times(2.0)) == pytest.approx(
        2 * dense_cost(prices)
    )


@pytest.mark.parametrize("shared_draws", [False, True])
def test_gradients(shared_draws):
    a_KL = torch.tensor(
        [[0.3, 0.6, 0.9], [0.5, 0.4, 0.7], [0.8, 0.2, 0.1]], dtype=torch.double, requires_grad=True
    )
    assert torch.autograd.gradcheck(
        partial(expected_cost, prices=some_prices(3, 3), shared_draws=shared_draws), a_KL
    )


def test_gradients_at_the_edges_are_finite():
    a_KL = torch.tensor([[0.0, 1.0], [1.0, 1.0]], requires_grad=True)
    for shared_draws in (False, True):
        (gradient,) = torch.autograd.grad(expected_cost(a_KL, some_prices(2, 2), shared_draws), a_KL)
        assert torch.isfinite(gradient).all()


def test_task_order_does_not_matter():
    prices = Prices(2.0, (1.0, 2.0, 3.0), (0.1, 0.0, 0.2), 0.7, (True, True, True))
    a_KL = torch.rand(3, 3, generator=torch.Generator().manual_seed(0))
    for shared_draws in (False, True):
        ours, theirs = (expected_cost(a, prices, shared_draws).item() for a in (a_KL, a_KL[[2, 0, 1]]))
        assert ours == pytest.approx(theirs)


def test_where_no_single_task_saves_by_skipping_shared_draws_still_fall():
    """All keep one of two blocks: one task alone would only leave the others."""
    prices = Prices(1.0, (1.0, 1.0), (0.0, 0.0), 0.0, (True,) * 3)
    z = torch.full((3, 2), 3.0, requires_grad=True)
    (independent,) = torch.autograd.grad(expected_cost(z.sigmoid(), prices), z)
    (shared,) = torch.autograd.grad(expected_cost(z.sigmoid(), prices, shared_draws=True), z)
    assert (independent[:, 0] < 0).all() and (shared[:, 0] > 0).all()


def test_too_many_tasks():
    with pytest.raises(ValueError, match=f"13 tasks; the expected cost is computed for at most {MAX_TASKS}"):
        expected_cost(torch.rand(13, 2), some_prices(13, 2))
    assert expected_cost(torch.ones(13, 2), some_prices(13, 2, is_union=True)).item() > 2


def test_multiplier_by_hand():
    multiplier = Multiplier(value=0.5)
    multiplier.note_loss(2.0)
    # 2 * (0.5 * 0.1 + 4 / 2 * 0.01)
    assert multiplier.penalty(torch.tensor(0.1)).item() == pytest.approx(0.14)
    multiplier.note_loss(3.0)
    assert multiplier.scale == pytest.approx(2.1)
    multiplier.ascend(-0.4, rate=2.0)
    assert multiplier.value == pytest.approx(-0.3)
    multiplier.ascend(1e9, rate=1.0)
    assert multiplier.value == LARGEST
    limit = Multiplier(value=0.1, scale=2.0)
    assert limit.penalty(torch.tensor(-0.5), is_limit=True).item() == pytest.approx(2 * 0.1 * -0.5)
    limit.ascend(-0.5, rate=1.0, is_limit=True)
    assert limit.value == 0
    other = Multiplier()
    other.load(multiplier.state())
    assert other == multiplier


def test_open_blocks_owe_their_part():
    # dense 10 + 4 + 6 + 3 = 23, smallest 10 + 1 + 3 = 14; with block 0 closed the smallest is 17
    assert asked_of_open(TWO_BLOCKS, budget=14.0, closed=0) == pytest.approx(14)
    assert asked_of_open(TWO_BLOCKS, budget=14.0, closed=1) == pytest.approx(17)
    assert asked_of_open(TWO_BLOCKS, budget=18.5, closed=1) == pytest.approx(23 - 0.5 * 6)
    assert asked_of_open(TWO_BLOCKS, budget=18.5, closed=2) == pytest.approx(23)
    # a curriculum that never opens block 0: block 1 alone owes all of it
    assert asked_of_open(TWO_BLOCKS, budget=18.5, closed=1, last_closed=1) == pytest.approx(18.5)


@pytest.mark.slow
@pytest.mark.parametrize(("part", "sparsity"), [(0.7, 0.0), (0.7, 0.5), (1.2, 0.0)])
def test_finds_its_budget(part, sparsity):
    """Every block is worth something to every task; nothing but the multiplier says how many are to go."""
    generator = torch.Generator().manual_seed(0)
    prices = some_prices(3, 6)
    worth_KL = torch.rand(3, 6, generator=generator)
    worth_KL /= worth_KL.sum()
    policy = AdaSharePolicy("abc", "uvwxyz")
    optimiser = torch.optim.Adam(policy.parameters(), lr=0.05)
    multiplier, budget = Multiplier(), part * dense_cost(prices)
    is_limit = part > 1  # more than one shared pass may be spent, and need not be
    spent = []
    for step in range(300):
        rows = policy.relax(temperature(step / 300, 5.0, 0.5), 6, generator)
        keep_KL = torch.stack([torch.stack(row) for row in rows.values()])
        loss = 0.5 + (worth_KL * (1 - keep_KL)).sum()
        multiplier.note_loss(loss.item())
        a_KL = keep_prob(policy.policy_logits_KL2)
        excess = expected_cost(a_KL, prices, shared_draws=True) / budget - 1
        total = loss + multiplier.penalty(excess, is_limit) + sparsity * policy.regularisers(6)[0] / 18
        optimiser.zero_grad()
        total.backward()
        optimiser.step()
        multiplier.ascend(excess.item(), DUAL_RATE * 0.05, is_limit)
        spent.append(excess.item())
    mean = sum(spent[-50:]) / 50
    assert mean < 0.07
    assert is_limit or mean > -0.07
    assert not is_limit or multiplier.value >= 0
    assert math.isfinite(multiplier.value) and abs(multiplier.value) < 5
