"""What the router does on whole splits: while it is learned, and once it is.

Shapes: B pictures of a batch, N pictures of a split, R routed blocks, K tasks.
"""

import copy
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import astuple
from typing import Any

import torch
from torch import Tensor

from perceptkit.data.batch import Batch
from perceptkit.data.source import Source
from perceptkit.policies import blockdrop
from perceptkit.policies.policy_stats import (
    STATIC_DROP,
    PolicyStats,
    collapse_findings,
    nearly_static,
    policy_stats,
    unfixed,
    unopened,
)
from perceptkit.spec.recipe import StageSpec
from perceptkit.train import checkpoint
from perceptkit.train.evaluate import Evaluation, evaluate
from perceptkit.train.ranks import rows_of_all_ranks, sum_over_ranks
from perceptkit.train.routing import GAMMA, ROUTED, kept_by_task, reward_of, task_weights, usage_of
from perceptkit.train.routing_host import (
    QualityMeans,
    current,
    host_quality,
    qualities,
    quality_drops,
    routing_spec,
)
from perceptkit.train.routing_record import by_frequency, record_test
from perceptkit.train.rules import Decided, compare_rules
from perceptkit.train.training import Training

TIE = 1e-6
"""What a loss weighs beside the usage, of epochs that keep to `max_drop`."""
USUAL = 8
"""Policies that an artifact names."""


def judge_full(training: Training) -> None:
    """Notes what is right and how good the answers are with all blocks, and what a wrong one costs to begin with."""
    routing, max_drop = current(training), routing_spec(training).max_drop
    routing.full_right, routing.full_quality = full_rightness(training)
    if max_drop is not None:  # nothing is skipped yet: the usage is 1
        routing.gamma = _solved_gamma(training, max_drop, [1.0] * len(training.tasks))


def _solved_gamma(training: Training, max_drop: float, used_K: Sequence[float]) -> float:
    """The largest that `blockdrop.gamma_for_max_drop` gives a task, for its mean usage of its own routed blocks: no
    task may lose more than `max_drop`, and one that keeps no routed block has nothing to lose."""
    right = current(training).full_right
    of_tasks = zip(used_K, kept_by_task(training).sum(1).tolist(), strict=True)
    return max(blockdrop.gamma_for_max_drop(max_drop, used, right, num) for used, num in of_tasks if num)


@torch.no_grad()
def full_rightness(training: Training) -> tuple[float, dict[str, float]]:
    """How much of val is right with all blocks, in [0, 1], and the mean quality by task.

    Tasks that are judged by the host are all right where the network still is the host.
    """
    total = torch.zeros(2, dtype=torch.float64, device=training.fabric.device)
    means = QualityMeans(training)

    def observe(batch: Batch, outputs: Mapping[str, Tensor]) -> None:
        right_BK = _right(training, batch, outputs, qualities(training, batch, outputs))
        known_B = blockdrop.has_label(right_BK)
        total[0] += blockdrop.task_mean(right_BK, task_weights(training))[known_B].sum()
        total[1] += known_B.sum()
        means.add(batch, outputs)

    training.supernet.eval()
    batches = training.loader(training.val, range(len(training.val)), train=False)
    evaluate(
        lambda image: training.supernet(image, training.plan),
        batches, training.tasks, training.fabric.device, observe,
    )  # fmt: skip
    sum_over_ranks(total)
    return (total[0] / total[1].clamp(min=1)).item(), means.compute()


