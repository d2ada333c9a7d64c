"""`perceptkit init`: a tasks file to start from, as a template or as a proposal from a folder.

Whatever was guessed says so beside it, and what was not understood is listed at the end of the file.
"""

import os
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from perceptkit.errors import DataError, PerceptkitError, SpecError
from perceptkit.spec.check_labels import read_array
from perceptkit.spec.folder_files import PICTURES, FileSet, find_sets, split_of, walk
from perceptkit.spec.json_file import read_json
from perceptkit.spec.label_guess import Guess, Names, NotGuessed, called, guess, words_of
from perceptkit.spec.scaffold_coco import coco_lines
from perceptkit.spec.scaffold_csv import csv_lines
from perceptkit.spec.scaffold_layouts import layout_lines
from perceptkit.spec.scaffold_listed import listed_lines
from perceptkit.spec.scaffold_packed import packed_lines
from perceptkit.spec.scaffold_text import LISTED, PICTURE_WORDS, opening, size_line, stand_ins, written
from perceptkit.spec.tasks_file import SPLITS, Split

CLASS_FILES = ("classes.txt", "class_names.txt", "labels.txt", "names.txt")
NAME_KEYS = {
    "classes": ("classes", "class_names", "labels", "categories"),
    "kinds": ("kinds", "keypoint_kinds"),
}
FAMILIES = (layout_lines, coco_lines, listed_lines, csv_lines)
"""Data sets with files that are known by their names, the surest first; each gives the lines below `data:`, or None."""
DERIVES = ("segmentation", "depth", "normals")

TEMPLATE = """\
# What to predict, and from which data. Fill in `root`, keep the tasks you have labels for, then:
#
#   perceptkit check {file}        are the files what this says they are?
#   perceptkit train {file}
#
# `perceptkit schema tasks` lists every key; `perceptkit init --data DIR` proposes this file from a folder.
version: 1
name: my_tasks                           # of the run folder: runs/my_tasks
data:
  source: folder
  root: path/to/data                     # relative to this file
  image: "images/{split}/{id}.png"       # {split}: train, val, test; {id}: the name of a picture
  size: [256, 320]                       # network input, [height, width] in pixels
  # splits: {train: train, val: val, test: val}   # folders, where they are called otherwise or one is missing
tasks:                                   # names of your own; they become the names of network outputs
  seg:                                   # one class id per pixel, PNG or .npy
    type: segmentation
    target: "seg/{split}/{id}.png"
    classes: 12                          # a number, a list of names, or a file with one name per line
    ignore_index: 255
  # depth:                               # 16-bit PNG or .npy; 0 is unknown
  #   type: depth
  #   target: "depth/{split}/{id}.png"
  #   scale: 1000                        # stored value that means one metre
  # normals:                             # n = 2 * value / 255 - 1, or floats in .npy
  #   type: normals
  #   target: "normals/{split}/{id}.png"
  #   frame: camera                      # x right, y down, z forward; or opengl
  # corners:                             # JSON: {"left": [x, y, v], ...}; v 0 unlabelled, 1 hidden, 2 visible
  #   type: keypoints
  #   target: "keypoints/{split}/{id}.json"
  #   names: [left, right]               # or kinds: [...] of points that occur often, [[x, y, kind], ...]
  #   flip_pairs: [[left, right]]
  # edges:                               # 1 on edges; or instead of target, derive: [seg]
  #   type: edges
  #   target: "edges/{split}/{id}.png"
  # room:                                # CSV: id,label
  #   type: classification
  #   target: "room.csv"
  #   classes: [kitchen, bath]
  # place:                               # CSV: id,label; a vector per picture, near those of the same label
  #   type: embedding
  #   target: "place.csv"
  #   dims: 64
"""


