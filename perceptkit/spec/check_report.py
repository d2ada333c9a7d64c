"""What `perceptkit check` found, and how it is printed."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from perceptkit.errors import DataError
from perceptkit.spec.check_labels import Finding
from perceptkit.spec.class_counts import ClassCounts
from perceptkit.spec.several import SEPARATOR

SHOWN_GROUPS = 20
SHOWN_ALIKE = 3


@dataclass
class SplitCounts:
    """What one split holds."""

    images: int
    labels: dict[str, int]
    """Pictures with a label, by task."""
    opened: int = 0
    """Pictures that were opened, with all their labels."""


class Seen(NamedTuple):
    """What was found in one picture and in its labels, when they were opened."""

    findings: list[tuple[str, Finding]]
    """Each with the file that it is of."""
    classes: dict[str, dict[int, int]]
    """By task: how many pixels or points of which class."""


class BadPicture(NamedTuple):
    """A picture that its owner should mend or drop."""

    split: str
    id: str
    reason: str


@dataclass
class CheckReport:
    """What was found; `str` is what the command prints."""

    name: str
    place: str
    """The data root, or `scenes`."""
    splits: dict[str, SplitCounts] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    """Each names a file and the offending values; training would fail or learn something wrong."""
    warnings: list[str] = field(default_factory=list)
    said: set[str] = field(default_factory=set)
    """All of both: a file that serves several splits is complained of once."""
    classes: dict[str, ClassCounts] = field(default_factory=dict)
    """How often each class is labelled, by task."""
    bad: list[BadPicture] = field(default_factory=list)
    """Pictures with a problem of their own, and those that are in another split too, by split."""
    skips: bool = False
    """`data.on_bad: skip`: what training leaves out is no problem."""
    sources: dict[str, "CheckReport"] = field(default_factory=dict)
    """What was found in each of several sources; all else is then of all of them."""

    def raise_problems(self) -> None:
        """Raises DataError where there are problems."""
        if self.problems:
            raise DataError("\n".join([*_listed("problem", self.problems), *self._mend()]))

    @property
    def tasks(self) -> list[str]:
        """Those that have labels here."""
        return list(dict.fromkeys(task for counts in self.splits.values() for task in counts.labels))

    def __str__(self) -> str:
        tasks = self.tasks
        rows = [["split", "images", *tasks]]
        for split, counts in self.splits.items():
            rows.append([split, str(counts.images), *(str(counts.labels[task]) for task in tasks)])
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = [f"{self.name}: {self.place}; pictures, and how many have a label of each task"]
        for name, one in self.sources.items():
            counts_of = (f"{split} {counts.images}" for split, counts in one.splits.items())
            lines.append(f"  {name}: {one.place}; {', '.join(counts_of)}; labels of {', '.join(one.tasks)}")
        for row in rows:
            cells = (
                f"{c:>{w}}" if i else f"{c:<{w}}" for i, (c, w) in enumerate(zip(row, widths, strict=True))
            )
            lines.append("  " + "  ".join(cells))
        for split, counts in self.splits.items():
            if 0 < counts.opened < counts.images:
                lines.append(
                    f"opened {counts.opened} of {counts.images} pictures of {split}; --everything opens all"
                )
        for task, classes in self.classes.items():
            lines += classes.lines(task, list(self.splits))
        lines += [*_listed("warning", self.warnings), *_listed("problem", self.problems), *self._mend()]
        return "\n".join([*lines, "Nothing was started." if self.problems else "ok"])

    def add(
        self,
        where: str,
        findings: Iterator[Finding] | Sequence[Finding],
        of: tuple[str, str] | None = None,
    ) -> None:
        """Files findings under `where`, a file or an entry of one.

        Args:
            of: split and id of the picture whose own finding this is.
        """
        for finding in findings:
            message, is_problem = f"{where} {finding.message}".lstrip(), finding.is_problem
            if of is not None and is_problem:
                self.note_bad(*of, message)
                if self.skips and finding.is_refused:
                    message, is_problem = f"{message}; left out (data.on_bad: skip)", False
            if message not in self.said:
                self.said.add(message)
                (self.problems if is_problem else self.warnings).append(message)

    def take(self, split: str, image_id: str, seen: Seen) -> None:
        """Files what one picture showed."""
        for where, finding in seen.findings:
            self.add(where, [finding], (split, image_id))
        for task, found in seen.classes.items():
            self.classes[task].add(split, found)

    def note_bad(self, split: str, image_id: str, reason: str) -> None:
        """Adds a picture to the fix list."""
        self.bad.append(BadPicture(split, image_id, reason))

    def write_fix_list(self, path: Path) -> None:
        """Writes the bad pictures, one a line: split, id and reason with tabs between them."""
        lines = ["\t".join(" ".join(cell.split()) for cell in row) + "\n" for row in self.bad]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(lines), encoding="utf-8")

    def _mend(self) -> list[str]:
        """What to do about single pictures."""
        if not self.problems or not self.bad:
            return []
        return [
            "Mend or replace these files, or leave them out: data.on_bad: skip, or --fix-list and data.exclude: FILE."
        ]

    def as_json(self) -> dict[str, Any]:
        """All of it as plain data."""
        return {
            "name": self.name,
            "place": self.place,
            "splits": {
                split: {"images": counts.images, "opened": counts.opened, "labels": counts.labels}
                for split, counts in self.splits.items()
            },
            **(
                {"sources": {name: one.as_json() for name, one in self.sources.items()}}
                if self.sources
                else {}
            ),
            "classes": {task: classes.as_json() for task, classes in self.classes.items()},
            "bad": [picture._asdict() for picture in self.bad],
            "warnings": self.warnings,
            "problems": self.problems,
        }


def together(name: str, tasks: Sequence[str], sources: Mapping[str, CheckReport]) -> CheckReport:
    """One report of several sources; problems, warnings and ids of pictures begin with the source's name."""
    whole = CheckReport(name, f"{len(sources)} sources", sources=dict(sources))
    for source, one in sources.items():
        for split, counts in one.splits.items():
            into = whole.splits.setdefault(split, SplitCounts(0, dict.fromkeys(tasks, 0)))
            into.images, into.opened = into.images + counts.images, into.opened + counts.opened
            for task, number in counts.labels.items():
                into.labels[task] += number
        whole.problems += [f"{source}: {message}" for message in one.problems]
        whole.warnings += [f"{source}: {message}" for message in one.warnings]
        whole.bad += [bad._replace(id=f"{source}{SEPARATOR}{bad.id}") for bad in one.bad]
        for task, table in one.classes.items():
            if task not in whole.classes:
                whole.classes[task] = table.copy()
            elif list(table.names) == list(whole.classes[task].names):
                whole.classes[task].include(table)
            else:
                message = f"{task}: has other classes than in the sources before it"
                whole.problems.append(f"{source}: {message}")
    return whole


def _listed(noun: str, messages: Sequence[str]) -> list[str]:
    """`2 problems:` and the messages below; of many that differ in numbers alone, the first few."""
    if not messages:
        return []
    alike: dict[str, list[str]] = {}
    for message in messages:
        alike.setdefault(re.sub(r"[0-9]+", "", message), []).append(message)
    lines = [f"{len(messages)} {noun}{'s' if len(messages) > 1 else ''}:"]
    for group in list(alike.values())[:SHOWN_GROUPS]:
        lines += [f"  {message}" for message in group[:SHOWN_ALIKE]]
        lines += [f"  and {len(group) - SHOWN_ALIKE} more like this"] if len(group) > SHOWN_ALIKE else []
    rest = sum(len(group) for group in list(alike.values())[SHOWN_GROUPS:])
    return [*lines, f"  and {rest} others"] if rest else lines
