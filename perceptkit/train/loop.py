"""The one training loop: stages as data, every step visible.

    for each train stage:            warmup | search | retrain
        for each epoch:
            for each turn:           weights on the train split; in the search, weights and policy alternate
                for each batch:      one step
            evaluate on val, log, remember the best, save

Whatever the next step depends on is in `Training`, and `Training.state` is what a checkpoint holds, so a
run that was killed and resumed ends with the same bits as one that was not.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from perceptkit.baselines.sharing.single import Network
from perceptkit.data.batch import Batch
from perceptkit.data.loader import make_loader, split_indices
from perceptkit.data.sources import Source
from perceptkit.errors import PerceptkitError, ResumeError
from perceptkit.model.plan import Plan
from perceptkit.policies.adashare import AdaSharePolicy, keep_prob, open_blocks, temperature
from perceptkit.spec.recipe import Recipe, SearchStage, StageSpec
from perceptkit.tasks.base import Task
from perceptkit.train import checkpoint, optim
from perceptkit.train.checkpoint import Position
from perceptkit.train.evaluate import Evaluation, evaluate
from perceptkit.train.meter import Meter, peak_mib
from perceptkit.train.progress import Progress
from perceptkit.train.ranks import average_gradients, mean_losses
from perceptkit.train.run_folder import write_text
from perceptkit.train.run_log import RunLog

LOG_EVERY = 10
"""Steps between two train rows of the log."""
SAVE_SECONDS = 120.0
"""A checkpoint is written at the end of every epoch, and within one that takes longer than this."""


class Interrupted(Exception):
    """The user asked to stop; the state is saved in `run`."""

    def __init__(self, run: Path) -> None:
        super().__init__(f"interrupted; {run} can be resumed")
        self.run = run


@dataclass
class Turn:
    """A pass over some images that updates either the weights or the policy."""

    updates: str
    """`weights` or `policy`."""
    indices: Sequence[int]


@dataclass
class Training:
    """Everything that takes part in a run."""

    run: Path
    recipe: Recipe
    tasks: Mapping[str, Task]
    train: Source
    val: Source
    supernet: Network
    make_supernet: Callable[[], Network]
    """Called with no argument; gives a supernet with the initial weights again."""
    fabric: Fabric
    log: RunLog
    progress: Progress
    policy: AdaSharePolicy
    plan: Plan
    """What `weights` turns outside the search execute: all blocks until the search has decided."""
    position: Position = field(default_factory=Position)
    best_score: float = float("-inf")
    stage_seconds: dict[str, float] = field(default_factory=dict)
    stop_requested: bool = False
    optimizer: torch.optim.Optimizer | None = None
    policy_optimizer: torch.optim.Optimizer | None = None
    generator: torch.Generator = field(default_factory=torch.Generator)
    """Draws the policy samples; the same on every rank."""

    def state(self) -> dict[str, Any]:
        """All that the next step depends on, as tensors and plain data."""
        return {
            "supernet": self.supernet.state_dict(),
            "policy": self.policy.state_dict(),
            "optimizer": self.optimizer.state_dict() if self.optimizer else None,
            "policy_optimizer": self.policy_optimizer.state_dict() if self.policy_optimizer else None,
            "plan": self.plan.to_json(),
            "best_score": self.best_score,
            "stage_seconds": self.stage_seconds,
            "policy_generator": self.generator.get_state(),
            "torch_rng": torch.get_rng_state(),
            "precision": self.fabric.strategy.precision.state_dict(),  # the loss scale of fp16
        }

    def restore(self, state: dict[str, Any], position: Position) -> None:
        """Continues where `state` was saved."""
        self.position = position
        if state["optimizer"] is not None:  # None: saved between two stages
            self.begin_stage_optimizers(self.recipe.stages[position.stage])
        try:
            self.supernet.load_state_dict(state["supernet"])
            self.policy.load_state_dict(state["policy"])
        except (RuntimeError, KeyError) as error:
            raise ResumeError(f"{self.run}/checkpoints/last.pt is of another network") from error
        for optimizer, key in ((self.optimizer, "optimizer"), (self.policy_optimizer, "policy_optimizer")):
            if optimizer is not None and state[key] is not None:
                optimizer.load_state_dict(state[key])
        self.plan = Plan.from_json(state["plan"])
        self.best_score, self.stage_seconds = state["best_score"], state["stage_seconds"]
        self.generator.set_state(state["policy_generator"])
        torch.set_rng_state(state["torch_rng"])
        self.fabric.strategy.precision.load_state_dict(state["precision"])

    def save(self) -> None:
        """Writes checkpoints/last.pt."""
        if self.fabric.global_rank == 0:
            checkpoint.save(self.run / "checkpoints/last.pt", self.state(), self.position)

    def save_best(self, evaluation: Evaluation, plan: Plan) -> None:
        """Writes checkpoints/best.pt when the score on val is the best of the last stage so far."""
        if evaluation.score <= self.best_score:
            return
        self.best_score = evaluation.score
        if self.fabric.global_rank == 0:
            best = {
                "supernet": self.supernet.state_dict(),
                "plan": plan.to_json(),
                "score": evaluation.score,
            }
            checkpoint.save(self.run / "checkpoints/best.pt", best, self.position)

    def begin_stage_optimizers(self, stage: StageSpec) -> None:
        """Fresh optimisers: each train stage has its own."""
        made = optim.make_optimizer(self.supernet, self.recipe.optim, stage)
        self.optimizer = cast(torch.optim.Optimizer, self.fabric.setup_optimizers(made))
        if isinstance(stage, SearchStage):
            adam = torch.optim.Adam(self.policy.parameters(), lr=stage.policy_lr)
            self.policy_optimizer = cast(torch.optim.Optimizer, self.fabric.setup_optimizers(adam))
        else:
            self.policy_optimizer = None

    def loader(self, source: Source, indices: Sequence[int], *, train: bool, start: int = 0) -> Any:
        """Batches of `source`; which images and augmentations follows from seed and step alone."""
        return make_loader(
            source,
            indices,
            self.tasks,
            batch=self.recipe.loader.batch,
            workers=self.recipe.loader.workers,
            augment=self.recipe.augment if train else None,
            mean=self.supernet.mean,
            std=self.supernet.std,
            seed=self.recipe.seed,
            epoch=self.position.stage * 10_000 + self.position.epoch * 10 + self.position.turn,
            shuffle=train,
            drop_last=train,
            rank=self.fabric.global_rank,
            world_size=self.fabric.world_size,
            start_batch=start,
        )


def turns(stage: StageSpec, num_train: int, seed: int) -> list[Turn]:
    """The turns of one epoch; in the search the policy sees images that the weights do not."""
    if isinstance(stage, SearchStage):
        policy_indices, weight_indices = split_indices(num_train, stage.policy_fraction, seed)
        return [Turn("weights", weight_indices), Turn("policy", policy_indices)]
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
    if stage.name == "retrain" and stage.start == "scratch" and training.position.stage > 0:
        training.supernet.load_state_dict(training.make_supernet().state_dict())
    training.best_score = float("-inf")
    training.begin_stage_optimizers(stage)


def end_stage(training: Training, stage: StageSpec) -> None:
    """After the search the plan is decided and written down."""
    if isinstance(stage, SearchStage):
        open_count = open_blocks_now(training, stage, stage.epochs - 1)
        training.plan = training.policy.decide(open_count)
        if training.fabric.global_rank == 0:
            write_text(training.run / "policy.json", training.plan.to_json() + "\n")


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
    evaluation, plan = validate(training, stage)
    if training.position.stage == len(training.recipe.stages) - 1:
        training.save_best(evaluation, plan)


def run_turn(training: Training, stage: StageSpec, turn: Turn) -> None:
    """The steps of one turn."""
    position, recipe = training.position, training.recipe
    per_epoch = steps_per_epoch(
        stage, len(training.train), recipe.loader.batch, recipe.seed, training.fabric.world_size
    )
    training.supernet.train()
    meter = Meter(LOG_EVERY)
    saved = time.monotonic()
    batches = iter(training.loader(training.train, turn.indices, train=True, start=position.batch))
    while position.batch < per_epoch[turn.updates]:
        with meter.waiting():
            batch = next(batches).to(training.fabric.device)
        if turn.updates == "policy":
            losses = policy_step(training, stage, batch, position.batch / per_epoch["policy"])
        else:
            lr = optim.learning_rate(
                recipe.optim, stage, position.stage_step, stage.epochs * per_epoch["weights"]
            )
            progress = position.batch / per_epoch["weights"]
            losses = weight_step(training, stage, batch, lr, progress)
            position.stage_step += 1
        position.batch += 1
        position.step += 1
        meter.step(losses, len(batch.ids) * training.fabric.world_size)
        training.progress.step(stage.name, position.epoch, stage.epochs, losses)
        if meter.full or position.batch == per_epoch[turn.updates]:
            values = meter.flush()
            if turn.updates == "weights":
                row = {**values, "lr": lr, "peak_mib": peak_mib()}
                training.log.row("train", stage.name, position.epoch, position.step, **row)
        if training.stop_requested:
            training.save()
            raise Interrupted(training.run)
        if time.monotonic() - saved > SAVE_SECONDS:
            training.save()
            saved = time.monotonic()


def keep_of(training: Training, stage: StageSpec, progress_in_turn: float) -> Any:
    """What the supernet executes in this step: the plan, or one relaxed sample per task during the search."""
    if not isinstance(stage, SearchStage):
        return training.plan
    tau = temperature((training.position.epoch + progress_in_turn) / stage.epochs, *stage.tau)
    return training.policy.relax(
        tau, open_blocks_now(training, stage, training.position.epoch), training.generator
    )


def task_losses(training: Training, batch: Batch, keep: Any) -> dict[str, Tensor]:
    """Each task's loss on one batch, float32."""
    with training.fabric.autocast():
        outputs = training.supernet(batch.image_BCHW, keep)
    return {
        name: task.loss(outputs[name].float(), batch.targets[name]) for name, task in training.tasks.items()
    }


