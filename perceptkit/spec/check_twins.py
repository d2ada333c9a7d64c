"""Pictures that are there twice: one id twice in a split, one file's bytes in two splits or in two sources."""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import NamedTuple

from perceptkit.errors import DataError
from perceptkit.spec.check_labels import Finding
from perceptkit.spec.check_report import CheckReport
from perceptkit.spec.scan import scan
from perceptkit.spec.several import SEPARATOR
from perceptkit.spec.tasks_file import SPLITS, Split

HEAD = 4096
"""Bytes that tell most files of one size apart."""
BLOCK = 2**20
"""Bytes that are read at a time."""


class Part(NamedTuple):
    """Where a picture lies that is no file of its own."""

    where: str
    """In a message."""
    size: int
    read: Callable[[], bytes]
    """Raises DataError."""


class Picture(NamedTuple):
    """A picture of a split, not opened."""

    id: str
    path: Path
    part: Part | None = None
    """Of that file; None for all of it."""
    source: str = ""
    """Its name, where there are several."""


Pictures = Mapping[Split, Sequence[Picture]]
"""By split, in the order of the source."""


def check_twins(pictures: Pictures, root: Path, report: CheckReport, progress: bool) -> None:
    """Warns of each id that a split holds twice, and of each picture that is in two splits."""
    for split, of_split in pictures.items():
        for image_id, count in Counter(picture.id for picture in of_split).items():
            if count > 1:
                # not in the fix list, which would take the first of them out too
                message = f"is {count} times in {split}; keep one of them in the list of the data"
                report.add(f"the picture '{image_id}'", [Finding(message, is_problem=False)])
    for (split, picture), (other_split, other) in twins(pictures, progress):
        where = _where(picture, root)
        message = f"('{picture.id}' of {split}) is '{other.id}' of {other_split} too, byte for byte"
        also = "" if _is_same(picture, other) else f" ({_where(other, root)})"
        report.add(where, [Finding(message + also, is_problem=False)])
        report.note_bad(split, picture.id, f"is '{other.id}' of {other_split} too{also}")


def twins(
    pictures: Pictures, progress: bool = False
) -> Iterator[tuple[tuple[Split, Picture], tuple[Split, Picture]]]:
    """Pairs of one picture's bytes in two splits: what to drop, and the one in a later split, which measures.

    Only files of one size are read, and only those whose first bytes are alike as a whole. One file that serves
    val and test is declared to do so, and is no pair.
    """
    members = [(split, picture) for split in SPLITS for picture in pictures.get(split, ())]
    for group in _equal(members, lambda member: member[0], progress):
        last = max((split for split, _ in group), key=SPLITS.index)
        measured = [picture for split, picture in group if split == last]
        for split, picture in group:
            declared = split == "val" and any(_is_same(picture, other) for other in measured)
            if split != last and not declared:
                yield (split, picture), (last, measured[0])


def check_twins_of_sources(
    pictures: Mapping[str, Pictures],
    tasks: Mapping[str, Collection[str]],
    roots: Mapping[str, Path],
    report: CheckReport,
    progress: bool = False,
) -> None:
    """Warns of each picture that two sources have in two splits, and of how many two have in one split with labels of
    the same task. With labels of different tasks a picture may well be in both.

    Args:
        pictures: of each source.
        tasks: that have labels in each source.
        roots: of each source.
        report: of all sources.
        progress: show bars.
    """
    members = [
        (split, picture._replace(source=name))
        for name, of_source in pictures.items()
        for split in SPLITS
        for picture in of_source.get(split, ())
    ]
    twice: Counter[tuple[Split, str, str]] = Counter()
    for group in _equal(members, lambda member: member[1].source, progress):
        last = max((split for split, _ in group), key=SPLITS.index)
        for split, picture in group:
            others = [other for of, other in group if of == last and other.source != picture.source]
            declared = split == "val" and any(_is_same(picture, other) for other in others)
            if split != last and others and not declared:
                _warn_of_pair(split, picture, last, others[0], roots, report)
        for split in SPLITS:
            names = dict.fromkeys(picture.source for of, picture in group if of == split)
            twice.update((split, *pair) for pair in combinations(names, 2))
    for (split, first, second), count in twice.items():
        if both := [task for task in tasks[first] if task in tasks[second]]:
            noun = "picture is" if count == 1 else "pictures are"
            message = (
                f"{count} {noun} in {first} too, byte for byte, and both have labels of {', '.join(both)}"
            )
            report.add(f"{second}: {split}:", [Finding(message, is_problem=False)])


