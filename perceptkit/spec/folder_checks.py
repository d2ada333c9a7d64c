"""What must hold for `source: folder`: sound templates, folders that exist, labels for all tasks."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from perceptkit.spec import templates
from perceptkit.spec.draft import Draft
from perceptkit.spec.folder_files import PICTURES
from perceptkit.spec.problems import Problem, did_you_mean
from perceptkit.spec.tasks_file import (
    SPLITS,
    EdgesSpec,
    FolderData,
    KeypointsSpec,
    SegmentationSpec,
    TaskBase,
)
from perceptkit.spec.templates import shown

_LABEL_FILES = {"keypoints": (".json",), "classification": (".csv",), "embedding": (".csv",)}
_DENSE_LABEL_FILES = (".png", ".npy")


def check_folder(draft: Draft) -> Iterator[Problem]:
    """Problems of `data` and of the templates of all tasks."""
    data = draft.data
    assert isinstance(data, FolderData)
    splits = splits_as_written(draft)
    yield from split_problems(draft, splits)
    image_problems = list(_image_template(draft, data))
    of_root = list(root_problems(draft))
    yield from image_problems
    yield from of_root
    if not image_problems and not of_root:
        yield from _pictures(draft, data, {split: splits[split] for split in SPLITS if split in splits})
    for task, spec in draft.tasks.items():
        yield from _label_template(draft, task, spec)
        yield from needed_names(draft, task, spec)


def root_problems(draft: Draft) -> Iterator[Problem]:
    """The data root is a folder."""
    root = draft.root()
    if root is None or root.is_dir():
        return
    if root.exists():
        message = f"{shown(root)} is a file; expected the folder of the data"
        yield draft.source.problem(("data", "root"), message)
        return
    siblings = [p.name for p in root.parent.iterdir() if p.is_dir()] if root.parent.is_dir() else []
    hint = did_you_mean(root.name, siblings)
    hint = hint if hint.startswith("; did") else ""
    yield draft.source.problem(("data", "root"), f"no such folder: {shown(root)}{hint}")


def splits_as_written(draft: Draft) -> dict[str, str]:
    """The folder of each split, as far as it is valid."""
    written = draft.written(("data", "splits"))
    if not isinstance(written, dict):
        return {split: split for split in SPLITS}
    return {key: folder for key, folder in written.items() if isinstance(folder, str)}


def split_problems(draft: Draft, splits: dict[str, str], noun: str = "folder") -> Iterator[Problem]:
    """Every split has a folder, or another thing that stands for it; only val and test may share one."""
    misspelt = set(splits) - set(SPLITS)
    for split in SPLITS:
        path = ("data", "splits", split)
        if split not in splits and not misspelt and not draft.written(path):
            note = f"; it may name the {noun} of val" if split == "test" else ""
            message = f"missing key: the {noun} that holds the {split} split{note}"
            yield draft.source.problem(path, message, at="key")
        elif split != "train" and split in splits and splits[split] == splits.get("train"):
            message = f"the same {noun} as train; results on pictures that were trained on say nothing"
            yield draft.source.problem(path, message)
    trained_on = draft.data.train_on if draft.data is not None else None
    if "val" in (trained_on or ()) and "val" in splits and splits["val"] == splits.get("test"):
        message = f"val is the {noun} of test too; results on pictures that were trained on say nothing"
        yield draft.source.problem(("data", "train_on"), message)


def _image_template(draft: Draft, data: FolderData) -> Iterator[Problem]:
    path = ("data", "image")
    if data.image is None:
        return
    for message in templates.faults(data.image):
        yield draft.source.problem(path, message)
    if "{id}" not in data.image:
        yield draft.source.problem(path, "the template of the pictures must hold {id}, their names")
    elif "{split}" not in data.image:
        message = "must hold {split}; without it train, val and test are the same pictures"
        yield draft.source.problem(path, message)
    elif (suffix := PurePosixPath(data.image).suffix.lower()) not in PICTURES:
        yield draft.source.problem(path, f"'{suffix}' is not a picture; expected {', '.join(PICTURES)}")


def _pictures(draft: Draft, data: FolderData, splits: dict[str, str]) -> Iterator[Problem]:
    """Every split has pictures."""
    root = draft.root()
    if root is None or data.image is None:
        return
    empty = {split: f for split, f in splits.items() if not templates.has_images(root, data.image, f)}
    if empty:
        pattern = root / templates.fill(data.image, next(iter(empty.values())), "*")
        nothing = f"nothing matches {shown(pattern)}{_found_instead(pattern)}"
        message = f"no pictures for {', '.join(empty)}: {nothing}"
        yield draft.source.problem(("data", "image"), message)


def _found_instead(pattern: Path) -> str:
    """Hint for a wrong ending or folder."""
    folder = pattern.parent
    if "*" in str(folder):
        return ""
    if not folder.is_dir():
        return "; there is no such folder"
    endings = Counter(path.suffix for path in folder.iterdir() if path.is_file())
    return f"; there are *{endings.most_common(1)[0][0]} files" if endings else "; the folder is empty"


def _label_template(draft: Draft, task: str, spec: TaskBase) -> Iterator[Problem]:
    path = ("tasks", task, "target")
    kind = str(draft.written(("tasks", task, "type")))
    if isinstance(spec, EdgesSpec) and draft.written(("tasks", task, "derive")) is not None:
        if spec.target is not None:
            message = "give either 'target' or 'derive', not both"
            yield draft.source.problem(("tasks", task, "derive"), message, at="key")
        return
    if draft.written(path) is None:
        yield draft.source.problem(path, "missing key: template of the label files", at="key")
    if spec.target is None:
        return
    for message in templates.faults(spec.target):
        yield draft.source.problem(path, message)
    endings = _LABEL_FILES.get(kind, _DENSE_LABEL_FILES)
    if (suffix := PurePosixPath(spec.target).suffix.lower()) not in endings:
        yield draft.source.problem(path, f"{kind} labels are {' or '.join(endings)} files, not '{suffix}'")
    if kind in ("classification", "embedding") and "{id}" in spec.target:
        yield draft.source.problem(path, "one CSV holds the labels of a whole split; drop {id}")
    if kind not in _LABEL_FILES and "{id}" not in spec.target:
        yield draft.source.problem(path, "must hold {id}; without it every picture has the same label")


def needed_names(draft: Draft, task: str, spec: TaskBase) -> Iterator[Problem]:
    """Names of classes and points that only the tasks file can say."""
    path = ("tasks", task)
    if isinstance(spec, SegmentationSpec) and draft.written((*path, "classes")) is None:
        message = "missing key: a number of classes, a list of names, or a file with one name per line"
        yield draft.source.problem((*path, "classes"), message, at="key")
    if isinstance(spec, KeypointsSpec):
        if draft.written((*path, "names")) is None and draft.written((*path, "kinds")) is None:
            message = "missing key: 'names' of points that occur once, or 'kinds' of points that occur often"
            yield draft.source.problem((*path, "names"), message, at="key")
