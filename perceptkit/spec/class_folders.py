"""Pictures in one folder per class: `ROOT/train/bird/any/name.jpg`, as torchvision's ImageFolder reads them."""

import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from perceptkit.errors import DataError
from perceptkit.spec.folder_files import PICTURES
from perceptkit.spec.templates import shown


def class_folders(folder: Path) -> list[str]:
    """The visible folders inside, sorted: the classes of one split; none where it is no folder."""
    if not folder.is_dir():
        return []
    return sorted(entry.name for entry in _visible(folder) if _is_folder(entry))


def pictures_of_class(folder: Path) -> list[Path]:
    """All visible pictures at any depth below one class's folder, sorted; links are followed, but in no circle.

    Raises DataError where a folder cannot be read.
    """
    return sorted(_pictures(folder, set()))


def _pictures(folder: Path, seen: set[str]) -> Iterator[Path]:
    real = os.path.realpath(folder)
    if real in seen:
        return
    seen.add(real)
    for entry in _visible(folder):
        if _is_folder(entry):
            yield from _pictures(Path(entry.path), seen)
        elif PurePosixPath(entry.name).suffix.lower() in PICTURES:
            yield Path(entry.path)


def _visible(folder: Path) -> list[os.DirEntry[str]]:
    try:
        return [entry for entry in os.scandir(folder) if not entry.name.startswith(".")]
    except OSError as error:
        raise DataError(f"{shown(folder)} cannot be read: {error.strerror}") from error


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False
