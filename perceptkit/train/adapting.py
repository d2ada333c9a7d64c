"""The stage `adapt`: a trained base becomes the network of the domain that the tasks file declares.

What is added and what learns is the strategy's (model/strategy.py); here are the step, the validation by epoch, and
what is concluded at the end: choices that turned out to be the same for all pictures become static, what the domain
stores is packed, and the network is folded to plain weights that compute the same.

Shapes: B pictures of a batch, N pictures of a split, R blocks with two copies.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from perceptkit.baselines.adaptation.table import build_strategy
from perceptkit.data.batch import Batch
from perceptkit.data.source import Source
from perceptkit.errors import PerceptkitError
from perceptkit.model.copies import choose_copy
from perceptkit.model.plan import Plan
from perceptkit.model.strategy import Origin, Strategy
from perceptkit.model.supernet import Supernet
from perceptkit.model.weights import create_backbone
from perceptkit.policies.policy_stats import PolicyStats, policy_stats
from perceptkit.policies.sampling import logistic_noise
from perceptkit.policies.spottune import SpotTune, agreed, agreement_penalty, tuned_samples
from perceptkit.spec.adaptation import AdaptationSpec, Spottune, SpottuneGlobal
from perceptkit.spec.recipe import Recipe
from perceptkit.train import optim
from perceptkit.train.adapting_record import record_choices
from perceptkit.train.domain_file import digest, needed, trunk_bits, write_domain
from perceptkit.train.evaluate import Evaluation, evaluate
from perceptkit.train.losses import (
    labelled_tasks,
    losses_by_source,
    losses_to_log,
    of_labelled,
    refuse_nan,
    task_losses,
    update,
    weighted_sum,
)
from perceptkit.train.old_domain import learned_heads, look_back
from perceptkit.train.ranks import batch_of_all_ranks, mean_losses, rows_of_all_ranks
from perceptkit.train.routing_check import decisions, on_val
from perceptkit.train.stage_record import FOLD, base_row, record_stage
from perceptkit.train.start_from import base_of, start_as_base, transferred
from perceptkit.train.training import Training

FOLD_BOUND = 1e-4
"""Largest difference that folding may make, of an output's own scale."""
FOLD_SMALLEST_SCALE = 0.01
"""Of an output that counts as this large although it is smaller, for the reason that compact/verify.py gives."""


@dataclass(frozen=True)
class Begun:
    """A network that was prepared to be adapted."""

    strategy: Strategy
    plan: Plan
    base_digest: str
    """Of the base's trunk."""
    transferred: tuple[str, ...] = ()
    """Tasks whose heads are the base's."""


def make_strategy(spec: AdaptationSpec, origin: Origin) -> Strategy:
    """The strategy of a recipe's section `adaptation`."""
    if isinstance(spec, Spottune | SpottuneGlobal):
        return SpotTune(spec)
    return build_strategy(spec, origin)


def begin_adaptation(recipe: Recipe, network: Supernet, normalised: bool) -> Begun:
    """Gives `network` the base's weights and prepares it, in place.

    `normalised`: the domain has mean and std of its own; otherwise its pictures are normalised as the base's.

    Raises SpecError where the base is not finished or of another network, or the method is not for it.
    """
    assert recipe.adaptation is not None
    plan = Plan.all_keep(list(network.tasks), [block.name for block in network.blocks])
    base, base_plan = None, None
    heads: tuple[str, ...] = ()
    if recipe.start_from is not None:
        base, base_plan = base_of(Path(recipe.start_from), recipe)
        own = {name: value.clone() for name, value in network.state_dict().items()}
        plan = start_as_base(base, base_plan, network)
        heads = transferred(base, network)
        if recipe.adaptation.method == "scratch":  # whose neck and heads are not transferred either
            rest = {name: value for name, value in own.items() if not name.startswith("backbone.")}
            network.load_state_dict(rest, strict=False)
            heads = ()
        if not normalised:
            network.mean, network.std = base.mean, base.std
    origin = Origin(fresh=partial(_random_trunk, recipe, network.size_HW), net=base, plan=base_plan)
    strategy = make_strategy(recipe.adaptation, origin)
    found = digest(network.backbone)
    plan = strategy.plan(network, plan)
    strategy.begin(network, plan)
    return Begun(strategy, plan, found, heads)