def weighted_sum(losses: Mapping[str, Tensor], tasks: Mapping[str, Task]) -> Tensor:
    """sum_k lambda_k L_k."""
    return torch.stack([losses[name] * task.spec.weight for name, task in tasks.items()]).sum()


def refuse_nan(losses: Mapping[str, Tensor], position: Position) -> None:
    """Raises PerceptkitError naming the tasks whose loss is no number; training on would only lose time."""
    broken = [name for name, loss in losses.items() if not torch.isfinite(loss)]
    if broken:
        raise PerceptkitError(
            f"step {position.step}: the loss of {', '.join(broken)} is not finite; "
            "try a smaller optim.lr or set optim.clip_norm"
        )


def weight_step(
    training: Training, stage: StageSpec, batch: Batch, lr: float, progress: float
) -> dict[str, float]:
    """One update of the supernet's weights; the policy is sampled, not changed."""
    assert training.optimizer is not None
    optim.set_learning_rate(training.optimizer, lr)
    keep = keep_of(training, stage, progress)
    if not isinstance(keep, Plan):
        keep = {task: [k if k is True else k.detach() for k in row] for task, row in keep.items()}
    losses = task_losses(training, batch, keep)
    total = weighted_sum(losses, training.tasks)
    refuse_nan(losses, training.position)
    training.optimizer.zero_grad()
    training.fabric.backward(total)
    average_gradients(training.supernet.parameters())
    clip = training.recipe.optim.clip_norm
    if clip is not None:
        unscale(training.fabric, training.optimizer)
        nn.utils.clip_grad_norm_(training.supernet.parameters(), clip)
    training.optimizer.step()
    return mean_losses({"loss": total, **{f"loss/{name}": loss for name, loss in losses.items()}})