@torch.no_grad()
def validate_routing(
    training: Training, batches: Iterable[Batch], stage: StageSpec
) -> tuple[Evaluation, float, str]:
    """Metrics on val by the most probable decisions, what the epoch is judged by, and a few words on it.

    An epoch is judged by its mean reward; where `max_drop` is given, by how much it skips as long as no task loses more
    than that, else by how little is lost. The penalty is solved for anew then.
    """
    routing, spec = current(training), routing_spec(training)
    routing.router.eval()
    device = training.fabric.device
    # a rank may have no picture
    tables = [torch.empty(0, len(routing.cost_R), dtype=torch.bool, device=device)]
    # reward, right, usage, pictures, usage by task
    sums = torch.zeros(4 + len(training.tasks), dtype=torch.float64, device=device)
    means = QualityMeans(training)
    is_judged = not all(task.is_yes_or_no for task in training.tasks.values())

    def forward(image_BCHW: Tensor) -> dict[str, Tensor]:
        tables.append(routing.keep(image_BCHW))
        outputs: dict[str, Tensor] = training.supernet(image_BCHW, training.plan, keep_BR=tables[-1])
        return outputs

    def observe(batch: Batch, outputs: Mapping[str, Tensor]) -> None:
        host_BK = host_quality(training, batch, "val") if is_judged else qualities(training, batch, outputs)
        right_BK = _right(training, batch, outputs, host_BK)
        means.add(batch, outputs)
        known_B = blockdrop.has_label(right_BK)
        values = (
            reward_of(training, tables[-1], right_BK),
            blockdrop.task_mean(right_BK, task_weights(training)),
            blockdrop.usage(tables[-1], routing.cost_R),
            torch.ones_like(known_B, dtype=torch.float32),
            *usage_of(training, tables[-1]).T,
        )
        for i, value_B in enumerate(values):
            sums[i] += value_B[known_B].double().sum()

    evaluation = evaluate(forward, batches, training.tasks, training.fabric.device, observe)
    sum_over_ranks(sums)
    mean_reward, right, used, _, *used_K = (sums / sums[3].clamp(min=1)).tolist()
    keep_NR = rows_of_all_ranks(torch.cat(tables).cpu())
    routing.right = right
    routing.unique.append(len(torch.unique(keep_NR, dim=0)))
    training.log.row(
        "routing", stage.name, training.position.epoch, training.position.step,
        reward=mean_reward, right=right, usage=used, gamma=routing.gamma, open_blocks=routing.open_count,
        unique=routing.unique[-1], keep_rate=keep_NR.double().mean(0).tolist(),
    )  # fmt: skip
    score = mean_reward
    if spec.max_drop is not None:
        drop = max(quality_drops(training, routing.full_quality, means.compute()).values(), default=0.0)
        # a settled router uses as much in every epoch: then the one that loses least
        score = 1 - used**2 - TIE * drop if drop <= spec.max_drop else -drop
        solved = _solved_gamma(training, spec.max_drop, used_K)
        # the less is used, the less one more block saves: too large a loss must not become cheaper for that
        routing.gamma = max(solved, routing.gamma) if drop > spec.max_drop else solved
    words = (
        f"  usage {used:.2f}  right {right:.3f} of {routing.full_right:.3f}  policies {routing.unique[-1]}"
    )
    return evaluation, score, words


def _right(training: Training, batch: Batch, outputs: Mapping[str, Tensor], host_BK: Tensor) -> Tensor:
    """(B, K), as `routing.rightness`."""
    tolerance = routing_spec(training).quality_tolerance
    right_BK = qualities(training, batch, outputs)
    for k, task in enumerate(training.tasks.values()):
        if not task.is_yes_or_no:
            right_BK[:, k] = blockdrop.right_by_quality(right_BK[:, k], host_BK[:, k], tolerance)
    return right_BK


@torch.no_grad()
def decisions(
    training: Training, source: Source, observe: Callable[[Batch], None] | None = None
) -> tuple[Tensor, Tensor]:
    """(N, R) the most probable decisions on a split, bool, and the keep probabilities, on the CPU.

    Every rank computes all of them: what is decided from them must be the same everywhere. `observe` is shown every
    batch.
    """
    routing = current(training)
    routing.router.eval()
    keep, prob = [], []
    for batch in training.loader(source, range(len(source)), train=False, shared=False):
        logits_BR = routing.router(batch.image_BCHW.to(training.fabric.device)).float()
        keep.append(routing.decide(logits_BR).cpu())
        prob.append(torch.where(routing.open_R, logits_BR.sigmoid(), 1.0).cpu())
        if observe is not None:
            observe(batch)
    return torch.cat(keep), torch.cat(prob)


