"""What must hold between the keys of a tasks file, whatever its source."""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from perceptkit.errors import PerceptkitError
from perceptkit.spec.classes import class_names, embedding_ids
from perceptkit.spec.coco_checks import check_coco
from perceptkit.spec.csv_checks import check_csv
from perceptkit.spec.draft import Draft, absolute
from perceptkit.spec.excluded import read_excluded
from perceptkit.spec.folder_checks import check_folder, splits_as_written
from perceptkit.spec.layout_checks import check_layout
from perceptkit.spec.layout_table import depth_kind
from perceptkit.spec.listed_checks import check_listed
from perceptkit.spec.packed_checks import check_packed
from perceptkit.spec.problems import Problem, did_you_mean
from perceptkit.spec.scene_checks import check_scenes
from perceptkit.spec.source_checks import check_shares, check_sources
from perceptkit.spec.tasks_file import (
    ClassificationSpec,
    CocoData,
    CsvData,
    DepthSpec,
    EdgesSpec,
    EmbeddingSpec,
    FolderData,
    KeypointsSpec,
    LayoutData,
    ListedData,
    PackedData,
    ScenesData,
    SegmentationSpec,
    data_fault,
    normalisation_fault,
    train_on_fault,
)
from perceptkit.spec.yaml_source import Source

_TASK_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]*")
_RUN_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")
_EDGE_SOURCES = ("segmentation", "depth", "normals")


def check_tasks(source: Source, folder: Path) -> list[Problem]:
    """All problems between keys, and between the keys and the disk.

    Args:
        source: the file's data; need not be valid.
        folder: where the tasks file lies.
    """
    draft = Draft.of(source, folder)
    found = [*_names(draft), *_keypoints(draft), *_edges(draft)]
    has_data, has_sources = (draft.written((key,)) is not None for key in ("data", "sources"))
    if isinstance(source.data, dict) and (wrong := data_fault(has_data, has_sources)):
        found.append(draft.source.problem((wrong[0],), wrong[1]))
    if has_sources:
        return [*found, *check_sources(draft, _check_data)]
    return [*found, *check_shares(draft), *_check_data(draft)]


def _check_data(draft: Draft) -> list[Problem]:
    """Problems of `data`, and of the tasks that have labels there."""
    found = [*_data_keys(draft), *_excluded(draft), *_depth_kinds(draft)]
    if isinstance(draft.data, FolderData):
        found += check_folder(draft)
    if isinstance(draft.data, ScenesData):
        found += check_scenes(draft)
    if isinstance(draft.data, LayoutData):
        found += check_layout(draft)
    if isinstance(draft.data, CocoData):
        return [*found, *check_coco(draft)]
    if isinstance(draft.data, CsvData):
        return [*found, *check_csv(draft)]
    if isinstance(draft.data, PackedData):
        return [*found, *check_packed(draft)]
    if isinstance(draft.data, ListedData):
        return [*found, *check_listed(draft)]
    return [*found, *_classes(draft), *_ids(draft)]


def _depth_kinds(draft: Draft) -> Iterator[Problem]:
    """A source that knows what its depth is is not contradicted."""
    kind = depth_kind(draft.data)
    for task, spec in draft.tasks.items():
        path = ("tasks", task, "kind")
        is_written = draft.written(path) is not None and isinstance(spec, DepthSpec) and spec.kind is not None
        if kind is not None and is_written and spec.kind != kind:  # type: ignore[attr-defined]  # a depth
            message = f"'source: {draft.written(('data', 'source'))}' has {kind} depth; drop the key"
            yield draft.source.problem(path, message, at="key")


def _data_keys(draft: Draft) -> Iterator[Problem]:
    """What every data source has; also where another key keeps the model itself from being checked."""
    if draft.data is None:
        return
    if draft.data.train_on and (message := train_on_fault(draft.data.train_on)):
        yield draft.source.problem(("data", "train_on"), message)
    invalid = [
        key for key in ("mean", "std") if getattr(draft.data, key) is None and draft.written(("data", key))
    ]
    if not invalid and (found := normalisation_fault(draft.data.mean, draft.data.std)):
        yield draft.source.problem(("data", found[0]), found[1])


def _names(draft: Draft) -> Iterator[Problem]:
    name = draft.written(("name",))
    if isinstance(name, str) and not _RUN_NAME.fullmatch(name):
        message = f"'{name}' cannot name the run folder; use letters, digits, '_', '-' and '.'"
        yield draft.source.problem(("name",), message)
    tasks = draft.written(("tasks",))
    for task in tasks if isinstance(tasks, dict) else ():
        if task == "image":
            message = "'image' is the name of the network's input; choose another for the task"
            yield draft.source.problem(("tasks", task), message, at="key")
        elif not _TASK_NAME.fullmatch(task):
            hint = re.sub(r"\W", "_", task, flags=re.ASCII)
            like = f", for example '{hint}'" if _TASK_NAME.fullmatch(hint) else ""
            message = f"'{task}' cannot name a network output; use letters, digits and '_'{like}"
            yield draft.source.problem(("tasks", task), message, at="key")