def _random_trunk(recipe: Recipe, size_HW: tuple[int, int]) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        return create_backbone(recipe.backbone, size_HW, load=False)


def adapt_step(training: Training, batch: Batch, lr: float, progress: float) -> dict[str, float]:
    """One update of what the strategy lets learn, and of SpotTune's router.

    Args:
        progress: of the stage, in [0, 1).
    """
    strategy, supernet, routing = training.strategy, training.supernet, training.routing
    assert strategy is not None and isinstance(supernet, Supernet) and training.optimizer is not None
    optim.set_learning_rate(training.optimizer, lr)
    spec = training.recipe.adaptation
    if isinstance(spec, SpottuneGlobal) and progress >= 1 - spec.settle:
        settle(training, spec)
    keep_BR = None
    is_sampled = routing is not None and routing.settled is None
    if routing is not None and routing.settled is not None:
        keep_BR = routing.decide(batch.image_BCHW.new_empty(len(batch.image_BCHW), 0)).float()
    elif routing is not None:
        assert training.policy_optimizer is not None
        optim.set_learning_rate(training.policy_optimizer, lr)
        routing.router.train()
        with training.fabric.autocast():
            logits_BR = routing.router(batch.image_BCHW).float()
        keep_BR = _samples(training, logits_BR)
    asked = strategy.asked(training.plan)
    with training.fabric.autocast():
        outputs = supernet(batch.image_BCHW, asked, asked.tasks, keep_BR=keep_BR)
    losses = task_losses(outputs, batch, training.tasks)
    refuse_nan(losses, training.position)
    labelled = labelled_tasks(batch, training.tasks)
    told = losses_to_log(losses, labelled)
    told |= losses_by_source(outputs, batch, training.tasks, training.tasks_of)
    total = weighted_sum(of_labelled(losses, labelled), training.tasks)
    with training.fabric.autocast():
        penalty = strategy.penalty(supernet, progress, batch.image_BCHW, outputs)
    if isinstance(spec, SpottuneGlobal) and keep_BR is not None and is_sampled:
        whole_BR = batch_of_all_ranks(keep_BR)
        penalty = agreement_penalty(whole_BR, spec.k, spec.count_weight, spec.agree_weight)
    if penalty is not None:
        total = total + penalty
        told["penalty"] = penalty
    if keep_BR is not None:
        told["tuned"] = keep_BR.mean()
    training.optimizer.zero_grad()
    if is_sampled and training.policy_optimizer is not None:
        training.policy_optimizer.zero_grad()
    if not total.requires_grad:  # no label in the batch, and nothing else to learn from
        return mean_losses(told)
    training.fabric.backward(total)
    update(training, training.optimizer, [p for p in training.weights() if p.requires_grad])
    if routing is not None and is_sampled and training.policy_optimizer is not None:
        update(training, training.policy_optimizer, routing.router.parameters())
    return mean_losses({"loss": total, **told})


@torch.no_grad()
def settle(training: Training, spec: SpottuneGlobal) -> None:
    """Fixes which k blocks are tuned for all pictures, once, and what is the best so far is forgotten: it is of another
    choice. Every rank must call it, and finds the same."""
    routing = training.routing
    if routing is None or routing.settled is not None:
        return
    tuned_NR = torch.cat([decisions(training, source)[0] for source in (training.train, training.val)])
    routing.settled = tuple(agreed(tuned_NR.double().mean(0), spec.k).tolist())
    training.best_score = float("-inf")
    names = [block for block, tuned in zip(training.plan.dual, routing.settled, strict=True) if tuned]
    fewer = f"; k is {spec.k}, but no other block has two copies" if spec.k > len(names) else ""
    training.say(f"settled: {', '.join(names)} tuned for all pictures{fewer}")


def _samples(training: Training, logits_BR: Tensor) -> Tensor:
    """What one process with the pictures of all ranks would draw, (B, R)."""
    spec, fabric = training.recipe.adaptation, training.fabric
    assert isinstance(spec, Spottune | SpottuneGlobal)
    shape = torch.Size((len(logits_BR) * fabric.world_size, logits_BR.shape[1]))
    noise_BR = logistic_noise(shape, training.generator)[fabric.global_rank :: fabric.world_size]
    return tuned_samples(logits_BR, noise_BR.to(logits_BR.device), spec.tau)


