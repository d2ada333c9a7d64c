"""Paths in messages, and templates of files on disk: `images/{split}/{id}.png`."""

import os
import re
from collections.abc import Iterator
from pathlib import Path

from perceptkit.errors import DataError
from perceptkit.spec.problems import closest

PLACEHOLDERS = ("split", "id")
_BRACES = re.compile(r"\{([^{}]*)\}")


def shown(path: Path) -> str:
    """A path in a message: relative to the working directory where it lies below."""
    try:
        return str(path.relative_to(Path.cwd()))
    except ValueError:
        return str(path)


def fill(template: str, split: str, image_id: str = "") -> str:
    """The template's path for one picture; `split` is the split's folder name.

    >>> fill("seg/{split}/{id}.png", "train", "0007")
    'seg/train/0007.png'
    """
    return template.replace("{split}", split).replace("{id}", image_id)


def image_ids(root: Path, template: str, split: str) -> list[str]:
    """The sorted ids of all files that match the template in one split's folder.

    An id is part of one folder or file name: it never holds a slash.
    """
    return sorted(set(_matches(root, template, split)))


def not_files(root: Path, template: str, split: str) -> dict[Path, str]:
    """What has a name of the template and is no file, and what it is instead: it is read as if it were not there."""
    return {path: _instead(path) for path, _ in _named(root, template, split) if not _is_file(path)}


def _instead(path: Path) -> str:
    if not path.is_symlink():
        return "a folder" if path.is_dir() else "no regular file"
    try:
        return "a link to a folder" if path.resolve(strict=True).is_dir() else "a link to no regular file"
    except (OSError, RuntimeError):  # nothing there, or a circle
        return "a link that leads nowhere"


def has_images(root: Path, template: str, split: str) -> bool:
    """Whether any file matches the template in one split's folder."""
    return next(_matches(root, template, split), None) is not None


def _matches(root: Path, template: str, split: str) -> Iterator[str]:
    for path, image_id in _named(root, template, split):
        if _is_file(path):
            refuse_name(path)
            yield image_id


def _named(root: Path, template: str, split: str) -> Iterator[tuple[Path, str]]:
    """Whatever has a name of the template, and the id in it."""
    pieces = fill(template, split, "{id}").split("{id}")
    once, *repeats = ["([^/]+?)", *["\\1"] * (len(pieces) - 2)] if len(pieces) > 1 else [""]
    pattern = re.escape(pieces[0])
    for joint, piece in zip([once, *repeats], pieces[1:], strict=False):
        pattern += joint + re.escape(piece)
    matcher = re.compile(pattern)
    star = "*".join(_glob_escape(piece) for piece in pieces)
    base, relative = (Path("/"), star.lstrip("/")) if star.startswith("/") else (root, star)
    prefix = "/" if star.startswith("/") else ""
    for path in base.glob(relative):
        match = matcher.fullmatch(prefix + path.relative_to(base).as_posix())
        if match and not match[1].startswith("."):
            yield path, match[1]


def refuse_name(path: Path) -> None:
    """Raises DataError for a file whose name cannot be written into reports, lists and tables."""
    if not path.name.isprintable():  # nor is what is no UTF-8
        raise DataError(
            f"{shown(path.parent)} holds a file called {ascii(os.fsencode(path.name))[2:-1]}, with characters that "
            "cannot be printed; rename it"
        )


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # a link to itself
        return False


def faults(template: str) -> list[str]:
    """What is wrong with the placeholders of a template."""
    found = []
    for name in _BRACES.findall(template):
        if name not in PLACEHOLDERS:
            match = closest(name, PLACEHOLDERS)
            hint = f"did you mean {{{match}}}?" if match else "templates know {split} and {id}"
            found.append(f"unknown placeholder {{{name}}}; {hint}")
    if "{" in _BRACES.sub("", template) or "}" in _BRACES.sub("", template):
        found.append("a brace without its partner; templates know {split} and {id}")
    return found


def _glob_escape(text: str) -> str:
    return re.sub(r"([*?\[])", r"[\1]", text)
