"""`perceptkit check` for `source: nyuv2`, `cityscapes` and `taskonomy`: files that are listed, and what they hold."""

from perceptkit.errors import DataError
from perceptkit.spec.check_labels import Finding, check_dense, check_picture, check_size
from perceptkit.spec.check_report import CheckReport, Seen, SplitCounts
from perceptkit.spec.check_twins import Picture
from perceptkit.spec.class_counts import counts_of_task, pixels_of_classes
from perceptkit.spec.classes import class_names
from perceptkit.spec.layout_table import label_of, layout_entries, layout_of
from perceptkit.spec.layouts import Entry, part_of
from perceptkit.spec.listed import spread
from perceptkit.spec.scan import scan
from perceptkit.spec.stored_labels import read_picture, read_stored
from perceptkit.spec.tasks_file import SPLITS, EdgesSpec, LayoutData, SegmentationSpec, Split, TasksFile


def check_layout_files(
    spec: TasksFile, data: LayoutData, report: CheckReport, sample: int | None, progress: bool = False
) -> dict[Split, list[Picture]]:
    """Adds all splits to the report; gives their pictures.

    Args:
        spec: the tasks.
        data: their source.
        report: is added to.
        sample: how many pictures of each split to open, evenly spread; None opens all.
        progress: show a bar.
    """
    pictures: dict[Split, list[Picture]] = {}
    layout = layout_of(data)
    if data.hold_out is None and part_of(layout, data, "val") == part_of(layout, data, "test"):
        message = (
            "is test too: the best weights are chosen on what is measured; data.hold_out takes val from train"
        )
        report.add("val", [Finding(message, is_problem=False)])
    for split in SPLITS:
        try:
            entries = layout_entries(data, split)
        except DataError as error:
            report.add("", [Finding(str(error))])
            continue
        if not entries:
            report.add("", [Finding(f"no pictures for {split} in {part_of(layout, data, split)}")])
        _Split(spec, data, split, entries, report).check(sample, progress)
        pictures[split] = [Picture(entry.id, entry.image) for entry in entries]
    return pictures


class _Split:
    """One split."""

    def __init__(
        self, spec: TasksFile, data: LayoutData, split: Split, entries: list[Entry], report: CheckReport
    ) -> None:
        self.data, self.split, self.entries, self.report = data, split, entries, report
        names = {
            task: class_names(of_task, data.root) if isinstance(of_task, SegmentationSpec) else []
            for task, of_task in spec.tasks.items()
        }
        self.num_classes = {task: len(of_task) for task, of_task in names.items()}
        for task, of_task in spec.tasks.items():
            if task not in report.classes and (table := counts_of_task(of_task, names[task])):
                report.classes[task] = table
        self.derived = {
            task: of_task.derive or []
            for task, of_task in spec.tasks.items()
            if isinstance(of_task, EdgesSpec)
        }
        self.tasks = {task: of_task for task, of_task in spec.tasks.items() if task not in self.derived}
        self.label = {
            task: label_of(of_task, data, self.num_classes[task]) for task, of_task in self.tasks.items()
        }

    def check(self, sample: int | None, progress: bool) -> None:
        """Adds this split to the report."""
        has = {
            task: {entry.id for entry in self.entries if entry.labels[label].is_file()}
            for task, label in self.label.items()
        }
        for task, derive in self.derived.items():
            has[task] = set.intersection(*(has[source] for source in derive))
        counts = SplitCounts(len(self.entries), {task: len(ids) for task, ids in has.items()})
        self.report.splits[self.split] = counts
        for task, ids in has.items():
            if self.entries and not ids:
                place = (
                    f" ({self._below(self.entries[0].labels[self.label[task]])})"
                    if task in self.label
                    else ""
                )
                message = f"no picture of {self.split} has a label{place}"
                self.report.add(f"{task}:", [Finding(message, is_problem=self.split == "train")])
        absent = {entry.id for entry in self.entries if not entry.image.is_file()}
        for entry in self.entries:
            if entry.id in absent:
                missing = [Finding("is missing")]
                self.report.add(self._below(entry.image), missing, (self.split, entry.id))
        chosen = self.entries if sample is None else spread(self.entries, sample)
        counts.opened = len(chosen)
        chosen = [entry for entry in chosen if entry.id not in absent]
        for entry, seen in zip(chosen, scan(chosen, self._open, self.split, progress), strict=True):
            self.report.take(self.split, entry.id, seen)

    def _open(self, entry: Entry) -> Seen:
        """Opens one picture and its labels; is called by several threads."""
        findings: list[tuple[str, Finding]] = []
        classes: dict[str, dict[int, int]] = {}
        size_HW = None
        try:
            if entry.image.suffix == ".npy":
                size_HW = read_picture(entry.image).shape[:2]
            else:
                size_HW, found = check_picture(entry.image, is_labelled=True)
                findings += [(self._below(entry.image), finding) for finding in found]
        except DataError as error:
            findings.append((self._below(entry.image), Finding(str(error))))
        for task, spec in self.tasks.items():
            path, num_classes = entry.labels[self.label[task]], self.num_classes[task]
            if not path.is_file():
                continue
            where = self._below(path)
            try:
                values = read_stored(self.data, spec, num_classes, path)
            except DataError as error:
                findings.append((where, Finding(str(error))))
                continue
            findings += [(where, finding) for finding in check_dense(spec, values, num_classes)]
            findings += [(where, finding) for finding in check_size(values, size_HW)]
            if isinstance(spec, SegmentationSpec):
                classes[task] = pixels_of_classes(spec, values, num_classes)
        return Seen(findings, classes)

    def _below(self, path: object) -> str:
        """A path in a message: below the data root."""
        return str(path).removeprefix(f"{self.data.root}/")
