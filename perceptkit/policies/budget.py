"""A budget: what all tasks on one image may cost together, as a differentiable function of the policy.

AdaShare's regularisers count blocks and know nothing of who can share what. What an image costs is a trie (see
`model/cost.py`): tasks share a block's activations only as long as their plans have agreed on every block before it.
Let K_S(l) and Z_S(l) be the probabilities that all tasks of a set S keep, or skip, block l. They have agreed on all
blocks before it with probability q_S(l) = prod_{m<l} (K_S(m) + Z_S(m)), and the number of distinct prefixes is, by
inclusion and exclusion, a sum over all non-empty S: of n tasks of one prefix, sum_i (-1)^(i+1) binom(n, i) = 1. So,
exactly, for any number of tasks,

    E[cost] = fixed + sum_l sum_S (-1)^(|S|+1) q_S(l) ( kept_l K_S(l) + skipped_l Z_S(l) )
            + neck sum_{S of dense tasks} (-1)^(|S|+1) q_S(L)

    independent draws:   K_S(l) = prod_{k in S} a_{k,l}    Z_S(l) = prod_{k in S} (1 - a_{k,l})
    shared draws:        K_S(l) = min_{k in S} a_{k,l}     Z_S(l) = 1 - max_{k in S} a_{k,l}

where a_{k,l} is the probability that task k keeps block l. Independent draws are AdaShare's samples; for two tasks a
block then runs q (1 - (1 - a)(1 - b)) + (1 - q)(a + b) times. With shared draws one number u, uniform in [0, 1], is
drawn for each block and kept is whose a exceeds it: every task keeps it as often as before, but tasks differ only as
much as their probabilities do. Parameters are a union: E[params] = fixed + sum_l kept_l P(any task keeps l).

The search minimises the tasks' losses subject to E[cost] = budget by the modified differential method of multipliers
(Platt and Barr, *Constrained Differential Optimization*, NIPS 1987): with the excess g = E[cost] / budget - 1,

    gradient descent on  loss + scale * ( lambda g + rho / 2 g^2 ),    gradient ascent  lambda <- lambda + rate * g

* The *expected* cost is held, not that of the plan that would be decided now: it has a gradient and does not jump.
* It is that of *shared* draws. Independent draws charge tasks that have not decided yet for differing by chance, so
  they hurry into any agreement, and at a block that all tasks share no single task saves anything by skipping it:
  there the gradient ends. Shared draws fall with all tasks at once; of two tasks they charge |a - b| times all that
  comes after the block: a sharing loss in units of cost.
* Plain dual ascent oscillates about its goal; the quadratic term damps it. `scale` is the size of the tasks' loss, so
  that nothing depends on its units. Up to one hard-shared pass a budget is to be spent: lambda may be
  negative, and holds against a sparsity loss that would fall below it. A larger budget is a limit, since tasks that
  differ for no reason would spend it too: lambda >= 0, and what is below costs nothing.

Shapes: N plans, K tasks, L blocks (index 0 next to the image), S non-empty sets of tasks.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from perceptkit.model import cost
from perceptkit.model.blocks import num_params
from perceptkit.model.cost import StepMacs
from perceptkit.model.plan import Plan
from perceptkit.model.supernet import Supernet

MAX_TASKS = 12
"""The exact cost sums over all sets of tasks: 4,095 of them here."""
DAMPING = 4.0
"""rho, of the quadratic term."""
DUAL_RATE = 2.0
"""Rate of lambda, in learning rates of the logits: both move as fast as the policy can."""
LARGEST = 100.0
"""lambda stays within this: a budget that cannot be spent must not wind it up."""


@dataclass(frozen=True)
class Prices:
    """What each part of a network costs, in one unit: MACs, parameters or milliseconds."""

    fixed: float
    """What every plan pays: stem and heads; of parameters all that is in no block."""
    kept_L: tuple[float, ...]
    """Each block where it runs, with the plain steps after it; of parameters those that go when no task keeps it."""
    skipped_L: tuple[float, ...]
    """The same where it is skipped."""
    neck: float
    """For every distinct plan of a dense task."""
    dense_K: tuple[bool, ...]
    """Which tasks read the neck."""
    is_union: bool = False
    """Whether a block is paid once, whoever keeps it."""

    def times(self, factor: float) -> "Prices":
        """The same in another unit."""
        kept_L, skipped_L = (tuple(factor * p for p in part) for part in (self.kept_L, self.skipped_L))
        return replace(
            self, fixed=factor * self.fixed, kept_L=kept_L, skipped_L=skipped_L, neck=factor * self.neck
        )


def run_prices(supernet: Supernet, steps: StepMacs) -> Prices:
    """Prices of running a network: MACs, or times where `steps` holds those."""
    after = steps.plain[1:]
    return Prices(
        fixed=steps.plain[0] + sum(steps.heads.values()),
        kept_L=tuple(block + plain for block, plain in zip(steps.block, after, strict=True)),
        skipped_L=tuple(short + plain for short, plain in zip(steps.projection, after, strict=True)),
        neck=steps.neck,
        dense_K=tuple(task.dense for task in supernet.tasks.values()),
    )


def param_prices(supernet: Supernet) -> Prices:
    """Prices of storing a network: parameters."""
    backbone, kept = supernet.backbone, []
    for step in supernet.steps:
        if step.block is not None:
            projection = step.projection
            stays = 0 if projection is None else num_params(backbone.get_submodule(projection))
            kept.append(float(num_params(backbone.get_submodule(step.name)) - stays))
    blocks, tasks = [block.name for block in supernet.blocks], list(supernet.tasks)
    nothing = Plan.from_keep(tasks, blocks, [[False] * len(blocks) for _ in tasks])
    dense_K = tuple(task.dense for task in supernet.tasks.values())
    fixed = cost.params(supernet, nothing)
    return Prices(fixed, tuple(kept), (0.0,) * len(kept), 0.0, dense_K, is_union=True)


def expected_cost(a_KL: Tensor, prices: Prices, shared_draws: bool = False) -> Tensor:
    """E[cost] of plans whose entries are kept with probability a; a scalar in double precision.

    Raises ValueError for more than `MAX_TASKS` tasks, unless `prices` are those of a union.
    """
    a_KL = a_KL.double()
    kept_L, skipped_L = (a_KL.new_tensor(part) for part in (prices.kept_L, prices.skipped_L))
    if prices.is_union:
        any_L = a_KL.amax(dim=0) if shared_draws else 1 - (1 - a_KL).prod(dim=0)
        return prices.fixed + (kept_L * any_L).sum()
    num_tasks = len(a_KL)
    if num_tasks > MAX_TASKS:
        raise ValueError(f"{num_tasks} tasks; the expected cost is computed for at most {MAX_TASKS}")
    index_S = torch.arange(1, 2**num_tasks, device=a_KL.device)
    member_SK = (index_S[:, None] >> torch.arange(num_tasks, device=a_KL.device)) & 1 == 1
    sign_S = 1.0 - 2.0 * (member_SK.sum(dim=1) % 2 == 0).double()
    member_SK1 = member_SK[..., None]
    if shared_draws:
        keep_SL = torch.where(member_SK1, a_KL, 2.0).amin(dim=1)
        skip_SL = 1 - torch.where(member_SK1, a_KL, -1.0).amax(dim=1)
    else:
        keep_SL = torch.where(member_SK1, a_KL, 1.0).prod(dim=1)
        skip_SL = torch.where(member_SK1, 1 - a_KL, 1.0).prod(dim=1)
    agree_SL = (keep_SL + skip_SL).cumprod(dim=1)  # over this block too
    before_SL = torch.cat([torch.ones_like(agree_SL[:, :1]), agree_SL[:, :-1]], dim=1)
    blocks_S = (before_SL * (kept_L * keep_SL + skipped_L * skip_SL)).sum(dim=1)
    all_dense_S = (~member_SK | torch.tensor(prices.dense_K, device=a_KL.device)).all(dim=1)
    necks_S = prices.neck * all_dense_S.double() * agree_SL[:, -1]
    return prices.fixed + (sign_S * (blocks_S + necks_S)).sum()


def cost_of(keep_NKL: Tensor, prices: Prices) -> Tensor:
    """What decided plans (bool) cost, (N,) in double precision: `cost.macs` and `cost.params`, many plans at once."""
    kept_L, skipped_L = (torch.tensor(part, dtype=torch.double) for part in (prices.kept_L, prices.skipped_L))
    if prices.is_union:
        return prices.fixed + (keep_NKL.any(dim=1).double() * kept_L).sum(dim=1)
    same_NKKL = (keep_NKL[:, :, None] == keep_NKL[:, None]).cummin(dim=-1).values
    earlier_KK1 = torch.ones(keep_NKL.shape[1], keep_NKL.shape[1], dtype=torch.bool).tril(-1)[..., None]
    first_NKL = ~(same_NKKL & earlier_KK1).any(dim=2)  # of those with the same prefix
    runs_N = ((first_NKL & keep_NKL).sum(dim=1) * kept_L).sum(dim=1)
    skips_N = ((first_NKL & ~keep_NKL).sum(dim=1) * skipped_L).sum(dim=1)
    dense_K = torch.tensor(prices.dense_K)
    both_KK = earlier_KK1[..., 0] & dense_K
    leaves_NK = dense_K & ~(same_NKKL[..., -1] & both_KK).any(dim=2)
    return prices.fixed + runs_N + skips_N + prices.neck * leaves_NK.sum(dim=1).double()


def smallest_cost(prices: Prices, closed: int = 0) -> float:
    """Of plans in which all tasks keep the first `closed` blocks."""
    keep_1KL = torch.zeros(1, len(prices.dense_K), len(prices.kept_L), dtype=torch.bool)
    keep_1KL[..., :closed] = True
    return cost_of(keep_1KL, prices).item()


def dense_cost(prices: Prices) -> float:
    """Of one hard-shared pass: all tasks keep all blocks."""
    return smallest_cost(prices, closed=len(prices.kept_L))


@dataclass
class Multiplier:
    """lambda, and the size of the loss that it stands beside."""

    value: float = 0.0
    scale: float | None = None
    """Running mean of the tasks' loss; None before any."""

    def note_loss(self, loss: float) -> None:
        """Of one step, into the running mean."""
        self.scale = loss if self.scale is None else 0.9 * self.scale + 0.1 * loss

    def penalty(self, excess: Tensor, is_limit: bool = False) -> Tensor:
        """scale * (lambda g + rho / 2 g^2); the square of a limit is that of what is above it."""
        damped = excess.clamp(min=0) if is_limit else excess
        return (self.scale or 1.0) * (self.value * excess + DAMPING / 2 * damped.square())

    def ascend(self, excess: float, rate: float, is_limit: bool = False) -> None:
        """lambda <- lambda + rate * g, of a limit at least 0."""
        least = 0.0 if is_limit else -LARGEST
        self.value = min(max(self.value + rate * excess, least), LARGEST)

    def state(self) -> dict[str, Any]:
        """For a checkpoint."""
        return {"value": self.value, "scale": self.scale}

    def load(self, state: Mapping[str, Any]) -> None:
        """Continues from what `state` gave."""
        self.value, self.scale = state["value"], state["scale"]


def asked_of_open(prices: Prices, budget: float, closed: int, last_closed: int = 0) -> float:
    """The cost to hold while the curriculum still keeps the first `closed` blocks for all tasks.

    The blocks that are open owe the part of their possible saving that all of them owe in the end:

        dense - (dense - budget) / (dense - smallest(last_closed)) * (dense - smallest(closed))
    """
    dense = dense_cost(prices)
    possible = dense - smallest_cost(prices, last_closed)
    part = (dense - budget) / possible if possible > 0 else 0.0
    return dense - part * (dense - smallest_cost(prices, closed))
