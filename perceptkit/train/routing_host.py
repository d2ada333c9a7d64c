"""The network as it was before anything was skipped: what teaches, and what dense answers are judged by.

It is saved in the run folder when routing begins, and never trained. Its quality on a picture is computed once where
pictures come as they are (val; the train split of a recipe without `augment`), for one pass over the split; else once
per batch of the stage `finetune`, for a forward pass without gradient. While `route` fixes the weights, the network is
its own host, and all blocks run in the same pass as what is tried.

Shapes: B pictures, R routed blocks, K tasks.
"""

import copy
from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor

from perceptkit.data.batch import Batch
from perceptkit.model.supernet import Supernet
from perceptkit.spec.recipe import AugmentSpec, RouteStage, RoutingSpec
from perceptkit.tasks.base import Task
from perceptkit.tasks.distillation import distillation, regresses
from perceptkit.train import checkpoint
from perceptkit.train.losses import weighted_sum
from perceptkit.train.ranks import sum_over_ranks
from perceptkit.train.training import Routing, Training

HOST = "checkpoints/host.pt"
"""In the run folder."""
TEMPERATURE = 4.0
"""Of distillation; its gradients fall with the square of it, so the loss is multiplied by that (Hinton et al.)."""


def routing_spec(training: Training) -> RoutingSpec:
    """The recipe's section `routing`."""
    assert training.recipe.routing is not None
    return training.recipe.routing


def one_network(training: Training) -> Supernet:
    """The network of all tasks; the recipe's checks leave no other one to routing."""
    assert isinstance(training.supernet, Supernet)
    return training.supernet


def current(training: Training) -> Routing:
    """The router, in the stages that have one."""
    assert training.routing is not None
    return training.routing


def host_of(training: Training) -> Supernet:
    """The network as it was before anything was skipped, a copy with weights of its own."""
    host = copy.deepcopy(one_network(training))
    host.load_state_dict(checkpoint.load(training.run / HOST)[0]["supernet"])
    return host


def host_answers(training: Training, image_BCHW: Tensor) -> dict[str, Tensor]:
    """What the host says with all blocks; without gradient."""
    routing = current(training)
    if routing.host is None:
        routing.host = host_of(training).eval().requires_grad_(False)
    everything = routing.cost_R.new_ones(len(image_BCHW), len(routing.cost_R), dtype=torch.bool)
    with torch.no_grad():
        answers: dict[str, Tensor] = routing.host(image_BCHW, training.plan, keep_BR=everything)
    return answers


def taught(training: Training, batch: Batch, outputs: Mapping[str, Tensor]) -> Tensor:
    """How far the outputs are from the host's with all blocks: 0 where they are the same.

    The sum over tasks, by their weights, of T^2 (L(outputs) - L(the host's)) of tasks/distillation.py, without T^2
    where it has no temperature.
    """
    with training.fabric.autocast():
        answers = host_answers(training, batch.image_BCHW)
    losses = {}
    for name, task in training.tasks.items():
        scale = 1.0 if regresses(task) else TEMPERATURE**2
        least = distillation(task, answers[name], answers[name], TEMPERATURE)
        losses[name] = scale * (distillation(task, outputs[name], answers[name], TEMPERATURE) - least)
    return weighted_sum(losses, training.tasks)


def quality(task: Task, output: Tensor, target: Tensor) -> Tensor:
    """(B,) 1 where an answer is right and 0 where not, or how good it is in [0, 1]; NaN without a label."""
    return task.is_right(output, target) if task.is_yes_or_no else task.quality(output, target)


def qualities(training: Training, batch: Batch, outputs: Mapping[str, Tensor]) -> Tensor:
    """(B, K)"""
    columns = [
        quality(task, outputs[name].detach().float(), batch.targets[name])
        for name, task in training.tasks.items()
    ]
    return torch.stack(columns, -1)


def is_host(training: Training) -> bool:
    """Whether the network still has the host's weights: until `finetune` begins."""
    return isinstance(training.recipe.stages[training.position.stage], RouteStage)


def keeps_host_quality(training: Training, split: Literal["train", "val"]) -> bool:
    """Whether what the host gives on a picture of this split is always the same."""
    if any(task.joint for task in training.tasks.values()):
        return False  # it depends on the batch
    ids = training.train.ids  # those of several splits that are joined may be the same
    return split == "val" or (training.recipe.augment == AugmentSpec() and len(set(ids)) == len(ids))


def host_quality(training: Training, batch: Batch, split: Literal["train", "val"]) -> Tensor:
    """(B, K) quality of the host's answers with all blocks, by `quality`."""
    if not keeps_host_quality(training, split):
        return qualities(training, batch, host_answers(training, batch.image_BCHW))
    known = current(training).host_quality
    if split not in known:
        source = training.train if split == "train" else training.val
        known[split] = {}
        # in an order of its own, so that a resumed run finds the same
        for other in training.loader(source, range(len(source)), train=False, shared=False):
            other = other.to(training.fabric.device)
            found_BK = qualities(training, other, host_answers(training, other.image_BCHW)).cpu()
            known[split] |= dict(zip(other.ids, found_BK, strict=True))
    table_BK = torch.stack([known[split][picture] for picture in batch.ids])
    return table_BK.to(training.fabric.device)


class QualityMeans:
    """Mean quality by task over batches, those of all ranks."""

    def __init__(self, training: Training) -> None:
        self.training = training
        self.sums_2K = torch.zeros(2, len(training.tasks), dtype=torch.float64, device=training.fabric.device)

    def add(self, batch: Batch, outputs: Mapping[str, Tensor]) -> None:
        """One batch more."""
        quality_BK = qualities(self.training, batch, outputs).double()
        self.sums_2K += torch.stack([quality_BK.nansum(0), quality_BK.isfinite().sum(0)])

    def compute(self) -> dict[str, float]:
        """By task that had a label; every rank must call it, once."""
        totals, counts = sum_over_ranks(self.sums_2K).tolist()
        named = zip(self.training.tasks, totals, counts, strict=True)
        return {name: total / count for name, total, count in named if count}


def quality_drops(
    training: Training, before: Mapping[str, float], after: Mapping[str, float]
) -> dict[str, float]:
    """By task, what is lost: of right answers, as a difference of accuracies; of others the part of the quality, and
    nothing where there was none."""
    drops = {}
    for name in before.keys() & after.keys():
        lost = before[name] - after[name]
        if not training.tasks[name].is_yes_or_no:
            lost = lost / before[name] if before[name] > 0 else 0.0
        drops[name] = lost
    return {name: drops[name] for name in training.tasks if name in drops}
