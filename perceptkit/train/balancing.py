"""One update of the weights by the losses of several tasks, as the recipe's `balance` makes one of them.

Shapes: K tasks.
"""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from perceptkit.baselines.balancing.balance import Network
from perceptkit.baselines.sharing.whole import WholeNetwork
from perceptkit.data.batch import Batch
from perceptkit.model.norms import still_statistics
from perceptkit.model.plan import Plan
from perceptkit.model.supernet import Supernet
from perceptkit.train.losses import (
    labelled_tasks,
    losses_by_source,
    losses_to_log,
    of_labelled,
    refuse_nan,
    task_losses,
    update,
)
from perceptkit.train.training import Training


def descend(
    training: Training, batch: Batch, forward: Callable[[], Mapping[str, Tensor]], keep: Any
) -> dict[str, Tensor]:
    """Forward, backward and one step of the optimiser.

    Args:
        training: with a balance.
        batch: the pictures.
        forward: outputs by task.
        keep: what the network executes: a plan, or keep probabilities by task.

    A batch without any label is not learned from: nothing moves but the norms' statistics.

    Returns:
        The total, the loss of each task that has a label, and by source, the method's own penalties, and the weight of
        each task where it changes.
    """
    tasks, balance, optimizer = training.tasks, training.balance, training.optimizer
    assert balance is not None and optimizer is not None

    def outputs_now() -> Mapping[str, Tensor]:
        with training.fabric.autocast():
            return forward()

    outputs = outputs_now()
    losses = task_losses(outputs, batch, tasks)
    refuse_nan(losses, training.position)
    labelled = labelled_tasks(batch, tasks)
    logged = losses_to_log(losses, labelled) | losses_by_source(outputs, batch, tasks, training.tasks_of)
    losses = of_labelled(losses, labelled)
    weights = [p for p in training.weights() if p.requires_grad]
    penalties = training.supernet.penalties() if isinstance(training.supernet, WholeNetwork) else {}
    penalty = torch.stack(list(penalties.values())).sum() if penalties else None
    network = Network(training.fabric.backward, weights, shared_layer(training.supernet, keep), penalty)
    optimizer.zero_grad()
    if not any(labelled.values()):
        return logged
    labelled_K = torch.tensor(list(labelled.values()), device=training.fabric.device)
    total = balance.backward(torch.stack(list(losses.values())), labelled_K, network)
    update(training, optimizer, [*weights, *balance.parameters()])
    with torch.no_grad(), still_statistics(training.supernet):
        balance.after_update(lambda: torch.stack(list(task_losses(outputs_now(), batch, tasks).values())))
    told = {"loss": total, **logged, **penalties}
    if training.recipe.balance.method not in ("uniform", "torchjd"):
        told |= {f"weight/{name}": w for name, w in zip(tasks, balance.shown_K().detach(), strict=True)}
    return told


def shared_layer(network: nn.Module, keep: Any) -> list[nn.Parameter]:
    """The last weight of the last block that all tasks run, or of the stem where there is none; empty without a trunk
    in common."""
    if not isinstance(network, Supernet):
        return []
    rows = keep.table if isinstance(keep, Plan) else list(keep.values())
    for b in range(len(network.blocks) - 1, -1, -1):
        if all(row[b] != "skip" and row[b] is not False for row in rows):
            block = network.backbone.get_submodule(network.blocks[b].name)
            found = [p for p in block.parameters() if p.ndim > 1 and p.requires_grad]
            if found:
                return found[-1:]
    return [p for p in network.backbone.parameters() if p.ndim > 1][:1]
