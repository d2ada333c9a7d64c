"""The router beside rules that look at no picture, at the same mean cost, each as it is and fine-tuned.

    all             every block                     what is gained or lost by tuning alone
    learned         the router                      as `route` left it, and tuned by the stage `finetune`; without a
                                                    stage `route` the tuned one's decisions, on the host as it was
    most_frequent   the router's favourite policy   the honest rival: a static network
    first_k random_k dist_k                         BlockDrop's heuristics
    random_drop     Veit et al.: the same random blocks deleted for all pictures

The cost that the heuristics and random deletion meet is the mean in MACs of the learned row that they stand beside, as
it is or tuned, the router's own included, up to that of all blocks; the most frequent policy is that row's, and has its
own cost. Every rule starts from the network as it was before anything was skipped. Fine-tuning uses the stage
`finetune`'s learning rate, norms and distillation, and as many pictures, or without that stage as many as `route`;
`all`, which would be its own teacher, learns from labels alone.

Shapes: N pictures of a split, B of a batch, R routed blocks.
"""

import copy
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from perceptkit.baselines.skipping import heuristics
from perceptkit.baselines.skipping.random_drop import random_drop
from perceptkit.data.source import Source
from perceptkit.model import cost
from perceptkit.policies import blockdrop
from perceptkit.policies.policy_stats import PolicyStats
from perceptkit.spec.recipe import FinetuneStage
from perceptkit.train import optim
from perceptkit.train.evaluate import Evaluation, evaluate
from perceptkit.train.losses import refuse_nan, task_losses, update
from perceptkit.train.routing import set_training, weights_loss
from perceptkit.train.routing_host import current, host_of, one_network, routing_spec
from perceptkit.train.run_folder import write_json
from perceptkit.train.training import Interrupted, Training

DRAWS = 5
"""Of which blocks a random deletion takes; untuned, the table has their mean."""
Rule = Callable[[int, torch.Generator], Tensor]
"""rule(number of pictures, generator) -> keep (N, R)."""
DRAWN_ONCE = ("all", "most_frequent", "random_drop")
"""Rules that are one policy: what is tuned is what is tested. The others are drawn anew for every batch."""


@dataclass(frozen=True)
class Costs:
    """MACs of one picture."""

    base: int
    """With all routed blocks skipped."""
    added_R: Tensor
    router: int
    by_task: Mapping[str, "Costs"] = field(default_factory=dict)
    """Of each task on its own, where there are several."""

    def of(self, keep_NR: Tensor) -> Tensor:
        """(N,) without the router."""
        return self.base + keep_NR.double() @ self.added_R


@dataclass(frozen=True)
class Decided:
    """What a router decides."""

    keep_NR: Tensor
    """On the pictures that are tested."""
    favourite_R: Tensor
    """Its most frequent policy on pictures that it was learned from or chosen by."""


@dataclass(frozen=True)
class Comparison:
    """The table, and what its first line and the untouched network gave on every picture."""

    rows: list[dict[str, Any]]
    learned: Evaluation
    full: Evaluation
    """The network as it was before anything was skipped, all blocks."""
    costs: Costs


def compare_rules(
    training: Training,
    test: Source,
    stats: PolicyStats,
    learned_NR: Tensor,
    routed: Decided | None = None,
) -> Comparison:
    """Test metrics and MACs of all rows; what was tuned is kept in RUN/rules/ and not tuned again by a resumed run.

    Args:
        training: with the best weights and router.
        test: the test split.
        stats: of the router's decisions on the splits that it was learned from.
        learned_NR: its decisions on `test`.
        routed: of the router before it was fine-tuned with the network, where it was learned before.
    """
    costs = costs_of(training)
    tuned = Decided(learned_NR, torch.tensor(stats.most_frequent))
    learned = _tested(training, training.supernet, test, learned_NR)
    rows = [_row(training, "learned", _finetune(training) is not None, [learned], learned_NR, costs)]
    host = host_of(training)
    if routed is None:
        routed = tuned
    if _finetune(training) is not None:
        alone = _tested(training, host, test, routed.keep_NR)
        rows.append(_row(training, "learned", False, [alone], routed.keep_NR, costs))
    untuned: dict[str, list[Evaluation]] = {}
    for name, rule in rules_beside(routed, costs).items():
        draws = DRAWS if name == "random_drop" else 1
        tables = [rule(len(test), _generator(training, draw)) for draw in range(draws)]
        untuned[name] = [_tested(training, host, test, keep_NR) for keep_NR in tables]
        rows.append(_row(training, name, False, untuned[name], torch.cat(tables), costs))
    for name, rule in rules_beside(tuned, costs).items() if _epochs(training) else ():
        rows.append(_tuned_once(training, test, name, rule, host, costs))
    return Comparison(rows, learned, untuned["all"][0], costs)


