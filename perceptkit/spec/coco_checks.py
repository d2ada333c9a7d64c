"""What must hold for `source: coco`: annotation files that can be read, and tasks that they have labels for."""

from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath

from perceptkit.errors import DataError, PerceptkitError
from perceptkit.spec import templates
from perceptkit.spec.classes import class_names
from perceptkit.spec.coco import (
    FILES,
    annotation_file,
    coco_pictures,
    coco_points,
    is_derived,
    word_of,
)
from perceptkit.spec.coco_file import BACKGROUND, read_coco
from perceptkit.spec.draft import Draft
from perceptkit.spec.folder_checks import root_problems
from perceptkit.spec.problems import Problem, did_you_mean
from perceptkit.spec.tasks_file import SPLITS, CocoData, KeypointsSpec, SegmentationSpec, TaskBase
from perceptkit.spec.templates import shown
from perceptkit.spec.yaml_source import KeyPath

SHOWN = 5


def check_coco(draft: Draft) -> Iterator[Problem]:
    """Problems of `data`, and of tasks that it has no labels for."""
    data = draft.data
    assert isinstance(data, CocoData)
    of_tasks = list(_tasks(draft))
    yield from of_tasks
    of_keys = [*_keys(draft, data), *root_problems(draft)]
    yield from of_keys
    root = draft.root()
    if of_tasks or of_keys or root is None or data.images is None:
        return
    data = data.model_copy(update={"root": root})
    of_files = [problem for task, spec in draft.tasks.items() for problem in _files(draft, data, task, spec)]
    yield from dict.fromkeys(of_files)
    if not of_files:
        yield from _pictures(draft, data)
        for task, spec in draft.tasks.items():
            if isinstance(spec, SegmentationSpec):
                yield from _classes(draft, data, task, spec)
            if isinstance(spec, KeypointsSpec):
                yield from _points(draft, data, task, spec)


def _tasks(draft: Draft) -> Iterator[Problem]:
    """Types that have labels, and templates of files."""
    for task, spec in draft.tasks.items():
        path, kind = ("tasks", task), str(draft.written(("tasks", task, "type")))
        target = (*path, "target")
        if is_derived(spec):
            continue
        if kind not in FILES:
            hint = "; edges can derive from segmentation: derive: [...]" if kind == "edges" else ""
            message = f"COCO has no labels for {kind}; it has {' and '.join(FILES)}{hint}"
            yield draft.source.problem((*path, "type"), message)
        elif spec.target is not None:
            for message in templates.faults(spec.target):
                yield draft.source.problem(target, message)
            if "{id}" in spec.target or "{split}" not in spec.target:
                message = f"one file has the labels of a split: a template as {FILES[kind]}"
                yield draft.source.problem(target, message)
            elif PurePosixPath(spec.target).suffix != ".json":
                yield draft.source.problem(target, "annotation files end in .json")
        if isinstance(spec, SegmentationSpec) and draft.written((*path, "ignore_index")) is not None:
            message = "annotation files have no id of unlabelled pixels; drop the key"
            yield draft.source.problem((*path, "ignore_index"), message, at="key")


def _keys(draft: Draft, data: CocoData) -> Iterator[Problem]:
    if data.images is not None:
        for message in templates.faults(data.images):
            yield draft.source.problem(("data", "images"), message)
        if "{id}" in data.images:
            message = "is the folder of the pictures; the annotation files have their names"
            yield draft.source.problem(("data", "images"), message)
    if data.hold_out is not None and "val" in (data.splits or {}):
        message = "data.splits names a val; give one of both"
        yield draft.source.problem(("data", "hold_out"), message, at="key")
    train = word_of(data, "train")
    for split in SPLITS[1:]:
        if not (split == "val" and data.hold_out) and word_of(data, split) == train:
            message = f"{split} is '{train}', what is trained on; results on it say nothing"
            yield draft.source.problem(("data", "splits", split), message)
    if "val" in (data.train_on or ()) and word_of(data, "val") == word_of(data, "test"):
        message = "val is test too; results on pictures that were trained on say nothing"
        yield draft.source.problem(("data", "train_on"), message)


def _files(draft: Draft, data: CocoData, task: str, spec: TaskBase) -> Iterator[Problem]:
    """The annotation file of every split is there and can be read."""
    if is_derived(spec):
        return
    path = ("tasks", task, "target") if spec.target is not None else ("data", "root")
    for split in SPLITS:
        file = annotation_file(spec, data, split)
        try:
            if file.is_file():
                read_coco(file)
                continue
            message = f"there is no {shown(file)}{_instead(data, file)}"
        except DataError as error:
            message = str(error)
        yield draft.source.problem(path, message)