def scaffold(data_dir: Path | None, out_dir: Path) -> str:
    """The text of a tasks file.

    Args:
        data_dir: what to propose tasks from; None gives a template to fill in.
        out_dir: the folder the file will lie in; its paths start there.

    Raises:
        SpecError: there is no such folder. DataError: it holds no picture.
    """
    if data_dir is None:
        return TEMPLATE.replace("{file}", "tasks.yaml")
    if not data_dir.is_dir():
        raise SpecError(f"--data: {data_dir} is {'a file' if data_dir.exists() else 'no folder'}")
    root = os.path.relpath(data_dir, out_dir)
    for lines_of in FAMILIES:
        if (lines := lines_of(data_dir, root)) is not None:
            return "\n".join([*opening(data_dir, root), *lines]) + "\n"
    sets = find_sets(data_dir, walk(data_dir))
    pictures = find_pictures(sets)
    if pictures is None and (lines := packed_lines(data_dir, root)) is not None:
        return "\n".join([*opening(data_dir, root), *lines]) + "\n"
    if pictures is None:
        raise DataError(
            f"{data_dir} holds no pictures: no readable {', '.join(PICTURES)} with three channels"
        )
    proposal = Proposal(data_dir, root, pictures)
    proposal.add_tasks(sets)
    return proposal.text()


def find_pictures(sets: Sequence[FileSet]) -> FileSet | None:
    """The set that is most likely the network's input."""
    best: tuple[tuple[Any, ...], FileSet] | None = None
    for candidate in sets:
        if "{id}" not in candidate.template or not candidate.template.lower().endswith(PICTURES):
            continue
        try:
            values = read_array(min(candidate.paths))
        except PerceptkitError:
            continue
        if values.dtype != np.uint8 or values.shape[2:] not in ((), (3,), (4,)):
            continue
        words = words_of(candidate.template)
        score = (
            "{split}" in candidate.template,
            not called(candidate.template),
            any(word in spoken for spoken in words for word in PICTURE_WORDS),
            values.ndim == 3,
            sum(len(other.matching(candidate)) for other in sets if is_beside(other, candidate)),
            len(candidate.paths),
            -len(candidate.template),
        )
        if best is None or score > best[0]:
            best = score, candidate
    return best[1] if best else None


def is_beside(other: FileSet, candidate: FileSet) -> bool:
    """Whether these are other files, that could be the labels of the candidate."""
    return "{id}" in other.template and not other.paths & candidate.paths


