"""A tasks file with `sources` as one tasks file for each: what reads, counts or checks a source sees no other.

A file with `data` is its own only part, under the name "".
"""

from collections.abc import Callable, Mapping
from typing import Any, cast

from perceptkit.spec.tasks_file import (
    Data,
    LabelsOfSource,
    OneOfSeveral,
    TaskBase,
    TasksFile,
)

ALONE = ""
"""The name of the only part of a file with `data`."""
SEPARATOR = "/"
"""Between the name of a source and the id that a picture has there."""
ITS_OWN = {
    "scenes": ("target", "derive", "scale", "ignore_index"),
    "imagefolder": ("target",),
    "decathlon": ("target",),
    "nyuv2": ("target",),
    "cityscapes": ("target",),
}
"""By source, the keys of a task that it leaves no choice about: there they are for the other sources."""


def parts(tasks_file: TasksFile) -> dict[str, TasksFile]:
    """By source, a tasks file of it alone, with the tasks that have labels there."""
    if tasks_file.sources is None:
        return {ALONE: tasks_file}
    return {name: _part(tasks_file, data) for name, data in tasks_file.sources.items()}


def with_data(tasks_file: TasksFile, change: Callable[[str, Data], Mapping[str, Any]]) -> TasksFile:
    """The same file with other keys of its data: `change` is called with the name and the keys of each source, or with
    "" and `data`."""
    if tasks_file.sources is None:
        assert tasks_file.data is not None
        data = tasks_file.data.model_copy(update=change(ALONE, tasks_file.data))
        return tasks_file.model_copy(update={"data": data})
    sources = {name: data.model_copy(update=change(name, data)) for name, data in tasks_file.sources.items()}
    return tasks_file.model_copy(update={"sources": sources})


def weights(tasks_file: TasksFile) -> dict[str, float] | None:
    """The sampling weight of each source; None where each counts by its size."""
    found = {name: own(data).weight for name, data in (tasks_file.sources or {}).items()}
    return {name: w for name, w in found.items() if w is not None} or None


def own(data: Data) -> OneOfSeveral:
    """The keys that one of `sources` has besides those of its kind."""
    return cast(OneOfSeveral, data)


def named_tasks(written: Any, all_tasks: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """What the key `tasks` of a source says, valid or not: tasks with the keys that differ there."""
    if isinstance(written, dict):
        return {task: keys if isinstance(keys, dict) else {} for task, keys in written.items()}
    return {task: {} for task in (written if isinstance(written, list) else all_tasks)}


def _part(tasks_file: TasksFile, data: Data) -> TasksFile:
    declared = own(data).tasks
    labels: Mapping[str, LabelsOfSource | None] = (
        declared if isinstance(declared, dict) else dict.fromkeys(declared or tasks_file.tasks)
    )
    tasks = {
        task: _as_stored(spec, data.source, labels[task])
        for task, spec in tasks_file.tasks.items()  # perhaps fewer than the source has labels of
        if task in labels
    }
    labelled = own(data).labelled if own(data).labelled is not None else tasks_file.labelled
    return tasks_file.model_copy(update={"data": data, "sources": None, "tasks": tasks, "labelled": labelled})


def _as_stored(spec: TaskBase, source: str, labels: LabelsOfSource | None) -> TaskBase:
    fields = type(spec).model_fields
    changed = {key: fields[key].default for key in ITS_OWN.get(source, ()) if key in fields}
    return spec.model_copy(update={**changed, **(labels.model_dump(exclude_none=True) if labels else {})})
