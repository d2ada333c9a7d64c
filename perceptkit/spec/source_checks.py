"""What must hold for `sources`: each is checked as if it were alone, then that they fit together."""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from perceptkit.spec.draft import Draft
from perceptkit.spec.layout_table import depth_kind
from perceptkit.spec.problems import Problem, did_you_mean
from perceptkit.spec.several import ITS_OWN, named_tasks
from perceptkit.spec.tasks_file import DATA_SOURCES, TASK_SPECS, DepthSpec, LabelsOfSource, OneOfSeveral
from perceptkit.spec.yaml_source import KeyPath, Source

_SOURCE_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]*")
_AGREE = ("size", "mean", "std")


class OneSource(Source):
    """The file as it would be with one of its sources alone; problems are at the places in the real file.

    Args:
        whole: the file.
        name: of the source.
        class_files: by task, the file of class names, which may lie in the folder of another source.
    """

    def __init__(self, whole: Source, name: str, class_files: Mapping[str, str]) -> None:
        written = whole.data["sources"][name]
        keys = {key: value for key, value in written.items() if key not in OneOfSeveral.model_fields}
        tasks = _mapping(whole.data.get("tasks"))
        stored = {}
        for task, labels in named_tasks(written.get("tasks"), tasks).items():
            declared = tasks.get(task)
            if isinstance(declared, dict):
                its_own = ITS_OWN.get(str(written.get("source")), ())
                stored[task] = {k: v for k, v in declared.items() if k not in its_own} | dict(labels)
                if task in class_files:
                    stored[task]["classes"] = class_files[task]
        super().__init__(whole.file, whole.text, {**whole.data, "data": keys, "tasks": stored})
        self.whole, self.name = whole, name
        known = DATA_SOURCES.get(str(written.get("source")))
        words = "|".join(known.model_fields) if known else "source"
        self._own_keys = re.compile(rf"(?<![\w/.])data\.({words})\b")

    def problem(self, path: KeyPath, message: str, at: str = "value") -> Problem:
        place = self._place(path)
        message = self._own_keys.sub(rf"sources.{self.name}.\1", message)
        if place == path:
            message = f"in the source '{self.name}': {message}"
        return self.whole.problem(place, message, at)

    def override_of(self, path: KeyPath) -> str:
        return self.whole.override_of(self._place(path))

    def _place(self, path: KeyPath) -> KeyPath:
        if path[:1] == ("data",):
            return ("sources", self.name, *path[1:])
        of_source = ("sources", self.name, *path)
        return of_source if of_source in self.whole.keys else path


def check_sources(draft: Draft, check_data: Callable[[Draft], Iterable[Problem]]) -> Iterator[Problem]:
    """All problems of `sources`, and of tasks with their labels.

    Args:
        draft: of the whole file.
        check_data: finds the problems of a file with `data`.
    """
    source, written = draft.source, draft.written(("sources",))
    if not isinstance(written, dict):
        return  # reported
    written = {name: keys for name, keys in written.items() if isinstance(keys, dict)}
    for name in written:
        if not _SOURCE_NAME.fullmatch(str(name)):
            message = f"'{name}' cannot name a source; use letters, digits, '_' and '-'"
            yield source.problem(("sources", name), message, at="key")
    for name, keys in written.items():
        yield from _tasks(draft, name, keys)
    yield from _weights(source, written)
    yield from _unlabelled(draft, written)
    yield from _shares(draft, ("labelled",), draft.written(("labelled",)))
    drafts = _drafts(draft, written)
    for one in drafts.values():
        yield from check_data(one)
    yield from _disagreements(source, drafts)
    yield from _depth_kinds(draft, drafts)


def check_shares(draft: Draft) -> Iterator[Problem]:
    """`labelled` of a file with `data`."""
    yield from _shares(draft, ("labelled",), draft.written(("labelled",)))


def _drafts(draft: Draft, written: Mapping[str, Mapping[str, Any]]) -> dict[str, Draft]:
    """Each source alone."""

    def of(name: str, class_files: Mapping[str, str]) -> Draft:
        return Draft.of(OneSource(draft.source, name, class_files), draft.folder)

    class_files: dict[str, str] = {}
    for one in (of(name, {}) for name in written):
        for task, spec in one.tasks.items():
            classes = getattr(spec, "classes", None)
            if isinstance(classes, str) and (file := one.class_file(task, classes)).is_file():
                class_files.setdefault(task, str(file))
    return {name: of(name, class_files) for name in written}


