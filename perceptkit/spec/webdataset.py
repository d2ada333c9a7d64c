"""`source: webdataset`: tar files of pictures and their labels, as the webdataset package writes them.

    ROOT/train-000000.tar:   0000.jpg  0000.seg.png  0000.cls  0000.json  0001.jpg  0001.cls  ...

What comes before the first dot of a name, folders included, is the key of a sample, the rest says what the member is:
its ending, in lower case. Members of one key lie together. `__name__` files and what is no regular file are left out.
All of this is as in the package's own `group_by_keys` (tests compare both); but that reads a shard from start to end,
and an order that follows from (seed, epoch, index) needs every sample by itself. Nothing is ever unpacked.

In memory: 16 bytes a member and the keys, about 200 bytes a sample of two members.
"""

import json
import re
from array import array
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Any

from perceptkit.errors import DataError
from perceptkit.spec.packed_files import packed_files
from perceptkit.spec.tar_index import Member, read_index, read_member
from perceptkit.spec.tasks_file import Split, TaskBase, WebDatasetData
from perceptkit.spec.templates import shown

ARRAYS = ("png", "npy")
"""Last parts of endings of label maps."""
_META = re.compile(r"__[^/]*__($|/)")


class Shards:
    """The samples of one split, in the order of the shards and of their members.

    Args:
        files: tar files.
        images: endings of a picture, the first that is there.

    Raises DataError that names the shard, and the key that is not as it should be.
    """

    def __init__(self, files: Sequence[Path], images: Sequence[str]) -> None:
        self.files, self.images = list(files), images
        self.keys: list[str] = []
        self._shard = array("l")
        self._place: dict[str, array[int]] = {}
        """By ending: offset and size of the member of each sample, -1 and -1 without."""
        for number, file in enumerate(self.files):
            for key, members in samples(file, read_index(file)):
                for ending, member in members.items():
                    places = self._place.setdefault(ending, array("q"))
                    places.extend([-1] * (2 * len(self.keys) - len(places)))
                    places.extend((member.offset, member.size))
                self.keys.append(key)
                self._shard.append(number)
        for places in self._place.values():
            places.extend([-1] * (2 * len(self.keys) - len(places)))

    @property
    def endings(self) -> list[str]:
        """All that occur."""
        return list(self._place)

    @property
    def ids(self) -> list[str]:
        """`SHARD/KEY`: two shards may have the same key."""
        return [f"{self.file(i).stem}/{key}" for i, key in enumerate(self.keys)]

    def file(self, index: int) -> Path:
        """The shard of a sample."""
        return self.files[self._shard[index]]

    def where(self, index: int, ending: str = "") -> str:
        """A sample in a message, or one of its members."""
        return f"{shown(self.file(index))}: {self.keys[index]}{f'.{ending}' if ending else ''}"

    def has(self, index: int, ending: str) -> bool:
        """Whether a sample has a member."""
        return ending in self._place and self._place[ending][2 * index] >= 0

    def size(self, index: int, ending: str) -> int:
        """Bytes of a member."""
        return self._place[ending][2 * index + 1]

    def read(self, index: int, ending: str) -> bytes:
        """The bytes of a member. Raises DataError that names it."""
        offset, size = self._place[ending][2 * index : 2 * index + 2]
        try:
            return read_member(self.file(index), Member("", offset, size))
        except DataError as error:
            raise DataError(f"{self.where(index, ending)} {error}") from error

    def picture_ending(self, index: int) -> str:
        """The ending of a sample's picture. Raises DataError where it has none."""
        found = next((ending for ending in self.images if self.has(index, ending)), None)
        if found is None:
            has = ", ".join(ending for ending in self.endings if self.has(index, ending))
            wanted = " or ".join(self.images)
            raise DataError(
                f"{self.where(index)} has no picture ({wanted}), only {has}; data.image names its ending"
            )
        return found

    def picture(self, index: int) -> bytes:
        """The bytes of a sample's picture. Raises DataError that names the key."""
        return self.read(index, self.picture_ending(index))

    def picture_size(self, index: int) -> int | None:
        """How many bytes those are; None where there is no picture."""
        ending = next((ending for ending in self.images if self.has(index, ending)), None)
        return None if ending is None else self.size(index, ending)

    def picture_where(self, index: int) -> str:
        """The picture in a message."""
        ending = next((ending for ending in self.images if self.has(index, ending)), "")
        return self.where(index, ending)

    def label_where(self, index: int, task: str, spec: TaskBase) -> str:
        """A task's label in a message."""
        ending, field = member_of(spec)
        return self.where(index, ending) + (f", {field}" if field else "")

    def stored(self, index: int, task: str, spec: TaskBase) -> Any:
        """A task's label as it is stored: bytes of a .png or .npy, what JSON says, or else text; None without one.

        Raises DataError that names the member.
        """
        ending, field = member_of(spec)
        if not self.has(index, ending):
            return None
        content = self.read(index, ending)
        last = ending.rpartition(".")[2]
        if last in ARRAYS:
            return content
        where = self.where(index, ending)
        try:
            text = content.decode("utf-8-sig").strip()
            value = json.loads(text) if last == "json" else text
        except (ValueError, RecursionError) as error:
            what = "JSON" if last == "json" else "UTF-8 text"
            raise DataError(f"{where} is not {what}: {error}") from error
        if field is None:
            return value
        if not isinstance(value, dict):
            raise DataError(f"{where} is not a mapping of fields, so it has no '{field}'")
        return value.get(field)

    def all_stored(self, task: str, spec: TaskBase) -> Iterator[Any]:
        """The labels of all samples."""
        return (self.stored(i, task, spec) for i in range(len(self.keys)))

    def labelled(self, task: str, spec: TaskBase) -> list[bool]:
        """Whether each sample has a label of a task; of the fields of a JSON file all are read."""
        ending, field = member_of(spec)
        if field is None:
            return [self.has(i, ending) for i in range(len(self.keys))]
        return [stored is not None for stored in self.all_stored(task, spec)]

    def class_names(self, task: str, spec: TaskBase) -> list[str] | None:
        """None: shards have no names of classes."""
        return None


