"""Timing that can be trusted on a machine that does other things too: interleaved, paired, with quartiles.

All variants run once in every round, in an order that changes from round to round; a ratio is the median of
the rounds' own ratios, so whatever slows a whole round down cancels out. On a machine whose cores are
shared, `cpu` time (of this process, all threads) leaves out the time that others had; with one thread it is
what the wall clock would show on a free core.
"""

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch

CLOCKS: dict[str, Callable[[], float]] = {"wall": time.perf_counter, "cpu": time.process_time}


@dataclass(frozen=True)
class Spread:
    """Quartiles."""

    low: float
    median: float
    high: float

    def to_dict(self) -> dict[str, float]:
        """For JSON."""
        return {"q1": self.low, "median": self.median, "q3": self.high}


def spread(values: Sequence[float]) -> Spread:
    """Median and quartiles; of one value all three are that value."""
    if len(values) == 1:
        return Spread(values[0], values[0], values[0])
    return Spread(*statistics.quantiles(values, n=4, method="inclusive"))


def speedup(slow: Sequence[float], fast: Sequence[float]) -> Spread:
    """How many times faster `fast` is than `slow`, by pairs of the same round."""
    return spread([a / b for a, b in zip(slow, fast, strict=True)])


def interleave(
    variants: Mapping[str, Callable[[], object]],
    rounds: int,
    warmup: int,
    device: str = "cpu",
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, list[float]]:
    """Seconds of every variant in every round, by `clock`; `warmup` rounds before them do not count."""
    names = list(variants)
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for i in range(-warmup, rounds):
        shift = i % len(names)
        for name in names[shift:] + names[:shift]:
            _wait(device)
            began = clock()
            variants[name]()
            _wait(device)
            if i >= 0:
                seconds[name].append(clock() - began)
    return seconds


def _wait(device: str) -> None:
    if device.startswith("cuda"):
        torch.cuda.synchronize()