def rules_beside(decided: Decided, costs: Costs) -> dict[str, Rule]:
    """All rules by name, at the cost of these decisions."""
    cost_R = costs.added_R.clamp(min=1)  # a block may add nothing to its projection
    budget = equal_cost(decided.keep_NR, cost_R, costs.router)
    rate_R = decided.keep_NR.double().mean(0)
    used = (rate_R * cost_R).sum().item() / cost_R.sum().item()
    if used < 1:  # each block is skipped less often by the same factor
        rate_R = 1 - (1 - rate_R) * (1 - budget) / (1 - used)
    return {
        "all": lambda num, generator: torch.ones(num, len(cost_R), dtype=torch.bool),
        "most_frequent": lambda num, generator: heuristics.most_frequent(num, decided.favourite_R),
        "first_k": lambda num, generator: heuristics.first_k(num, cost_R, budget, generator),
        "random_k": lambda num, generator: heuristics.random_k(num, cost_R, budget, generator),
        "dist_k": lambda num, generator: heuristics.dist_k(num, rate_R, generator),
        "random_drop": lambda num, generator: random_drop(num, cost_R, budget, generator),
    }


def equal_cost(keep_NR: Tensor, cost_R: Tensor, router: float) -> float:
    """The part of the routed blocks' cost that pays for these decisions and the router; at most 1."""
    return min(1.0, ((keep_NR.double() @ cost_R.double()).mean().item() + router) / cost_R.sum().item())


def _epochs(training: Training) -> int:
    """Of tuning a rule: as long as the network was tuned with its router, or the router learned."""
    asked = routing_spec(training).compare_epochs
    return asked if asked is not None else training.recipe.stages[-1].epochs


def _finetune(training: Training) -> FinetuneStage | None:
    return next((s for s in training.recipe.stages if isinstance(s, FinetuneStage)), None)


def _generator(training: Training, number: int) -> torch.Generator:
    return torch.Generator().manual_seed(training.recipe.seed + number)


def costs_of(training: Training) -> Costs:
    """What the plan costs by decision, all tasks together and each alone."""
    supernet = one_network(training)
    steps = cost.measure(supernet, supernet.size_HW)
    picture = torch.zeros(1, 3, *supernet.size_HW, device=training.fabric.device)
    router = cost.measured_macs(lambda: current(training).router.eval()(picture))

    def of(tasks: list[str], by_task: Mapping[str, Costs]) -> Costs:
        base, added = cost.routed_macs(supernet, training.plan, steps, tasks)
        return Costs(base, torch.tensor(added, dtype=torch.float64), router, by_task)

    names = list(training.tasks)
    return of(names, {name: of([name], {}) for name in names} if len(names) > 1 else {})


def _row(
    training: Training,
    rule: str,
    tuned: bool,
    found: list[Evaluation],
    keep_NR: Tensor,
    costs: Costs,
) -> dict[str, Any]:
    """One line of the table, the mean over what was found."""
    own = costs.router if rule == "learned" else 0
    macs_N = costs.of(keep_NR)
    return {
        "rule": rule,
        "tuned": tuned,
        "metrics": {
            task: {key: sum(one.metrics[task][key] for one in found) / len(found) for key in metrics}
            for task, metrics in found[0].metrics.items()
        },
        "usage": blockdrop.usage(keep_NR, current(training).cost_R.cpu()).mean().item(),
        "blocks": keep_NR.double().sum(1).mean().item(),
        "macs": macs_N.mean().item() + own,
        "macs_std": macs_N.std(unbiased=False).item(),
        "router_macs": own,
        "task_macs": {task: alone.of(keep_NR).mean().item() + own for task, alone in costs.by_task.items()},
    }


