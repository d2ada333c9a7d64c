"""Metrics of something loaded (a run, an artifact, an exported file) on a split of a tasks file."""

from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from perceptkit.data.loader import make_loader
from perceptkit.data.sources import open_split
from perceptkit.errors import SpecError
from perceptkit.spec.tasks_file import Split, TasksFile
from perceptkit.tasks.base import Task
from perceptkit.tasks.table import build_tasks
from perceptkit.train.evaluate import evaluate

SAME = ("unit", "multi_label", "kinds")
"""Keys of a task that say what its targets are; all others say how a label is read, or are the model's own."""


def evaluate_forward(
    forward: Callable[[Tensor], Mapping[str, Tensor]],
    tasks: Mapping[str, Task],
    size_HW: tuple[int, int],
    mean: Sequence[float],
    std: Sequence[float],
    tasks_file: TasksFile,
    split: Split,
    batch: int = 16,
) -> dict[str, dict[str, float]]:
    """By task and metric. The data say how labels are read, the model what its outputs mean and at which size.

    Args:
        forward, tasks, size_HW, mean, std: the model.
        tasks_file, split: the data; a `data.size` of their own does not count.
        batch: pictures per call.

    Raises:
        SpecError: the data declare tasks that the model does not have, or others under the same name.
    """
    declared = declared_tasks(tasks, tasks_file)
    source = open_split(at_size(tasks_file, size_HW), declared, split)
    batches = make_loader(
        source, range(len(source)), declared, batch=batch, workers=0, augment=None, mean=mean, std=std,
        seed=0, epoch=0, shuffle=False, drop_last=False,
    )  # fmt: skip
    return evaluate(forward, batches, {name: tasks[name] for name in declared}, torch.device("cpu")).metrics


def declared_tasks(tasks: Mapping[str, Task], tasks_file: TasksFile) -> dict[str, Task]:
    """The data's own tasks. Raises SpecError where the model has not these, or others under the same name."""
    declared = build_tasks(tasks_file)
    for name, task in declared.items():
        if name not in tasks:
            raise SpecError(f"the model has no task {name!r}; it has {', '.join(tasks)}")
        ours = tasks[name]
        if (ours.type, ours.labels) != (task.type, task.labels):
            raise SpecError(
                f"task {name!r}: the model predicts {ours.type} {ours.labels}, "
                f"the data hold {task.type} {task.labels}"
            )
        for key in SAME:
            predicted, held = getattr(ours.spec, key, None), getattr(task.spec, key, None)
            if predicted != held:
                raise SpecError(
                    f"task {name!r}: the model's {key} is {predicted!r}, that of the data {held!r}"
                )
    return declared


def at_size(tasks_file: TasksFile, size_HW: tuple[int, int]) -> TasksFile:
    """The same data, read at a model's input size."""
    return tasks_file.model_copy(update={"data": tasks_file.data.model_copy(update={"size": size_HW})})


def sample_images(
    tasks_file: TasksFile,
    split: Split,
    size_HW: tuple[int, int],
    mean: Sequence[float],
    std: Sequence[float],
    count: int,
    batch: int = 8,
) -> Iterator[Tensor]:
    """`count` normalised pictures (B, 3, H, W), or all, spread evenly over a split: what int8 calibrates on."""
    declared = build_tasks(tasks_file)
    source = open_split(at_size(tasks_file, size_HW), declared, split)
    chosen = np.linspace(0, len(source) - 1, min(count, len(source))).round().astype(int).tolist()
    batches = make_loader(
        source, chosen, declared, batch=batch, workers=0, augment=None, mean=mean, std=std,
        seed=0, epoch=0, shuffle=False, drop_last=False,
    )  # fmt: skip
    return (batch.image_BCHW for batch in batches)