def _instead(data: CocoData, file: Path) -> str:
    """Hint for an annotation file that is not there."""
    below = file.relative_to(data.root) if file.is_relative_to(data.root) else file
    inner = next((p for p in sorted(data.root.iterdir()) if (p / below).is_file()), None)
    if inner is not None:
        return f"; {shown(inner)} has it: is data.root one folder too high?"
    names = [path.name for path in file.parent.glob("*.json")] if file.parent.is_dir() else []
    hint = did_you_mean(file.name, names)
    if hint.startswith("; did"):
        return f"{hint} data.splits and target make the name"
    listed = ", ".join(sorted(names)[:SHOWN])
    return f"; there is {listed}: data.splits and target make the name" if names else ""


def _pictures(draft: Draft, data: CocoData) -> Iterator[Problem]:
    """Every split lists pictures, and their folder is there."""
    for split in SPLITS:
        pictures = coco_pictures(draft.tasks, data, split)
        folder = data.root / templates.fill(data.images, word_of(data, split))
        if not pictures and split == "val" and data.hold_out and coco_pictures(draft.tasks, data, "train"):
            message = f"{data.hold_out:.3g} of the pictures of train is less than one; val needs more"
            yield draft.source.problem(("data", "hold_out"), message)
        elif not pictures:
            yield draft.source.problem(("data", "root"), f"the annotation files list no pictures for {split}")
        elif not folder.is_dir():
            message = f"there is no folder {shown(folder)} of the pictures for {split}"
            other = data.root / "images" / templates.fill(data.images, word_of(data, split))
            hint = f"; write images: 'images/{data.images}'" if other.is_dir() else ""
            key = "images" if draft.written(("data", "images")) is not None else "root"
            yield draft.source.problem(("data", key), f"{message}{hint}")


def _classes(draft: Draft, data: CocoData, task: str, spec: SegmentationSpec) -> Iterator[Problem]:
    """The declared names are categories of train, or the background."""
    path = ("tasks", task, "classes")
    known = read_coco(annotation_file(spec, data, "train")).classes
    if draft.written(path) is None:
        if len(known) < 2:
            message = "the annotation file has no categories to tell apart"
            yield draft.source.problem(("tasks", task), message, at="key")
        return
    if isinstance(spec.classes, int):
        message = f"expected names of categories, not their number; drop the key for all {len(known)}"
        yield draft.source.problem(path, message)
        return
    if isinstance(spec.classes, str):
        spec = spec.model_copy(update={"classes": str(draft.class_file(task, spec.classes))})
    if spec.classes is None:
        return  # invalid, and reported
    try:
        names = class_names(spec, data.root)
    except PerceptkitError as error:
        yield draft.source.problem(path, str(error))
        return
    yield from _strangers(draft, path, names, {*known, BACKGROUND}, "category")
    if len(names) < 2:
        message = f"one class leaves nothing to tell apart; add {BACKGROUND}, what belongs to no class"
        yield draft.source.problem(path, message)


def _points(draft: Draft, data: CocoData, task: str, spec: KeypointsSpec) -> Iterator[Problem]:
    """The declared points are those of the train file."""
    known = coco_points(spec, data)
    if not known:
        where = shown(annotation_file(spec, data, "train"))
        message = f"no category of {where} has keypoints; person_keypoints_... is COCO's file of them"
        yield draft.source.problem(
            ("tasks", task, "target"), message, at="value" if spec.target is not None else "key"
        )
        return
    for key, names in (("names", spec.names), ("kinds", spec.kinds)):
        yield from _strangers(draft, ("tasks", task, key), names or (), set(known), "keypoint")


def _strangers(
    draft: Draft, path: tuple[str, ...], names: Sequence[str], known: set[str], noun: str
) -> Iterator[Problem]:
    for i, name in enumerate(names):
        if name not in known:
            hint = did_you_mean(name, sorted(known))
            hint = hint if hint.startswith("; did") else f"; there is {_some(sorted(known))}"
            place: KeyPath = (*path, i) if isinstance(draft.written(path), list) else path
            yield draft.source.problem(place, f"'{name}' is no {noun} of the annotation file{hint}")


def _some(names: Sequence[str]) -> str:
    more = len(names) - SHOWN
    return ", ".join(names[:SHOWN]) + (f" and {more} more" if more > 0 else "")
