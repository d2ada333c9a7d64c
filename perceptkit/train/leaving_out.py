"""Which pictures a run leaves out (`data.on_bad: skip`): found once, by one rank, and kept in the run folder.

left_out.json     {"train": {id: reason}, "val": {...}, "test": {...}}, in the order of the splits
"""

import json
import sys
from collections.abc import Mapping
from pathlib import Path

from lightning_fabric import Fabric

from perceptkit.data.sources import LeftOut, find_left_out
from perceptkit.errors import ResumeError
from perceptkit.spec.picture_ids import count_excluded
from perceptkit.spec.several import parts
from perceptkit.spec.tasks_file import SPLITS, TasksFile
from perceptkit.tasks.base import Task

FILE = "left_out.json"
SHOWN = 3


def left_out_of_run(
    tasks_file: TasksFile, tasks: Mapping[str, Task], run: Path, fabric: Fabric, resume: bool, quiet: bool
) -> LeftOut | None:
    """What the run leaves out of each split; None where bad pictures are errors.

    A resumed run goes on without the same pictures, whatever became of their files. The first rank looks, and tells the
    others: files that change, or disks that fail for one of them, cannot make ranks see different sets.

    Raises ResumeError where the file of a run cannot be read.
    """
    sources = [part.first for part in parts(tasks_file).values()]
    if all(getattr(data, "on_bad", "error") == "error" for data in sources):
        return None
    found: LeftOut | None = None
    if fabric.global_rank == 0:
        found = _read(run / FILE) if resume and (run / FILE).is_file() else None
        if found is None:
            found = find_left_out(tasks_file, tasks, progress=not quiet and sys.stderr.isatty())
    told: LeftOut | None = fabric.broadcast(found)
    return told


def in_words(left_out: LeftOut) -> list[str]:
    """A line for each split that lost pictures, or one that says that none did."""
    lines = []
    for split in SPLITS:
        if reasons := left_out.get(split):
            noun = "picture" if len(reasons) == 1 else "pictures"
            some = "; ".join(f"{image_id} ({why})" for image_id, why in list(reasons.items())[:SHOWN])
            more = f" and {len(reasons) - SHOWN} more, see {FILE}" if len(reasons) > SHOWN else ""
            lines.append(f"{split}: {len(reasons)} {noun} left out (data.on_bad: skip): {some}{more}")
    return lines or ["no picture had to be left out (data.on_bad: skip)"]


def excluded_in_words(tasks_file: TasksFile) -> list[str]:
    """A line for each split that `exclude` names pictures of."""
    return [
        f"{split}: {count} {'picture' if count == 1 else 'pictures'} excluded (data.exclude)"
        for split, count in count_excluded(tasks_file).items()
    ]


def _read(path: Path) -> LeftOut:
    try:
        written = json.loads(path.read_text(encoding="utf-8"))
        return {split: dict(written[split]) for split in SPLITS}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ResumeError(f"{path} is damaged: {type(error).__name__}") from error
