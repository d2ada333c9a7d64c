"""Metrics of a network, or of the best constant predictor, over a split.

Shapes: B pictures of a batch, N pictures of a split, K tasks.
"""

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from perceptkit.data.batch import Batch
from perceptkit.tasks.base import Task
from perceptkit.train.ranks import sum_over_ranks

Forward = Callable[[Tensor], Mapping[str, Tensor]]


@dataclass(frozen=True)
class Evaluation:
    """What came out."""

    metrics: dict[str, dict[str, float]]
    """By task and metric; NaN where the split holds no label."""
    score: float
    """Mean over tasks of the mean per-image quality, in [0, 1]: what model selection looks at. Of a task whose quality
    is relative to the batch (`Task.joint`) it has the primary metric."""
    quality_NK: Tensor
    """Of every picture that this rank brought, in [0, 1], NaN without a label; float32 on the CPU."""

    def flat(self) -> dict[str, float]:
        """`task/metric` keys, for the log."""
        return {f"{task}/{name}": v for task, values in self.metrics.items() for name, v in values.items()}


@torch.no_grad()
def evaluate(
    forward: Forward,
    batches: Iterable[Batch],
    tasks: Mapping[str, Task],
    device: torch.device,
    observe: Callable[[Batch, Mapping[str, Tensor]], None] | None = None,
) -> Evaluation:
    """Runs `forward` over the batches; with several ranks each brings its share and all get the whole result.

    `observe` is shown every batch and its outputs.
    """
    metrics = {name: task.metric().to(device) for name, task in tasks.items()}
    quality_sums = torch.zeros(len(tasks), 2, dtype=torch.float64, device=device)
    by_picture: list[Tensor] = []
    for batch in batches:
        batch = batch.to(device)
        outputs = forward(batch.image_BCHW)
        if observe is not None:
            observe(batch, outputs)
        quality_KB = []
        for k, (name, task) in enumerate(tasks.items()):
            output, target = outputs[name].float(), batch.targets[name]
            metrics[name].update(output, target)
            quality_B = task.quality(output, target).double()
            known_B = ~quality_B.isnan()
            quality_sums[k, 0] += quality_B[known_B].sum()
            quality_sums[k, 1] += known_B.sum()
            quality_KB.append(quality_B.float())
        by_picture.append(torch.stack(quality_KB, -1).cpu())
    sum_over_ranks(quality_sums)
    by_task = {
        name: {key: float(value) for key, value in metric.compute().items()}
        for name, metric in metrics.items()
    }
    means = []
    for (name, task), (total, count) in zip(tasks.items(), quality_sums.tolist(), strict=True):
        primary = by_task[name][task.primary]
        if task.joint and not math.isnan(primary):
            means.append(primary)
        elif not task.joint and count:
            means.append(total / count)
    score = sum(means) / len(means) if means else math.nan
    return Evaluation(by_task, score, torch.cat([torch.zeros(0, len(tasks)), *by_picture]))


def constant_metrics(
    train_batches: Callable[[], Iterable[Batch]],
    test_batches: Iterable[Batch],
    tasks: Mapping[str, Task],
    size_HW: tuple[int, int],
) -> dict[str, dict[str, float]]:
    """Metrics of the best constant predictor: fitted on training targets, the same answer for every image."""
    outputs = {
        name: task.constant_output((batch.targets[name] for batch in train_batches()), size_HW)
        for name, task in tasks.items()
    }

    def forward(image_BCHW: Tensor) -> dict[str, Tensor]:
        batch = len(image_BCHW)
        return {name: output.expand(batch, *output.shape[1:]) for name, output in outputs.items()}

    return evaluate(forward, test_batches, tasks, torch.device("cpu")).metrics
