"""Lines of a proposed tasks file that every source has, and values as YAML."""

import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from perceptkit.errors import PerceptkitError
from perceptkit.spec.check_labels import read_array
from perceptkit.spec.label_guess import LOOKED_AT, Guess, spread
from perceptkit.spec.tasks_file import SPLITS, Split
from perceptkit.spec.yaml_source import plain_value

LONGEST_SIDE = 256
"""Pixels of the proposed network input; larger pictures are shrunk."""
MULTIPLE = 32
"""Of which both sides are: the stride of most backbones."""
LISTED = 20
"""What was not understood is listed up to this number of lines."""
PICTURE_WORDS = ("rgb", "image", "img", "color", "colour", "photo", "picture", "frame")


def opening(folder: Path, root: str) -> list[str]:
    """The lines up to `data:`; the run is called after the folder, which is at `root` from the file."""
    name = re.sub(r"[^A-Za-z0-9_.-]+", "_", folder.resolve().name).lstrip(".-") or "my_tasks"
    return [
        f"# Proposed by `perceptkit init` from the files in {root}.",
        "# Lines with '?' are guesses. Look at them, then: perceptkit check THIS_FILE",
        "version: 1",
        f"name: {written(name)}",
        "data:",
    ]


def size_line(pictures: Iterable[Path]) -> str:
    """`size`, near the most frequent size of the pictures, of which one at least can be read."""
    sizes: Counter[tuple[int, int]] = Counter()
    for path in spread(sorted(pictures), LOOKED_AT):
        try:
            height, width = read_array(path).shape[:2]
        except (PerceptkitError, ValueError):
            continue
        sizes[height, width] += 1
    (height, width), _ = sizes.most_common(1)[0]
    shrink = min(1.0, LONGEST_SIDE / max(height, width))
    size = [max(MULTIPLE, round(side * shrink / MULTIPLE) * MULTIPLE) for side in (height, width)]
    others = "" if len(sizes) == 1 else ", others have other sizes"
    return f"  size: {written(size)}  # ? [height, width]; pictures are {height}x{width}{others}"


def stand_ins(words: Mapping[Split, str], noun: str = "folder") -> tuple[dict[Split, str], str]:
    """What stands for each split, val and test for each other where one is missing, and the comment that says so.

    >>> stand_ins({"train": "train", "val": "valid"})
    ({'train': 'train', 'val': 'valid', 'test': 'valid'}, '  # ? there is no folder for test; val stands in')
    """
    found, note = dict(words), ""
    pairs: tuple[tuple[Split, Split], ...] = (("val", "test"), ("test", "val"))
    for missing, instead in pairs:
        if missing not in found and instead in found:
            found[missing] = found[instead]
            note = f"  # ? there is no {noun} for {missing}; {instead} stands in"
    if lacking := [split for split in SPLITS if split not in found]:
        note = f"  # to do: there is no {noun} for {', '.join(lacking)}"
    return {split: found[split] for split in SPLITS if split in found}, note


def task_lines(guesses: Mapping[str, Guess], unknown: Mapping[str, str]) -> list[str]:
    """`tasks:` with what was guessed, and what was not.

    Args:
        guesses: by the task's name.
        unknown: why, by what was not understood.
    """
    lines = ["tasks:" if guesses else "tasks: {}  # to fill in: no labels were found"]
    for name, found in guesses.items():
        keys = {"type": found.type, **found.keys}
        lines.append(f"  # ? {found.why}")
        lines.append(f"  {name}: {{{', '.join(f'{k}: {written(v)}' for k, v in keys.items())}}}")
    if unknown:
        lines.append("# Not understood, and left out:")
        lines += [f"#   {what}: {why}" for what, why in list(unknown.items())[:LISTED]]
    if len(unknown) > LISTED:
        lines.append(f"#   and {len(unknown) - LISTED} more")
    return [line.replace("\n", " ") for line in lines]


def written(value: Any) -> str:
    """A value in YAML's flow style; text is quoted unless it is one plain word."""
    if isinstance(value, bool) or value is None or not isinstance(value, str | list | dict):
        return json.dumps(value)
    if isinstance(value, list):
        return f"[{', '.join(map(written, value))}]"
    if isinstance(value, dict):
        return f"{{{', '.join(f'{key}: {written(part)}' for key, part in value.items())}}}"
    is_word = re.fullmatch(r"[A-Za-z0-9_./][A-Za-z0-9_./-]*( [A-Za-z0-9_./-]+)*", value, flags=re.ASCII)
    return value if is_word and plain_value(value) == value else json.dumps(value, ensure_ascii=False)
