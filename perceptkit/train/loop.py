"""The one training loop: stages as data, every step visible.

    for each train stage:            warmup | search | retrain | route | finetune
        for each epoch:
            for each turn:           weights on the train split; in the search, weights and policy alternate
                for each batch:      one step
            evaluate on val, log, remember the best, save

Whatever the next step depends on is in `Training`, and `Training.state` is what a checkpoint holds, so a
run that was killed and resumed ends with the same bits as one that was not.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from perceptkit.baselines.sharing.stochastic_depth import SURVIVAL, draw, survival
from perceptkit.baselines.sharing.whole import WholeNetwork
from perceptkit.data.batch import Batch
from perceptkit.data.loader import split_indices
from perceptkit.model.plan import Plan
from perceptkit.policies.adashare import keep_prob, open_blocks, temperature
from perceptkit.spec.recipe import (
    AdaptStage,
    FinetuneStage,
    RetrainStage,
    RouteStage,
    SearchStage,
    StageSpec,
)
from perceptkit.train import optim
from perceptkit.train.adapting import adapt_step, conclude_adaptation, validate_adapted
from perceptkit.train.evaluate import evaluate
from perceptkit.train.losses import refuse_nan, task_losses, update, weighted_sum
from perceptkit.train.meter import Meter, peak_mib
from perceptkit.train.random_plan import drawn_plan
from perceptkit.train.ranks import average_gradients, mean_losses
from perceptkit.train.routing import begin_finetune, begin_routing, finetune_step, open_blocks_of, route_step
from perceptkit.train.routing_check import judge_full, validate_routing
from perceptkit.train.run_folder import write_json, write_text
from perceptkit.train.training import Interrupted, Training

LOG_EVERY = 10
"""Steps between two train rows of the log."""
SAVE_SECONDS = 120.0
"""A checkpoint is written at the end of every epoch, and within one that takes longer than this."""


@dataclass
class Turn:
    """A pass over some images that updates either the weights or the policy."""

    updates: str
    """`weights` (with the router, where both are tuned), `policy` or `router`."""
    indices: Sequence[int]


def turns(stage: StageSpec, num_train: int, seed: int) -> list[Turn]:
    """The turns of one epoch; in the search the policy sees images that the weights do not."""
    if isinstance(stage, SearchStage):
        policy_indices, weight_indices = split_indices(num_train, stage.policy_fraction, seed)
        return [Turn("weights", weight_indices), Turn("policy", policy_indices)]
    if isinstance(stage, RouteStage):
        return [Turn("router", range(num_train))]
    return [Turn("weights", range(num_train))]


def steps_per_epoch(
    stage: StageSpec, num_train: int, batch: int, seed: int, world_size: int
) -> dict[str, int]:
    """Steps by what they update."""
    return {t.updates: len(t.indices) // (batch * world_size) for t in turns(stage, num_train, seed)}


def run_stages(training: Training) -> None:
    """Runs all stages from `training.position` on. Raises Interrupted after saving when asked to stop."""
    stages = training.recipe.stages
    while training.position.stage < len(stages):
        stage = stages[training.position.stage]
        if training.optimizer is None:
            begin_stage(training, stage)
        while training.position.epoch < stage.epochs:
            began = time.monotonic()
            run_epoch(training, stage)
            spent = training.stage_seconds.get(stage.name, 0.0) + time.monotonic() - began
            training.stage_seconds[stage.name] = spent
            training.position.next_epoch()
            training.save()
        end_stage(training, stage)
        training.position.next_stage()
        training.optimizer = None
        training.save()


def begin_stage(training: Training, stage: StageSpec) -> None:
    """Weights, optimisers and the best score of a stage that starts now."""
    is_first = training.position.stage == 0 and training.recipe.start_from is None
    if (
        stage.name == "retrain"
        and training.recipe.sharing.method == "random"
        and not training.recipe.start_from
    ):
        training.plan = drawn_plan(training.recipe, training.plan.tasks, training.plan.blocks)
    if stage.name == "retrain" and stage.start == "scratch" and not is_first:
        training.supernet.load_state_dict(training.make_supernet().state_dict())
    if isinstance(stage, RouteStage | FinetuneStage) and training.routing is None:
        begin_routing(training, stage)
        judge_full(training)
    if isinstance(stage, FinetuneStage):
        begin_finetune(training, stage)
    training.best_score = float("-inf")
    training.begin_stage_optimizers(stage)


def end_stage(training: Training, stage: StageSpec) -> None:
    """After the search the plan is decided and written down; after `adapt`, where BlockDrop follows, the network is
    plain and static again."""
    if isinstance(stage, SearchStage):
        open_count = open_blocks_now(training, stage, stage.epochs - 1)
        training.plan = training.policy.decide(open_count)
        if training.fabric.global_rank == 0:
            write_text(training.run / "policy.json", training.plan.to_json() + "\n")
    if isinstance(stage, AdaptStage) and stage is not training.recipe.stages[-1]:
        assert training.open_test is not None
        training.fabric.barrier()
        training.load_best()
        found = conclude_adaptation(training, training.open_test(), is_last=False)
        if training.fabric.global_rank == 0:
            write_json(training.run / "adaptation.json", found)
        training.strategy = None
        training.supernet.requires_grad_(True)  # what follows trains all of it, in a resumed run too


def open_blocks_now(training: Training, stage: SearchStage, epoch: int) -> int:
    """Blocks under policy control in this epoch, counted from the top."""
    num_blocks = len(training.policy.blocks)
    if stage.curriculum == "none":
        return num_blocks
    return open_blocks(epoch, stage.speed, num_blocks)


def run_epoch(training: Training, stage: StageSpec) -> None:
    """All turns of one epoch, then validation."""
    position = training.position
    plan_of_turns = turns(stage, len(training.train), training.recipe.seed)
    while position.turn < len(plan_of_turns):
        run_turn(training, stage, plan_of_turns[position.turn])
        position.next_turn()
    score, plan = validate(training, stage)
    if training.position.stage == len(training.recipe.stages) - 1 or isinstance(stage, AdaptStage):
        training.save_best(score, plan)


def run_turn(training: Training, stage: StageSpec, turn: Turn) -> None:
    """The steps of one turn."""
    position, recipe = training.position, training.recipe
    if isinstance(stage, RouteStage):
        open_blocks_of(training, stage, position.epoch)
    per_epoch = steps_per_epoch(
        stage, len(training.train), recipe.batch_of(stage), recipe.seed, training.fabric.world_size
    )
    training.train_mode()
    meter = Meter(LOG_EVERY)
    saved = time.monotonic()
    batches = iter(
        training.loader(
            training.train, turn.indices, train=True, start=position.batch, batch=recipe.batch_of(stage)
        )
    )
    while position.batch < per_epoch[turn.updates]:
        with meter.waiting():
            batch = next(batches).to(training.fabric.device)
        if turn.updates == "policy":
            losses = policy_step(training, stage, batch, position.batch / per_epoch["policy"])
        else:
            total = stage.epochs * per_epoch[turn.updates]
            lr = optim.learning_rate(recipe.optim, stage, position.stage_step, total)
            if isinstance(stage, RouteStage):
                losses = route_step(training, stage, batch, lr, position.stage_step / total)
            elif isinstance(stage, FinetuneStage):
                losses = finetune_step(training, stage, batch, lr, position.stage_step / total)
            elif isinstance(stage, AdaptStage):
                losses = adapt_step(training, batch, lr, position.stage_step / total)
            else:
                losses = weight_step(training, stage, batch, lr, position.batch / per_epoch[turn.updates])
            position.stage_step += 1
        position.batch += 1
        position.step += 1
        meter.step(losses, len(batch.ids) * training.fabric.world_size)
        training.progress.step(stage.name, position.epoch, stage.epochs, losses)
        if meter.full or position.batch == per_epoch[turn.updates]:
            values = meter.flush()
            if turn.updates != "policy":
                row = {**values, "lr": lr, "peak_mib": peak_mib()}
                training.log.row("train", stage.name, position.epoch, position.step, **row)
        if training.stop_requested:
            training.save()
            raise Interrupted(training.run)
        if time.monotonic() - saved > SAVE_SECONDS:
            training.save()
            saved = time.monotonic()


def keep_of(training: Training, stage: StageSpec, progress_in_turn: float) -> Any:
    """What the supernet executes in this step: the plan, or one relaxed sample per task during the search, or what of
    the blocks survives this step."""
    sharing = training.recipe.sharing
    if sharing.method == "stochastic_depth" and isinstance(stage, RetrainStage):
        last = SURVIVAL if sharing.survival is None else sharing.survival
        row = draw(survival(len(training.plan.blocks), last), training.generator, training.fabric.device)
        return dict.fromkeys(training.plan.tasks, row)
    if not isinstance(stage, SearchStage):
        return training.plan
    tau = temperature((training.position.epoch + progress_in_turn) / stage.epochs, *stage.tau)
    return training.policy.relax(
        tau, open_blocks_now(training, stage, training.position.epoch), training.generator
    )


def weight_step(
    training: Training, stage: StageSpec, batch: Batch, lr: float, progress: float
) -> dict[str, float]:
    """One update of the supernet's weights; the policy is sampled, not changed."""
    assert training.optimizer is not None
    optim.set_learning_rate(training.optimizer, lr)
    keep = keep_of(training, stage, progress)
    if isinstance(stage, SearchStage):
        keep = {task: [k if k is True else k.detach() for k in row] for task, row in keep.items()}
    with training.fabric.autocast():
        outputs = training.supernet(batch.image_BCHW, keep)
    losses = task_losses(outputs, batch, training.tasks)
    refuse_nan(losses, training.position)
    penalties = training.supernet.penalties() if isinstance(training.supernet, WholeNetwork) else {}
    total = torch.stack([weighted_sum(losses, training.tasks), *penalties.values()]).sum()
    training.optimizer.zero_grad()
    training.fabric.backward(total)
    update(training, training.optimizer, training.supernet.parameters())
    return mean_losses(
        {"loss": total, **{f"loss/{name}": loss for name, loss in losses.items()}, **penalties}
    )


