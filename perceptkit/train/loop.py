"""The one training loop: stages as data, every step visible.

    for each train stage:            warmup | search | retrain (for each plan that was sampled) | route | finetune
        for each epoch:
            for each turn:           weights on the train split; in the search, weights and policy alternate (turns.py)
                for each batch:      one step
            evaluate on val, log, remember the best, save

Whatever the next step depends on is in `Training`, and `Training.state` is what a checkpoint holds, so a
run that was killed and resumed ends with the same bits as one that was not.
"""

import time
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from perceptkit.baselines.sharing.stochastic_depth import SURVIVAL, draw, survival
from perceptkit.baselines.sharing.tree import TreeNet
from perceptkit.data.batch import Batch
from perceptkit.model.plan import Plan
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
from perceptkit.train.balancing import descend
from perceptkit.train.budgeting import adjust_price, conclude_budget, decide
from perceptkit.train.draw_samples import begin_sample, draw_samples, end_sample
from perceptkit.train.evaluate import evaluate
from perceptkit.train.growing import begin_tree, grow_further
from perceptkit.train.meter import Meter, peak_mib
from perceptkit.train.plan_statistics import statistics_of, take_statistics
from perceptkit.train.random_plan import drawn_plan
from perceptkit.train.ranks import mean_losses
from perceptkit.train.routing import (
    begin_finetune,
    begin_routing,
    finetune_step,
    open_blocks_of,
    route_step,
    settles_in,
)
from perceptkit.train.routing_check import judge_full, validate_routing
from perceptkit.train.run_folder import write_json, write_text
from perceptkit.train.searching import (
    KeepRows,
    log_policy,
    open_blocks_now,
    policy_step,
    sample_for_weights,
)
from perceptkit.train.stage_record import record_stage
from perceptkit.train.training import Interrupted, Training
from perceptkit.train.turns import Stream, Turn, steps_per_epoch, turns

LOG_EVERY = 10
"""Steps between two train rows of the log."""
SAVE_SECONDS = 120.0
"""A checkpoint is written at the end of every epoch, and within one that takes longer than this."""


def run_stages(training: Training, count: int | None = None) -> None:
    """Runs all stages, or the first `count`, from `training.position` on.

    Raises Interrupted after saving when asked to stop.
    """
    stages = training.recipe.stages[:count]
    while training.position.stage < len(stages):
        stage = stages[training.position.stage]
        if training.optimizer is None:
            begin_stage(training, stage)
        while training.position.epoch < stage.epochs:
            began = time.monotonic()
            grow_further(training, stage)
            run_epoch(training, stage)
            spent = training.stage_seconds.get(stage.name, 0.0) + time.monotonic() - began
            training.stage_seconds[stage.name] = spent
            training.position.next_epoch()
            if training.balance is not None:
                training.balance.end_epoch()
            training.save()
        end_stage(training, stage)
        if training.sample is None or end_sample(training):
            training.position.next_stage()
        else:
            training.position.next_sample()
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
    if stage.name == "retrain" and training.recipe.sharing.method == "fafs":
        begin_tree(training)
    if stage.name == "retrain" and stage.start == "scratch" and not is_first:
        fresh = training.make_supernet()
        if isinstance(fresh, TreeNet) and isinstance(training.supernet, TreeNet):
            fresh.part(training.supernet.tree)
        training.supernet.load_state_dict(fresh.state_dict())
        training.begin_losses()
    if isinstance(stage, RetrainStage) and training.samples is not None:
        begin_sample(training, stage)
    if isinstance(stage, RouteStage | FinetuneStage) and training.routing is None:
        begin_routing(training, stage)
        judge_full(training)
    if isinstance(stage, FinetuneStage):
        begin_finetune(training, stage)
    training.best_score = float("-inf")
    training.begin_stage_optimizers(stage)


def end_stage(training: Training, stage: StageSpec) -> None:
    """After the search the plan is decided and written down, or plans are drawn; after `adapt`, where BlockDrop
    follows, the network is plain and static again."""
    if isinstance(stage, SearchStage):
        last = turns_now(training, stage, stage.epochs - 1)[-1]
        open_count = open_blocks_now(training, stage, last)
        training.plan = conclude_budget(training, open_count)
        if stage.samples:
            draw_samples(training, stage, open_count)
        elif training.fabric.global_rank == 0:
            write_text(training.run / "policy.json", training.plan.to_json() + "\n")
        if not stage.samples:  # each of which takes its own when it begins
            take_statistics(training, training.plan)
    if (
        not isinstance(stage, AdaptStage)
        and stage is not training.recipe.stages[-1]
        and training.sample is None
    ):
        record_stage(training, stage.name)
    if isinstance(stage, AdaptStage) and stage is not training.recipe.stages[-1]:
        assert training.open_test is not None
        training.fabric.barrier()
        training.load_best()
        found = conclude_adaptation(training, training.open_test(), is_last=False)
        if training.fabric.global_rank == 0:
            write_json(training.run / "adaptation.json", found)
        training.strategy = None
        training.supernet.requires_grad_(True)  # what follows trains all of it, in a resumed run too


def turns_now(training: Training, stage: StageSpec, epoch: int) -> list[Turn]:
    """The turns of an epoch of this stage in this run."""
    whole = training.recipe.batch_of(stage) * training.fabric.world_size
    return turns(stage, len(training.train), whole, training.recipe.seed, epoch)


