"""Losses of one step, and the update that follows from them."""

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn

from perceptkit.data.batch import Batch
from perceptkit.errors import PerceptkitError
from perceptkit.tasks.base import Task
from perceptkit.train.checkpoint import Position
from perceptkit.train.ranks import average_gradients
from perceptkit.train.training import Training


def task_losses(outputs: Mapping[str, Tensor], batch: Batch, tasks: Mapping[str, Task]) -> dict[str, Tensor]:
    """Each task's loss on one batch, float32."""
    return {name: task.loss(outputs[name].float(), batch.targets[name]) for name, task in tasks.items()}


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
