"""The stage `search`: what its steps execute, the policy's own step, and what the log says of the policy.

The mathematics are in policies/adashare.py.

Shapes: K tasks, L blocks.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from perceptkit.data.batch import Batch
from perceptkit.errors import PerceptkitError
from perceptkit.model.gates import Keep
from perceptkit.model.norms import still_statistics
from perceptkit.model.plan import Plan
from perceptkit.policies.adashare import AdaSharePolicy, keep_prob, open_blocks, temperature
from perceptkit.spec.recipe import Recipe, SearchStage
from perceptkit.train.budgeting import budget_row, budget_term
from perceptkit.train.checkpoint import Position
from perceptkit.train.losses import refuse_nan, task_losses, weighted_sum
from perceptkit.train.ranks import average_gradients, mean_losses
from perceptkit.train.training import Training
from perceptkit.train.turns import Turn, turns

KeepRows = Mapping[str, Sequence[Keep]]


def open_blocks_now(training: Training, stage: SearchStage, turn: Turn) -> int:
    """Blocks under policy control in this turn, counted from the top."""
    return _open_blocks(stage, turn, len(training.policy.blocks))


def opened_in_the_end(recipe: Recipe, num_blocks: int, num_train: int, world_size: int) -> int:
    """Blocks under policy control in the last turn of the search."""
    stage = next(stage for stage in recipe.stages if isinstance(stage, SearchStage))
    whole = recipe.batch_of(stage) * world_size
    return _open_blocks(stage, turns(stage, num_train, whole, recipe.seed, stage.epochs - 1)[-1], num_blocks)


def closed_in_words(opened: int, num_blocks: int) -> str:
    """Of blocks that the curriculum does not come to."""
    return (
        f"the search decides on the last {opened} of {num_blocks} blocks: its curriculum does not come to the "
        f"{num_blocks - opened} next to the image, which all tasks keep; more epochs or a smaller "
        "stages.search.speed opens them"
    )


def _open_blocks(stage: SearchStage, turn: Turn, num_blocks: int) -> int:
    if stage.curriculum == "none":
        return num_blocks
    return open_blocks(turn.begins, stage.speed, num_blocks)


def relaxed_sample(training: Training, stage: SearchStage, turn: Turn, step: int) -> KeepRows:
    """One sample per task for this step, with a gradient to the policy."""
    tau = temperature(turn.at(step) / stage.epochs, *stage.tau)
    hard = stage.gumbel == "straight_through"
    return training.policy.relax(tau, open_blocks_now(training, stage, turn), training.generator, hard)


def sample_for_weights(training: Training, stage: SearchStage, turn: Turn, step: int) -> KeepRows:
    """The same without a gradient; a hard sample as plain choices, so that what it skips does not run."""
    rows = relaxed_sample(training, stage, turn, step)
    if stage.gumbel == "soft":
        return {task: [k if isinstance(k, bool) else k.detach() for k in row] for task, row in rows.items()}
    return {task: [k if isinstance(k, bool) else bool(k) for k in row] for task, row in rows.items()}


def policy_step(training: Training, stage: SearchStage, batch: Batch, turn: Turn) -> dict[str, float]:
    """One update of the policy's logits; the weights are not changed.

    Raises PerceptkitError where a loss or what becomes of the logits is not finite.
    """
    assert training.policy_optimizer is not None
    outputs = _policy_forward(training, stage, batch, turn)
    losses = task_losses(outputs, batch, training.tasks)
    refuse_nan(losses, training.position)
    sharing = training.recipe.sharing
    open_count = open_blocks_now(training, stage, turn)
    sparsity, share = training.policy.regularisers(open_count)
    task_loss = weighted_sum(losses, training.tasks)
    total = task_loss + sharing.sparsity * sparsity + sharing.sharing * share
    if training.budget is not None:
        total = total + budget_term(training, stage, task_loss, open_count)
    training.policy_optimizer.zero_grad()
    training.fabric.backward(total)
    average_gradients(training.policy.parameters())
    training.policy_optimizer.step()
    refuse_nan_policy(training.policy, training.position)
    for parameter in training.supernet.parameters():
        parameter.requires_grad_(True)
    return mean_losses({"loss": total, "sparsity_loss": sparsity, "sharing_loss": share})


def refuse_nan_policy(policy: AdaSharePolicy, position: Position) -> None:
    """Raises PerceptkitError where a logit is no number: it would be decided as skip, and after the last step of a
    search no loss would tell."""
    if not torch.isfinite(policy.policy_logits_KL2).all():
        raise PerceptkitError(
            f"step {position.step}: the policy's logits are not finite; try a smaller policy_lr of the search"
        )


def _policy_forward(training: Training, stage: SearchStage, batch: Batch, turn: Turn) -> dict[str, Tensor]:
    """Outputs of a sample that has a gradient to the policy alone."""
    for parameter in training.supernet.parameters():
        parameter.requires_grad_(False)
    keep = relaxed_sample(training, stage, turn, training.position.batch)

    def forward() -> dict[str, Tensor]:
        with training.fabric.autocast():
            outputs: dict[str, Tensor] = training.supernet(batch.image_BCHW, keep)
        return outputs

    if stage.gumbel == "soft" and training.recipe.sharing.formulation == "reference_code":
        return forward()  # its norms go on learning here
    # the gradient needs the outputs of blocks that are skipped, too: they run, and must leave no trace
    with still_statistics(training.supernet):
        return forward()


def log_policy(training: Training, stage: SearchStage, turn: Turn, plan: Plan) -> None:
    """The policy after an epoch of the search, whose last turn is given, and what the plan of the moment costs."""
    policy, position = training.policy, training.position
    open_count = open_blocks_now(training, stage, turn)
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
        **budget_row(training, open_count, plan),
    )