def conclude_routing(training: Training, test: Source) -> dict[str, Any]:
    """Looks at what was learned, fixes what turned out to be the same for all pictures, and tests the rules beside it.

    Where all pictures get the same decision, or so few another that nothing is lost without, there is nothing left to
    decide: the model is static from then on, and `training.routing` None.

    Returns:
        What routing.json holds.
    """
    spec, plan, routing = routing_spec(training), training.plan, current(training)
    training.host_plan = plan.with_routed(())
    seen = [decisions(training, source) for source in (training.train, training.val)]
    keep_NR, prob_NR = (torch.cat(parts) for parts in zip(*seen, strict=True))
    stats = policy_stats(keep_NR, prob_NR)
    classes: dict[str, list[Tensor]] = {name: [] for name, t in training.tasks.items() if t.is_yes_or_no}

    def observe(batch: Batch) -> None:
        for name, labels in classes.items():
            labels.append(batch.targets[name])

    test_keep_NR, _ = decisions(training, test, observe)
    compared = compare_rules(training, test, stats, test_keep_NR, _routed_alone(training, test))
    class_N = {name: torch.cat(labels) for name, labels in classes.items()}
    is_open = routing.open_R.cpu()
    of_open = policy_stats(keep_NR[:, is_open], prob_NR[:, is_open])
    _, routed_quality = tried_on_val(training)
    findings = collapse_findings(
        of_open, routing.unique[:-1], routing.mean_abs_advantage,
        quality_drops(training, routing.full_quality, routed_quality), spec.max_drop, spec.estimator,
    )  # fmt: skip
    if (closed := int((~is_open).sum())) > 0:
        findings = (*findings, unopened(closed, len(is_open)))
    found = {
        "blocks": [plan.blocks[b] for b in plan.routed()],
        "usage": spec.usage,
        "cost": routing.cost_R.tolist(),
        "gamma": routing.gamma,
        "route_gamma": _route_gamma(training),
        "compare_epochs": spec.compare_epochs,
        "seen": stats.to_dict(),
        "rows": compared.rows,
        "test": record_test(training, test, test_keep_NR, class_N, compared),
    }
    tolerance = STATIC_DROP if spec.fold_tolerance is None else spec.fold_tolerance
    if of_open.is_static and len(stats.fixed(spec.fold_tolerance)) < stats.num_blocks:
        found["folded"], drops = fold_static(training, stats, tolerance, routed_quality)
        if training.routing is not None:
            findings = (
                *(f for f in findings if f.code != "static"),
                nearly_static(of_open, drops, tolerance),
            )
    if training.routing is not None:
        found["folded"] = fold(training, stats, spec.fold_tolerance)
        if any(astuple(stats.foldable)) and not stats.fixed(spec.fold_tolerance):
            findings = (*findings, unfixed(stats))
    found["findings"] = [{"code": finding.code, "message": finding.message} for finding in findings]
    found["is_static"] = training.routing is None
    found["quality"] = quality = quality_of_result(training, routing.full_quality)
    training.say(f"beside the network before anything was skipped, {in_words(quality)}")
    if training.routing is not None:
        left = [plan.routed().index(block) for block in training.plan.routed()]
        usual_UR = by_frequency(keep_NR[:, left])[0][:USUAL]
        training.routing.usual = tuple(map(tuple, usual_UR.tolist()))
    return found


def _route_gamma(training: Training) -> float | None:
    """The penalty of the stage `route`; None without one, and where it was solved for after every epoch."""
    spec = routing_spec(training)
    return (spec.gamma or GAMMA) if training.recipe.has_stage("route") and spec.max_drop is None else None


def quality_of_result(training: Training, full: Mapping[str, float]) -> dict[str, Any]:
    """What val says of the model that comes out: the key `quality` of routing.json.

    Returns:
        `max_drop` as asked for or None, and by task in `tasks`: `host`, `val` and `drop` between them, and `measure`:
        accuracy, of which the drop is in points, or quality, of which it is a part.
    """
    _, now = tried_on_val(training)
    return {
        "max_drop": routing_spec(training).max_drop,
        "tasks": {
            name: {
                "measure": "accuracy" if training.tasks[name].is_yes_or_no else "quality",
                "host": full[name],
                "val": now[name],
                "drop": drop,
            }
            for name, drop in quality_drops(training, full, now).items()
        },
    }


