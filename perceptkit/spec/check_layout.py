"""`perceptkit check` for `source: nyuv2`, `cityscapes` and `taskonomy`: files that are listed, and what they hold."""

from perceptkit.errors import DataError
from perceptkit.spec.check_labels import Finding, check_dense, read_array
from perceptkit.spec.check_report import CheckReport, SplitCounts
from perceptkit.spec.classes import class_names
from perceptkit.spec.layout_table import label_of, layout_entries, layout_of
from perceptkit.spec.layouts import Entry, part_of
from perceptkit.spec.listed import spread
from perceptkit.spec.stored_labels import read_picture, read_stored
from perceptkit.spec.tasks_file import SPLITS, EdgesSpec, LayoutData, SegmentationSpec, Split, TasksFile


def check_layout_files(spec: TasksFile, data: LayoutData, report: CheckReport, sample: int | None) -> None:
    """Adds all splits to the report.

    Args:
        spec: the tasks.
        data: their source.
        report: is added to.
        sample: how many pictures of each split to open, evenly spread; None opens all.
    """
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
        _Split(spec, data, split, entries, report).check(sample)


class _Split:
    """One split."""

    def __init__(
        self, spec: TasksFile, data: LayoutData, split: Split, entries: list[Entry], report: CheckReport
    ) -> None:
        self.data, self.split, self.entries, self.report = data, split, entries, report
        self.num_classes = {
            task: len(class_names(of_task, data.root)) if isinstance(of_task, SegmentationSpec) else 0
            for task, of_task in spec.tasks.items()
        }
        self.derived = {
            task: of_task.derive or []
            for task, of_task in spec.tasks.items()
            if isinstance(of_task, EdgesSpec)
        }
        self.tasks = {task: of_task for task, of_task in spec.tasks.items() if task not in self.derived}
        self.label = {
            task: label_of(of_task, data, self.num_classes[task]) for task, of_task in self.tasks.items()
        }

    def check(self, sample: int | None) -> None:
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
        for entry in self.entries:
            if not entry.image.is_file():
                self.report.add(self._below(entry.image), [Finding("is missing")])
        chosen = self.entries if sample is None else spread(self.entries, sample)
        counts.opened = len(chosen)
        for entry in chosen:
            if entry.image.is_file():
                self._open(entry)

    def _open(self, entry: Entry) -> None:
        """Opens one picture and its labels."""
        try:
            (read_picture if entry.image.suffix == ".npy" else read_array)(entry.image)
        except DataError as error:
            self.report.add(self._below(entry.image), [Finding(str(error))])
        for task, spec in self.tasks.items():
            path = entry.labels[self.label[task]]
            if not path.is_file():
                continue
            try:
                values = read_stored(self.data, spec, self.num_classes[task], path)
            except DataError as error:
                self.report.add(self._below(path), [Finding(str(error))])
                continue
            self.report.add(self._below(path), check_dense(spec, values, self.num_classes[task]))

    def _below(self, path: object) -> str:
        """A path in a message: below the data root."""
        return str(path).removeprefix(f"{self.data.root}/")
