"""`perceptkit check`: do the pictures and labels on disk say what the tasks file says?

Counts every picture and label, compares the pictures of all splits, and opens a sample of them, or all, in threads.
Needs numpy and Pillow, never torch.
"""

from collections.abc import Mapping

from perceptkit.errors import DataError, PerceptkitError
from perceptkit.spec import templates
from perceptkit.spec.check_coco import check_coco_files
from perceptkit.spec.check_csv import check_csv_files
from perceptkit.spec.check_labels import (
    Finding,
    check_class,
    check_dense,
    check_ids,
    check_picture,
    check_points,
    check_size,
    read_array,
)
from perceptkit.spec.check_layout import check_layout_files
from perceptkit.spec.check_listed import check_listed
from perceptkit.spec.check_packed import check_packed_files
from perceptkit.spec.check_report import CheckReport, Seen, SplitCounts, together
from perceptkit.spec.check_twins import Picture, Pictures, check_twins, check_twins_of_sources
from perceptkit.spec.class_counts import counts_of_task, pixels_of_classes, points_of_kinds
from perceptkit.spec.classes import class_names
from perceptkit.spec.excluded import excluded
from perceptkit.spec.folder_ids import folder_ids
from perceptkit.spec.json_file import read_json
from perceptkit.spec.label_csv import read_label_csv
from perceptkit.spec.listed import spread
from perceptkit.spec.load import LoadedTasks
from perceptkit.spec.picture_ids import unknown_excluded
from perceptkit.spec.scan import scan
from perceptkit.spec.several import ALONE, parts
from perceptkit.spec.tasks_file import (
    SPLITS,
    ClassificationSpec,
    CocoData,
    CsvData,
    EdgesSpec,
    EmbeddingSpec,
    FolderData,
    KeypointsSpec,
    LayoutData,
    PackedData,
    ScenesData,
    SegmentationSpec,
    Split,
    TaskBase,
    TasksFile,
    most_of,
)

SAMPLE = 200


def check_files(
    loaded: LoadedTasks, everything: bool = False, sample: int = SAMPLE, progress: bool = False
) -> CheckReport:
    """Compares the data on disk with what the tasks file says of it.

    Args:
        loaded: a valid tasks file.
        everything: open every picture and label.
        sample: how many pictures of each split to open otherwise, evenly spread.
        progress: show bars on stderr.
    """
    opened = None if everything else sample
    of_parts = parts(loaded.spec)
    found = {name: _check(part, opened, progress) for name, part in of_parts.items()}
    reports = {name: report for name, (report, _) in found.items()}
    if ALONE in reports:
        return reports[ALONE]
    whole = together(loaded.spec.name, list(loaded.spec.tasks), reports)
    files = {name: part.first for name, part in of_parts.items() if not isinstance(part.first, ScenesData)}
    check_twins_of_sources(
        {name: found[name][1] for name in files},
        {name: list(of_parts[name].tasks) for name in files},
        {name: data.root for name, data in files.items()},
        whole,
        progress,
    )
    return whole


def _check(spec: TasksFile, opened: int | None, progress: bool) -> tuple[CheckReport, Pictures]:
    """Of a file with `data`, or of one of its sources; and its pictures, where they are files."""
    data = spec.first
    place = "scenes, rendered with all labels" if isinstance(data, ScenesData) else str(data.root)
    report = CheckReport(spec.name, place)
    if isinstance(data, ScenesData):
        for split in SPLITS:
            images = getattr(data.count, split)
            report.splits[split] = SplitCounts(images, dict.fromkeys(spec.tasks, images))
        pictures: dict[Split, list[Picture]] = {}
    else:
        report.skips = data.on_bad == "skip"
        if isinstance(data, FolderData):
            pictures = {split: _Split(spec, data, split, report, progress).check(opened) for split in SPLITS}
        elif isinstance(data, CocoData):
            pictures = check_coco_files(spec, data, report, opened, progress)
        elif isinstance(data, CsvData):
            pictures = check_csv_files(spec, data, report, opened, progress)
        elif isinstance(data, LayoutData):
            pictures = check_layout_files(spec, data, report, opened, progress)
        elif isinstance(data, PackedData):
            pictures = check_packed_files(spec, data, report, opened, progress)
        else:
            pictures = check_listed(spec, data, report, opened, progress)
        check_twins(pictures, data.root, report, progress)
        for split, ids in unknown_excluded(spec).items():
            if ids:
                more = f" and {len(ids) - 1} more" if len(ids) > 1 else ""
                message = f"lists '{ids[0]}'{more}, but {split} has no such picture"
                report.add("data.exclude", [Finding(message, is_problem=False)])
    if "val" in data.train_on:
        message = "is trained on too (data.train_on): its metrics say nothing of new pictures"
        report.add("val", [Finding(message, is_problem=False)])
    return report, pictures


