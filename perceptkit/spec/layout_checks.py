"""What must hold for `source: nyuv2`, `cityscapes` and `taskonomy`: the layout is there and has the labels."""

from collections.abc import Iterator
from pathlib import Path

from perceptkit.errors import DataError, PerceptkitError
from perceptkit.spec.classes import class_names
from perceptkit.spec.draft import Draft
from perceptkit.spec.folder_checks import root_problems
from perceptkit.spec.layout_table import LAYOUTS, layout_entries, layout_of
from perceptkit.spec.layouts import Layout, part_of
from perceptkit.spec.problems import Problem
from perceptkit.spec.taskonomy import RESPONSES
from perceptkit.spec.tasks_file import (
    SPLITS,
    EdgesSpec,
    LayoutData,
    SegmentationSpec,
    TaskBase,
    TaskonomyData,
)
from perceptkit.spec.templates import shown


def check_layout(draft: Draft) -> Iterator[Problem]:
    """Problems of `data`, and of tasks that it has no labels for."""
    data = draft.data
    assert isinstance(data, LayoutData)
    if not isinstance(data, TaskonomyData) and data.layout is None:  # type: ignore[attr-defined]
        return  # invalid, and reported
    layout = layout_of(data)
    yield from _tasks(draft, layout)
    of_keys = [*_keys(draft, data, layout), *root_problems(draft)]
    yield from of_keys
    root = draft.root()
    if not of_keys and root is not None:
        yield from _files(draft, data.model_copy(update={"root": root}), layout)


def _keys(draft: Draft, data: LayoutData, layout: Layout) -> Iterator[Problem]:
    if data.lists is not None and layout.lists is None:
        message = f"{layout.name} is read from folders, not from lists; drop the key"
        yield draft.source.problem(("data", "lists"), message, at="key")
    if data.hold_out is not None and "val" in (data.splits or {}):
        yield draft.source.problem(
            ("data", "hold_out"), "data.splits names a val; give one of both", at="key"
        )
    train = part_of(layout, data, "train")
    for split in ("val", "test"):
        if not (split == "val" and data.hold_out) and part_of(layout, data, split) == train:
            message = f"{split} is '{train}', what is trained on; results on it say nothing"
            yield draft.source.problem(("data", "splits", split), message)
    trained_on_val = "val" in (data.train_on or ()) and data.hold_out is None
    if trained_on_val and part_of(layout, data, "val") == part_of(layout, data, "test"):
        message = "val is test too; results on pictures that were trained on say nothing"
        yield draft.source.problem(("data", "train_on"), message)


def _files(draft: Draft, data: LayoutData, layout: Layout) -> Iterator[Problem]:
    """The layout is the one that lies there, its lists can be read, and some split has pictures."""
    is_here = layout.is_here(data.root) or (data.lists is not None and (data.root / data.lists).is_file())
    if not is_here:
        yield draft.source.problem(("data", "root"), _not_here(data, layout))
        return
    count, reasons = 0, []
    for split in SPLITS:
        try:
            count += len(layout_entries(data, split))
        except DataError as error:
            reasons.append(str(error))
    if not count:
        reason = reasons[0] if reasons else f"{shown(data.root)} holds no picture"
        yield draft.source.problem(("data", "root"), reason)


def _not_here(data: LayoutData, layout: Layout) -> str:
    """What was expected, and what is there instead."""
    for source, layouts in LAYOUTS.items():
        for name, other in layouts.items():
            if other is not layout and other.is_here(data.root):
                key = f"layout: {name}" if source == data.source else f"source: {source}"  # type: ignore[attr-defined]
                more = f", layout: {name}" if name and source != data.source else ""  # type: ignore[attr-defined]
                return f"{shown(data.root)} looks like {other.name}, not {layout.name}; write {key}{more}"
    inner = next((path for path in _folders(data.root) if layout.is_here(path)), None)
    if inner is not None:
        return f"{shown(data.root)} is one folder too high; {shown(inner)} is {layout.name}"
    return f"{shown(data.root)} is not {layout.name}; expected {layout.expected}"


def _folders(root: Path) -> list[Path]:
    return sorted(path for path in root.iterdir() if path.is_dir())


def _tasks(draft: Draft, layout: Layout) -> Iterator[Problem]:
    """Types that have labels, numbers of classes that they have, and no path for what the layout knows."""
    for task, spec in draft.tasks.items():
        path, kind = ("tasks", task), str(draft.written(("tasks", task, "type")))
        is_derived = isinstance(spec, EdgesSpec) and spec.derive
        if kind not in layout.types and not is_derived:
            yield draft.source.problem((*path, "type"), _no_labels(layout, kind))
            continue
        if kind == "response":
            if spec.target not in RESPONSES:
                at = "value" if spec.target is not None else "key"
                message = f"expected which map to learn: {' or '.join(RESPONSES)}"
                yield draft.source.problem((*path, "target"), message, at=at)
        elif spec.target is not None:
            message = f"{layout.name} knows where its labels are; drop the key"
            yield draft.source.problem((*path, "target"), message, at="key")
        if isinstance(spec, SegmentationSpec):
            yield from _segmentation(draft, layout, task, spec)


def _no_labels(layout: Layout, kind: str) -> str:
    message = f"{layout.name} has no labels for {kind}; it has {', '.join(layout.types)}"
    if kind == "edges":
        return f"{message}, and edges can derive from the first ones: derive: [...]"
    return message


def _segmentation(draft: Draft, layout: Layout, task: str, spec: SegmentationSpec) -> Iterator[Problem]:
    path = ("tasks", task)
    known = " or ".join(map(str, layout.classes))
    if draft.written((*path, "classes")) is None:
        yield draft.source.problem((*path, "classes"), f"missing key: {layout.name} has {known}", at="key")
        return
    count = _count_classes(draft, task, spec)
    if count is not None and count not in layout.classes:
        others = [
            f"layout: {name} has {count}"
            for name, other in LAYOUTS[draft.data.source].items()  # type: ignore[union-attr]
            if count in other.classes
        ]
        hint = f"; {others[0]}" if others else ""
        message = f"{count} classes are declared; {layout.name} has {known}{hint}"
        yield draft.source.problem((*path, "classes"), message)
    if layout.void is not None and spec.ignore_index not in (None, layout.void):
        message = f"{layout.name} has {layout.void} for unlabelled pixels; write ignore_index: {layout.void}"
        at = "value" if draft.written((*path, "ignore_index")) is not None else "key"
        yield draft.source.problem((*path, "ignore_index"), message, at=at)


def _count_classes(draft: Draft, task: str, spec: TaskBase) -> int | None:
    """How many are declared; None where they cannot be read, which is reported elsewhere."""
    assert isinstance(spec, SegmentationSpec)
    if isinstance(spec.classes, str):
        spec = spec.model_copy(update={"classes": str(draft.class_file(task, spec.classes))})
    if spec.classes is None:
        return None
    try:
        return len(class_names(spec, draft.root()))
    except PerceptkitError:
        return None
