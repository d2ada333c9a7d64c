"""`perceptkit check` for `source: webdataset` and `huggingface`: all labels of whole pictures, a sample of all else."""

from functools import partial

from perceptkit.errors import DataError, PerceptkitError
from perceptkit.spec.check_labels import Finding, check_class, check_dense, check_points, check_size
from perceptkit.spec.check_report import CheckReport, Seen, SplitCounts
from perceptkit.spec.check_twins import Part, Picture
from perceptkit.spec.class_counts import counts_of_task, pixels_of_classes, points_of_kinds
from perceptkit.spec.listed import spread
from perceptkit.spec.packed import (
    Packed,
    is_derived,
    open_packed,
    packed_classes,
    packed_places,
    place_of,
)
from perceptkit.spec.packed_arrays import as_array
from perceptkit.spec.packed_labels import as_points, as_words
from perceptkit.spec.scan import scan
from perceptkit.spec.tasks_file import (
    SPLITS,
    ClassificationSpec,
    EdgesSpec,
    EmbeddingSpec,
    KeypointsSpec,
    PackedData,
    SegmentationSpec,
    Split,
    TaskBase,
    TasksFile,
    most_of,
)

SHOWN = 5


def check_packed_files(
    spec: TasksFile, data: PackedData, report: CheckReport, sample: int | None, progress: bool = False
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
    for split in SPLITS:
        try:
            of_split = _Split(spec, data, split, report)
        except DataError as error:
            report.add("", [Finding(str(error))])
            continue
        pictures[split] = of_split.check(sample, progress)
    return pictures


class _Split:
    """One split. Raises DataError where its files cannot be read."""

    def __init__(self, spec: TasksFile, data: PackedData, split: Split, report: CheckReport) -> None:
        self.data, self.split, self.report, self.tasks = data, split, report, spec.tasks
        self.packed: Packed = open_packed(data, split)
        self.places, self.ids = packed_places(data, split), self.packed.ids
        self.names = {
            task: packed_classes(task, of_task, data)
            if isinstance(of_task, SegmentationSpec | ClassificationSpec)
            else []
            for task, of_task in self.tasks.items()
        }
        for task, of_task in self.tasks.items():
            if task not in report.classes and (table := counts_of_task(of_task, self.names[task])):
                table.of_opened = not isinstance(of_task, ClassificationSpec)
                report.classes[task] = table

    def check(self, sample: int | None, progress: bool) -> list[Picture]:
        """Adds this split to the report; gives its pictures."""
        if not self.places:
            self.report.add("", [Finding(f"no pictures for {self.split} in {self.data.root}")])
        labelled: dict[str, set[int]] = {}
        for task, spec in self.tasks.items():
            if isinstance(spec, ClassificationSpec | EmbeddingSpec):
                labelled[task] = self._words(task, spec)
            elif not is_derived(spec):
                has = self.packed.labelled(task, spec)
                labelled[task] = {place for place in self.places if has[place]}
        for task, spec in self.tasks.items():
            if isinstance(spec, EdgesSpec) and spec.derive:
                labelled[task] = set.intersection(*(labelled[source] for source in spec.derive))
        counts = SplitCounts(len(self.places), {task: len(labelled[task]) for task in self.tasks})
        self.report.splits[self.split] = counts
        for task, spec in self.tasks.items():
            if self.places and not labelled[task]:
                kept_in = "" if is_derived(spec) else f" ({place_of(self.data, task, spec)})"
                message = f"no picture of {self.split} has a label{kept_in}"
                self.report.add(f"{task}:", [Finding(message, is_problem=self.split == "train")])
        chosen = self.places if sample is None else spread(self.places, sample)
        counts.opened = len(chosen)
        without = {place for place in self.places if self.packed.picture_size(place) is None}
        for bad in sorted(without):
            self.report.take(self.split, self.ids[bad], Seen([("", self._no_picture(bad))], {}))
        chosen = [place for place in chosen if place not in without]
        for place, seen in zip(chosen, scan(chosen, self._open, self.split, progress), strict=True):
            self.report.take(self.split, self.ids[place], seen)
        return [self._picture(place) for place in self.places]

    def _words(self, task: str, spec: TaskBase) -> set[int]:
        """Checks every label of a task of whole pictures; gives the places that have one."""
        found: set[int] = set()
        names = self.names[task]
        index = {name: i for i, name in enumerate(names)}
        for place in self.places:
            where, of_one = self.packed.label_where(place, task, spec), (self.split, self.ids[place])
            try:
                words = as_words(self.packed.stored(place, task, spec), spec, where)
            except PerceptkitError as error:
                self.report.add(f"{task}:", [Finding(str(error))], of_one)
                continue
            if words is None:
                continue
            found.add(place)
            if isinstance(spec, ClassificationSpec):
                self.report.add(f"{task}: {where}", check_class(spec, words, names), of_one)
                known = [index.get(word, _number(word, len(names))) for word in words]
                self.report.classes[task].add(self.split, {i: 1 for i in known if i is not None})
        table = self.report.classes.get(task)
        if found and table is not None and most_of(self.data.limit, self.split) is None:
            counts = table.pictures[self.split]
            if empty := [name for i, name in enumerate(names) if not counts[i]]:
                some = ", ".join(empty[:SHOWN])
                more = f" and {len(empty) - SHOWN} more" if len(empty) > SHOWN else ""
                noun = "the class" if len(empty) == 1 else f"{len(empty)} classes"
                message = f"{self.split} has no picture of {noun} {some}{more}"
                self.report.add(f"{task}:", [Finding(message, is_problem=False)])
        return found

    def _no_picture(self, place: int) -> Finding:
        try:
            self.packed.picture(place)
        except DataError as error:
            return Finding(str(error))
        raise AssertionError("it has one")

    def _open(self, place: int) -> Seen:
        """Opens one picture and its labels; is called by several threads."""
        findings: list[tuple[str, Finding]] = []
        classes: dict[str, dict[int, int]] = {}
        size_HW = None
        try:
            where = self.packed.picture_where(place)
            size_HW = as_array(self.packed.picture(place), where).shape[:2]
        except DataError as error:
            findings.append(("", Finding(str(error))))
        for task, spec in self.tasks.items():
            if is_derived(spec) or isinstance(spec, ClassificationSpec | EmbeddingSpec):
                continue
            where = self.packed.label_where(place, task, spec)
            try:
                stored = self.packed.stored(place, task, spec)
                if stored is None:
                    continue
                if isinstance(spec, KeypointsSpec):
                    points = as_points(stored, spec, where)
                    findings += [(where, finding) for finding in check_points(spec, points, size_HW)]
                    classes[task] = points_of_kinds(spec, points)
                    continue
                values = as_array(stored, where)
            except DataError as error:
                findings.append(("", Finding(str(error))))
                continue
            num_classes = len(self.names[task])
            findings += [(where, finding) for finding in check_dense(spec, values, num_classes)]
            findings += [(where, finding) for finding in check_size(values, size_HW)]
            if isinstance(spec, SegmentationSpec):
                classes[task] = pixels_of_classes(spec, values, num_classes)
        return Seen(findings, classes)

    def _picture(self, place: int) -> Picture:
        size = self.packed.picture_size(place) or 0
        part = Part(self.packed.picture_where(place), size, partial(self.packed.picture, place))
        return Picture(self.ids[place], self.packed.file(place), part)


def _number(word: str, num_classes: int) -> int | None:
    """The index of a class that is written as its number."""
    return int(word) if word.isdecimal() and int(word) < num_classes else None