def run_epoch(training: Training, stage: StageSpec) -> None:
    """All turns of one epoch, then validation."""
    position = training.position
    plan_of_turns = turns_now(training, stage, position.epoch)
    per_epoch = steps_per_epoch(plan_of_turns)
    streams = {turn.updates: stream_of(training, stage, turn) for turn in plan_of_turns}
    meters = {updates: Meter(LOG_EVERY) for updates in streams}
    while position.turn < len(plan_of_turns):
        turn = plan_of_turns[position.turn]
        run_turn(training, stage, turn, streams[turn.updates], meters[turn.updates], per_epoch[turn.updates])
        position.next_turn()
    plan = training.plan
    clean: AbstractContextManager[None] = nullcontext()
    if isinstance(stage, SearchStage):
        plan = decide(training, open_blocks_now(training, stage, plan_of_turns[-1]))
        log_policy(training, stage, plan_of_turns[-1], plan)
        clean = statistics_of(training, plan)
    is_last = position.stage == len(training.recipe.stages) - 1
    with clean:
        score = validate(training, stage, plan)
        if settles_in(stage, position.epoch):
            training.best_score = float("-inf")
        if is_last or isinstance(stage, AdaptStage) or training.sample is not None:
            budget = training.budget if isinstance(stage, SearchStage) else None
            if budget is None or budget.is_met(plan):  # which the curriculum may not allow yet
                training.save_best(score, plan)


def stream_of(training: Training, stage: StageSpec, turn: Turn) -> Stream:
    """The batches of all turns of this one's kind."""
    batch = training.recipe.batch_of(stage)
    kind = 1 if turn.updates == "policy" else 0

    def open_pass(number: int, start: int) -> Any:
        order = training.position.stage * 10_000 + number * 10 + kind
        return training.loader(
            training.train, turn.indices, train=True, start=start, batch=batch, order=order
        )

    return Stream(open_pass, len(turn.indices) // (batch * training.fabric.world_size))


def run_turn(
    training: Training, stage: StageSpec, turn: Turn, stream: Stream, meter: Meter, per_epoch: int
) -> None:
    """The steps of one turn; `per_epoch` of its kind make an epoch."""
    position, recipe = training.position, training.recipe
    if isinstance(stage, RouteStage):
        open_blocks_of(training, stage, position.epoch)
    training.train_mode()
    while position.batch < turn.steps:
        with meter.waiting():
            batch = stream.take(turn.first + position.batch).to(training.fabric.device)
        if turn.updates == "policy":
            assert isinstance(stage, SearchStage)
            losses = policy_step(training, stage, batch, turn)
        else:
            total = stage.epochs * per_epoch
            lr = optim.learning_rate(recipe.optim, stage, position.stage_step, total)
            if isinstance(stage, RouteStage):
                losses = route_step(training, stage, batch, lr, position.stage_step / total)
            elif isinstance(stage, FinetuneStage):
                losses = finetune_step(training, stage, batch, lr, position.stage_step / total)
            elif isinstance(stage, AdaptStage):
                losses = adapt_step(training, batch, lr, position.stage_step / total)
            else:
                losses = weight_step(training, stage, batch, lr, turn)
            position.stage_step += 1
        position.batch += 1
        position.step += 1
        meter.step(losses, len(batch.ids) * training.fabric.world_size)
        training.progress.step(stage.name, position.epoch, stage.epochs, losses)
        is_last = position.batch == turn.steps and turn.ends == position.epoch + 1
        if meter.full or is_last:
            values = meter.flush()
            if turn.updates != "policy":
                row = {**values, "lr": lr, "peak_mib": peak_mib(), **sample_of(training)}
                training.log.row("train", stage.name, position.epoch, position.step, **row)
        if training.stop_requested:
            training.save()
            raise Interrupted(training.run)
        if time.monotonic() - training.saved_at > SAVE_SECONDS:
            training.save()


def weight_step(
    training: Training, stage: StageSpec, batch: Batch, lr: float, turn: Turn
) -> dict[str, float]:
    """One update of the supernet's weights; a policy is sampled, not changed."""
    assert training.optimizer is not None
    optim.set_learning_rate(training.optimizer, lr)
    keep: Plan | KeepRows = training.plan
    if isinstance(stage, SearchStage):
        keep = sample_for_weights(training, stage, turn, training.position.batch)
    elif isinstance(stage, RetrainStage) and training.recipe.sharing.method == "stochastic_depth":
        keep = survivors(training)
    return mean_losses(descend(training, batch, lambda: training.supernet(batch.image_BCHW, keep), keep))


def survivors(training: Training) -> KeepRows:
    """Which blocks stochastic depth leaves in this step, of all tasks alike."""
    last, plan = training.recipe.sharing.survival, training.plan
    survival_L = survival(len(plan.blocks), SURVIVAL if last is None else last)
    return dict.fromkeys(plan.tasks, draw(survival_L, training.generator, training.fabric.device))


def validate(training: Training, stage: StageSpec, plan: Plan) -> float:
    """The score of a plan on val: of the run's, or in the search of the one that would be decided now."""
    position = training.position
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
    if isinstance(stage, SearchStage):
        adjust_price(training, evaluation)
    training.log.row(
        "val",
        stage.name,
        position.epoch,
        position.step,
        **evaluation.flat(),
        score=score,
        **sample_of(training),
    )
    primaries = "  ".join(
        f"{key} {task.primary} {evaluation.metrics[key][task.primary]:.3f}"
        for key, task in training.tasks.items()
    )
    name: str = stage.name
    if training.samples is not None and training.sample is not None:
        name = f"{name}, sample {position.sample + 1} of {len(training.samples.queue)}:"
    line = f"{name} {position.epoch + 1}/{stage.epochs}  val score {score:.3f}  {primaries}{extra}"
    training.progress.epoch(line)
    training.log.say(line)
    return score


def sample_of(training: Training) -> dict[str, int]:
    """Which sampled plan a row of the log is of, where there are several."""
    return {} if training.sample is None else {"sample": training.sample}
