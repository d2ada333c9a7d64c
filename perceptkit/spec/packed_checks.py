"""What must hold for `source: webdataset` and `huggingface`: files that can be read, with labels of each task."""

from collections.abc import Iterator
from pathlib import Path

from perceptkit.errors import PerceptkitError
from perceptkit.spec.draft import Draft
from perceptkit.spec.folder_checks import needed_names, root_problems, split_problems, splits_as_written
from perceptkit.spec.huggingface import Rows, column_of
from perceptkit.spec.packed import (
    files_of,
    is_derived,
    open_packed,
    packed_classes,
    packed_places,
    packed_words,
)
from perceptkit.spec.packed_files import pattern_faults
from perceptkit.spec.problems import Problem, closest
from perceptkit.spec.tasks_file import (
    SPLITS,
    ClassificationSpec,
    EmbeddingSpec,
    PackedData,
    SegmentationSpec,
    TaskBase,
    WebDatasetData,
)
from perceptkit.spec.webdataset import ARRAYS, Shards, images_of, member_of
from perceptkit.spec.yaml_source import KeyPath

WHOLE = (ClassificationSpec, EmbeddingSpec)
SHOWN = 12


def check_packed(draft: Draft) -> Iterator[Problem]:
    """Problems of `data`, and of the tasks that its files have the labels of."""
    data = draft.data
    assert isinstance(data, PackedData)
    key = "shards" if isinstance(data, WebDatasetData) else "files"
    of_tasks = [problem for task, spec in draft.tasks.items() for problem in _task(draft, data, task, spec)]
    yield from of_tasks
    of_keys = [*_keys(draft, data, key), *root_problems(draft)]
    yield from of_keys
    root = draft.root()
    if of_keys or root is None or None in (getattr(data, key), data.image, data.splits):
        return
    data = data.model_copy(update={"root": root, "splits": splits_as_written(draft)})
    of_files = list(_files(draft, data, key))
    yield from of_files
    if not of_files:
        of_files = list(_pictures(draft, data))
        yield from of_files
    if not of_files and not of_tasks:
        for task, spec in draft.tasks.items():
            yield from _labels(draft, data, task, spec)


def _task(draft: Draft, data: PackedData, task: str, spec: TaskBase) -> Iterator[Problem]:
    """A target of the right form, and names that no file says."""
    path: KeyPath = ("tasks", task, "target")
    yield from needed_names(draft, task, spec)
    if is_derived(spec):
        if spec.target is not None:
            message = "give either 'target' or 'derive', not both"
            yield draft.source.problem(("tasks", task, "derive"), message, at="key")
        return
    if not isinstance(data, WebDatasetData):
        return
    if spec.target is None:
        if draft.written(path) is None:
            message = "missing key: the ending of the labels, as seg.png or cls, or json:FIELD"
            yield draft.source.problem(path, message, at="key")
        return
    ending, field = member_of(spec)
    last, kind = ending.rpartition(".")[2], draft.written(("tasks", task, "type"))
    is_map = not isinstance(spec, WHOLE) and kind != "keypoints"
    if field is not None and (last != "json" or not field):
        yield draft.source.problem(path, "only JSON has fields: json:FIELD")
    elif is_map and last not in ARRAYS:
        message = f"{kind} labels are members that end in {' or '.join(ARRAYS)}, not in '{ending}'"
        yield draft.source.problem(path, message)
    elif kind == "keypoints" and last != "json":
        yield draft.source.problem(path, f"keypoints labels are JSON, not '{ending}'")
    elif isinstance(spec, WHOLE) and last in ARRAYS:
        yield draft.source.problem(path, f"{kind} labels are text or JSON, not '{ending}'")
    elif data.image and ending in images_of(data):
        alone = f"write data.image: with the ending of the pictures alone, without '{ending}'"
        yield draft.source.problem(path, f"'{ending}' may be a picture by data.image; {alone}")


def _keys(draft: Draft, data: PackedData, key: str) -> Iterator[Problem]:
    patterns = getattr(data, key)
    path: KeyPath = ("data", key)
    if isinstance(patterns, str):
        yield from split_problems(draft, splits_as_written(draft), "word")
        for message in pattern_faults(patterns):
            yield draft.source.problem(path, message)
        if "{split}" not in patterns:
            message = f"must hold {{split}}, or be a mapping: {key}: {{train: ..., val: ..., test: ...}}"
            yield draft.source.problem(path, message)
    elif isinstance(patterns, dict):
        if draft.written(("data", "splits")) is not None:
            message = f"data.{key} names the files of each split; drop the key"
            yield draft.source.problem(("data", "splits"), message, at="key")
        for split in SPLITS:
            if split not in patterns:
                message = f"missing key: the files of the {split} split"
                yield draft.source.problem((*path, split), message, at="key")
        for split, pattern in patterns.items():
            for message in pattern_faults(pattern):
                yield draft.source.problem((*path, split), message)
    if isinstance(data, WebDatasetData) and data.image is not None and not images_of(data):
        yield draft.source.problem(("data", "image"), "names no ending; jpg, for example")


