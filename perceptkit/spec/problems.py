"""One problem in a file that the user wrote, and the error that reports all of them at once.

tasks/indoor.yaml: 2 problems
  tasks/indoor.yaml:9:59   tasks.seg.ignore_indx  unknown key; did you mean 'ignore_index'?
      9 |   seg: {type: segmentation, target: seg/{split}/{id}.png, ignore_indx: 255}
  tasks/indoor.yaml:10:17  tasks.depth.type       'dpeth' is not a task type; did you mean 'depth'?
     10 |   depth: {type: dpeth}
Nothing was started.
"""

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from perceptkit.errors import SpecError

LONGEST_SOURCE_LINE = 120


@dataclass(frozen=True)
class Problem:
    """What is wrong, where, and what to write instead."""

    file: str
    """The tasks file or recipe, as the user named it."""
    line: int
    """Counted from 1, as editors do."""
    col: int
    key: str
    """Dotted path as the user wrote it, for example `tasks.seg.classes`; empty for a syntax error."""
    message: str
    source: str = ""
    """The line of the file."""
    override: str = ""
    """`key=value` of the `--set` that the problem comes from, instead of a place in the file."""

    @property
    def location(self) -> str:
        """`file:line:col`, or the `--set` that is to blame."""
        return f"--set {self.override}" if self.override else f"{self.file}:{self.line}:{self.col}"


class SpecProblems(SpecError):
    """All problems of one command, rendered for the person who typed it."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = sorted(problems, key=_reading_order)
        super().__init__(render(self.problems))


def _reading_order(problem: Problem) -> tuple[str, bool, int, int, str]:
    """By file, then as one reads; problems with `--set` last, in the order of the command."""
    key = "" if problem.override else problem.key
    return problem.file, bool(problem.override), problem.line, problem.col, key


def render(problems: Sequence[Problem]) -> str:
    """The report of the module's docstring; one section per file, in the order of the problems."""
    lines: list[str] = []
    for file in dict.fromkeys(p.file for p in problems):
        section = [p for p in problems if p.file == file]
        lines.append(f"{file}: {len(section)} problem{'s' if len(section) > 1 else ''}")
        location_width = max(len(p.location) for p in section)
        key_width = max(len(p.key) for p in section)
        for problem, following in zip(section, [*section[1:], None], strict=True):
            key = f"{problem.key:<{key_width}}  " if key_width else ""
            lines.append(f"  {problem.location:<{location_width}}  {key}{problem.message}")
            same_line = following and not following.override and following.line == problem.line
            if problem.source.strip() and not problem.override and not same_line:
                lines.append(f"{problem.line:>7} | {_printable(problem.source, problem.col)}")
    return "\n".join([*lines, "Nothing was started."])


def _printable(source: str, col: int) -> str:
    """A line, or the part of it around `col`; it neither moves the terminal's cursor nor fills its window."""
    if len(source) > LONGEST_SOURCE_LINE:
        start = max(0, min(col - LONGEST_SOURCE_LINE // 2, len(source) - LONGEST_SOURCE_LINE))
        end = start + LONGEST_SOURCE_LINE
        source = ("..." if start else "") + source[start:end] + ("..." if end < len(source) else "")
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in source.rstrip())


def closest(word: str, known: Iterable[str]) -> str | None:
    """The known word that `word` is most likely a misspelling of, if any is likely."""
    by_lower = {k.lower(): k for k in known}
    matches = difflib.get_close_matches(word.lower(), by_lower, n=1, cutoff=0.65)
    return by_lower[matches[0]] if matches else None


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """The end of a message: `; did you mean 'depth'?`, or else all that could have been written."""
    names = list(known)
    match = closest(word, names)
    if match:
        return f"; did you mean '{match}'?"
    return f"; expected {'one of: ' if len(names) > 1 else ''}{', '.join(names)}" if names else ""
