"""The plan that meets a budget: against all plans where they can be enumerated."""

import math
from functools import partial

import pytest
import torch

from perceptkit.policies.budget import Prices, cost_of, dense_cost, smallest_cost
from perceptkit.policies.budget_plan import TOLERANCE, fit_plan, neighbours
from tests.policies.test_budget import all_plans, some_prices

EVEN = Prices(1.0, (1.0, 1.0, 1.0, 1.0), (0.0,) * 4, 0.0, (True, True))
"""Hard sharing costs 5."""


def fit(log_odds_KL, prices, budget, closed=0):
    return fit_plan(log_odds_KL >= 0, log_odds_KL, partial(cost_of, prices=prices), budget, closed)


def test_a_plan_that_meets_it_stays():
    z = torch.tensor([[1.0, 2.0, -1.0, 3.0], [1.0, 2.0, -1.0, 3.0]])
    found = fit(z, EVEN, budget=4.0)
    assert torch.equal(found.keep_KL, z >= 0) and found.given_up == 0 and found.is_within
    assert found.cost == 4.0


def test_what_all_tasks_want_least_goes_for_all_of_them():
    z = torch.tensor([[1.0, 0.3, 1.0, 3.0], [1.0, 0.4, 0.8, 3.0]])
    found = fit(z, EVEN, budget=4.0)
    assert found.keep_KL.tolist() == [[True, False, True, True]] * 2
    assert found.given_up == pytest.approx(0.7)


def test_what_is_left_of_a_budget_is_spent():
    z = torch.tensor([[1.0, -0.3, -1.0, -3.0], [1.0, -0.4, -0.8, -3.0]])
    found = fit(z, EVEN, budget=3.0)  # nobody shares block 1, and so nothing but block 1 is paid for
    assert found.keep_KL.tolist() == [[True, True, False, False], [True, False, False, False]]


def test_too_coarse():
    z = torch.tensor([[1.0, 0.3, 1.0, 3.0], [1.0, 0.4, 0.8, 3.0]])
    found = fit(z, EVEN, budget=4.5)
    assert not found.is_within and found.cost == 4.0 and found.next_above == 5.0
    assert found.given_up == pytest.approx(0.7)


def test_closed_blocks_stay():
    z = torch.tensor([[0.1, 0.3, 1.0, 3.0], [0.1, 0.4, 0.8, 3.0]])
    assert fit(z, EVEN, budget=4.0, closed=2).keep_KL.tolist() == [[True, True, False, True]] * 2
    impossible = fit(z, EVEN, budget=2.0, closed=2)
    assert impossible.cost == 3.0 and not impossible.is_within


def test_more_than_there_is_to_spend():
    z = torch.full((2, 4), 2.0)
    found = fit(z, EVEN, budget=50.0)
    assert not found.is_within and found.next_above == math.inf and found.cost <= 50


def test_a_large_budget_is_a_limit():
    """Hard sharing costs 5; what the most probable plan costs beyond that is its own choice, up to the budget."""
    z = torch.tensor([[1.0, 2.0, 1.0, 3.0], [-0.5, 2.0, 1.0, 3.0]])  # costs 8: nothing is shared
    costs = partial(cost_of, prices=EVEN)
    kept = fit_plan(z >= 0, z, costs, budget=20.0, spend=5.0)
    assert kept.is_within and kept.given_up == 0 and kept.cost == 8.0
    assert fit_plan(z >= 0, z, costs, budget=6.0, spend=5.0).keep_KL.all()
    raised = fit_plan(z.abs() < 0, -z.abs(), costs, budget=20.0, spend=5.0)
    assert raised.is_within and 4.9 <= raised.cost <= 20.0


def test_a_drawn_plan_that_meets_it_stays_however_improbable():
    z = torch.tensor([[1.0, 2.0, 1.0, 3.0], [1.0, 2.0, 1.0, 3.0]])
    costs = partial(cost_of, prices=EVEN)
    drawn = torch.tensor(
        [[True, False, True, True]] * 2
    )  # costs 4; the policy would rather skip block 0 or 2
    found = fit_plan(drawn, z, costs, budget=4.0)
    assert torch.equal(found.keep_KL, drawn) and found.given_up == 0 and found.is_within
    alone = torch.tensor([[False, True, True, True], [True, True, True, True]])  # costs 8: nothing is shared
    assert torch.equal(fit_plan(alone, z, costs, budget=20.0, spend=5.0).keep_KL, alone)