def _files(draft: Draft, data: PackedData, key: str) -> Iterator[Problem]:
    """Every split has pictures, and none of train's files."""
    said: set[str] = set()
    files: dict[str, list[Path]] = {}
    for split in SPLITS:
        path: KeyPath = ("data", key)
        path = (*path, split) if isinstance(getattr(data, key), dict) else path
        try:
            files[split] = files_of(data, split)
            again = [file for file in files[split] if split != "train" and file in files.get("train", ())]
            if again:
                message = (
                    f"{again[0].name} is a file of train too; results on what was trained on say nothing"
                )
                yield draft.source.problem(path, message)
                continue
            message = (
                "" if packed_places(data, split) else f"no pictures for {split} in {files[split][0].name}"
            )
        except PerceptkitError as error:
            message = str(error)
            message = f"no files for {split}: {message}" if message.startswith("nothing matches") else message
        if message and message not in said:
            said.add(message)
            yield draft.source.problem(path, message)
    by_split = isinstance(getattr(data, key), dict)  # else it is told with data.splits
    if by_split and "val" in (data.train_on or ()) and set(files.get("val", ())) & set(files.get("test", ())):
        message = "val has files of test too; results on pictures that were trained on say nothing"
        yield draft.source.problem(("data", "train_on"), message)


def _pictures(draft: Draft, data: PackedData) -> Iterator[Problem]:
    """There is a column of pictures, or a sample with one."""
    packed, path = open_packed(data, "train"), ("data", "image")
    if isinstance(packed, Rows) and data.image not in packed.columns:
        message = f"there is no column '{data.image}'{_known(data.image, packed.columns)}"
        yield draft.source.problem(path, message)
    if isinstance(packed, Shards) and not set(packed.images) & set(packed.endings):
        message = f"no sample of train has '{data.image}'{_known(data.image, packed.endings)}"
        yield draft.source.problem(path, message)


def _labels(draft: Draft, data: PackedData, task: str, spec: TaskBase) -> Iterator[Problem]:
    """The files have the labels, and there are classes to tell apart."""
    path: KeyPath = ("tasks", task)
    if is_derived(spec):
        return
    at = "value" if draft.written((*path, "target")) is not None else "key"
    packed = open_packed(data, "train")
    if isinstance(packed, Rows) and column_of(task, spec) not in packed.columns:
        known = [column for column in packed.columns if column != data.image]
        message = f"there is no column '{column_of(task, spec)}'{_known(column_of(task, spec), known)}"
        yield draft.source.problem((*path, "target"), message, at=at)
        return
    if isinstance(packed, Shards) and member_of(spec)[0] not in packed.endings:
        known = [ending for ending in packed.endings if ending not in images_of(data)]  # type: ignore[arg-type]
        message = f"no sample of train has '{member_of(spec)[0]}'{_known(member_of(spec)[0], known)}"
        yield draft.source.problem((*path, "target"), message, at=at)
        return
    if not isinstance(spec, SegmentationSpec | ClassificationSpec | EmbeddingSpec):
        return
    classes = getattr(spec, "classes", None)
    if draft.written((*path, "classes")) is not None and classes is None:
        return  # invalid, and reported
    if isinstance(classes, str):
        spec = spec.model_copy(update={"classes": str(draft.class_file(task, classes))})
    at_classes: KeyPath = (*path, "target" if classes is None else "classes")
    at = at if classes is None else "value"
    try:
        is_ids = isinstance(spec, EmbeddingSpec)
        names = packed_words(task, spec, data) if is_ids else packed_classes(task, spec, data)  # type: ignore[arg-type]
    except PerceptkitError as error:
        yield draft.source.problem(at_classes, str(error), at=at)
        return
    if len(names) < 2 and not getattr(spec, "multi_label", False):
        message = f"one {'id' if is_ids else 'class'} leaves nothing to tell apart; expected at least 2"
        yield draft.source.problem(at_classes, message, at=at)


def _known(word: str, known: list[str]) -> str:
    if match := closest(word, known):
        return f"; did you mean '{match}'?"
    more = ", ..." if len(known) > SHOWN else ""
    return f"; there is {', '.join(known[:SHOWN])}{more}" if known else "; there is nothing but pictures"