def _keypoints(draft: Draft) -> Iterator[Problem]:
    for task, spec in draft.tasks.items():
        if not isinstance(spec, KeypointsSpec):
            continue
        for key, names in (("names", spec.names), ("kinds", spec.kinds)):
            yield from _repeated(draft, ("tasks", task, key), names or ())
        path = ("tasks", task, "flip_pairs")
        paired: set[str] = set()
        key, known = ("kinds", spec.kinds) if spec.kinds is not None else ("names", spec.names)
        for i, pair in enumerate(spec.flip_pairs or ()):
            for j, name in enumerate(pair):
                if known is not None and name not in known:
                    message = f"'{name}' is not one of {key}: {', '.join(dict.fromkeys(known))}"
                    yield draft.source.problem((*path, i, j), message)
                elif name in paired:
                    yield draft.source.problem((*path, i, j), f"'{name}' is in a pair already")
                paired.add(name)


def _excluded(draft: Draft) -> Iterator[Problem]:
    """The list of excluded pictures cannot be read."""
    listed = getattr(draft.data, "exclude", None)
    if isinstance(listed, str):
        try:
            read_excluded(absolute(draft.source, ("data", "exclude"), listed, draft.folder))
        except PerceptkitError as error:
            yield draft.source.problem(("data", "exclude"), str(error))


def _edges(draft: Draft) -> Iterator[Problem]:
    tasks = draft.written(("tasks",))
    types = {task: draft.written(("tasks", task, "type")) for task in draft.tasks}
    for task, spec in draft.tasks.items():
        if not isinstance(spec, EdgesSpec) or not spec.derive:
            continue
        path = ("tasks", task, "derive")
        yield from _repeated(draft, path, spec.derive)
        for i, name in enumerate(spec.derive):
            if name not in tasks:
                known = [other for other, kind in types.items() if kind in _EDGE_SOURCES]
                yield draft.source.problem((*path, i), f"'{name}' is not a task{did_you_mean(name, known)}")
            elif name in types and types[name] not in _EDGE_SOURCES:
                message = f"'{name}' is of type {types[name]}; edges derive from {', '.join(_EDGE_SOURCES)}"
                yield draft.source.problem((*path, i), message)


def _classes(draft: Draft) -> Iterator[Problem]:
    """Names that cannot be read, and too few of them."""
    if draft.data is None:
        return
    root = draft.root()
    for task, spec in draft.tasks.items():
        if not isinstance(spec, SegmentationSpec | ClassificationSpec):
            continue
        written = draft.written(("tasks", task, "classes"))
        if written is not None and spec.classes is None:
            continue  # invalid, and reported
        if spec.classes is None and (isinstance(spec, SegmentationSpec) or root is None or not root.is_dir()):
            continue  # missing, and reported; or the scenes' own
        if spec.classes is None and (not spec.target or "{id}" in spec.target):
            continue
        if isinstance(spec.classes, str):
            spec = spec.model_copy(update={"classes": str(draft.class_file(task, spec.classes))})
        path = ("tasks", task, "target" if spec.classes is None else "classes")
        splits = draft.data.splits if isinstance(draft.data, FolderData) else None
        try:
            names = class_names(spec, root, splits)  # type: ignore[arg-type]  # split names are words
        except PerceptkitError as error:
            yield draft.source.problem(path, str(error))
            continue
        if len(names) < 2 and not (isinstance(spec, ClassificationSpec) and spec.multi_label):
            yield draft.source.problem(path, "one class leaves nothing to tell apart; expected at least 2")


def _ids(draft: Draft) -> Iterator[Problem]:
    """Labels of embeddings that cannot be read, and too few ids to train on."""
    data, root = draft.data, draft.root()
    if not isinstance(data, FolderData) or root is None or not root.is_dir():
        return
    data = data.model_copy(update={"root": root, "splits": splits_as_written(draft)})
    for task, spec in draft.tasks.items():
        if not isinstance(spec, EmbeddingSpec) or not spec.target:
            continue  # the latter is reported
        if "{id}" in spec.target or not spec.target.lower().endswith(".csv"):
            continue  # and so are these
        path = ("tasks", task, "target")
        try:
            ids = embedding_ids(spec, data)
        except PerceptkitError as error:
            yield draft.source.problem(path, str(error))
            continue
        if len(ids) < 2:
            yield draft.source.problem(path, "one id leaves nothing to tell apart; expected at least 2")


def _repeated(draft: Draft, path: tuple[str, ...], names: Sequence[str]) -> Iterator[Problem]:
    for i, name in enumerate(names):
        if name in names[:i]:
            yield draft.source.problem((*path, i), f"'{name}' occurs twice")
