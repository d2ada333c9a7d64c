"""Where the members of a tar file lie, so that one is read without those before it.

A tar file has no table of contents: every header must be read once, some thousands of members a second. The result is
kept in the cache folder, some 30 bytes a member, by path, size and time of the file; a changed file is read anew.
"""

import hashlib
import json
import os
import tarfile
from pathlib import Path
from typing import NamedTuple

from perceptkit.errors import DataError
from perceptkit.spec.cache_folder import default_cache
from perceptkit.spec.templates import shown

FORMAT = 1
"""Of the files in the cache; another number makes them all anew."""
BLOCK = 512
"""Bytes that a tar file is a multiple of."""
COMPRESSED = {
    b"\x1f\x8b": ("gzip", "gunzip"),
    b"BZh": ("bzip2", "bunzip2"),
    b"\xfd7zXZ": ("xz", "unxz"),
    b"\x28\xb5\x2f\xfd": ("zstd", "unzstd"),
}


class Member(NamedTuple):
    """One file in a tar file."""

    name: str
    offset: int
    """Of its first byte."""
    size: int


def read_index(path: Path) -> list[Member]:
    """The regular files in a tar file, in their order; from the cache where it knows this version of it.

    Raises DataError that names the file and what to do, where it is missing, compressed, cut off or damaged.
    """
    try:
        state = path.stat()
    except OSError as error:
        raise DataError(f"{shown(path)} cannot be read: {error.strerror}") from error
    key = json.dumps([FORMAT, os.path.abspath(path), state.st_size, state.st_mtime_ns])
    kept = default_cache() / "shards" / f"{hashlib.sha256(key.encode()).hexdigest()[:32]}.json"
    try:
        return [
            Member(str(name), int(offset), int(size)) for name, offset, size in json.loads(kept.read_text())
        ]
    except (OSError, ValueError, TypeError):  # not there, or damaged
        members = _headers(path, state.st_size)
    try:
        kept.parent.mkdir(parents=True, exist_ok=True)
        unfinished = kept.with_suffix(f".{os.getpid()}")
        unfinished.write_text(json.dumps(members))
        unfinished.replace(kept)
    except OSError:
        pass  # without a cache the next process reads the headers again, and nothing else changes
    return members


def read_member(path: Path, member: Member) -> bytes:
    """The bytes of one member. Raises DataError without the path."""
    try:
        with path.open("rb") as file:
            file.seek(member.offset)
            content = file.read(member.size)
    except OSError as error:
        raise DataError(f"cannot be read: {error.strerror}") from error
    if len(content) < member.size:
        raise DataError("cannot be read: the file was cut off after the run began")
    return content


def _headers(path: Path, size: int) -> list[Member]:
    where = shown(path)
    with path.open("rb") as file:
        start = file.read(8)
    for magic, (name, command) in COMPRESSED.items():
        if start.startswith(magic):
            raise DataError(
                f"{where} is compressed ({name}); members are read by their place, so undo it: {command} {where} "
                "(pictures are compressed by themselves)"
            )
    found: list[Member] = []
    end = 0
    try:
        with tarfile.open(path, "r:") as tar:
            while (member := tar.next()) is not None:
                tar.members = []  # type: ignore[attr-defined]  # or tarfile would keep them all
                end = tar.offset
                if member.issparse():
                    raise DataError(f"{where}: {member.name} is sparse; write the file anew without --sparse")
                if member.isreg():
                    found.append(Member(member.name, member.offset_data, member.size))
    except (tarfile.TarError, OSError, ValueError, EOFError) as error:
        raise DataError(f"{where} is damaged{_after(found)} ({error}); copy or make it again") from error
    with path.open("rb") as file:
        file.seek(end)
        mark = file.read(BLOCK)
    if mark != bytes(BLOCK):  # a tar file ends in zeros; tarfile itself takes anything for the end
        what = "is cut off" if len(mark) < BLOCK or end > size else "is damaged"
        raise DataError(f"{where} {what}{_after(found)}; copy or make it again")
    return found


def _after(found: list[Member]) -> str:
    return f" in {found[-1].name} or after it" if found else ""
