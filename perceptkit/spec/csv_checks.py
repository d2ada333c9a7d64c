"""What must hold for `source: csv`: files that can be read, a column for each task, pictures in every split."""

from collections.abc import Iterator
from pathlib import Path

from perceptkit.errors import PerceptkitError
from perceptkit.spec import templates
from perceptkit.spec.csv_source import (
    CSV_TYPES,
    class_columns,
    csv_classes,
    csv_file,
    csv_pictures,
    csv_words,
    listed_twice,
)
from perceptkit.spec.csv_table import read_csv_table
from perceptkit.spec.draft import Draft
from perceptkit.spec.folder_checks import root_problems, split_problems, splits_as_written
from perceptkit.spec.problems import Problem, did_you_mean
from perceptkit.spec.tasks_file import SPLITS, ClassificationSpec, CsvData, TaskBase
from perceptkit.spec.templates import shown


def check_csv(draft: Draft) -> Iterator[Problem]:
    """Problems of `data`, and of the tasks that its columns have the labels of."""
    data = draft.data
    assert isinstance(data, CsvData)
    of_tasks = list(_types(draft))
    yield from of_tasks
    of_keys = [*_keys(draft, data), *root_problems(draft)]
    yield from of_keys
    root = draft.root()
    if of_keys or root is None or None in (data.file, data.image, data.splits):
        return
    data = data.model_copy(update={"root": root, "splits": splits_as_written(draft)})
    of_files = list(_files(draft, data))
    yield from of_files
    if not of_files and not of_tasks:
        for task, spec in draft.tasks.items():
            yield from _labels(draft, data, task, spec)


def _types(draft: Draft) -> Iterator[Problem]:
    for task in draft.tasks:
        kind = draft.written(("tasks", task, "type"))
        if kind not in CSV_TYPES:
            message = (
                f"a CSV has labels of {' and '.join(CSV_TYPES)}, not of {kind}; 'source: folder' has them"
            )
            yield draft.source.problem(("tasks", task, "type"), message)


def _keys(draft: Draft, data: CsvData) -> Iterator[Problem]:
    by_file = data.file is not None and "{split}" in data.file
    yield from split_problems(draft, splits_as_written(draft), "file" if by_file else "word")
    if data.file is None:
        return
    for message in templates.faults(data.file):
        yield draft.source.problem(("data", "file"), message)
    if "{id}" in data.file:
        yield draft.source.problem(("data", "file"), "one CSV lists the pictures of a whole split; drop {id}")
    if by_file and data.split is not None:
        message = "data.file has {split}, a file for each split; drop the key"
        yield draft.source.problem(("data", "split"), message, at="key")
    if not by_file and draft.written(("data", "split")) is None:
        message = "must hold {split}, or data.split names the column that says the split of a row"
        yield draft.source.problem(("data", "file"), message)


def _files(draft: Draft, data: CsvData) -> Iterator[Problem]:
    """Every split has pictures, and none of train's."""
    said: set[str] = set()
    for split in SPLITS:
        if split not in data.splits:
            continue  # invalid, and reported
        file = csv_file(data, split)
        try:
            if not file.is_file():
                message = f"there is no file {shown(file)}{_sibling(file)}"
            elif csv_pictures(data, split):
                continue
            else:
                where = f" '{data.splits[split]}' in the column '{data.split}'" if data.split else " row"
                message = f"no pictures for {split}: {shown(file)} has no{where}"
        except PerceptkitError as error:
            message = str(error)
        if message not in said:
            said.add(message)
            yield draft.source.problem(("data", "file"), message)
    if not said:
        for message in listed_twice(data)[:1]:
            yield draft.source.problem(("data", "file"), message)


def _sibling(file: Path) -> str:
    names = [path.name for path in file.parent.glob("*.csv")] if file.parent.is_dir() else []
    hint = did_you_mean(file.name, names)
    return hint if hint.startswith("; did") else f"; there is {', '.join(sorted(names)[:3])}" if names else ""


def _labels(draft: Draft, data: CsvData, task: str, spec: TaskBase) -> Iterator[Problem]:
    """The column is there in every file, and there are classes to tell apart."""
    path = ("tasks", task)
    if isinstance(spec, ClassificationSpec):
        if draft.written((*path, "classes")) is not None and spec.classes is None:
            return  # invalid, and reported
        if isinstance(spec.classes, str):
            spec = spec.model_copy(update={"classes": str(draft.class_file(task, spec.classes))})
    at = "value" if draft.written((*path, "target")) is not None else "key"
    try:
        for file in dict.fromkeys(csv_file(data, split) for split in SPLITS):
            table = read_csv_table(file, data.image)
            if not class_columns(task, spec, table):
                table.column(spec.target or task)
    except PerceptkitError as error:
        yield draft.source.problem((*path, "target"), f"{error}", at=at)
        return
    is_classes = isinstance(spec, ClassificationSpec)
    key = "classes" if isinstance(spec, ClassificationSpec) and spec.classes is not None else "target"
    try:
        names = (
            csv_classes(task, spec, data)
            if isinstance(spec, ClassificationSpec)
            else csv_words(task, spec, data)
        )
    except PerceptkitError as error:
        yield draft.source.problem((*path, key), str(error), at=at if key == "target" else "value")
        return
    if len(names) < 2 and not getattr(spec, "multi_label", False):
        message = f"one {'class' if is_classes else 'id'} leaves nothing to tell apart; expected at least 2"
        yield draft.source.problem((*path, key), message, at=at if key == "target" else "value")
