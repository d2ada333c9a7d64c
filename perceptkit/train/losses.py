"""Losses of one step, and the update that follows from them."""

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn

from perceptkit.data.batch import Batch
from perceptkit.errors import PerceptkitError
from perceptkit.tasks.base import Task
from perceptkit.train.checkpoint import Position
from perceptkit.train.ranks import average_gradients, batch_of_all_ranks
from perceptkit.train.training import Training


def task_losses(
    outputs: Mapping[str, Tensor], batch: Batch, tasks: Mapping[str, Task], shared: bool = True
) -> dict[str, Tensor]:
    """Each task's loss on one batch, float32.

    `shared`: every rank has its own pictures of the batch, as many as each other, and not all of them the same ones.
    """
    losses = {}
    for name, task in tasks.items():
        output, target = outputs[name].float(), batch.targets[name]
        if task.joint and shared:
            output, target = batch_of_all_ranks(output), batch_of_all_ranks(target)
        losses[name] = task.loss(output, target)
    return losses


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


def update(training: Training, optimizer: torch.optim.Optimizer, parameters: Iterable[nn.Parameter]) -> None:
    """One step of an optimiser whose gradients have been computed: averaged over ranks, clipped as the recipe says."""
    parameters = list(parameters)
    average_gradients(parameters)
    clip = training.recipe.optim.clip_norm
    if clip is not None:
        plain = getattr(optimizer, "optimizer", optimizer)  # inside Fabric's wrapper
        # what is clipped must be the gradients themselves, not those that fp16 scales up
        training.fabric.strategy.precision.unscale_gradients(plain)
        nn.utils.clip_grad_norm_(parameters, clip)
    optimizer.step()
