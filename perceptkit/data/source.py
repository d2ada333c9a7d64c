"""What every source of samples offers, and several of them one after the other."""

from collections.abc import Sequence
from typing import Protocol

from perceptkit.data.sample import Sample


class Source(Protocol):
    """A sequence of samples that can be loaded in any order, by any process."""

    @property
    def ids(self) -> Sequence[str]:
        """Names of the samples, in order."""

    def __len__(self) -> int: ...

    def load(self, index: int, whole: bool = False) -> Sample:
        """One sample at the network's size. Raises DataError that names the file.

        `whole`: where that size is a part of the picture, the picture that it is cut from, of at least that size: for
        who cuts out a part of its own.
        """

    def label(self, index: int, task: str) -> int:
        """The class or id of one sample by a task that has one per picture, -1 without; no picture is read."""


class Joined:
    """Sources one after the other."""

    def __init__(self, sources: Sequence[Source]) -> None:
        self.sources = sources
        self.ids: Sequence[str] = [name for source in sources for name in source.ids]

    def __len__(self) -> int:
        return len(self.ids)

    def load(self, index: int, whole: bool = False) -> Sample:
        """One sample of the source that holds it."""
        source, index = self._holder(index)
        return source.load(index, whole)

    def label(self, index: int, task: str) -> int:
        """From the source that holds it."""
        source, index = self._holder(index)
        return source.label(index, task)

    def _holder(self, index: int) -> tuple[Source, int]:
        for source in self.sources:
            if index < len(source):
                return source, index
            index -= len(source)
        raise IndexError(index)
