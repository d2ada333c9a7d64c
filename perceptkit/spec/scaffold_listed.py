"""`perceptkit init` for folders of classes and for the Visual Decathlon."""

import re
from pathlib import Path

from perceptkit.errors import PerceptkitError
from perceptkit.spec.check_labels import read_array
from perceptkit.spec.class_folders import class_folders, pictures_of_class
from perceptkit.spec.decathlon import domains
from perceptkit.spec.folder_files import split_of
from perceptkit.spec.label_guess import called, words_of
from perceptkit.spec.scaffold_text import PICTURE_WORDS, size_line, stand_ins, written
from perceptkit.spec.tasks_file import SPLITS, Split


def listed_lines(folder: Path, root: str) -> list[str] | None:
    """The lines below `data:` for class folders or the decathlon; None for any other layout.

    Args:
        folder: what to propose it from.
        root: the same, as the file will name it.
    """
    return _decathlon(folder, root) or _class_folders(folder, root)


def _decathlon(folder: Path, root: str) -> list[str] | None:
    found = domains(folder)
    if not found or not (folder / "data").is_dir():
        return None
    others = f"  # ? there are {', '.join(found)}" if len(found) > 1 else ""
    return [
        "  source: decathlon",
        f"  root: {written(root)}  # relative to this file",
        f"  domain: {written(found[0])}{others}",
        "  size: [72, 72]  # [height, width]",
        "tasks:",
        "  label: {type: classification}  # classes and labels are those of the annotation files",
    ]


def _class_folders(folder: Path, root: str) -> list[str] | None:
    folders: dict[Split, str] = {}
    for name in class_folders(folder):
        if (split := split_of(name)) is not None:
            folders.setdefault(split, name)
    pictures = {split: _pictures(folder / name) for split, name in folders.items()}
    of_train = pictures.get("train", {})
    if len(of_train) < 2 or not all(set(of_split) <= set(of_train) for of_split in pictures.values()):
        return None
    if _are_parallel(of_train) or not _is_readable(of_train):
        return None
    chosen, note = stand_ins(folders)
    lines = ["  source: imagefolder", f"  root: {written(root)}  # relative to this file"]
    lines.append(size_line(path for paths in of_train.values() for path in paths))
    if any(chosen.get(split) != split for split in SPLITS):
        lines.append(f"  splits: {written(chosen)}{note}")
    counts = ", ".join(
        f"{split} {sum(map(len, pictures[split].values()))}" for split in SPLITS if split in pictures
    )
    lines.append("tasks:")
    lines.append(f"  # ? {len(of_train)} folders of classes; labels: {counts}")
    lines.append("  label: {type: classification}")
    return lines


def _pictures(folder: Path) -> dict[str, list[Path]]:
    """By class; without the classes that have none."""
    found = {name: pictures_of_class(folder / name) for name in class_folders(folder)}
    return {name: paths for name, paths in found.items() if paths}


def _are_parallel(pictures: dict[str, list[Path]]) -> bool:
    """Whether these are pictures and their label maps, `rgb/0001.png` and `seg/0001.png`: equal numbers, and a name
    that says so."""
    numbers = {frozenset(re.sub(r"\D", "", path.stem) for path in paths) for paths in pictures.values()}
    spoken = [word for name in pictures for word in words_of(name)]
    is_named = any(map(called, pictures)) or any(word in said for said in spoken for word in PICTURE_WORDS)
    return len(numbers) == 1 and is_named


def _is_readable(pictures: dict[str, list[Path]]) -> bool:
    """Whether each class begins with a picture of 8 bits; label maps may have more."""
    try:
        return all(read_array(paths[0]).dtype == "uint8" for paths in pictures.values())
    except PerceptkitError:
        return False