class _Split:
    """One split of a folder source."""

    def __init__(
        self, spec: TasksFile, data: FolderData, split: Split, report: CheckReport, progress: bool
    ) -> None:
        self.progress = progress
        self.tasks, self.data, self.split, self.report = spec.tasks, data, split, report
        self.root, self.folder = data.root, data.splits[split]
        self.ids = folder_ids(data, split)
        self.left_out = set().union(*(excluded(data, other) for other in SPLITS)) - set(self.ids)
        self.on_pixels = {task for task, spec in self.tasks.items() if spec.target and "{id}" in spec.target}
        self.names = {task: self._names(of_task) for task, of_task in self.tasks.items()}
        for task, of_task in self.tasks.items():
            if task not in report.classes and (table := counts_of_task(of_task, self.names[task])):
                report.classes[task] = table

    def check(self, sample: int | None) -> list[Picture]:
        """Adds this split to the report; gives its pictures."""
        counts = SplitCounts(len(self.ids), {})
        self.report.splits[self.split] = counts
        self._passed_over(self.data.image, "there is no such picture")
        labelled: dict[str, set[str]] = {}
        for task, spec in self.tasks.items():
            if spec.target is not None:
                if "{id}" in spec.target:
                    self._passed_over(spec.target, f"its picture has no label of {task}")
                labelled[task] = self._labelled(task, spec, spec.target)
        for task, spec in self.tasks.items():
            if isinstance(spec, EdgesSpec) and spec.derive:
                labelled[task] = set.intersection(*(labelled.get(source, set()) for source in spec.derive))
            counts.labels[task] = len(labelled.get(task, ()))
            if self.ids and not counts.labels[task]:
                place = f" ({self._path(spec.target, '*')})" if spec.target else ""
                message = f"no picture of {self.split} has a label{place}"
                self.report.add(f"{task}:", [Finding(message, is_problem=self.split == "train")])
        chosen = self.ids if sample is None else spread(self.ids, sample)
        counts.opened = len(chosen)
        seen = scan(chosen, lambda image_id: self._open(image_id, labelled), self.split, self.progress)
        for image_id, of_one in zip(chosen, seen, strict=True):
            self.report.take(self.split, image_id, of_one)
        return [Picture(image_id, self.root / self._path(self.data.image, image_id)) for image_id in self.ids]

    def _passed_over(self, template: str, so: str) -> None:
        """Warns of names that are there and are no files."""
        for path, instead in sorted(templates.not_files(self.root, template, self.folder).items()):
            where = path.relative_to(self.root) if path.is_relative_to(self.root) else path
            message = f"is {instead}, so {so}; put the file there, or delete it"
            self.report.add(str(where), [Finding(message, is_problem=False)])

    def _labelled(self, task: str, spec: TaskBase, target: str) -> set[str]:
        """The ids that have a label; checks files that hold the labels of many pictures."""
        ids = set(self.ids)
        if "{id}" in target:
            return ids & set(templates.image_ids(self.root, target, self.folder))
        path = self.root / templates.fill(target, self.folder)
        where = self._path(target)
        if not path.is_file():
            return set()
        try:
            if isinstance(spec, KeypointsSpec):
                points = read_json(path)
                if not isinstance(points, Mapping):
                    raise DataError("is not a mapping of picture ids to points")
                for image_id in self.ids:
                    if image_id in points:
                        of_one = (self.split, image_id)
                        self.report.add(
                            f"{where}: {image_id}", check_points(spec, points[image_id], None), of_one
                        )
                        self.report.classes[task].add(self.split, points_of_kinds(spec, points[image_id]))
                return self._known(where, ids, set(points), "{split}" in target)
            if isinstance(spec, ClassificationSpec):
                classes = self.names[task]
                labels = read_label_csv(path, spec.multi_label).labels
                place = {name: i for i, name in enumerate(classes)}
                for image_id, of_image in labels.items():
                    if image_id in self.left_out:
                        continue
                    is_ours = image_id in ids
                    self.report.add(
                        f"{where}: {image_id}",
                        check_class(spec, of_image, classes),
                        (self.split, image_id) if is_ours else None,
                    )
                    if is_ours:
                        known = [place.get(label, _index(label, len(classes))) for label in of_image]
                        self.report.classes[task].add(self.split, {i: 1 for i in known if i is not None})
                return self._known(where, ids, set(labels), "{split}" in target)
            if isinstance(spec, EmbeddingSpec):
                table = read_label_csv(path, multi_label=False)
                self.report.add(where, check_ids(table, ids))
                return self._known(where, ids, set(table.labels), "{split}" in target)
        except PerceptkitError as error:
            self.report.add(where, [Finding(str(error).removeprefix(f"{path}: "))])
        return set()

    def _known(self, where: str, ids: set[str], labelled: set[str], of_this_split: bool) -> set[str]:
        """The ids of pictures; warns of labels for none of them where the file is this split's own."""
        strangers = sorted(labelled - ids - self.left_out)
        if strangers and of_this_split and most_of(self.data.limit, self.split) is None:
            more = f" and {len(strangers) - 1} more" if len(strangers) > 1 else ""
            message = f"labels '{strangers[0]}'{more}, but there is no such picture"
            self.report.add(where, [Finding(message, is_problem=False)])
        return ids & labelled

    def _open(self, image_id: str, labelled: Mapping[str, set[str]]) -> Seen:
        """Opens one picture and its labels; is called by several threads."""
        findings: list[tuple[str, Finding]] = []
        classes: dict[str, dict[int, int]] = {}
        size_HW = None
        try:
            path = self.root / templates.fill(self.data.image, self.folder, image_id)
            size_HW, found = check_picture(path, bool(labelled.keys() & self.on_pixels))
            findings += [(self._path(self.data.image, image_id), finding) for finding in found]
        except DataError as error:
            findings.append((self._path(self.data.image, image_id), Finding(str(error))))
        for task, spec in self.tasks.items():
            if spec.target is None or "{id}" not in spec.target or image_id not in labelled[task]:
                continue
            where = self._path(spec.target, image_id)
            path = self.root / templates.fill(spec.target, self.folder, image_id)
            try:
                if isinstance(spec, KeypointsSpec):
                    points = read_json(path)
                    findings += [(where, finding) for finding in check_points(spec, points, size_HW)]
                    classes[task] = points_of_kinds(spec, points)
                    continue
                values = read_array(path)
            except DataError as error:
                findings.append((where, Finding(str(error))))
                continue
            num_classes = len(self.names[task])
            findings += [(where, finding) for finding in check_dense(spec, values, num_classes)]
            findings += [(where, finding) for finding in check_size(values, size_HW)]
            if isinstance(spec, SegmentationSpec):
                classes[task] = pixels_of_classes(spec, values, num_classes)
        return Seen(findings, classes)

    def _names(self, spec: TaskBase) -> list[str]:
        """Of the classes; none where they cannot be known, which is a problem of the label file."""
        try:
            if isinstance(spec, SegmentationSpec | ClassificationSpec):
                return class_names(spec, self.root, self.data.splits)  # type: ignore[arg-type]  # words
        except PerceptkitError:
            if isinstance(spec, SegmentationSpec):
                raise
        return []

    def _path(self, template: str, image_id: str = "") -> str:
        """A path in a message: below the data root."""
        return templates.fill(template, self.folder, image_id)


def _index(label: str, num_classes: int) -> int | None:
    """Of a class that is written as its number."""
    return int(label) if label.isdecimal() and int(label) < num_classes else None