@dataclass
class Proposal:
    """A tasks file in the making."""

    folder: Path
    root: str
    pictures: FileSet
    tasks: dict[str, tuple[FileSet, Guess]] = field(default_factory=dict)
    unknown: dict[str, str] = field(default_factory=dict)
    """Why, by the template of files that were not understood."""

    def add_tasks(self, sets: Sequence[FileSet]) -> None:
        """Guesses the task of every set of files that belong to the pictures."""
        taken = set(self.pictures.paths)
        with_ids = [(s, set(s.matching(self.pictures).values())) for s in sets if "{id}" in s.template]
        with_ids.sort(key=lambda pair: (-len(pair[1]), len(pair[0].template)))
        named = set().union(*(paths for _, paths in with_ids))
        others = [s for s in sets if "{id}" not in s.template and not s.paths & (named | taken)]
        names = find_names(self.folder, others)
        for labels, paths in [*with_ids, *((s, s.paths) for s in others)]:
            if not paths or paths & taken:
                continue
            taken |= labels.paths if "{id}" in labels.template else paths
            try:
                self.tasks[self.free_name(labels.template)] = labels, guess(labels, self.pictures, names)
            except NotGuessed as reason:
                if labels.template not in names.sources:
                    self.unknown[labels.template] = str(reason)
        strangers = Counter(
            str(PurePosixPath(path.relative_to(self.folder).parent / f"*{path.suffix}").as_posix())
            for path in set().union(*(s.paths for s in sets)) - taken
        )
        for pattern, count in sorted(strangers.items()):
            self.unknown[pattern] = f"{count} {'file' if count == 1 else 'files'}; no picture has this name"

    def free_name(self, template: str) -> str:
        """A name for the task: the last word that tells it from other tasks."""
        path = PurePosixPath(template)
        stem = re.sub(r"\{(split|id)\}", "", path.stem).strip("_.-")
        folders = [part for part in path.parent.parts if part != "{split}"]
        name = re.sub(r"\W+", "_", stem or (folders[-1] if folders else ""), flags=re.ASCII).strip("_")
        name = name if re.match("[A-Za-z]", name) else f"task_{name}".rstrip("_")
        name = "image_labels" if name == "image" else name
        number = next(n for n in range(1, 10**6) if (name if n == 1 else f"{name}{n}") not in self.tasks)
        return name if number == 1 else f"{name}{number}"

    def text(self) -> str:
        """The file."""
        lines = [
            *opening(self.folder, self.root),
            "  source: folder",
            f"  root: {written(self.root)}  # relative to this file",
            f"  image: {written(self.pictures.template)}  # ? {self.counts(self.pictures)}",
            size_line(self.pictures.paths),
            *self.split_lines(),
            "tasks:" if self.tasks else "tasks: {}  # to fill in: no labels were found",
        ]
        for name, (labels, found) in self.tasks.items():
            keys = {"type": found.type, "target": labels.template, **found.keys}
            lines.append(f"  # ? {found.why}; labels: {self.counts(labels)}")
            lines.append(f"  {name}: {{{', '.join(f'{k}: {written(v)}' for k, v in keys.items())}}}")
        sources = [name for name, (_, found) in self.tasks.items() if found.type in DERIVES]
        if sources and not any(found.type == "edges" for _, found in self.tasks.values()):
            lines.append(
                "  # edges can be made of the other labels: class boundaries, depth jumps and creases"
            )
            lines.append(f"  # edges: {{type: edges, derive: {written(sources)}}}")
        if self.unknown:
            lines.append("# Not understood, and left out:")
            lines += [f"#   {template}: {why}" for template, why in list(self.unknown.items())[:LISTED]]
        if len(self.unknown) > LISTED:
            lines.append(f"#   and {len(self.unknown) - LISTED} more")
        return "\n".join(line.replace("\n", " ") for line in lines) + "\n"

    def counts(self, files: FileSet) -> str:
        """How many files each split has; of labels, how many pictures have one."""
        if "{id}" not in files.template:
            return f"in {len(files.paths)} {'file' if len(files.paths) == 1 else 'files'}"
        matching = Counter(split for split, _ in files.matching(self.pictures))
        order = sorted(matching, key=lambda split: SPLITS.index(split_of(split) or "test"))
        return ", ".join(f"{split or 'no split'} {matching[split]}" for split in order)

    def split_lines(self) -> list[str]:
        """`splits`, where folders are not called train, val and test."""
        folders: dict[Split, str] = {}
        for folder in sorted(self.pictures.files):
            if (split := split_of(folder)) is not None:
                folders.setdefault(split, folder)
        if "{split}" not in self.pictures.template:
            return [
                "  # to do: image must hold {split}. Put the pictures into folders train, val and test,",
                "  # and the labels too",
            ]
        chosen, note = stand_ins(folders)
        if all(chosen.get(split) == split for split in SPLITS):
            return []
        return [f"  splits: {written(chosen)}{note}"]


def find_names(folder: Path, others: Iterable[FileSet]) -> Names:
    """Names of classes and kinds in a text file or in lists of a JSON file."""
    found: dict[str, list[str]] = {}
    sources = []
    for name in CLASS_FILES:
        if (folder / name).is_file():
            lines = (folder / name).read_text(encoding="utf-8", errors="replace").splitlines()
            found["classes"] = [line.strip() for line in lines if line.strip()]
            sources.append(name)
            break
    for files in others:
        if not files.template.lower().endswith(".json"):
            continue
        try:
            content = read_json(min(files.paths))
        except PerceptkitError:
            continue
        for kind, keys in NAME_KEYS.items():
            for key in keys if isinstance(content, dict) else ():
                names = content.get(key)
                is_list = isinstance(names, list) and names and all(isinstance(n, str) for n in names)
                if is_list and kind not in found and len(set(names)) == len(names):
                    found[kind] = names
                    sources.append(files.template)
    return Names(found.get("classes", ()), found.get("kinds", ()), tuple(dict.fromkeys(sources)))
