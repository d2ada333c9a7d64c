"""Losses of one step, and the update that follows from them."""

from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor, nn

from perceptkit.data.batch import Batch
from perceptkit.errors import PerceptkitError
from perceptkit.spec.several import SEPARATOR
from perceptkit.tasks.base import Task
from perceptkit.train.checkpoint import Position
from perceptkit.train.ranks import average_gradients, batch_of_all_ranks, sum_over_ranks
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


def labelled_tasks(batch: Batch, tasks: Mapping[str, Task]) -> dict[str, bool]:
    """Which tasks have a label in this batch, on any rank."""
    has = [task.is_labelled(batch.targets[name]).any() for name, task in tasks.items()]
    return dict(zip(tasks, (sum_over_ranks(torch.stack(has).float()) > 0).tolist(), strict=True))


def of_labelled(losses: Mapping[str, Tensor], labelled: Mapping[str, bool]) -> dict[str, Tensor]:
    """The losses with no gradient where there is no label: then what such a task alone uses has none either, and the
    optimiser leaves it as it is, momentum and weight decay included."""
    return {name: loss if labelled[name] else loss.detach() for name, loss in losses.items()}


def losses_to_log(losses: Mapping[str, Tensor], labelled: Mapping[str, bool]) -> dict[str, Tensor]:
    """`loss/TASK`, of the tasks that have one in this batch."""
    return {f"loss/{name}": loss for name, loss in losses.items() if labelled[name]}


@torch.no_grad()
def losses_by_source(
    outputs: Mapping[str, Tensor],
    batch: Batch,
    tasks: Mapping[str, Task],
    tasks_of: Mapping[str, Sequence[str]],
) -> dict[str, Tensor]:
    """`source_loss/SOURCE/TASK`: each task's loss on a source's pictures alone, where they have labels in this batch.

    A task that compares the pictures of a batch has none.

    Args:
        outputs, batch, tasks: of one step.
        tasks_of: by source, the tasks that have labels there; empty where there is one source.
    """
    found, has = {}, []
    for source, of_source in tasks_of.items():
        mine_B = torch.tensor([image_id.startswith(f"{source}{SEPARATOR}") for image_id in batch.ids])
        for name in of_source:
            task = tasks[name]
            if task.joint:
                continue
            rows_B = mine_B.to(outputs[name].device)
            target = batch.targets[name][rows_B]
            found[f"source_loss/{source}/{name}"] = task.loss(outputs[name].float()[rows_B], target)
            has.append(task.is_labelled(target).any())
    if not found:
        return {}
    known = (sum_over_ranks(torch.stack(has).float()) > 0).tolist()
    return {key: loss for (key, loss), is_known in zip(found.items(), known, strict=True) if is_known}


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
