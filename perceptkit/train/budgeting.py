"""A budget in a run: what is asked for, what the search pays for exceeding it, and the plan that meets it.

Shapes: K tasks, L blocks, N pictures.
"""

import copy
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, cast

import torch
from lightning_fabric import Fabric
from torch import Tensor

from perceptkit.errors import SpecError
from perceptkit.model import cost
from perceptkit.model.plan import KEEP, SKIP, Plan
from perceptkit.model.supernet import Supernet
from perceptkit.policies.adashare import AdaSharePolicy, keep_prob
from perceptkit.policies.budget import (
    DUAL_RATE,
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
from perceptkit.policies.budget_plan import TOLERANCE, Fit, fit_plan
from perceptkit.spec.budget import BudgetSpec
from perceptkit.spec.recipe import Recipe, SearchStage
from perceptkit.train.evaluate import Evaluation, evaluate
from perceptkit.train.plan_statistics import statistics_of
from perceptkit.train.ranks import mean_losses, sum_over_ranks
from perceptkit.train.run_folder import write_json

if TYPE_CHECKING:
    from perceptkit.train.training import Training

FIRST_PRICE = 0.3
"""Of a hard-shared pass, in sizes of the tasks' loss: what max_drop begins with."""
TRIALS = 6
"""Budgets that are tried for max_drop at the end of the search, besides the policy's own plan."""
OF_DENSE = {
    "macs": "of a hard-shared pass",
    "params": "of the hard-shared network",
    "latency_ms": "ms",
    "max_drop": "of a hard-shared pass",
}


@dataclass
class Budget:
    """What is asked for, and the multiplier that is solved for."""

    spec: BudgetSpec
    prices: Prices
    """In MACs, parameters or milliseconds."""
    last_closed: int
    """Leading blocks that the curriculum has not opened even at the end of the search."""
    multiplier: Multiplier = field(default_factory=Multiplier)

    @property
    def unit(self) -> float:
        """What the numbers that the user reads are parts of: one hard-shared pass, or a millisecond."""
        return 1.0 if self.spec.kind == "latency_ms" else dense_cost(self.prices)

    @property
    def limit(self) -> float:
        """The budget in the unit of the prices; one hard-shared pass where it is a loss of quality."""
        return self.unit * (1.0 if self.spec.kind == "max_drop" else self.spec.amount)

    @property
    def least(self) -> float:
        """The smallest budget that a plan can meet, in the unit that the user reads, rounded up to three decimals."""
        return _up(smallest_cost(self.prices, self.last_closed) / self.unit)

    def cost(self, plan: Plan) -> float:
        """Of a plan, in the unit of the prices."""
        keep_KL = torch.tensor([plan.row(task) for task in plan.tasks])
        return cost_of(keep_KL[None], self.prices).item()

    def is_met(self, plan: Plan) -> bool:
        """Whether a plan costs no more than the budget, or hardly more."""
        return self.cost(plan) <= (1 + TOLERANCE) * self.limit

    def state(self) -> dict[str, Any]:
        """For a checkpoint; times are measured once."""
        return {"multiplier": self.multiplier.state(), "prices": asdict(self.prices)}

    def load(self, state: Mapping[str, Any]) -> None:
        """Continues from what `state` gave."""
        self.multiplier.load(state["multiplier"])
        self.prices = Prices(**state["prices"])


def begin_budget(recipe: Recipe, supernet: Supernet, fabric: Fabric, opened: int, refuse: bool) -> Budget:
    """The recipe's budget for this network.

    Args:
        recipe: with a section `budget`.
        supernet: the network.
        fabric: whose first rank measures times for all.
        opened: blocks that the curriculum has opened by the end of the search.
        refuse: whether a budget that no plan can meet raises SpecError.
    """
    spec = recipe.budget
    assert spec is not None
    if len(supernet.tasks) > MAX_TASKS and spec.kind != "params":
        raise SpecError(
            f"budget: the cost of {len(supernet.tasks)} tasks is a sum over all sets of them; "
            f"at most {MAX_TASKS} tasks"
        )
    num_blocks = len(supernet.blocks)
    if spec.kind == "latency_ms":
        device = _device(spec.device or "cpu")
        # times differ from process to process; all must agree on them
        measured = timed_prices(supernet, device) if fabric.global_rank == 0 else None
        prices = cast(Prices, fabric.broadcast(measured))
    elif spec.kind == "params":
        prices = param_prices(supernet)
    else:
        prices = run_prices(supernet, cost.measure(supernet, supernet.size_HW))
    budget = Budget(spec, prices, num_blocks - opened)
    if spec.kind == "max_drop":
        budget.multiplier.value = FIRST_PRICE
    elif refuse and (message := too_small(budget, budget.spec.amount)):
        raise SpecError(message)
    return budget


def _up(value: float) -> float:
    """To three decimals."""
    return math.ceil(1000 * value) / 1000


def too_small(budget: Budget, amount: float) -> str:
    """Why no plan can meet so small a budget of this kind, with the smallest number that is possible; empty where one
    can, and with `max_drop`, which all blocks meet."""
    kind, num_blocks = budget.spec.kind, len(budget.prices.kept_L)
    if kind == "max_drop" or amount >= smallest_cost(budget.prices, budget.last_closed) / budget.unit:
        return ""
    told, ever = budget.least, _up(smallest_cost(budget.prices) / budget.unit)
    message = f"budget.{kind} {amount:g} cannot be met: "
    if budget.last_closed and told > ever:
        opened = num_blocks - budget.last_closed
        message += (
            f"the curriculum opens {opened} of {num_blocks} blocks by the end of the search, and {told:g} "
            f"{OF_DENSE[kind]} is the smallest possible then; with more epochs or a smaller speed of the search "
            f"it is {ever:g}"
        )
    else:
        message += (
            f"without any block, what is left (stem, projections, neck, heads) is {told:g} {OF_DENSE[kind]}, "
            "the smallest possible"
        )
    return message


def _device(name: str) -> torch.device:
    """Raises SpecError where there is no such device."""
    try:
        return torch.zeros(1, device=name).device
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise SpecError(
            f"budget.device: {name!r} is not there ({reason}); expected cpu, or cuda where there is one"
        ) from error


def timed_prices(supernet: Supernet, device: torch.device) -> Prices:
    """Milliseconds of every part, for one picture, on a copy of the network there.

    Parts that are timed one by one do not add up to the whole exactly: all are scaled so that a hard-shared pass does.
    The compact model, whose norms are folded, is faster; `perceptkit benchmark` measures it.
    """
    network = copy.deepcopy(supernet).to(device).eval()
    meter = partial(cost.measured_nanoseconds, rounds=15)
    steps = cost.measure(network, network.size_HW, meter)
    heads = {name: max(0, time) for name, time in steps.heads.items()}  # a difference of two times
    prices = run_prices(network, cost.StepMacs(steps.plain, steps.block, steps.projection, steps.neck, heads))
    picture = torch.zeros(1, 3, *network.size_HW, device=device)
    plan = Plan.all_keep(list(network.tasks), [block.name for block in network.blocks])
    with torch.inference_mode():
        whole = meter(partial(network, picture, plan))
    return prices.times(1e-6 * whole / dense_cost(prices))


def open_probabilities(policy: AdaSharePolicy, open_count: int) -> Tensor:
    """Keep probabilities (K, L); 1 in the blocks that the curriculum has not opened."""
    a_KL = keep_prob(policy.policy_logits_KL2)
    closed = len(policy.blocks) - open_count
    return torch.cat([torch.ones_like(a_KL[:, :closed]), a_KL[:, closed:]], dim=1)


def budget_term(training: "Training", stage: SearchStage, task_loss: Tensor, open_count: int) -> Tensor:
    """What a policy step adds to the loss; the multiplier takes its own step."""
    budget = training.budget
    assert budget is not None
    multiplier, prices = budget.multiplier, budget.prices
    multiplier.note_loss(mean_losses({"loss": task_loss})["loss"])
    expected = expected_cost(open_probabilities(training.policy, open_count), prices, shared_draws=True)
    if budget.spec.kind == "max_drop":
        return (multiplier.scale or 1.0) * multiplier.value * (expected / budget.unit).float()
    closed = len(training.policy.blocks) - open_count
    excess = (expected / asked_of_open(prices, budget.limit, closed, budget.last_closed) - 1).float()
    is_limit = budget.limit > dense_cost(prices)
    term = multiplier.penalty(excess, is_limit)
    multiplier.ascend(excess.item(), DUAL_RATE * stage.policy_lr, is_limit)
    return term


def decide(training: "Training", open_count: int) -> Plan:
    """The plan as it would be decided now, within the budget where that is a cost."""
    budget = training.budget
    if budget is None or budget.spec.kind == "max_drop":
        return training.policy.decide(open_count)
    return within_budget(training, training.policy.decide(open_count), open_count)


def within_budget(training: "Training", plan: Plan, open_count: int) -> Plan:
    """A plan near this one that meets the budget (policies/budget_plan.py); with `max_drop`, one that costs what the
    run's plan does."""
    budget = training.budget
    if budget is None:
        return plan
    limit = budget.cost(training.plan) if budget.spec.kind == "max_drop" else budget.limit
    return _as_plan(training, _fit(training, plan, open_count, limit).keep_KL)


def conclude_budget(training: "Training", open_count: int) -> Plan:
    """The plan after the search; what it costs is told, and written to budget.json."""
    budget = training.budget
    if budget is None:
        return training.policy.decide(open_count)
    own = budget.cost(training.policy.decide(open_count))
    tried: list[dict[str, float]] = []
    if budget.spec.kind == "max_drop":
        fit, tried = _cheapest(training, open_count, budget.spec.amount)
    else:
        fit = _fit(training, training.policy.decide(open_count), open_count, budget.limit)
    plan = _as_plan(training, fit.keep_KL)
    line = _told(budget, fit, own, tried)
    training.progress.say(line)
    training.log.say(line)
    if training.fabric.global_rank == 0:
        unit = budget.unit
        found = {
            "kind": budget.spec.kind,
            "budget": budget.spec.amount,
            "cost": fit.cost / unit,
            "most_probable": own / unit,
            "is_within": fit.is_within,
            "next_above": fit.next_above / unit,
            "given_up": fit.given_up,
            "multiplier": budget.multiplier.value,
            "tried": tried,
            "prices": asdict(budget.prices),
        }
        write_json(training.run / "budget.json", found)
    return plan


def ship_budget(training: "Training", plan: Plan) -> None:
    """Rewrites budget.json for the plan that the run ends with, and tells what it costs, where that is not the one that
    the search ended with: a search that comes last ships the plan of its best epoch, sampling that of its best sample.

    `most_probable` and `multiplier` stay those of the end of the search.
    """
    budget, file = training.budget, training.run / "budget.json"
    if budget is None or training.fabric.global_rank != 0:
        return
    found = json.loads(file.read_text(encoding="utf-8"))
    shipped, ended = budget.cost(plan) / budget.unit, found.get("search_ended_with", found["cost"])
    lost = _given_up(training, plan)
    if math.isclose(shipped, found["cost"]) and math.isclose(lost, found["given_up"], abs_tol=1e-6):
        return
    found |= {"cost": shipped, "given_up": lost, "next_above": math.inf, "search_ended_with": ended}
    if budget.spec.kind != "max_drop":
        low = (1 - TOLERANCE) * min(budget.limit, dense_cost(budget.prices))
        found["is_within"] = low <= budget.cost(plan) <= (1 + TOLERANCE) * budget.limit
    write_json(file, found)
    training.say(
        f"budget: the plan that is shipped, the best on val, costs {shipped:.3f} {OF_DENSE[budget.spec.kind]}; "
        f"that of the end of the search costs {ended:.3f}"
    )


def _given_up(training: "Training", plan: Plan) -> float:
    """Log-probability of a plan below that of the most probable one at the end of the search."""
    policy, budget = training.policy, training.budget
    assert budget is not None
    likely = policy.decide(len(policy.blocks) - budget.last_closed)
    keep_KL, likely_KL = (torch.tensor([p.row(task) for task in p.tasks]) for p in (plan, likely))
    return ((keep_KL != likely_KL) * _log_odds(training).double().cpu().abs()).sum().item()


def _told(budget: Budget, fit: Fit, own: float, tried: list[dict[str, float]]) -> str:
    kind, amount, unit = budget.spec.kind, budget.spec.amount, budget.unit
    costs, probable = f"{fit.cost / unit:.3f}", f"{own / unit:.3f}"
    if kind == "max_drop":
        drop = next(row["drop"] for row in tried if row["cost"] == fit.cost / unit)
        return (
            f"budget: max_drop {amount:.2%}; the plan costs {costs} of a hard-shared pass, and quality on val changes "
            f"by {-drop:+.2%} against all blocks (the most probable plan costs {probable})"
        )
    line = f"budget: {kind} {amount:g}; the plan costs {costs} {OF_DENSE[kind]} (the most probable one {probable})"
    if not fit.is_within and math.isfinite(fit.next_above):
        line += (
            f"; blocks are too coarse for {TOLERANCE:.0%}: the next plan that was found above the budget costs "
            f"{fit.next_above / unit:.3f}"
        )
    elif not fit.is_within:
        line += "; no plan that was found spends more"
    return line


def budget_row(training: "Training", open_count: int, plan: Plan) -> dict[str, float]:
    """For the log, after an epoch of the search: costs as parts of a hard-shared pass, or in milliseconds."""
    budget = training.budget
    if budget is None:
        return {}
    a_KL = open_probabilities(training.policy, open_count).detach()
    return {
        "expected_cost": expected_cost(a_KL, budget.prices, shared_draws=True).item() / budget.unit,
        "expected_cost_independent": expected_cost(a_KL, budget.prices).item() / budget.unit,
        "plan_cost": budget.cost(plan) / budget.unit,
        "multiplier": budget.multiplier.value,
    }


def adjust_price(training: "Training", evaluation: Evaluation) -> None:
    """With `max_drop`, after an epoch: MACs cost more where less is lost than may be, and less where more is.

    Args:
        training: with the plan as it would be decided now.
        evaluation: of that plan on val.
    """
    budget = training.budget
    if budget is None or budget.spec.kind != "max_drop":
        return
    policy = training.policy
    full = _quality(training, Plan.all_keep(policy.tasks, policy.blocks))
    drop = relative_drop(mean_qualities(evaluation, training.fabric.device), full)
    ratio = budget.spec.amount / drop if drop > 0 else math.inf
    budget.multiplier.value *= min(max(ratio, 0.5), 2.0)


def relative_drop(quality_K: Tensor, full_K: Tensor) -> float:
    """Loss of quality against all blocks, relative, averaged over the tasks that have any quality to lose.

    >>> relative_drop(torch.tensor([0.4, 0.9]), torch.tensor([0.5, 0.9]))
    0.1
    """
    counts_K = full_K > 0
    lost_K = 1 - quality_K.double()[counts_K] / full_K.double()[counts_K]
    return round(lost_K.mean().item(), 6) if counts_K.any() else 0.0


def mean_qualities(evaluation: Evaluation, device: torch.device) -> Tensor:
    """Mean quality on the split by task, over all ranks; 0 where no picture has a label."""
    quality_NK = evaluation.quality_NK.double()
    known_NK = ~quality_NK.isnan()
    sums = torch.stack([quality_NK.nan_to_num().sum(dim=0), known_NK.double().sum(dim=0)]).to(device)
    total_K, count_K = sum_over_ranks(sums).cpu()
    return total_K / count_K.clamp(min=1)


def _quality(training: "Training", plan: Plan) -> Tensor:
    training.supernet.eval()
    batches = training.loader(training.val, range(len(training.val)), train=False)
    device = training.fabric.device
    with statistics_of(training, plan):
        found = evaluate(lambda image: training.supernet(image, plan), batches, training.tasks, device)
    return mean_qualities(found, device)


def _fit(training: "Training", plan: Plan, open_count: int, limit: float) -> Fit:
    policy, budget = training.policy, training.budget
    assert budget is not None
    keep_KL = torch.tensor([plan.row(task) for task in plan.tasks])
    closed = len(policy.blocks) - open_count
    costs = partial(cost_of, prices=budget.prices)
    spend = dense_cost(budget.prices)
    return fit_plan(keep_KL, _log_odds(training), costs, limit, closed, spend=spend)


def _log_odds(training: "Training") -> Tensor:
    """Of keep to skip, (K, L)."""
    logits_KL2 = training.policy.policy_logits_KL2.detach()
    return logits_KL2[..., KEEP] - logits_KL2[..., SKIP]


def _as_plan(training: "Training", keep_KL: Tensor) -> Plan:
    return Plan.from_keep(training.policy.tasks, training.policy.blocks, keep_KL.tolist())


def _cheapest(training: "Training", open_count: int, max_drop: float) -> tuple[Fit, list[dict[str, float]]]:
    """The plan of least cost that was found to lose at most `max_drop` on val, and all that were tried.

    Budgets between no block and all of them are halved, as if quality rose with cost.
    """
    budget, policy = training.budget, training.policy
    assert budget is not None
    dense = dense_cost(budget.prices)
    low, high = smallest_cost(budget.prices, len(policy.blocks) - open_count), dense
    everything = Plan.all_keep(policy.tasks, policy.blocks)
    full_K = _quality(training, everything)
    keep_KL = torch.ones(len(policy.tasks), len(policy.blocks), dtype=torch.bool)
    best = Fit(keep_KL, dense, 0.0, True, math.inf)
    tried = [{"cost": 1.0, "drop": 0.0}]
    drops: dict[Plan, float] = {everything: 0.0}
    own = budget.cost(policy.decide(open_count))
    for trial in range(TRIALS + 1):
        limit = own if trial == 0 else (low + high) / 2
        if limit >= best.cost:
            continue
        fit = _fit(training, policy.decide(open_count), open_count, limit)
        plan = _as_plan(training, fit.keep_KL)
        if plan not in drops:
            drops[plan] = relative_drop(_quality(training, plan), full_K)
            tried.append({"cost": fit.cost / dense, "drop": drops[plan]})
        drop = drops[plan]
        if drop <= max_drop and fit.cost < best.cost:
            best = fit
        low, high = (low, limit) if drop <= max_drop else (limit, high)
    return best, tried
