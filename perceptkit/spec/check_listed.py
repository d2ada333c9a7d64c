"""`perceptkit check` of sources that list their pictures with one class each: counts, gaps, unreadable files."""

from collections import Counter
from functools import partial

from perceptkit.errors import DataError
from perceptkit.spec.check_labels import Finding, check_picture
from perceptkit.spec.check_report import CheckReport, Seen, SplitCounts
from perceptkit.spec.check_twins import Picture
from perceptkit.spec.class_counts import ClassCounts
from perceptkit.spec.decathlon import annotation_file, read_annotations
from perceptkit.spec.listed import Listed, listed_pictures, own_classes, spread
from perceptkit.spec.scan import scan
from perceptkit.spec.tasks_file import SPLITS, DecathlonData, ListedData, Split, TasksFile, most_of
from perceptkit.spec.templates import shown

SHOWN = 5


def check_listed(
    spec: TasksFile, data: ListedData, report: CheckReport, sample: int | None, progress: bool = False
) -> dict[Split, list[Picture]]:
    """Adds all splits to the report; gives their pictures.

    Args:
        spec: has tasks that read the one class of a picture: a classification, an embedding or both.
        data: its source.
        report: is added to.
        sample: how many pictures of each split to open, evenly spread; None opens all.
        progress: show a bar.
    """
    found: dict[Split, list[Picture]] = {}
    for split in SPLITS:
        try:
            pictures = listed_pictures(data, split)
        except DataError as error:
            report.add("", [Finding(str(error))])
            continue
        labelled = [picture for picture in pictures if picture.label is not None]
        counts = SplitCounts(len(pictures), dict.fromkeys(spec.tasks, len(labelled)))
        report.splits[split] = counts
        _labels(", ".join(spec.tasks), data, split, pictures, report)
        chosen = pictures if sample is None else spread(pictures, sample)
        counts.opened = len(chosen)
        absent = {picture for picture in pictures if not picture.path.is_file()}
        for picture in pictures:
            if picture in absent:
                report.add(_below(data, picture), [Finding("is missing")], (split, picture.id))
        chosen = [picture for picture in chosen if picture not in absent]
        for picture, seen in zip(chosen, scan(chosen, partial(_open, data), split, progress), strict=True):
            report.take(split, picture.id, seen)
        found[split] = [Picture(picture.id, picture.path) for picture in pictures]
    return found


def _open(data: ListedData, picture: Listed) -> Seen:
    """Opens one picture; is called by several threads."""
    try:
        check_picture(picture.path, is_labelled=False)
    except DataError as error:
        return Seen([(_below(data, picture), Finding(str(error)))], {})
    return Seen([], {})


def _labels(task: str, data: ListedData, split: Split, pictures: list[Listed], report: CheckReport) -> None:
    """Splits without labels, classes without pictures, labels without a picture."""
    is_train = split == "train"
    names = own_classes(data)
    if pictures:
        table = report.classes.setdefault(task, ClassCounts(names, ""))
        index = {name: i for i, name in enumerate(names)}
        for picture in pictures:
            table.add(split, {} if picture.label is None else {index[picture.label]: 1})
    count_of = Counter(picture.label for picture in pictures if picture.label is not None)
    if pictures and not count_of:
        place = ""
        if isinstance(data, DecathlonData):
            place = f" (they would be in {shown(data.root / 'annotations' / f'{data.domain}_{split}.json')})"
        report.add(f"{task}:", [Finding(f"no picture of {split} has a label{place}", is_problem=is_train)])
    elif most_of(data.limit, split) is None and (empty := [name for name in names if not count_of[name]]):
        some = ", ".join(empty[:SHOWN]) + (f" and {len(empty) - SHOWN} more" if len(empty) > SHOWN else "")
        noun = "the class" if len(empty) == 1 else f"{len(empty)} classes"
        report.add(f"{task}:", [Finding(f"{split} has no picture of {noun} {some}", is_problem=is_train)])
    if isinstance(data, DecathlonData):
        path = annotation_file(data.root, data.domain, split)
        annotations = read_annotations(path)
        if strangers := sorted(set(annotations.labels) - set(annotations.files)):
            more = f" and {len(strangers) - 1} more" if len(strangers) > 1 else ""
            message = f"labels the image {strangers[0]}{more}, but there is no such image"
            report.add(shown(path), [Finding(message, is_problem=False)])


def _below(data: ListedData, picture: Listed) -> str:
    """A path in a message: below the data root."""
    return (
        str(picture.path.relative_to(data.root))
        if picture.path.is_relative_to(data.root)
        else str(picture.path)
    )
