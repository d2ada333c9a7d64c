"""Running means of losses and speed between two rows of the log, and the memory in use."""

import resource
import sys
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager


class Meter:
    """Means over a window of steps; of a loss, over the steps that had it.

    `data_wait` is the share of wall-clock time that the loop stood still for its next batch.
    """

    def __init__(self, window: int) -> None:
        self.window = window
        self._reset()

    def _reset(self) -> None:
        self.sums: dict[str, float] = defaultdict(float)
        self.counts: dict[str, int] = defaultdict(int)
        self.steps = self.images = 0
        self.waited = 0.0
        self.began = time.perf_counter()

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Around the call that fetches a batch."""
        began = time.perf_counter()
        yield
        self.waited += time.perf_counter() - began

    def step(self, losses: Mapping[str, float], images: int) -> None:
        """One step on `images` images is done."""
        for name, value in losses.items():
            self.sums[name] += value
            self.counts[name] += 1
        self.steps, self.images = self.steps + 1, self.images + images

    @property
    def full(self) -> bool:
        """Whether the window is."""
        return self.steps >= self.window

    def flush(self) -> dict[str, float]:
        """The means since the last flush."""
        seconds = max(time.perf_counter() - self.began, 1e-9)
        means = {name: total / self.counts[name] for name, total in self.sums.items()}
        means |= {"images_per_s": self.images / seconds, "data_wait": self.waited / seconds}
        self._reset()
        return means


def peak_mib() -> float:
    """Largest resident memory of this process so far, in MiB."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 2**10
