"""A plan that meets a budget and is near a given one, found by walking from there.

Between two plans lies, for every entry in which they differ, the distance of its two logits. From the most probable
plan of all that is log-probability, so that the nearest plan to it is the most probable that meets the budget; a plan
that was drawn moves least where the policy is least sure, and not at all if it meets the budget. Everett
(*Generalized Lagrange Multiplier Method for Solving Problems of Optimum Allocation of Resources*, Operations Research
1963) ranks changes by what they save for what they cost; so does the walk, one change after another:

* a change makes one task, all tasks, or all tasks that share the block's input keep or skip one block. Single entries
  alone would not do: of a block that several tasks share, nothing is saved until the last of them skips it;
* if any change ends inside, the nearest one is taken; else the one with the best ratio, of
  those that do not go past the budget as long as there are any;
* no plan is visited twice. Where none is inside, pairs of changes are tried around those that came nearest, and what
  comes out in the end is the nearest plan below the budget;
* at last single changes and pairs of them that stay inside and come nearer again are taken.

A heuristic: what it finds is inside, and now and then another plan inside is nearer. Its test compares it with
enumeration.

Shapes: N plans or changes, K tasks, L blocks (index 0 next to the image).
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

TOLERANCE = 0.02
"""A plan is within the budget if its cost differs by at most this part of it."""
NEAREST = 8
"""Plans around which pairs of changes are tried where the walk ended outside: those whose cost came nearest."""
Costs = Callable[[Tensor], Tensor]
"""Costs (N,) of plans, bool (N, K, L)."""


@dataclass(frozen=True)
class Fit:
    """A plan, and what was found around it."""

    keep_KL: Tensor
    """Bool."""
    cost: float
    given_up: float
    """How far it is from the plan to begin with, at least 0: if that is the most probable one, log-probability."""
    is_within: bool
    """Whether the cost is within `TOLERANCE` of the budget, or of what of it is to be spent."""
    next_above: float
    """The cheapest plan above the budget that was met; infinite where there was none."""


def fit_plan(
    keep_KL: Tensor,
    log_odds_KL: Tensor,
    costs: Costs,
    budget: float,
    closed: int = 0,
    spend: float = math.inf,
) -> Fit:
    """The plan.

    Args:
        keep_KL: the plan to be near to, bool; it is returned as it is where it is within the budget.
        log_odds_KL: log of keep's probability over skip's.
        costs: of plans.
        budget: in the same unit.
        closed: leading blocks that may not be changed.
        spend: as much of a budget as is to be spent; between this and the budget every plan is within it.
    """
    low, high = (1 - TOLERANCE) * min(budget, spend), (1 + TOLERANCE) * budget
    odds_KL, begun_KL = log_odds_KL.detach().cpu().double(), keep_KL.cpu()

    def given_up(keep_NKL: Tensor) -> Tensor:
        return ((keep_NKL != begun_KL) * odds_KL.abs()).sum(dim=(1, 2))

    here_KL = begun_KL.clone()
    cost, lost = costs(here_KL[None]).item(), given_up(here_KL[None]).item()
    below, above = Fit(here_KL, -math.inf, math.inf, False, math.inf), math.inf
    met: list[tuple[float, Tensor]] = []
    inside: Fit | None = None
    visited: set[bytes] = set()
    for _ in range(4 * here_KL.numel() + 1):
        visited.add(here_KL.numpy().tobytes())
        if low <= cost <= high:
            inside = Fit(here_KL, cost, lost, True, math.inf)
            break
        goal = budget if cost > high else min(budget, spend)
        met.append((abs(cost - goal), here_KL))
        if below.cost < cost < low:
            below = Fit(here_KL, cost, lost, False, math.inf)
        near_NKL = neighbours(here_KL, closed)
        near_NKL = near_NKL[[row.numpy().tobytes() not in visited for row in near_NKL]]
        if not len(near_NKL):
            break
        cost_N, lost_N = costs(near_NKL), given_up(near_NKL)
        above = min([above, *cost_N[cost_N > high].tolist()])
        fits_N = (cost_N >= low) & (cost_N <= high)
        if fits_N.any():
            chosen = int(torch.where(fits_N, lost_N, math.inf).argmin())
        else:
            nearer_N = (cost - cost_N) if cost > high else (cost_N - cost)
            crosses_N = (cost_N < low) if cost > high else (cost_N > high)
            if (~crosses_N & (nearer_N > 0)).any():
                nearer_N = torch.where(crosses_N, 0.0, nearer_N)
            gain_N = nearer_N.clamp(max=abs(cost - goal))  # what is beyond the budget gains nothing more
            price_N = (lost_N - lost).clamp(min=1e-6)
            ratio_N = torch.where(gain_N > 0, gain_N / price_N, gain_N - price_N)
            chosen = int(ratio_N.argmax())
        here_KL, cost, lost = near_NKL[chosen], cost_N[chosen].item(), lost_N[chosen].item()
    if inside is None:
        if below.cost == -math.inf:  # everything met is above: the cheapest plan there is
            here_KL = begun_KL.clone()
            here_KL[:, closed:] = False
            below = Fit(here_KL, costs(here_KL[None]).item(), math.inf, False, math.inf)
        met.sort(key=lambda plan: plan[0])
        nowhere = replace(below, given_up=math.inf)
        found = [_better(nowhere, _pairs(m, closed), costs, given_up, (low, high)) for _, m in met[:NEAREST]]
        inside = min(filter(None, found), key=lambda fit: fit.given_up, default=None)
    if inside is None:
        return replace(below, given_up=given_up(below.keep_KL[None]).item(), next_above=above)
    while (better := _improved(inside, costs, given_up, (low, high), closed)) is not None:
        inside = better
    return inside


def neighbours(keep_KL: Tensor, closed: int = 0) -> Tensor:
    """Plans that differ in one block, of one task, of all tasks that share its input, or of all: bool (N, K, L)."""
    num_tasks, num_blocks = keep_KL.shape
    found: dict[bytes, Tensor] = {}
    for block in range(closed, num_blocks):
        groups: dict[tuple[bool, ...], list[int]] = {}
        for task, row in enumerate(keep_KL[:, :block].tolist()):
            groups.setdefault(tuple(row), []).append(task)
        sets = [[task] for task in range(num_tasks)] + list(groups.values()) + [list(range(num_tasks))]
        for tasks in sets:
            for choice in (True, False):
                near_KL = keep_KL.clone()
                near_KL[tasks, block] = choice
                found.setdefault(near_KL.numpy().tobytes(), near_KL)
    found.pop(keep_KL.numpy().tobytes(), None)
    return torch.stack(list(found.values())) if found else keep_KL.new_zeros(0, num_tasks, num_blocks)


def _improved(
    fit: Fit, costs: Costs, given_up: Costs, bounds: tuple[float, float], closed: int
) -> Fit | None:
    """A nearer plan inside, by one change or else by two; None where there is none."""
    near_NKL = neighbours(fit.keep_KL, closed)
    if (one := _better(fit, near_NKL, costs, given_up, bounds)) is not None:
        return one
    wins_N = given_up(near_NKL) < fit.given_up  # of two changes at least one must
    return _better(fit, _pairs(fit.keep_KL, closed, wins_N), costs, given_up, bounds)


def _pairs(keep_KL: Tensor, closed: int, first_N: Tensor | None = None) -> Tensor:
    """Plans that differ by two changes, the first of them one of `first_N`: bool (N, K, L)."""
    near_NKL = neighbours(keep_KL, closed)
    first_NKL = near_NKL if first_N is None else near_NKL[first_N]
    both = first_NKL[:, None] ^ near_NKL[None] ^ keep_KL
    return both.flatten(0, 1)


def _better(
    fit: Fit, tried_NKL: Tensor, costs: Costs, given_up: Costs, bounds: tuple[float, float]
) -> Fit | None:
    """Of these plans the nearest inside, if it is nearer than `fit`."""
    lost_N = given_up(tried_NKL)
    more = lost_N < fit.given_up - 1e-9
    tried_NKL, lost_N = tried_NKL[more], lost_N[more]
    if not len(tried_NKL):
        return None
    cost_N = costs(tried_NKL)
    lost_N = torch.where((cost_N >= bounds[0]) & (cost_N <= bounds[1]), lost_N, math.inf)
    best = int(lost_N.argmin())
    if lost_N[best] == math.inf:
        return None
    return Fit(tried_NKL[best], cost_N[best].item(), lost_N[best].item(), True, math.inf)