def test_a_drawn_plan_moves_where_the_policy_is_least_sure_and_keeps_the_rest():
    z = torch.tensor([[3.0, -0.2, 1.0, 3.0], [3.0, -0.3, 1.0, 3.0]])
    drawn = torch.tensor(
        [[True, True, False, True]] * 2
    )  # costs 4; of the probable ones block 1 is not, block 2 is
    costs = partial(cost_of, prices=EVEN)
    assert fit_plan(drawn, z, costs, budget=3.0).keep_KL.tolist() == [[True, False, False, True]] * 2
    apart = fit_plan(drawn, z, costs, budget=5.0)  # 1 + 1 + (0 + 1) + 0 + 2: one task leaves block 1
    assert apart.keep_KL.tolist() == [[True, False, False, True], [True, True, False, True]]
    assert apart.given_up == pytest.approx(0.2)
    assert fit_plan(z >= 0, z, costs, budget=3.0).keep_KL.tolist() == [[True, False, False, True]] * 2
    assert fit_plan(z >= 0, z, costs, budget=5.0).keep_KL.all()


def test_draws_stay_distinct_and_meet_the_budget():
    prices = Prices(
        3.0, (1, 1, 0.78, 1, 0.78, 1, 0.78, 1), (0, 0, 0.05, 0, 0.05, 0, 0.05, 0), 1.5, (True, True)
    )
    costs, generator = partial(cost_of, prices=prices), torch.Generator().manual_seed(0)
    # where few plans meet the budget some draws have the same one next to them
    for part, at_least in ((0.7, 10), (0.8, 12), (1.0, 20)):
        budget = part * dense_cost(prices)
        z = torch.randn(2, 8, generator=generator, dtype=torch.double)
        drawn = [torch.rand(2, 8, generator=generator, dtype=torch.double) < z.sigmoid() for _ in range(24)]
        assert len({tuple(d.flatten().tolist()) for d in drawn}) == 24
        found = [fit_plan(d, z, costs, budget, spend=dense_cost(prices)) for d in drawn]
        assert all(fit.is_within for fit in found)
        assert len({tuple(fit.keep_KL.flatten().tolist()) for fit in found}) >= at_least
        for plan, fit in zip(drawn, found, strict=True):
            if abs(costs(plan[None]).item() - budget) <= TOLERANCE * budget:
                assert torch.equal(fit.keep_KL, plan)


def test_union():
    prices = Prices(1.0, (1.0, 2.0, 3.0), (0.0,) * 3, 0.0, (True, True), is_union=True)
    z = torch.tensor([[1.0, 0.2, 5.0], [-2.0, 0.3, 5.0]])
    found = fit(z, prices, budget=5.0)
    assert found.keep_KL.tolist() == [[True, False, True], [False, False, True]]


def test_neighbours_are_entries_groups_and_columns():
    keep_KL = torch.tensor([[True, True], [True, True], [False, True]])
    found = {tuple(map(tuple, row)) for row in neighbours(keep_KL).tolist()}
    # block 1 is shared by the first two: they may leave it alone, together, or all three
    assert ((True, False), (True, False), (False, True)) in found
    assert ((True, False), (True, False), (False, False)) in found
    assert ((True, False), (True, True), (False, True)) in found
    assert ((False, True), (False, True), (False, True)) in found
    assert len(found) == len(neighbours(keep_KL))
    assert len(neighbours(keep_KL, closed=2)) == 0


def test_beside_all_plans():
    """Wherever a plan meets the budget one is found, and seldom much less probable than the best of them."""
    generator = torch.Generator().manual_seed(0)
    behind = []
    for case in range(24):
        num_tasks, num_blocks = [(2, 4), (2, 6), (3, 4), (4, 3)][case % 4]
        prices = some_prices(num_tasks, num_blocks, seed=case)
        z = 2 * torch.randn(num_tasks, num_blocks, generator=generator, dtype=torch.double)
        budget = dense_cost(prices) * (0.8, 0.9, 1.0, 1.1)[case // 4 % 4]
        if budget < smallest_cost(prices):
            continue
        plans_NKL = all_plans(num_tasks, num_blocks)
        cost_N = cost_of(plans_NKL, prices)
        lost_N = ((plans_NKL != (z >= 0)) * z.abs()).sum(dim=(1, 2))
        fits_N = (cost_N - budget).abs() <= TOLERANCE * budget
        found = fit(z, prices, budget)
        assert found.cost == pytest.approx(cost_of(found.keep_KL[None], prices).item())
        assert found.cost <= (1 + TOLERANCE) * budget
        assert found.is_within == bool(fits_N.any())
        if found.is_within:
            behind.append(found.given_up - lost_N[fits_N].min().item())
        else:
            assert found.next_above >= cost_N[cost_N > budget].min().item() - 1e-9
    assert len(behind) > 15 and min(behind) > -1e-9
    assert sum(gap < 1e-9 for gap in behind) > 0.6 * len(behind) and sum(behind) / len(behind) < 0.5


def test_gets_the_same_plan_again():
    z = torch.randn(4, 8, generator=torch.Generator().manual_seed(3))
    prices = some_prices(4, 8)
    first, second = (fit(z, prices, 0.9 * dense_cost(prices)) for _ in range(2))
    assert torch.equal(first.keep_KL, second.keep_KL)
