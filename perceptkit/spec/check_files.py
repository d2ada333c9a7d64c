"""`perceptkit check`: do the pictures and labels on disk say what the tasks file says?

Counts every picture and label, opens a sample of them, or all. Needs numpy and Pillow, never torch.
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
    check_points,
    read_array,
)
from perceptkit.spec.check_layout import check_layout_files
from perceptkit.spec.check_listed import check_listed
from perceptkit.spec.check_report import CheckReport, SplitCounts
from perceptkit.spec.classes import class_names
from perceptkit.spec.json_file import read_json
from perceptkit.spec.label_csv import read_label_csv
from perceptkit.spec.listed import spread, thinned
from perceptkit.spec.load import LoadedTasks
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
    ScenesData,
    SegmentationSpec,
    Split,
    TaskBase,
    TasksFile,
    most_of,
)

SAMPLE = 200


def check_files(loaded: LoadedTasks, everything: bool = False, sample: int = SAMPLE) -> CheckReport:
    """Compares the data on disk with what the tasks file says of it.

    Args:
        loaded: a valid tasks file.
        everything: open every picture and label.
        sample: how many pictures of each split to open otherwise, evenly spread.
    """
    spec, data, opened = loaded.spec, loaded.spec.data, None if everything else sample
    place = "scenes, rendered with all labels" if isinstance(data, ScenesData) else str(data.root)
    report = CheckReport(spec.name, place)
    if isinstance(data, ScenesData):
        for split in SPLITS:
            images = getattr(data.count, split)
            report.splits[split] = SplitCounts(images, dict.fromkeys(spec.tasks, images))
    elif isinstance(data, FolderData):
        for split in SPLITS:
            _Split(spec, data, split, report).check(opened)
    elif isinstance(data, CocoData):
        check_coco_files(spec, data, report, opened)
    elif isinstance(data, CsvData):
        check_csv_files(spec, data, report, opened)
    elif isinstance(data, LayoutData):
        check_layout_files(spec, data, report, opened)
    else:
        check_listed(spec, data, report, opened)
    if "val" in data.train_on:
        message = "is trained on too (data.train_on): its metrics say nothing of new pictures"
        report.add("val", [Finding(message, is_problem=False)])
    return report


class _Split:
    """One split of a folder source."""

    def __init__(self, spec: TasksFile, data: FolderData, split: Split, report: CheckReport) -> None:
        self.tasks, self.data, self.split, self.report = spec.tasks, data, split, report
        self.root, self.folder = data.root, data.splits[split]
        self.ids = thinned(templates.image_ids(self.root, data.image, self.folder), data.limit, split)

    def check(self, sample: int | None) -> None:
        """Adds this split to the report."""
        counts = SplitCounts(len(self.ids), {})
        self.report.splits[self.split] = counts
        labelled: dict[str, set[str]] = {}
        for task, spec in self.tasks.items():
            if spec.target is not None:
                labelled[task] = self._labelled(task, spec, spec.target)
        for task, spec in self.tasks.items():
            if isinstance(spec, EdgesSpec) and spec.derive:
                labelled[task] = set().union(*(labelled.get(source, set()) for source in spec.derive))
            counts.labels[task] = len(labelled.get(task, ()))
            if self.ids and not counts.labels[task]:
                place = f" ({self._path(spec.target, '*')})" if spec.target else ""
                message = f"no picture of {self.split} has a label{place}"
                self.report.add(f"{task}:", [Finding(message, is_problem=self.split == "train")])
        chosen = self.ids if sample is None else spread(self.ids, sample)
        counts.opened = len(chosen)
        num_classes = {task: self._num_classes(spec) for task, spec in self.tasks.items()}
        for image_id in chosen:
            self._open(image_id, labelled, num_classes)

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
                        self.report.add(f"{where}: {image_id}", check_points(spec, points[image_id], None))
                return self._known(where, ids, set(points), "{split}" in target)
            if isinstance(spec, ClassificationSpec):
                classes = class_names(spec, self.root, self.data.splits)  # type: ignore[arg-type]  # words
                labels = read_label_csv(path, spec.multi_label).labels
                for image_id, of_image in labels.items():
                    self.report.add(f"{where}: {image_id}", check_class(spec, of_image, classes))
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
        strangers = sorted(labelled - ids)
        if strangers and of_this_split and most_of(self.data.limit, self.split) is None:
            more = f" and {len(strangers) - 1} more" if len(strangers) > 1 else ""
            message = f"labels '{strangers[0]}'{more}, but there is no such picture"
            self.report.add(where, [Finding(message, is_problem=False)])
        return ids & labelled

    def _open(self, image_id: str, labelled: Mapping[str, set[str]], num_classes: Mapping[str, int]) -> None:
        """Opens one picture and its labels."""
        size_HW = None
        try:
            size_HW = read_array(self.root / templates.fill(self.data.image, self.folder, image_id)).shape[:2]
        except DataError as error:
            self.report.add(self._path(self.data.image, image_id), [Finding(str(error))])
        for task, spec in self.tasks.items():
            if spec.target is None or "{id}" not in spec.target or image_id not in labelled[task]:
                continue
            where = self._path(spec.target, image_id)
            path = self.root / templates.fill(spec.target, self.folder, image_id)
            try:
                if isinstance(spec, KeypointsSpec):
                    self.report.add(where, check_points(spec, read_json(path), size_HW))
                    continue
                values = read_array(path)
            except DataError as error:
                self.report.add(where, [Finding(str(error))])
                continue
            self.report.add(where, check_dense(spec, values, num_classes[task]))
            if size_HW and values.ndim >= 2 and values.shape[:2] != size_HW:
                sizes = [f"{s[1]}x{s[0]}" for s in (values.shape, size_HW)]
                message = f"is {sizes[0]} pixels, its picture {sizes[1]}; both are resized"
                self.report.add(where, [Finding(message, is_problem=False)])

    def _num_classes(self, spec: TaskBase) -> int:
        return len(class_names(spec, self.root)) if isinstance(spec, SegmentationSpec) else 0

    def _path(self, template: str, image_id: str = "") -> str:
        """A path in a message: below the data root."""
        return templates.fill(template, self.folder, image_id)
