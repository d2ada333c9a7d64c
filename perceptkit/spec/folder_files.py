"""The files of a folder, sorted by the templates that could stand for them: `{split}/rgb/{id}.png`.

Splits are known by their names, in either nesting (`train/rgb/1.png`, `rgb/train/1.png`) and in the names of
CSV and JSON files. An id is a file's name without its ending, or also without words that tell files of one
folder apart (`0001_rgb.png`, `depth_0001.png`): each way is a candidate of its own.
"""

import os
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from perceptkit.spec.tasks_file import Split

SPLIT_WORDS: dict[Split, tuple[str, ...]] = {
    "train": ("train", "training"),
    "val": ("val", "valid", "validation", "dev"),
    "test": ("test", "testing"),
}
PICTURES = (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".tiff", ".ppm")
TABLES = (".csv", ".json")
ENDINGS = (*PICTURES, ".npy", *TABLES)
_NAME = re.compile(r"(?P<before>[A-Za-z]+[_.-])?(?P<id>.*?\d)(?P<after>[_.-][A-Za-z][\w.-]*)?")


@dataclass(frozen=True)
class FileSet:
    """The files that one template stands for."""

    template: str
    files: dict[str, dict[str, Path]]
    """By the folder of their split ('' where the template has none) and their id ('' where it has none)."""

    @property
    def paths(self) -> set[Path]:
        """All of them."""
        return {path for of_split in self.files.values() for path in of_split.values()}

    def matching(self, pictures: "FileSet") -> dict[tuple[str, str], Path]:
        """The files whose id is that of a picture, by the picture's split and id, in their order."""
        return {
            (split, name): self.files[own][name]
            for split, of_split in pictures.files.items()
            for own in (split, "")
            if own in self.files
            for name in sorted(of_split)
            if name in self.files[own]
        }


def split_of(name: str) -> Split | None:
    """The split that a folder is called after.

    >>> split_of("Validation")
    'val'
    """
    return next((split for split, words in SPLIT_WORDS.items() if name.lower() in words), None)


def walk(root: Path) -> Iterator[Path]:
    """All visible files below the root whose endings mean something; follows links, but in no circle."""
    seen = set()
    for folder, subfolders, names in os.walk(root, followlinks=True):
        if os.path.realpath(folder) in seen:
            subfolders.clear()
            continue
        seen.add(os.path.realpath(folder))
        subfolders[:] = sorted(name for name in subfolders if not name.startswith("."))
        for name in sorted(names):
            if not name.startswith(".") and PurePosixPath(name).suffix.lower() in ENDINGS:
                yield Path(folder, name)


def find_sets(root: Path, paths: Iterable[Path]) -> list[FileSet]:
    """Every template that stands for some of the files; most files belong to several candidates."""
    sets: dict[str, dict[str, dict[str, Path]]] = defaultdict(lambda: defaultdict(dict))
    for path in paths:
        relative = PurePosixPath(path.relative_to(root).as_posix())
        if not str(relative).isprintable() or re.search("[{}]", str(relative)):
            continue  # cannot be written as a template
        split, folders = _without_split(relative.parent.parts)
        stem, ending = relative.stem, relative.suffix
        if ending.lower() in TABLES:
            parts = re.split(r"([_.-])", stem)
            word = next((part for part in parts if split_of(part)), "") if not split else ""
            named = "".join("{split}" if part == (split or word) else part for part in parts)
            sets["/".join([*folders, named + ending])][split or word][""] = path
        for before, name, after in _readings(stem):
            sets["/".join([*folders, f"{before}{{id}}{after}{ending}"])][split][name] = path
    return [FileSet(template, dict(files)) for template, files in sets.items()]


def _without_split(folders: tuple[str, ...]) -> tuple[str, list[str]]:
    """The folder that names a split, or '', and the path with `{split}` in its place."""
    named = next((folder for folder in folders if split_of(folder)), "")
    return named, ["{split}" if named and folder == named else folder for folder in folders]


def _readings(stem: str) -> list[tuple[str, str, str]]:
    """What may stand before, in and after the id."""
    found = [("", stem, "")]
    if match := _NAME.fullmatch(stem):
        before, name, after = match["before"] or "", match["id"], match["after"] or ""
        found += [("", before + name, after), (before, name, after)]
    return found
