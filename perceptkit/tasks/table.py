"""All task types, and the tasks that a tasks file declares."""

from collections.abc import Mapping, Sequence
from typing import Any

from perceptkit.errors import SpecError
from perceptkit.spec.classes import class_names, embedding_ids
from perceptkit.spec.coco import coco_classes
from perceptkit.spec.csv_source import csv_classes, csv_words
from perceptkit.spec.listed import listed_classes, own_classes
from perceptkit.spec.packed import packed_classes, packed_words
from perceptkit.spec.several import parts
from perceptkit.spec.tasks_file import (
    ClassificationSpec,
    CocoData,
    CsvData,
    EmbeddingSpec,
    FolderData,
    KeypointsSpec,
    LayoutData,
    ListedData,
    PackedData,
    ScenesData,
    SegmentationSpec,
    TaskBase,
    TasksFile,
)
from perceptkit.tasks.base import Task
from perceptkit.tasks.classification import Classification
from perceptkit.tasks.depth import Depth
from perceptkit.tasks.edges import Edges
from perceptkit.tasks.embedding import Embedding
from perceptkit.tasks.keypoints import Keypoints
from perceptkit.tasks.normals import Normals
from perceptkit.tasks.response import Response
from perceptkit.tasks.segmentation import Segmentation

TASKS: dict[str, Any] = {
    task.type: task
    for task in (Segmentation, Depth, Normals, Keypoints, Edges, Response, Classification, Embedding)
}
"""Task classes by `type`; each is called with the task's name, its spec and the names of its outputs."""


def build_tasks(tasks_file: TasksFile, labels: Mapping[str, list[str]] | None = None) -> dict[str, Task]:
    """The declared tasks by name, in the order of the file.

    Args:
        tasks_file: with absolute paths.
        labels: names of a task's classes or points, where they are known already and must not be looked up.

    Raises:
        SpecError: a task's classes cannot be found.
    """
    return {
        name: TASKS[spec.type](name, spec, (labels or {}).get(name) or output_names(name, tasks_file))
        for name, spec in tasks_file.tasks.items()
    }


def stored_as(task: Task, spec: TaskBase) -> Task:
    """The same task where its labels are stored as `spec` says."""
    made: Task = TASKS[spec.type](task.name, spec, task.ids if isinstance(task, Embedding) else task.labels)  # type: ignore[attr-defined]
    return made


def output_names(task: str, tasks_file: TasksFile) -> list[str]:
    """The names of a task's classes, points or ids to train on; none for types whose outputs have no names.

    Raises SpecError where sources differ in the classes or points; ids are those of all sources.
    """
    found = {source: _names(task, part) for source, part in parts(tasks_file).items() if task in part.tasks}
    (first, names), *others = found.items()
    if others and isinstance(tasks_file.tasks[task], EmbeddingSpec):
        # the renderer numbers its rooms itself
        scenes = {source for source, part in parts(tasks_file).items() if isinstance(part.first, ScenesData)}
        in_order = sorted(found, key=lambda source: source not in scenes)
        return list(dict.fromkeys(name for source in in_order for name in found[source]))
    for source, theirs in others:
        if theirs != names:
            raise SpecError(
                f"tasks.{task}: the source '{first}' has {_some(names)}, the source '{source}' has {_some(theirs)}; "
                "give the task names that hold for both, or take it out of the 'tasks' of one"
            )
    return names


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


def _names(task: str, tasks_file: TasksFile) -> list[str]:
    """Of one source."""
    spec = tasks_file.tasks[task]
    data = tasks_file.first
    if isinstance(spec, SegmentationSpec | ClassificationSpec):
        if isinstance(data, FolderData):
            return class_names(spec, data.root, data.splits)  # type: ignore[arg-type]  # split names are words
        if isinstance(data, ListedData) and isinstance(spec, ClassificationSpec):
            return listed_classes(spec, data)
        if isinstance(data, CocoData) and isinstance(spec, SegmentationSpec):
            return coco_classes(spec, data)
        if isinstance(data, CsvData) and isinstance(spec, ClassificationSpec):
            return csv_classes(task, spec, data)
        if isinstance(data, PackedData):
            return packed_classes(task, spec, data)
        if isinstance(data, LayoutData):
            return class_names(spec, data.root)
        return class_names(spec, None)
    if isinstance(spec, EmbeddingSpec):
        if isinstance(data, FolderData):
            return embedding_ids(spec, data)
        if isinstance(data, CsvData):
            return csv_words(task, spec, data)
        if isinstance(data, PackedData):
            return packed_words(task, spec, data)
        return own_classes(data) if isinstance(data, ListedData) else _scene_rooms()
    if isinstance(spec, KeypointsSpec):
        if isinstance(data, ScenesData):
            return _scene_points()
        return list(spec.names or spec.kinds or [])
    return []


def _scene_rooms() -> list[str]:
    from perceptkit.spec.scene_labels import SCENE_TYPES

    return list(SCENE_TYPES)


def _scene_points() -> list[str]:
    from perceptkit.spec.scene_labels import SCENE_KEYPOINTS

    return list(SCENE_KEYPOINTS)