def policy_step(training: Training, stage: StageSpec, batch: Batch, progress: float) -> dict[str, float]:
    """One update of the policy's logits; the weights are not changed."""
    assert isinstance(stage, SearchStage) and training.policy_optimizer is not None
    sharing = training.recipe.sharing
    for parameter in training.supernet.parameters():
        parameter.requires_grad_(False)
    with training.fabric.autocast():
        outputs = training.supernet(batch.image_BCHW, keep_of(training, stage, progress))
    losses = task_losses(outputs, batch, training.tasks)
    sparsity, share = training.policy.regularisers(open_blocks_now(training, stage, training.position.epoch))
    total = weighted_sum(losses, training.tasks) + sharing.sparsity * sparsity + sharing.sharing * share
    training.policy_optimizer.zero_grad()
    training.fabric.backward(total)
    average_gradients(training.policy.parameters())
    training.policy_optimizer.step()
    for parameter in training.supernet.parameters():
        parameter.requires_grad_(True)
    return mean_losses({"loss": total, "sparsity_loss": sparsity, "sharing_loss": share})


def validate(training: Training, stage: StageSpec) -> tuple[float, Plan]:
    """The score on val, and the plan it belongs to: as it stands, or in the search as it would be decided now."""
    position, plan = training.position, training.plan
    if isinstance(stage, SearchStage):
        open_count = open_blocks_now(training, stage, position.epoch)
        plan = training.policy.decide(open_count)
        log_policy(training, stage, open_count)
    training.supernet.eval()
    batches = training.loader(training.val, range(len(training.val)), train=False)
    extra = ""
    if isinstance(stage, AdaptStage):
        evaluation, extra = validate_adapted(training, batches)
        score = evaluation.score
    elif training.routing is None:
        evaluation = evaluate(
            lambda image: training.supernet(image, plan), batches, training.tasks, training.fabric.device
        )
        score = evaluation.score
    else:
        evaluation, score, extra = validate_routing(training, batches, stage)
    training.log.row("val", stage.name, position.epoch, position.step, **evaluation.flat(), score=score)
    primaries = "  ".join(
        f"{name} {task.primary} {evaluation.metrics[name][task.primary]:.3f}"
        for name, task in training.tasks.items()
    )
    line = f"{stage.name} {position.epoch + 1}/{stage.epochs}  val score {score:.3f}  {primaries}{extra}"
    training.progress.epoch(line)
    training.log.say(line)
    return score, plan


def log_policy(training: Training, stage: SearchStage, open_count: int) -> None:
    """The policy after an epoch of the search."""
    policy, position = training.policy, training.position
    with torch.no_grad():
        rows = keep_prob(policy.policy_logits_KL2).tolist()
        sparsity, share = policy.regularisers(open_count)
    probabilities = dict(zip(policy.tasks, rows, strict=True))
    training.progress.keep_prob = probabilities
    training.log.row(
        "policy",
        stage.name,
        position.epoch,
        position.step,
        tau=temperature((position.epoch + 1) / stage.epochs, *stage.tau),
        open_blocks=open_count,
        keep_prob=probabilities,
        sparsity_loss=sparsity.item(),
        sharing_loss=share.item(),
    )