@torch.no_grad()
def _tested(training: Training, network: Any, test: Source, keep_NR: Tensor) -> Evaluation:
    """Test metrics under given decisions."""
    fabric = training.fabric
    keep_NR = keep_NR[fabric.global_rank :: fabric.world_size].to(fabric.device)
    done = 0

    def forward(image_BCHW: Tensor) -> Mapping[str, Tensor]:
        nonlocal done
        rows = keep_NR[done : done + len(image_BCHW)]
        done += len(image_BCHW)
        outputs: Mapping[str, Tensor] = network(image_BCHW, training.plan, keep_BR=rows)
        return outputs

    network.eval()
    batches = training.loader(test, range(len(test)), train=False)
    return evaluate(forward, batches, training.tasks, fabric.device)


def _tuned_once(
    training: Training, test: Source, name: str, rule: Rule, host: Any, costs: Costs
) -> dict[str, Any]:
    """The line of a rule after fine-tuning; read from the run folder where it is there."""
    path = training.run / "rules" / f"{name}.json"
    if path.is_file():
        row: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return row
    network = copy.deepcopy(host)
    if name in DRAWN_ONCE:
        policy_1R = rule(1, _generator(training, 0))
        tune(training, network, lambda num, _: policy_1R.expand(num, -1), _epochs(training), name != "all")
    else:
        tune(training, network, rule, _epochs(training))
    keep_NR = rule(len(test), _generator(training, 0))
    row = _row(training, name, True, [_tested(training, network, test, keep_NR)], keep_NR, costs)
    if training.fabric.global_rank == 0:
        write_json(path, row)
    line = "  ".join(f"{task} {row['metrics'][task][t.primary]:.3f}" for task, t in training.tasks.items())
    training.log.say(f"rule {name}, tuned for {_epochs(training)} epochs: {line}")
    return row


def tune(training: Training, network: Any, rule: Rule, epochs: int, distilled: bool = True) -> None:
    """Trains a network whose blocks are skipped by a rule, which is asked for every batch.

    `distilled`: with what the stage's `distill` adds to the loss.
    """
    recipe, fabric = training.recipe, training.fabric
    stage = _finetune(training) or FinetuneStage(name="finetune", epochs=epochs)
    optimizer: Any = fabric.setup_optimizers(optim.make_optimizer(network, recipe.optim, stage))
    batch = recipe.batch_of(stage) * fabric.world_size
    steps = len(training.train) // batch
    done = 0
    for epoch in range(epochs):
        training.position.epoch = epoch
        generator = _generator(training, epoch)
        for pictures in training.loader(
            training.train, range(len(training.train)), train=True, batch=recipe.batch_of(stage)
        ):
            pictures = pictures.to(fabric.device)
            keep_BR = rule(batch, generator)[fabric.global_rank :: fabric.world_size].to(fabric.device)
            optim.set_learning_rate(optimizer, optim.learning_rate(recipe.optim, stage, done, epochs * steps))
            set_training(network, stage.batchnorm == "train")
            with fabric.autocast():
                outputs = network(pictures.image_BCHW, training.plan, keep_BR=keep_BR)
            losses = task_losses(outputs, pictures, training.tasks)
            refuse_nan(losses, training.position)
            distill = stage.distill if distilled else 0.0
            optimizer.zero_grad()
            fabric.backward(weights_loss(training, pictures, outputs, losses, distill))
            update(training, optimizer, network.parameters())
            done += 1
            if training.stop_requested:  # what is whole is kept; this rule begins anew
                raise Interrupted(training.run)