@torch.no_grad()
def validate_adapted(training: Training, batches: Iterable[Batch]) -> tuple[Evaluation, str]:
    """Metrics on val as the network would be used now, and a few words on what was chosen."""
    routing = training.routing
    if routing is None:
        return evaluate(training.forward, batches, training.tasks, training.fabric.device), ""
    routing.router.eval()
    tables = [torch.empty(0, len(routing.cost_R), dtype=torch.bool)]

    def forward(image_BCHW: Tensor) -> dict[str, Tensor]:
        keep_BR = routing.keep(image_BCHW)
        tables.append(keep_BR.cpu())
        outputs: dict[str, Tensor] = training.supernet(image_BCHW, training.plan, keep_BR=keep_BR)
        return outputs

    evaluation = evaluate(forward, batches, training.tasks, training.fabric.device)
    keep_NR = rows_of_all_ranks(torch.cat(tables))
    position = training.position
    training.log.row(
        "routing", "adapt", position.epoch, position.step,
        usage=keep_NR.double().mean().item(), unique=len(torch.unique(keep_NR, dim=0)),
        keep_rate=keep_NR.double().mean(0).tolist(),
    )  # fmt: skip
    return evaluation, f"  tuned {keep_NR.double().mean():.2f}"


def conclude_adaptation(training: Training, test: Source, is_last: bool = True) -> dict[str, Any]:
    """Fixes what all pictures choose alike, packs what the domain stores, folds, and looks back at the old domain.

    Where other stages follow (not `is_last`), every choice becomes static, and the domain is not written: they change
    the weights.

    Returns:
        What adaptation.json holds.
    """
    spec, strategy, supernet = training.recipe.adaptation, training.strategy, training.supernet
    assert spec is not None and strategy is not None and isinstance(supernet, Supernet)
    found: dict[str, Any] = {"method": spec.method, "spec": spec.model_dump(mode="json")}
    before = base_row(training.run)
    found["before"] = {split: before[split] for split in ("val", "test")} if before is not None else None
    record_stage(training, "adapt")
    tuned: list[str] = []
    if isinstance(strategy, SpotTune):
        found["test"] = record_choices(training, test)
        found["copies"], tuned = _choose(training, test, is_last)
    base = base_trunk(training)
    of_base = {f"backbone.{name}": value for name, value in base.named_parameters()}
    found["bits"] = write_domain(training, strategy, tuned, is_last)
    found["bits"]["base"] = trunk_bits(needed(supernet, training.plan, of_base))
    old_heads = learned_heads(supernet)  # folding drops them
    _fold(training, strategy)
    record_stage(training, FOLD)
    found["layers_tuned"] = changed_layers(base, supernet, training.plan)
    found["old_domain"] = look_back(training, old_heads)
    return found


def base_trunk(training: Training) -> nn.Module:
    """The base's trunk, on the CPU."""
    if training.recipe.start_from is not None:
        return base_of(Path(training.recipe.start_from), training.recipe)[0].backbone
    fresh = training.make_supernet()
    assert isinstance(fresh, Supernet)
    return fresh.backbone


def _choose(training: Training, test: Source, may_route: bool) -> tuple[dict[str, Any], list[str]]:
    """Makes static what is the same for all pictures of train and val, or what most want where all must agree.

    Returns:
        The decisions in numbers with the ablations, and the blocks of which only the tuned copy is left.
    """
    routing, supernet, plan = training.routing, training.supernet, training.plan
    assert routing is not None and isinstance(supernet, Supernet)
    seen = [decisions(training, source) for source in (training.train, training.val)]
    tuned_NR, prob_NR = (torch.cat(parts) for parts in zip(*seen, strict=True))
    stats = policy_stats(tuned_NR, prob_NR)
    told: dict[str, Any] = {
        "blocks": list(plan.dual),
        "seen": stats.to_dict(),
        "ablations": {
            name: _with_all(training, test, value).metrics
            for name, value in (("always_base", False), ("always_tuned", True))
        },
    }
    columns, chosen = _static_choices(training, stats, may_route)
    differ = [r for r in chosen if 0 < stats.keep_rate[r] < 1]
    before = on_val(training).metrics if differ else None
    for r, is_tuned in chosen.items():
        choose_copy(supernet, plan.dual[r], is_tuned)
    tuned = [plan.dual[r] for r, is_tuned in chosen.items() if is_tuned]
    training.plan = replace(plan, dual=tuple(plan.dual[r] for r in columns))
    told["static"] = not columns
    told["fixed"] = [plan.dual[r] for r in chosen]
    if columns:
        routing.router, routing.cost_R = routing.router.narrowed(columns), routing.cost_R[columns]
        training.open_everything()
    else:
        training.routing = None
    if before is not None:
        told["folded"] = {
            "blocks": {plan.dual[r]: {"kept": chosen[r], "rate": stats.keep_rate[r]} for r in differ},
            "before": before,
            "after": on_val(training).metrics,
        }
    return told, tuned