def samples(file: Path, members: Sequence[Member]) -> Iterator[tuple[str, dict[str, Member]]]:
    """The samples of a shard: key, and members by ending.

    Raises DataError that names the shard and the key where a name leaves the shard, a member is there twice, or members
    of a key do not lie together.
    """
    where = shown(file)
    seen: set[str] = set()
    key = ""
    of_key: dict[str, Member] = {}
    for member in members:
        found = split_name(member.name)
        if found is None:
            continue
        path = PurePosixPath(member.name)
        if path.is_absolute() or ".." in path.parts:
            raise DataError(f"{where}: {member.name} leads out of the shard; keys are relative, without '..'")
        if found[0] != key:
            if of_key:
                yield key, of_key
            key, of_key = found[0], {}
            if key in seen:
                message = "occurs again after other keys; members of a key lie together: tar --sort=name"
                raise DataError(f"{where}: {key} {message}")
            seen.add(key)
        if found[1] in of_key:
            raise DataError(f"{where}: {key} has '{found[1]}' twice; give each sample a key of its own")
        of_key[found[1]] = member
    if of_key:
        yield key, of_key


def split_name(name: str) -> tuple[str, str] | None:
    """Key and ending of a member; None where it is no part of a sample.

    >>> split_name("a.b/0001.Seg.png")
    ('a.b/0001', 'seg.png')
    """
    folder, slash, base = name.rpartition("/")
    stem, dot, ending = base.partition(".")
    if not stem or not dot or _META.match(name):
        return None
    return folder + slash + stem, ending.lower()


def open_shards(data: WebDatasetData, split: Split) -> Shards:
    """All samples of a split; read once per process and version of the files.

    Raises DataError that names what is not as it should be.
    """
    files = shard_files(data, split)
    try:
        versions = tuple((file, file.stat().st_mtime_ns) for file in files)
    except OSError as error:
        raise DataError(f"{shown(Path(error.filename))} cannot be read: {error.strerror}") from error
    return _open(versions, tuple(images_of(data)))


@lru_cache(maxsize=6)
def _open(versions: tuple[tuple[Path, int], ...], images: tuple[str, ...]) -> Shards:
    return Shards([file for file, _ in versions], images)


def shard_files(data: WebDatasetData, split: Split) -> list[Path]:
    """The shards of a split. Raises DataError where there are none."""
    pattern = data.shards[split] if isinstance(data.shards, dict) else data.shards
    return packed_files(data.root, pattern, data.splits.get(split, split))


def images_of(data: WebDatasetData) -> list[str]:
    """Endings of the pictures, as `image` lists them."""
    return [ending.strip().lower().lstrip(".") for ending in data.image.split(";") if ending.strip()]


def member_of(spec: TaskBase) -> tuple[str, str | None]:
    """The ending of a task's member, and the field in it where `target` is `json:FIELD`."""
    ending, colon, name = str(spec.target).partition(":")
    return ending.lower().lstrip("."), name if colon else None
