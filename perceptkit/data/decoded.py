"""Sources that decode pictures; what is decoded can be kept for the next epoch, see cache.py."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from perceptkit.data.sample import Sample
from perceptkit.errors import DataError
from perceptkit.tasks.base import Task

MEND = "mend or replace the file, or leave such pictures out with data.on_bad: skip"
"""What to do about a file that stops a run."""


class Cache(Protocol):
    """Keeps decoded samples."""

    def get(self, index: int) -> Sample | None:
        """A sample that is kept; nobody may change its arrays."""

    def put(self, index: int, sample: Sample) -> None:
        """Keeps a sample, if there is room for it."""


class DecodedSource:
    """Samples by index; a source says what they are called (`ids`) and how one is read (`decode`)."""

    ids: Sequence[str]
    data: Any
    """Its declaration, with the size of the pictures; every kind has its own."""
    tasks: dict[str, Task]
    cuts: bool = False
    """Whether `decode` may leave out a part of a picture; then there is `decode_whole`."""
    cache: Cache | None = None
    """Where decoded samples are kept; None decodes each time."""

    def __init__(self, ids: Sequence[str]) -> None:
        self.ids = ids

    def __len__(self) -> int:
        return len(self.ids)

    def load(self, index: int, whole: bool = False) -> Sample:
        """The picture and every label, see `Source`. What nothing was cut from is not kept: it has no one size."""
        whole = whole and self.cuts
        cache = None if whole else self.cache
        if cache is not None and (kept := cache.get(index)) is not None:
            return kept
        try:
            sample = self.decode_whole(index) if whole else self.decode(index)
        except DataError as error:
            raise DataError(f"{error}; {MEND}") from error
        if cache is not None:
            cache.put(index, sample)
        return sample

    def decode(self, index: int) -> Sample:
        """Reads one sample from disk."""
        raise NotImplementedError

    def decode_whole(self, index: int) -> Sample:
        """The same before anything is cut off."""
        raise NotImplementedError

    def files(self, index: int) -> list[Path]:
        """The files that one sample is read from; some may not exist."""
        raise NotImplementedError

    def label(self, index: int, task: str) -> int:
        """The class or id of one sample by a task that has one per picture, -1 without; no picture is read."""
        raise NotImplementedError