def in_words(quality: Mapping[str, Any]) -> str:
    """`val: seg fell by 0.7% of its quality, room rose by 1.0 points; max_drop 1% was asked`"""
    words = []
    for name, row in quality["tasks"].items():
        size = abs(row["drop"])
        unit = f"{100 * size:.1f} points" if row["measure"] == "accuracy" else f"{size:.1%} of its quality"
        words.append(f"{name} {'fell' if row['drop'] > 0 else 'rose'} by {unit}")
    asked = "" if quality["max_drop"] is None else f"; max_drop {quality['max_drop']:.4g} was asked for"
    return f"val: {', '.join(words)}{asked}"


def _routed_alone(training: Training, test: Source) -> Decided | None:
    """Decisions of the router as the stage `route` left it; None where `finetune` did not follow."""
    routing, saved = current(training), training.run / ROUTED
    training.fabric.barrier()
    if not saved.is_file():
        return None
    now = copy.deepcopy(routing.state())
    routing.load(checkpoint.load(saved)[0]["routing"])
    keep_NR, favourite_R = (
        decisions(training, test)[0],
        by_frequency(decisions(training, training.val)[0])[0][0],
    )
    routing.load(now)
    return Decided(keep_NR, favourite_R)


def fold(training: Training, stats: PolicyStats, tolerance: float | None = None) -> dict[str, Any] | None:
    """Makes static what was the same for every picture seen, or for nearly all where there is a tolerance.

    Args:
        training: with the router; its plan and router are narrowed in place.
        stats: of the pictures seen.
        tolerance: of `PolicyStats.fixed`.

    Returns:
        What becomes other than some pictures chose, with the metrics on val before and after; None if nothing does.
    """
    return fix(training, stats, stats.fixed(tolerance))


def fold_static(
    training: Training, stats: PolicyStats, tolerance: float, before: Mapping[str, float]
) -> tuple[dict[str, Any] | None, dict[str, float]]:
    """Gives all pictures the most frequent policy; takes that back where a task loses more than the tolerance.

    Args:
        training: with the router; static and without it afterwards, or as it was.
        stats: of the pictures seen.
        tolerance: points of accuracy or part of the quality, on val.
        before: mean quality on val by task, with the router.

    Returns:
        As `fold`, and what is lost by task.
    """
    routing, plan = training.routing, training.plan
    folded = fix(training, stats, dict(enumerate(stats.most_frequent)))
    drops = quality_drops(training, before, tried_on_val(training)[1])
    if all(drop <= tolerance for drop in drops.values()):
        return folded, drops
    training.routing, training.plan = routing, plan
    return None, drops


def fix(training: Training, stats: PolicyStats, fixed: Mapping[int, bool]) -> dict[str, Any] | None:
    """Makes these blocks static, by number among those that are routed; returns as `fold`."""
    routing, plan = current(training), training.plan
    columns = [r for r in range(stats.num_blocks) if r not in fixed]
    routed = plan.routed()
    differ = [r for r in fixed if 0 < stats.keep_rate[r] < 1]
    before = on_val(training).metrics if differ else None
    resolved = plan.resolved([fixed.get(r, True) for r in range(stats.num_blocks)])
    training.plan = resolved.with_routed([routed[r] for r in columns])
    if columns:
        # closed blocks were kept by all pictures: what is left is open
        routing.router, routing.cost_R = routing.router.narrowed(columns), routing.cost_R[columns]
        routing.open_count = len(columns)
    else:
        training.routing = None
    if before is None:
        return None
    blocks = {plan.blocks[routed[r]]: {"kept": fixed[r], "rate": stats.keep_rate[r]} for r in differ}
    return {"blocks": blocks, "before": before, "after": on_val(training).metrics}


def tried_on_val(training: Training) -> tuple[Evaluation, dict[str, float]]:
    """The network as it is now on val: metrics, and the mean quality by task; every rank must call it."""
    training.supernet.eval()
    if training.routing is not None:
        training.routing.router.eval()
    means = QualityMeans(training)
    batches = training.loader(training.val, range(len(training.val)), train=False)
    found = evaluate(training.forward, batches, training.tasks, training.fabric.device, means.add)
    return found, means.compute()


def on_val(training: Training) -> Evaluation:
    """Metrics on val of the network as it is now; every rank must call it."""
    return tried_on_val(training)[0]
