"""`perceptkit check` for `source: csv`: pictures and labels of every row, each with file and line."""

from collections import Counter
from collections.abc import Sequence

from perceptkit.errors import PerceptkitError
from perceptkit.spec.check_labels import Finding, check_class, check_picture
from perceptkit.spec.check_report import CheckReport, Seen, SplitCounts
from perceptkit.spec.check_twins import Picture
from perceptkit.spec.csv_source import (
    CsvPicture,
    csv_classes,
    csv_file,
    csv_labels,
    csv_pictures,
)
from perceptkit.spec.listed import spread
from perceptkit.spec.scan import scan
from perceptkit.spec.tasks_file import (
    SPLITS,
    ClassificationSpec,
    CsvData,
    Split,
    TaskBase,
    TasksFile,
    most_of,
)
from perceptkit.spec.templates import shown

SHOWN = 5


def check_csv_files(
    spec: TasksFile, data: CsvData, report: CheckReport, sample: int | None, progress: bool = False
) -> dict[Split, list[Picture]]:
    """Adds all splits to the report; gives their pictures.

    Args:
        spec: the tasks.
        data: their source.
        report: is added to.
        sample: how many pictures of each split to open, evenly spread; None opens all.
        progress: show a bar.
    """
    found: dict[Split, list[Picture]] = {}
    for split in SPLITS:
        pictures = csv_pictures(data, split)
        counts = SplitCounts(len(pictures), {})
        report.splits[split] = counts
        for task, of_task in spec.tasks.items():
            counts.labels[task] = _labels(task, of_task, data, split, pictures, report)
        for picture in pictures:
            if not picture.path.is_file():
                missing = [Finding(f"{picture.id} is missing")]
                report.add(f"{picture.where}:", missing, (split, picture.id))
        chosen = pictures if sample is None else spread(pictures, sample)
        counts.opened = len(chosen)
        for picture, seen in zip(chosen, scan(chosen, _open, split, progress), strict=True):
            report.take(split, picture.id, seen)
        found[split] = [Picture(picture.id, picture.path) for picture in pictures]
    return found


def _open(picture: CsvPicture) -> Seen:
    """Opens one picture, if it is there; is called by several threads."""
    if picture.path.is_file():
        try:
            check_picture(picture.path, is_labelled=False)
        except PerceptkitError as error:
            return Seen([(f"{picture.where}:", Finding(f"{picture.id} {error}"))], {})
    return Seen([], {})


def _labels(
    task: str, spec: TaskBase, data: CsvData, split: Split, pictures: list[CsvPicture], report: CheckReport
) -> int:
    """Checks every label of a split; gives how many pictures have one."""
    classes = csv_classes(task, spec, data) if isinstance(spec, ClassificationSpec) else []
    count_of: Counter[str] = Counter()
    labelled = 0
    for picture in pictures:
        try:
            labels = csv_labels(task, spec, picture)
        except PerceptkitError as error:
            report.add(f"{task}:", [Finding(str(error))])
            continue
        if labels is not None:
            labelled += 1
            count_of.update(labels)
            report.add(f"{task}:", strange_labels(spec, labels, classes, picture))
    is_train = split == "train"
    if pictures and not labelled:
        place = f"{shown(csv_file(data, split))}, column '{spec.target or task}'"
        report.add(f"{task}:", [Finding(f"no picture of {split} has a label ({place})", is_problem=is_train)])
    elif most_of(data.limit, split) is None and isinstance(spec, ClassificationSpec):
        empty = [name for i, name in enumerate(classes) if not count_of[name] and not count_of[str(i)]]
        if empty:
            some = ", ".join(empty[:SHOWN]) + (
                f" and {len(empty) - SHOWN} more" if len(empty) > SHOWN else ""
            )
            noun = "the class" if len(empty) == 1 else f"{len(empty)} classes"
            report.add(f"{task}:", [Finding(f"{split} has no picture of {noun} {some}", is_problem=False)])
    return labelled


def strange_labels(
    spec: TaskBase, labels: Sequence[str], classes: Sequence[str], picture: CsvPicture
) -> list[Finding]:
    """Labels that are no class, each with file and line."""
    if not isinstance(spec, ClassificationSpec):
        return []
    found = check_class(spec, labels, classes)
    return [Finding(f"{picture.where} {finding.message}") for finding in found]