def _warn_of_pair(
    split: Split,
    picture: Picture,
    last: Split,
    other: Picture,
    roots: Mapping[str, Path],
    report: CheckReport,
) -> None:
    """A picture of one source and its twin in another, which measures."""
    where = f"{picture.source}: {_where(picture, roots[picture.source])}"
    also = f"{other.source}: {_where(other, roots[other.source])}"
    said = f"is '{other.source}{SEPARATOR}{other.id}' of {last} too"
    message = f"('{picture.id}' of {split}) {said}, byte for byte ({also})"
    report.add(where, [Finding(message, is_problem=False)])
    report.note_bad(split, f"{picture.source}{SEPARATOR}{picture.id}", f"{said} ({also})")


Member = tuple[Split, Picture]


def _equal(members: Sequence[Member], part_of: Callable[[Member], str], progress: bool) -> list[list[Member]]:
    """Groups of the same bytes in more than one part, in the members' order."""
    place = {member: i for i, member in enumerate(members)}
    of_size = _flat(_shared(members, scan(members, _size, "looking for equal pictures", progress), part_of))
    alike = _flat(_shared(of_size, scan(of_size, _head, "looking for equal pictures", progress), part_of))
    equal = _shared(alike, scan(alike, _whole, "comparing pictures", progress), part_of)
    return sorted(equal, key=lambda group: place[group[0]])


def _shared(
    members: Sequence[Member], keys: Sequence[object], part_of: Callable[[Member], str]
) -> list[list[Member]]:
    """Those of one key that are in more than one part; a key of None is nobody's twin."""
    groups: dict[object, list[Member]] = defaultdict(list)
    for member, key in zip(members, keys, strict=True):
        if key is not None:
            groups[key].append(member)
    return [group for group in groups.values() if len(set(map(part_of, group))) > 1]


def _size(member: tuple[Split, Picture]) -> int | None:
    """Bytes of the file; None where it holds none or is not there, which is another finding."""
    if (part := member[1].part) is not None:
        return part.size or None
    try:
        return member[1].path.stat().st_size or None
    except OSError:
        return None


def _head(member: tuple[Split, Picture]) -> bytes | None:
    if (part := member[1].part) is not None:
        content = _content(part)
        return None if content is None else content[:HEAD]
    try:
        with member[1].path.open("rb") as file:
            return file.read(HEAD)
    except OSError:
        return None


def _whole(member: tuple[Split, Picture]) -> bytes | None:
    if (part := member[1].part) is not None:
        content = _content(part)
        return None if content is None else hashlib.sha256(content).digest()
    digest = hashlib.sha256()
    try:
        with member[1].path.open("rb") as file:
            while block := file.read(BLOCK):
                digest.update(block)
    except OSError:
        return None
    return digest.digest()


def _content(part: Part) -> bytes | None:
    try:
        return part.read()
    except DataError:
        return None


def _is_same(picture: Picture, other: Picture) -> bool:
    """Whether two are one place on disk."""
    parts = [None if one.part is None else one.part.where for one in (picture, other)]
    return picture.path == other.path and parts[0] == parts[1]


def _where(picture: Picture, root: Path) -> str:
    return _below(picture.path, root) if picture.part is None else picture.part.where


def _flat(groups: Sequence[Sequence[tuple[Split, Picture]]]) -> list[tuple[Split, Picture]]:
    return [member for group in groups for member in group]


def _below(path: Path, root: Path) -> str:
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else str(path)
