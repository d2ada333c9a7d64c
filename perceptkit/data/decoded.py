"""Sources that decode pictures keep them in memory, as far as they fit."""

from collections.abc import Sequence

from perceptkit.data.sample import Sample
from perceptkit.errors import DataError

CACHED_BYTES = 512 * 2**20
"""Decoded samples are kept in memory up to this size per process: decoding costs more than training a
small network does, and most sets of small pictures fit."""

MEND = "mend or replace the file, or leave such pictures out with data.on_bad: skip"
"""What to do about a file that stops a run."""


class DecodedSource:
    """Samples by index; a source says what they are called (`ids`) and how one is read (`decode`)."""

    ids: Sequence[str]

    def __init__(self, ids: Sequence[str]) -> None:
        self.ids = ids
        self._cache: dict[int, Sample] = {}
        self._cached_bytes = 0

    def __len__(self) -> int:
        return len(self.ids)

    def load(self, index: int) -> Sample:
        """The picture and every label, at the network's size. Raises DataError that names the file."""
        cached = self._cache.get(index)
        if cached is None:
            cached = self._decoded(index)
            size = cached.image.nbytes + sum(target.nbytes for target in cached.targets.values())
            if self._cached_bytes + size <= CACHED_BYTES:
                self._cache[index] = cached
                self._cached_bytes += size
        return Sample(cached.id, cached.image, dict(cached.targets))

    def _decoded(self, index: int) -> Sample:
        try:
            return self.decode(index)
        except DataError as error:
            raise DataError(f"{error}; {MEND}") from error

    def forget(self) -> None:
        """Drops what is kept in memory."""
        self._cache.clear()
        self._cached_bytes = 0

    def decode(self, index: int) -> Sample:
        """Reads one sample from disk."""
        raise NotImplementedError

    def label(self, index: int, task: str) -> int:
        """The class or id of one sample by a task that has one per picture, -1 without; no picture is read."""
        raise NotImplementedError