def unscale(fabric: Fabric, optimizer: torch.optim.Optimizer) -> None:
    """Brings gradients that fp16 scales up back to size: what is clipped must be the gradients themselves."""
    plain = getattr(optimizer, "optimizer", optimizer)  # inside Fabric's wrapper
    fabric.strategy.precision.unscale_gradients(plain)


def policy_step(training: Training, stage: StageSpec, batch: Batch, progress: float) -> dict[str, float]:
    """One update of the policy's logits; the weights are not changed."""
    assert isinstance(stage, SearchStage) and training.policy_optimizer is not None
    sharing = training.recipe.sharing
    for parameter in training.supernet.parameters():
        parameter.requires_grad_(False)
    losses = task_losses(training, batch, keep_of(training, stage, progress))
    sparsity, share = training.policy.regularisers(open_blocks_now(training, stage, training.position.epoch))
    total = weighted_sum(losses, training.tasks) + sharing.sparsity * sparsity + sharing.sharing * share
    training.policy_optimizer.zero_grad()
    training.fabric.backward(total)
    average_gradients(training.policy.parameters())
    training.policy_optimizer.step()
    for parameter in training.supernet.parameters():
        parameter.requires_grad_(True)
    return mean_losses({"loss": total, "sparsity_loss": sparsity, "sharing_loss": share})


def validate(training: Training, stage: StageSpec) -> tuple[Evaluation, Plan]:
    """Metrics on val, and the plan they belong to: as it stands, or in the search as it would be decided now."""
    position, plan = training.position, training.plan
    if isinstance(stage, SearchStage):
        open_count = open_blocks_now(training, stage, position.epoch)
        plan = training.policy.decide(open_count)
        log_policy(training, stage, open_count)
    training.supernet.eval()
    batches = training.loader(training.val, range(len(training.val)), train=False)
    evaluation = evaluate(
        lambda image: training.supernet(image, plan), batches, training.tasks, training.fabric.device
    )
    training.log.row(
        "val", stage.name, position.epoch, position.step, **evaluation.flat(), score=evaluation.score
    )
    primaries = "  ".join(
        f"{name} {task.primary} {evaluation.metrics[name][task.primary]:.3f}"
        for name, task in training.tasks.items()
    )
    line = f"{stage.name} {position.epoch + 1}/{stage.epochs}  val score {evaluation.score:.3f}  {primaries}"
    training.progress.epoch(line)
    training.log.say(line)
    return evaluation, plan


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