def _tasks(draft: Draft, name: str, keys: Mapping[str, Any]) -> Iterator[Problem]:
    """The tasks that a source names, and the keys that it gives them."""
    tasks, path = _mapping(draft.written(("tasks",))), ("sources", name, "tasks")
    declared = keys.get("tasks")
    named = named_tasks(declared, tasks)
    for i, (task, labels) in enumerate(named.items()):
        place: KeyPath = (*path, i) if isinstance(declared, list) else (*path, task)
        if task not in tasks:
            message = f"'{task}' is not a task{did_you_mean(str(task), tasks)}"
            yield draft.source.problem(place, message, at="key" if isinstance(declared, dict) else "value")
            continue
        model = TASK_SPECS.get(str(_mapping(tasks[task]).get("type")))
        for key in labels:
            if model and key in LabelsOfSource.model_fields and key not in model.model_fields:
                message = f"a task of type {tasks[task]['type']} has no such key"
                yield draft.source.problem((*path, task, key), message, at="key")
        derived = _mapping(tasks[task]).get("derive")
        if isinstance(derived, list) and "derive" not in ITS_OWN.get(str(keys.get("source")), ()):
            for other in derived:
                if other in tasks and other not in named:
                    message = (
                        f"edges derive from {other}, which has no labels here; name it too, or drop '{task}'"
                    )
                    yield draft.source.problem(place, message)
    yield from _shares(draft, ("sources", name, "labelled"), keys.get("labelled"))


def _shares(draft: Draft, path: KeyPath, written: Any) -> Iterator[Problem]:
    tasks = _mapping(draft.written(("tasks",)))
    for task in _mapping(written):
        if task not in tasks:
            message = f"'{task}' is not a task{did_you_mean(str(task), tasks)}"
            yield draft.source.problem((*path, task), message, at="key")


def _weights(source: Source, written: Mapping[str, Mapping[str, Any]]) -> Iterator[Problem]:
    having = [name for name, keys in written.items() if keys.get("weight") is not None]
    for name in written:
        if having and name not in having:
            message = f"missing key beside the weight of '{having[0]}': give all sources a weight, or none"
            yield source.problem(("sources", name, "weight"), message, at="key")


def _unlabelled(draft: Draft, written: Mapping[str, Mapping[str, Any]]) -> Iterator[Problem]:
    tasks = _mapping(draft.written(("tasks",)))
    named = {task for keys in written.values() for task in named_tasks(keys.get("tasks"), tasks)}
    for task in tasks:
        if written and task not in named:
            message = "no source has labels of it: name it under 'tasks' of one of them"
            yield draft.source.problem(("tasks", task), message, at="key")


def _disagreements(source: Source, drafts: Mapping[str, Draft]) -> Iterator[Problem]:
    """One network reads the pictures of all sources, at one size and normalised alike."""
    valid = [(name, draft) for name, draft in drafts.items() if draft.data is not None]
    for name, one in valid[1:]:
        first, of_first = valid[0]
        for key in _AGREE:
            here, there = getattr(one.data, key, None), getattr(of_first.data, key, None)
            invalid = any(
                d.written(("data", key)) is not None and v is None
                for d, v in ((one, here), (of_first, there))
            )
            missing = key == "size" and None in (here, there)  # reported
            said, other = (list(v) if v is not None else "not given" for v in (here, there))
            if not invalid and not missing and said != other:
                message = f"is {said}, and {other} in the source '{first}'; all sources need the same"
                yield source.problem(("sources", name, key), message)


def _depth_kinds(draft: Draft, drafts: Mapping[str, Draft]) -> Iterator[Problem]:
    """One task learns distances or their inverse, not both."""
    for task, spec in draft.tasks.items():
        if not isinstance(spec, DepthSpec) or spec.kind is None:
            continue
        written = draft.written(("tasks", task, "kind"))
        known = {name: depth_kind(one.data) for name, one in drafts.items() if task in one.tasks}
        kinds = {name: kind or spec.kind for name, kind in known.items()}
        first = next(iter(kinds), "")
        for name, kind in kinds.items():
            if kind != kinds[first] and (written is None or known[name] in (None, written)):
                message = f"is {kind} depth here, and {kinds[first]} in the source '{first}'; give it a task of its own"
                if None in (known[name], known[first]):
                    message += f", or say what the folder holds: kind: {known[name] or known[first]}"
                yield draft.source.problem(("sources", name), f"{task} {message}", at="key")


def _mapping(value: Any) -> dict[Any, Any]:
    return value if isinstance(value, dict) else {}
