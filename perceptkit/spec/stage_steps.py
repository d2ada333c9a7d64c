"""Stages that are given in steps, in whole epochs of the pictures that there are.

    epochs = steps / steps of an epoch, rounded, at least 1

An epoch is what train/turns.py makes of it: every full batch of the train split once; in a search those of its weights'
part, and those of its policy's part or as many as its turns have.
"""

import math
import os

from perceptkit.spec.picture_ids import picture_ids
from perceptkit.spec.recipe import Recipe, SearchStage, StageBase
from perceptkit.spec.several import parts
from perceptkit.spec.tasks_file import ScenesData, Split, TasksFile


def in_epochs(recipe: Recipe, tasks_file: TasksFile) -> Recipe:
    """The same recipe with epochs in the place of steps; nothing is counted where all stages have epochs.

    Raises DataError where a list of pictures cannot be read.
    """
    if all(stage.steps is None for stage in recipe.stages):
        return recipe
    num_train = count_train(tasks_file)
    stages = []
    for stage in recipe.stages:
        if stage.steps is not None:
            per_epoch = steps_of_epoch(stage, num_train, recipe.batch_of(stage) * _num_ranks())
            epochs = max(1, round(stage.steps / max(1, per_epoch)))
            stage = stage.model_copy(update={"epochs": epochs, "steps": None})
        stages.append(stage)
    return recipe.model_copy(update={"stages": stages})


def steps_of_epoch(stage: StageBase, num_train: int, whole: int) -> int:
    """Steps of any kind in one epoch.

    Args:
        stage: of a recipe.
        num_train: pictures to train on.
        whole: pictures per step, of all ranks.

    >>> steps_of_epoch(SearchStage(name="search", epochs=1, policy_fraction=0.2), 100, 8)
    12
    """
    if not isinstance(stage, SearchStage):
        return num_train // whole
    of_policy = round(num_train * stage.policy_fraction)
    of_weights = (num_train - of_policy) // whole
    if stage.turn_steps is None:
        return of_policy // whole + of_weights
    weights, policy = stage.turn_steps
    whole_turns, rest = divmod(of_weights, weights)
    return of_weights + whole_turns * policy + math.ceil(policy * rest / weights)


def count_train(tasks_file: TasksFile) -> int:
    """Pictures to train on. Raises DataError where a list cannot be read."""
    return sum(_count(part, split) for part in parts(tasks_file).values() for split in part.first.train_on)


def count_pictures(tasks_file: TasksFile, split: Split) -> int:
    """Pictures of one split. Raises DataError where a list cannot be read."""
    return sum(_count(part, split) for part in parts(tasks_file).values())


def _count(tasks_file: TasksFile, split: Split) -> int:
    data = tasks_file.first
    if isinstance(data, ScenesData):
        count: int = getattr(data.count, split)
        return count
    return len(picture_ids(tasks_file, split))


def _num_ranks() -> int:
    """Processes that train together, under torchrun."""
    return int(os.environ.get("WORLD_SIZE", "1"))
