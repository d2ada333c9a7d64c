"""`perceptkit check` for `source: coco`: pictures that are listed, and what the annotations say of them."""

from collections import Counter
from functools import partial

from perceptkit.errors import DataError
from perceptkit.spec.check_labels import Finding, check_picture, check_points
from perceptkit.spec.check_report import CheckReport, Seen, SplitCounts
from perceptkit.spec.check_twins import Picture
from perceptkit.spec.class_counts import counts_of_task, pixels_of_classes, points_of_kinds
from perceptkit.spec.coco import (
    CocoPicture,
    annotation_file,
    coco_classes,
    coco_pictures,
    is_derived,
    word_of,
)
from perceptkit.spec.coco_file import BACKGROUND, CocoFile, CocoImage
from perceptkit.spec.coco_labels import UNLABELLED, class_ids, points_entry
from perceptkit.spec.listed import spread
from perceptkit.spec.scan import scan
from perceptkit.spec.tasks_file import (
    SPLITS,
    CocoData,
    EdgesSpec,
    KeypointsSpec,
    SegmentationSpec,
    Split,
    TaskBase,
    TasksFile,
)
from perceptkit.spec.templates import shown

SHOWN = 5


def check_coco_files(
    spec: TasksFile, data: CocoData, report: CheckReport, sample: int | None, progress: bool = False
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
    if word_of(data, "val") == word_of(data, "test"):
        message = (
            "is test too: the best weights are chosen on what is measured; data.hold_out takes val from train"
        )
        report.add("val", [Finding(message, is_problem=False)])
    names = {
        task: coco_classes(of_task, data) if isinstance(of_task, SegmentationSpec) else []
        for task, of_task in spec.tasks.items()
    }
    for task, of_task in spec.tasks.items():
        if table := counts_of_task(of_task, names[task]):
            report.classes[task] = table
    for split in SPLITS:
        pictures = coco_pictures(spec.tasks, data, split)
        counts = SplitCounts(len(pictures), {})
        report.splits[split] = counts
        labelled: dict[str, set[str]] = {}
        for task, of_task in spec.tasks.items():
            if not is_derived(of_task):
                labelled[task] = _labelled(task, of_task, data, split, pictures, report)
        for task, of_task in spec.tasks.items():
            if isinstance(of_task, EdgesSpec):
                labelled[task] = set.intersection(*(labelled[source] for source in of_task.derive or ()))
        for task, of_task in spec.tasks.items():
            if isinstance(of_task, EdgesSpec) and pictures and not labelled[task]:
                message = f"no picture of {split} has a label"
                report.add(f"{task}:", [Finding(message, is_problem=split == "train")])
        counts.labels = {task: len(labelled[task]) for task in spec.tasks}
        for picture in pictures:
            if not picture.path.is_file():
                report.add(_below(data, picture), [Finding("is missing")], (split, picture.id))
        chosen = pictures if sample is None else spread(pictures, sample)
        counts.opened = len(chosen)
        chosen = [picture for picture in chosen if picture.path.is_file()]
        opened = scan(chosen, partial(_open, spec, data, names), split, progress)
        for picture, seen in zip(chosen, opened, strict=True):
            report.take(split, picture.id, seen)
        found[split] = [Picture(picture.id, picture.path) for picture in pictures]
    return found


def _labelled(
    task: str, spec: TaskBase, data: CocoData, split: Split, pictures: list[CocoPicture], report: CheckReport
) -> set[str]:
    """The ids of the pictures that have a label; counts points and warns of classes and points that no picture has."""
    where = shown(annotation_file(spec, data, split))
    labelled, names = set[str](), Counter[str]()
    for picture in pictures:
        if task not in picture.images:
            continue
        file, image = picture.images[task]
        if isinstance(spec, SegmentationSpec):
            labelled.add(picture.id)
            for annotation in file.annotations.get(image.id, []):
                segments = annotation.get("segments_info") or [annotation]
                names.update(file.categories[segment["category_id"]] for segment in segments)
        elif isinstance(spec, KeypointsSpec):
            try:
                points = points_entry(spec, file, image, data.occluded)
            except DataError as error:
                report.add(f"{task}:", [Finding(str(error))])
                continue
            if spec.kinds is not None or points:
                labelled.add(picture.id)
            report.classes[task].add(split, points_of_kinds(spec, points))
            names.update(points if spec.kinds is None else [kind for _, _, kind in points])
    if pictures and not labelled:
        message = f"no picture of {split} has a label ({where})"
        report.add(f"{task}:", [Finding(message, is_problem=split == "train")])
    elif split == "train" and data.limit is None:
        known = coco_classes(spec, data) if isinstance(spec, SegmentationSpec) else []
        known = list(spec.names or spec.kinds or []) if isinstance(spec, KeypointsSpec) else known
        if never := [name for name in known if not names[name] and name != BACKGROUND]:
            some = ", ".join(never[:SHOWN]) + (
                f" and {len(never) - SHOWN} more" if len(never) > SHOWN else ""
            )
            report.add(f"{task}:", [Finding(f"train has nothing of {some} ({where})", is_problem=False)])
    return labelled


def _open(spec: TasksFile, data: CocoData, names: dict[str, list[str]], picture: CocoPicture) -> Seen:
    """Opens one picture and its labels; is called by several threads."""
    findings: list[tuple[str, Finding]] = []
    classes: dict[str, dict[int, int]] = {}
    size_HW, where = None, _below(data, picture)
    try:
        size_HW, of_picture = check_picture(picture.path, is_labelled=True)
        findings += [(where, finding) for finding in of_picture]
    except DataError as error:
        findings.append((where, Finding(str(error))))
    for task, (file, image) in picture.images.items():
        of_task = spec.tasks[task]
        if size_HW is not None and size_HW != image.size_HW:
            findings.append((where, _other_size(size_HW, file, image)))
        try:
            if isinstance(of_task, SegmentationSpec):
                ids = class_ids(file, image, names[task])
                own = of_task.model_copy(update={"ignore_index": UNLABELLED})
                classes[task] = pixels_of_classes(own, ids, len(names[task]))
            elif isinstance(of_task, KeypointsSpec):
                entry = points_entry(of_task, file, image, data.occluded)
                found = check_points(of_task, entry, image.size_HW)
                findings += [(f"{shown(file.path)}: {image.file_name}", finding) for finding in found]
        except DataError as error:
            findings.append((f"{task}:", Finding(str(error))))
    return Seen(findings, classes)


def _other_size(size_HW: tuple[int, ...], file: CocoFile, image: CocoImage) -> Finding:
    """A picture of another shape than the annotations were made for is a problem, of another size a warning."""
    sizes = [f"{width}x{height}" for height, width in (size_HW, image.size_HW)]
    told = f"is {sizes[0]} pixels; {shown(file.path)} says {sizes[1]}"
    ratio = size_HW[0] * image.size_HW[1] / (size_HW[1] * image.size_HW[0])
    if 0.95 < ratio < 1.05:
        return Finding(f"{told}; both are resized", is_problem=False)
    return Finding(f"{told}, another shape: is it cut or turned since it was annotated?")


def _below(data: CocoData, picture: CocoPicture) -> str:
    """A path in a message: below the data root."""
    return str(picture.path).removeprefix(f"{data.root}/")
