"""The router's decisions for a batch on the host: who is alike, and which rows run a block.

A batch is sorted once, so that pictures with equal decisions lie side by side and those with similar ones next to
them. The pictures that keep a block are then a few runs of neighbouring rows, which a block can be given as views.

    pictures   0 1 2 3       sorted  1 3 0 2
    block 0    1 0 1 0               0 0 1 1    one run: rows 2 to 4
    block 1    1 1 0 1               1 1 1 0    one run: rows 0 to 3

Shapes: B batch, R routed blocks.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

Policy = tuple[bool, ...]
"""One decision per routed block: what a picture keeps."""
Table = tuple[Policy, ...]
"""The policies of a batch, by picture."""
Run = tuple[int, int]
"""Neighbouring rows: the first one, and the one after the last."""


def to_host(keep_BR: Tensor) -> Table:
    """The decisions of a batch: the one copy from the device, and the one wait for it, that a batch needs."""
    if keep_BR.is_cuda:  # to pageable memory it would go through a buffer of the driver
        pinned = torch.empty(keep_BR.shape, dtype=torch.bool, pin_memory=True)
        pinned.copy_(keep_BR, non_blocking=True)
        torch.cuda.current_stream(keep_BR.device).synchronize()
        keep_BR = pinned
    return tuple(map(tuple, keep_BR.tolist()))


def decided(logits_BR: Tensor) -> Table:
    """What the router's logits say, on the host: a block is kept where its logit is at least 0."""
    if logits_BR.device.type == "cpu":  # to compare a few numbers here is faster than to call an operator
        return tuple(tuple(logit >= 0 for logit in row) for row in logits_BR.tolist())
    return to_host(logits_BR >= 0)


def to_device(values: Sequence[object], device: torch.device) -> Tensor:
    """What was decided on the host as a tensor, without waiting for what the device does."""
    made = torch.tensor(values)
    if device.type == "cuda":  # a copy of pageable memory waits, whatever is asked for
        made = made.pin_memory()
    return made.to(device, non_blocking=True)


@dataclass(frozen=True)
class Sorted:
    """A batch in the order in which it is run."""

    order: tuple[int, ...]
    """By new row, the picture's place in the batch."""
    policies: tuple[Policy, ...]
    """The distinct ones, in the order of their rows."""
    rows: tuple[Run, ...]
    """Of each of them."""

    @property
    def moved(self) -> bool:
        """Whether any picture changes its place."""
        return self.order != tuple(range(len(self.order)))

    def back(self) -> list[int]:
        """By place in the batch, the new row."""
        rows = [0] * len(self.order)
        for row, place in enumerate(self.order):
            rows[place] = row
        return rows

    def runs(self, route: int, kept: bool = True) -> list[Run]:
        """The rows that keep a block, or skip it, in as few runs as there are."""
        found: list[Run] = []
        for policy, (first, stop) in zip(self.policies, self.rows, strict=True):
            if policy[route] != kept:
                continue
            if found and found[-1][1] == first:
                found[-1] = (found[-1][0], stop)
            else:
                found.append((first, stop))
        return found


def sort(table: Table) -> Sorted:
    """Equal policies side by side, in the order of `neighbours`; pictures of one policy keep theirs."""
    places: dict[Policy, list[int]] = {}
    for place, policy in enumerate(table):
        places.setdefault(policy, []).append(place)
    policies = neighbours(tuple(sorted(places, reverse=True)))
    order: list[int] = []
    rows: list[Run] = []
    for policy in policies:
        rows.append((len(order), len(order) + len(places[policy])))
        order += places[policy]
    return Sorted(tuple(order), policies, tuple(rows))


@lru_cache(maxsize=256)  # the same few policies come again and again
def neighbours(policies: tuple[Policy, ...]) -> tuple[Policy, ...]:
    """Distinct policies as a path: each is followed by one that differs in the fewest blocks, the first stays first.

    A run of a block ends where neighbours differ in it, so a short path means few runs. Of those that are equally
    near, the one that comes first in `policies` is next.
    """
    left = {policy: sum(1 << r for r, keep in enumerate(policy) if keep) for policy in policies}
    path = list(policies[:1])
    while len(left) > 1:
        here = left.pop(path[-1])
        path.append(min(left, key=lambda policy: (left[policy] ^ here).bit_count()))
    return tuple(path)


def merged(runs: Sequence[Run], seconds: Callable[[int], float]) -> list[Run]:
    """The runs, or longer ones that contain them and the gaps between: what takes the least time altogether.

    Where launching a block costs more than computing it, one call over a short gap is cheaper than two; what it
    computes for the rows in the gap is of no use.

    Args:
        runs: in order.
        seconds: of a call, by its number of rows.
    """
    best: list[tuple[float, list[Run]]] = [(0.0, [])]  # for the first i runs
    for i in range(len(runs)):
        ways = []
        for j in range(i + 1):
            span = (runs[j][0], runs[i][1])
            ways.append((best[j][0] + seconds(span[1] - span[0]), j, span))
        total, j, span = min(ways, key=lambda way: (way[0], -way[1]))  # on a tie the shorter one
        best.append((total, [*best[j][1], span]))
    return best[-1][1]
