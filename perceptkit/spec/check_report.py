"""What `perceptkit check` found, and how it is printed."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from perceptkit.errors import DataError
from perceptkit.spec.check_labels import Finding

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

    def raise_problems(self) -> None:
        """Raises DataError where there are problems."""
        if self.problems:
            raise DataError("\n".join(_listed("problem", self.problems)))

    def __str__(self) -> str:
        tasks = list(dict.fromkeys(task for counts in self.splits.values() for task in counts.labels))
        rows = [["split", "images", *tasks]]
        for split, counts in self.splits.items():
            rows.append([split, str(counts.images), *(str(counts.labels[task]) for task in tasks)])
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = [f"{self.name}: {self.place}; pictures, and how many have a label of each task"]
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
        lines += [*_listed("warning", self.warnings), *_listed("problem", self.problems)]
        return "\n".join([*lines, "Nothing was started." if self.problems else "ok"])

    def add(self, where: str, findings: Iterator[Finding] | Sequence[Finding]) -> None:
        """Files findings under `where`, a file or an entry of one."""
        for finding in findings:
            if (message := f"{where} {finding.message}") not in self.said:
                self.said.add(message)
                (self.problems if finding.is_problem else self.warnings).append(message)


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
