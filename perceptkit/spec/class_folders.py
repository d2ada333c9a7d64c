"""Pictures in one folder per class: `ROOT/train/bird/any/name.jpg`, as torchvision's ImageFolder reads them."""

import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from perceptkit.spec.folder_files import PICTURES


def class_folders(folder: Path) -> list[str]:
    """The visible folders inside, sorted: the classes of one split; none where it is no folder."""
    try:
        entries = list(os.scandir(folder))
    except OSError:
        return []
    return sorted(entry.name for entry in entries if entry.is_dir() and not entry.name.startswith("."))


def pictures_of_class(folder: Path) -> list[Path]:
    """All visible pictures at any depth below one class's folder, sorted; links are followed, but in no circle."""
    return sorted(_pictures(folder, set()))


def _pictures(folder: Path, seen: set[str]) -> Iterator[Path]:
    real = os.path.realpath(folder)
    if real in seen:
        return
    seen.add(real)
    for entry in os.scandir(folder):
        if entry.name.startswith("."):
            continue
        if entry.is_dir():
            yield from _pictures(Path(entry.path), seen)
        elif PurePosixPath(entry.name).suffix.lower() in PICTURES:
            yield Path(entry.path)