def _static_choices(
    training: Training, stats: PolicyStats, may_route: bool
) -> tuple[list[int], dict[int, bool]]:
    """Columns that stay the router's, and by other column whether the tuned copy stays.

    Where none may stay (not `may_route`), each block gets the copy that most pictures choose.
    """
    spec = training.recipe.adaptation
    if isinstance(spec, SpottuneGlobal):
        settled = training.routing.settled if training.routing is not None else None
        chosen = settled or agreed(torch.tensor(stats.keep_rate), spec.k).tolist()
        return [], dict(enumerate(chosen))
    if not may_route:
        return [], {r: rate >= 0.5 for r, rate in enumerate(stats.keep_rate)}
    assert isinstance(spec, Spottune)
    if spec.fold_tolerance is None and not stats.may_fold:  # too few to rule out that others choose otherwise
        return list(range(stats.num_blocks)), {}
    fixed = stats.fixed(spec.fold_tolerance)
    return [r for r in range(stats.num_blocks) if r not in fixed], fixed


@torch.no_grad()
def _with_all(training: Training, test: Source, tuned: bool) -> Evaluation:
    """Test metrics where every block runs the same kind of copy: what the router's choice is worth."""
    count = len(training.plan.dual)

    def forward(image_BCHW: Tensor) -> dict[str, Tensor]:
        keep_BR = torch.full((len(image_BCHW), count), tuned, device=image_BCHW.device)
        outputs: dict[str, Tensor] = training.supernet(image_BCHW, training.plan, keep_BR=keep_BR)
        return outputs

    batches = training.loader(test, range(len(test)), train=False)
    return evaluate(forward, batches, training.tasks, training.fabric.device)


@torch.no_grad()
def _fold(training: Training, strategy: Strategy) -> None:
    """Folds in place. Raises PerceptkitError where the result computes something else."""
    supernet = training.supernet
    assert isinstance(supernet, Supernet)
    supernet.eval()
    generator = torch.Generator().manual_seed(0)
    image = torch.randn(2, 3, *supernet.size_HW, generator=generator).to(training.fabric.device)
    # TF32 rounds the two convolutions of an adapter otherwise than the one they become
    with torch.backends.cudnn.flags(enabled=torch.backends.cudnn.enabled, allow_tf32=False):
        before = training.forward(image)
        strategy.fold(supernet)
        after = training.forward(image)
    for task, output in after.items():
        scale = max(FOLD_SMALLEST_SCALE, before[task].abs().max().item())
        if (worst := (output - before[task]).abs().max().item()) > FOLD_BOUND * scale:
            raise PerceptkitError(f"folding changed {task} by {worst:.1e}: a bug, please report it")


@torch.no_grad()
def changed_layers(base: nn.Module, adapted: Supernet, plan: Plan) -> dict[str, float]:
    """By block that is kept, the part of its weights (norms and biases left out) that are not the base's.

    Those of which the router chooses a copy are left out.

    Args:
        base: a trunk with the base's weights.
        adapted: after folding.
        plan: its plan.
    """
    theirs, found = base.state_dict(), {}
    for block, is_kept in zip(plan.blocks, plan.kept_by_any(), strict=True):
        if not is_kept or block in plan.dual:
            continue
        own = adapted.backbone.get_submodule(block)
        changed = total = 0
        for name, value in own.named_parameters():
            if value.ndim > 1:
                changed += int((value.cpu() != theirs[f"{block}.{name}"]).sum())
                total += value.numel()
        found[block] = changed / total if total else 0.0
    return found
