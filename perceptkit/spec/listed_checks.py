"""What must hold for `source: imagefolder` and `source: decathlon`: one task of a kind, files where they belong."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from perceptkit.errors import PerceptkitError
from perceptkit.spec.class_folders import class_folders, pictures_of_class
from perceptkit.spec.decathlon import annotation_file, domains, mean_std
from perceptkit.spec.draft import Draft
from perceptkit.spec.folder_checks import root_problems, split_problems, splits_as_written
from perceptkit.spec.folder_files import PICTURES, split_of
from perceptkit.spec.listed import listed_classes, listed_pictures, own_classes
from perceptkit.spec.problems import Problem, did_you_mean
from perceptkit.spec.tasks_file import (
    SPLITS,
    ClassificationSpec,
    DecathlonData,
    EmbeddingSpec,
    ImageFolderData,
    ListedData,
)
from perceptkit.spec.templates import shown

SHOWN = 5
KINDS = ("classification", "embedding")
KNOWN_BY = {
    "imagefolder": "the folder that a picture is in says the class",
    "decathlon": "the annotation files say the class",
}


def check_listed(draft: Draft) -> Iterator[Problem]:
    """Problems of `data`, of the one task, and of its classes."""
    data = draft.data
    assert isinstance(data, ListedData)
    yield from _tasks(draft, data.source)
    found = [*_splits(draft, data), *root_problems(draft)]
    if not found and (root := draft.root()) is not None:
        if isinstance(data, ImageFolderData):
            data = data.model_copy(update={"root": root, "splits": splits_as_written(draft)})
            found += _folders(draft, data)
        elif data.domain is not None:  # else it is invalid, and reported
            data = data.model_copy(update={"root": root})
            found += _annotations(draft, data)
        else:
            return
        if not found:
            found += _classes(draft, data)
    yield from found


def _tasks(draft: Draft, source: str) -> Iterator[Problem]:
    """One classification of one label per picture, which the source knows, and one embedding of it."""
    kinds = {task: draft.written(("tasks", task, "type")) for task in draft.tasks}
    first = {kind: task for task, kind in reversed(kinds.items()) if kind in KINDS}
    for task, spec in draft.tasks.items():
        path = ("tasks", task)
        if not isinstance(spec, ClassificationSpec | EmbeddingSpec):
            message = f"'source: {source}' has one class per picture; expected {' or '.join(KINDS)}, not {kinds[task]}"
            yield draft.source.problem((*path, "type"), message)
            continue
        if task != first[kinds[task]]:
            verb = "predicts" if isinstance(spec, ClassificationSpec) else "learns from"
            who = first[kinds[task]]
            message = f"'source: {source}' has one class per picture, which '{who}' {verb}; drop this task"
            yield draft.source.problem(path, message, at="key")
            continue
        if spec.target is not None:
            message = f"contradicts 'source: {source}': {KNOWN_BY[source]}; drop the key"
            yield draft.source.problem((*path, "target"), message, at="key")
        if isinstance(spec, ClassificationSpec) and spec.multi_label:
            message = f"contradicts 'source: {source}': a picture is of one class; drop the key"
            yield draft.source.problem((*path, "multi_label"), message, at="key")


def _splits(draft: Draft, data: ListedData) -> list[Problem]:
    if isinstance(data, DecathlonData):
        return []
    return list(split_problems(draft, splits_as_written(draft)))


def _folders(draft: Draft, data: ImageFolderData) -> Iterator[Problem]:
    """Every split has a folder, with folders of classes that train has too, with pictures."""
    written = splits_as_written(draft)
    splits: dict[str, str] = {split: written[split] for split in SPLITS if split in written}
    missing = {split: folder for split, folder in splits.items() if not (data.root / folder).is_dir()}
    if missing:
        yield _missing_folders(draft, data.root, missing)
        return
    of_train = class_folders(data.root / splits["train"]) if "train" in splits else []
    # an embedding can be measured on classes that it was not trained on
    has_classes = any(isinstance(spec, ClassificationSpec) for spec in draft.tasks.values())
    for split, folder in splits.items():
        path: tuple[str, ...] = ("data", "splits", split)
        path = path if draft.written(path) else ("data", "root")
        place = data.root / folder
        classes = class_folders(place)
        if not classes:
            flat = ", but pictures beside each other; a CSV of labels goes with 'source: folder'"
            instead = flat if any(p.suffix.lower() in PICTURES for p in place.iterdir()) else ""
            yield draft.source.problem(path, f"{shown(place)} holds no folders of classes{instead}")
        elif not any(pictures_of_class(place / name) for name in classes):
            pattern = f"nothing in {shown(place / classes[0])} and the like ends in {', '.join(PICTURES)}"
            yield draft.source.problem(path, f"no pictures for {split}: {pattern}")
        elif has_classes and of_train and (strangers := [name for name in classes if name not in of_train]):
            noun = "a class" if len(strangers) == 1 else "classes"
            message = f"{shown(place)} has {noun} that train does not have: {_some(strangers)}"
            yield draft.source.problem(path, message)


def _missing_folders(draft: Draft, root: Path, missing: dict[str, str]) -> Problem:
    """Names a folder that could be meant, of the same split or of the other held-out one."""
    present = class_folders(root)
    meant: dict[str, str] = {}
    for split in SPLITS:
        called = [name for name in present if split_of(name) == split]
        if split not in missing:
            meant[split] = splits_as_written(draft)[split]
        elif called:
            meant[split] = called[0]
    for split, other in (("val", "test"), ("test", "val")):
        if split not in meant and other in meant:
            meant[split] = meant[other]
    inner = next((name for name in present if set(missing.values()) <= set(class_folders(root / name))), None)
    if len(meant) == len(SPLITS):
        written = ", ".join(f"{split}: {meant[split]}" for split in SPLITS)
        hint = f"; make {'it' if len(missing) == 1 else 'them'}, or write splits: {{{written}}}"
    elif inner is not None:
        hint = f"; {shown(root / inner)} does"
    else:
        hint = f"; there is {_some(present)}" if present else "; it holds no folder at all"
    noun = "a folder" if len(missing) == 1 else "folders"
    message = f"{shown(root)} does not hold {noun} {', '.join(missing.values())}{hint}"
    return draft.source.problem(("data", "root"), message)


def _annotations(draft: Draft, data: DecathlonData) -> Iterator[Problem]:
    """The annotation files of a domain can be read, and each split has pictures."""
    path = ("data", "domain")
    if data.domain is None:
        return
    known = domains(data.root)
    if data.domain not in known:
        where = f"there is no {shown(annotation_file(data.root, data.domain, 'train'))}"
        yield draft.source.problem(path, f"{where}{did_you_mean(data.domain, known)}")
        return
    for split in SPLITS:
        try:
            if not listed_pictures(data, split):
                file = annotation_file(data.root, data.domain, split)
                yield draft.source.problem(path, f"no pictures for {split}: {shown(file)} lists none")
        except PerceptkitError as error:
            yield draft.source.problem(path, str(error))
    if draft.written(("data", "mean")) is None:
        try:
            mean_std(data.root, data.domain)
        except PerceptkitError as error:
            message = f"{error}; delete it for the published numbers, or give mean and std"
            yield draft.source.problem(path, message)


def _classes(draft: Draft, data: ListedData) -> Iterator[Problem]:
    """The declared names are the source's, in any order, and there are two at least."""
    place = ("data", "root") if isinstance(data, ImageFolderData) else ("data", "domain")
    try:
        own = own_classes(data)
    except PerceptkitError:
        return  # reported with its file
    twice = [name for i, name in enumerate(own) if name in own[:i]]
    if twice:
        yield draft.source.problem(place, f"the class '{twice[0]}' occurs twice")
    elif len(own) < 2:
        yield draft.source.problem(place, "one class leaves nothing to tell apart; expected at least 2")
    for task, spec in draft.tasks.items():
        path = ("tasks", task, "classes")
        if not isinstance(spec, ClassificationSpec) or spec.classes is None:
            continue
        if isinstance(spec.classes, str):
            spec = spec.model_copy(update={"classes": str(draft.class_file(task, spec.classes))})
        try:
            declared = listed_classes(spec, data)
        except PerceptkitError as error:
            yield draft.source.problem(path, str(error))
            continue
        lacking = [name for name in own if name not in declared]
        strangers = [name for name in declared if name not in own]
        told = (
            [f"{_some(strangers)} {'is' if len(strangers) == 1 else 'are'} not in the data"]
            if strangers
            else []
        )
        told += [f"{_some(lacking)} {'is' if len(lacking) == 1 else 'are'} missing"] if lacking else []
        if told:
            message = f"{' and '.join(told)}; drop the key for the {len(own)} classes of the data"
            yield draft.source.problem(path, message)


def _some(names: Sequence[str]) -> str:
    """A few of them."""
    more = len(names) - SHOWN
    return ", ".join(f"'{name}'" for name in names[:SHOWN]) + (f" and {more} more" if more > 0 else "")
