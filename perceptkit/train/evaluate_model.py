"""Metrics of something loaded (a run, an artifact, an exported file) on a split of a tasks file."""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from perceptkit.data.batch import Batch
from perceptkit.data.loader import make_loader
from perceptkit.data.sources import open_split
from perceptkit.errors import SpecError
from perceptkit.spec.several import with_data
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

    Tasks that only one of the two has are left out.

    Args:
        forward, tasks, size_HW, mean, std: the model.
        tasks_file, split: the data; `data.size`, `mean` and `std` of their own do not count.
        batch: pictures per call.

    Raises:
        SpecError: the data declare none of the model's tasks, or others under the same name.
    """
    declared = declared_tasks(tasks, tasks_file)
    read = declared | build_tasks(narrowed(tasks_file, sources_of(declared)))
    source = open_split(at_size(tasks_file, size_HW), read, split)
    batches = make_loader(
        source, range(len(source)), read, batch=batch, workers=0, augment=None, mean=mean, std=std,
        seed=0, epoch=0, shuffle=False, drop_last=False,
    )  # fmt: skip
    return evaluate(forward, batches, {name: tasks[name] for name in declared}, torch.device("cpu")).metrics


def declared_tasks(tasks: Mapping[str, Task], tasks_file: TasksFile) -> dict[str, Task]:
    """Those of the model's tasks that the data declare, as the data read them.

    Data of a run may hold more tasks than a model of some of them, and a model more than the data have labels for.

    Raises SpecError where there is none in common, or another task under the same name.
    """
    declared = build_tasks(narrowed(tasks_file, tasks))
    if not declared:
        raise SpecError(
            f"the model and the data have no task in common: the model has {', '.join(tasks)}; "
            f"the data declare {', '.join(tasks_file.tasks)}"
        )
    for name, task in declared.items():
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


def sources_of(tasks: Mapping[str, Task]) -> list[str]:
    """Tasks whose labels are read because edges derive from them, whether the model has them or not."""
    return [name for task in tasks.values() for name in getattr(task.spec, "derive", None) or []]


def narrowed(tasks_file: TasksFile, tasks: Collection[str]) -> TasksFile:
    """The same data with some of their tasks only; names that they do not declare do not count."""
    kept = {name: spec for name, spec in tasks_file.tasks.items() if name in tasks}
    return tasks_file.model_copy(update={"tasks": kept})


def at_size(tasks_file: TasksFile, size_HW: tuple[int, int]) -> TasksFile:
    """The same data, read at a model's input size."""
    return with_data(tasks_file, lambda *_: {"size": size_HW})


def sample_images(
    tasks_file: TasksFile,
    split: Split,
    size_HW: tuple[int, int],
    mean: Sequence[float],
    std: Sequence[float],
    count: int,
    batch: int = 8,
) -> Iterator[Tensor]:
    """`count` normalised pictures (B, 3, H, W), or all, spread evenly over a split: what int8 calibrates on.

    No label is read.
    """
    return (b.image_BCHW for b in sample_batches(tasks_file, {}, split, size_HW, mean, std, count, batch))


def sample_batches(
    tasks_file: TasksFile,
    tasks: Mapping[str, Task],
    split: Split,
    size_HW: tuple[int, int],
    mean: Sequence[float],
    std: Sequence[float],
    count: int,
    batch: int = 8,
) -> Iterator[Batch]:
    """`count` pictures with the labels of some tasks, or all, spread evenly over a split."""
    source = open_split(at_size(tasks_file, size_HW), tasks, split)
    chosen = np.linspace(0, len(source) - 1, min(count, len(source))).round().astype(int).tolist()
    return make_loader(
        source, chosen, tasks, batch=batch, workers=0, augment=None, mean=mean, std=std,
        seed=0, epoch=0, shuffle=False, drop_last=False,
    )  # fmt: skip
