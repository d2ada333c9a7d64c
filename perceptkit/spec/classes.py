"""Class names from what a tasks file says: a number, a list, a file, or nothing; and ids of embeddings."""

from collections.abc import Mapping
from pathlib import Path

from perceptkit.errors import SpecError
from perceptkit.spec import templates
from perceptkit.spec.label_csv import read_label_csv
from perceptkit.spec.shipped import read_text
from perceptkit.spec.tasks_file import ClassificationSpec, EmbeddingSpec, FolderData, SegmentationSpec


def class_names(
    spec: SegmentationSpec | ClassificationSpec,
    root: Path | None,
    splits: Mapping[str, str] | None = None,
) -> list[str]:
    """The names of a task's classes, in the order of their ids.

    Args:
        spec: a number N means the names '0' to 'N-1'; a file holds one name per line. Without `classes` the
            built-in scenes know theirs, and a classification task takes the labels of its train CSV, sorted.
        root: the data root, which a relative file starts from; None for `source: scenes`.
        splits: folder names of the splits, where they differ from the splits' own names.

    Raises:
        SpecError: with the reason why there are no such names.
    """
    if isinstance(spec.classes, int):
        return [str(i) for i in range(spec.classes)]
    if isinstance(spec.classes, list):
        names = spec.classes
    elif isinstance(spec.classes, str):
        names = _names_in(Path(spec.classes) if root is None else root / spec.classes)
    elif root is None:
        names = scene_classes(spec)
    elif isinstance(spec, ClassificationSpec) and spec.target:
        path = root / templates.fill(spec.target, (splits or {}).get("train", "train"))
        names = _names_in_csv(path, spec.multi_label)
    else:
        raise SpecError("missing classes: a number, a list of names, or a file with one name per line")
    return _distinct(names)


def scene_classes(spec: SegmentationSpec | ClassificationSpec) -> list[str]:
    """The classes of the built-in scenes: of their pixels, or of their rooms."""
    from perceptkit.spec import scene_labels

    of_pixels = isinstance(spec, SegmentationSpec)
    return list(scene_labels.SCENE_CLASSES if of_pixels else scene_labels.SCENE_TYPES)


def _names_in(path: Path) -> list[str]:
    if not path.is_file():
        raise SpecError(f"no such file of class names: {templates.shown(path)}")
    lines = [line.strip() for line in read_text(path).splitlines()]
    while lines and not lines[-1]:
        lines.pop()
    if not lines:
        raise SpecError(f"{templates.shown(path)} holds no class names; expected one per line")
    if "" in lines:
        where = f"{templates.shown(path)}: line {lines.index('') + 1}"
        raise SpecError(f"{where} is empty; expected one class name per line")
    return lines


def embedding_ids(spec: EmbeddingSpec, data: FolderData) -> list[str]:
    """The ids that an embedding is trained on, sorted: those in the CSVs of `data.train_on`.

    Raises:
        SpecError: with the reason why there are none.
    """
    found: set[str] = set()
    for split in data.train_on or ():
        if not spec.target:
            break
        path = data.root / templates.fill(spec.target, data.splits.get(split, split))
        if not path.is_file():
            raise SpecError(f"the {split} labels are missing: {templates.shown(path)}")
        found.update(_names_in_csv(path, multi_label=False))
    return sorted(found, key=_by_number)


def _names_in_csv(path: Path, multi_label: bool) -> list[str]:
    if not path.is_file():
        raise SpecError(f"no classes are given and the train labels are missing: {templates.shown(path)}")
    table = read_label_csv(path, multi_label)
    if table.columns:
        return list(table.columns)
    found = {label for labels in table.labels.values() for label in labels}
    if not found:
        raise SpecError(f"{templates.shown(path)} holds no labels to take the classes from")
    return sorted(found, key=_by_number)


def _by_number(label: str) -> tuple[int, int, str]:
    return (0, int(label), "") if label.isdecimal() else (1, 0, label)


def _distinct(names: list[str]) -> list[str]:
    twice = [name for i, name in enumerate(names) if name in names[:i]]
    if twice:
        raise SpecError(f"the class '{twice[0]}' occurs twice")
    return names
