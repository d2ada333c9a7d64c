"""The lesion study: what a trained network loses when blocks are deleted or change places, without any training.

Veit, Wilber, Belongie. *Residual Networks Behave Like Ensembles of Relatively Shallow Networks.* NIPS 2016.
https://arxiv.org/abs/1605.06431

    deleted      one block at a time: only its shortcut is left
    random       so many blocks at random, several draws of each number
    reordered    neighbouring blocks of equal shape swapped so many times, by Kendall's tau to the trained order

BatchNorm keeps its statistics. A block is deleted for all tasks that run it; blocks that no task runs take no part.

Differs: the paper's networks have one task, and its reordering swaps any two blocks of equal shape, not neighbours.
Here every variation has the quality of each task, in [0, 1]. A router is left out: all that it decides on runs.

Shapes: B pictures of a batch, H W pixels, K tasks, L blocks, V variations.
"""

import itertools
import math
import random
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from scipy.stats import kendalltau
from torch import Tensor

from perceptkit.baselines.sharing.single import SingleTaskNets
from perceptkit.data.batch import Batch
from perceptkit.model.plan import Plan
from perceptkit.model.supernet import Supernet
from perceptkit.tasks.base import Task

DRAWS = 8
"""Of each number of blocks or swaps."""
LEVELS = 8
"""Numbers of deleted blocks, and of swaps, at most."""


@dataclass(frozen=True)
class Variation:
    """A way to break the network."""

    deleted: tuple[int, ...] = ()
    order: tuple[int, ...] | None = None
    """Which block runs in the place of each; None: as trained."""


def lesion_study(
    network: Supernet | SingleTaskNets,
    plan: Plan,
    batches: Iterable[Batch],
    tasks: Mapping[str, Task],
    device: torch.device,
    seed: int = 0,
    draws: int = DRAWS,
    say: Callable[[str], None] = lambda line: None,
) -> tuple[dict[str, Any], Tensor]:
    """What lesion.json holds of blocks, and the quality (N, K) of every picture with the network as it is."""
    generator = random.Random(seed)
    alive = [b for b, kept in enumerate(plan.kept_by_any()) if kept]
    singles = [Variation((b,)) for b in alive]
    randoms = random_deletions(alive, draws, generator)
    swapped = reorderings(exchangeable(network, alive), len(plan.blocks), draws, generator)
    variations = [Variation(), *singles, *randoms, *swapped]
    say(f"lesion study: {len(variations)} variations of a network of {len(plan.blocks)} blocks")
    quality_VK, intact_NK = qualities(network, plan, variations, batches, tasks, device)
    told = [_told(quality_K, list(tasks)) for quality_K in quality_VK]
    intact, of_singles = told[0], told[1 : 1 + len(singles)]
    of_randoms = told[1 + len(singles) : len(told) - len(swapped)]
    of_swapped = told[len(told) - len(swapped) :]

    def named(blocks: Sequence[int]) -> list[str]:
        return [plan.blocks[b] for b in blocks]

    found = {
        "tasks": list(tasks),
        "blocks": list(plan.blocks),
        "intact": intact,
        "deleted": [
            {"block": plan.blocks[v.deleted[0]], **said} for v, said in zip(singles, of_singles, strict=True)
        ],
        "random": [
            {"count": len(v.deleted), "blocks": named(v.deleted), **said}
            for v, said in zip(randoms, of_randoms, strict=True)
        ],
        "reordered": [
            {"tau": tau(v.order, alive), "order": named([v.order[b] for b in alive]), **said}
            for v, said in zip(swapped, of_swapped, strict=True)
            if v.order is not None
        ],
    }
    return found, intact_NK


def random_deletions(alive: Sequence[int], draws: int, generator: random.Random) -> list[Variation]:
    """At most LEVELS numbers of blocks from one to all; of each `draws` different sets, or all there are."""
    counts = sorted({round(1 + i * (len(alive) - 1) / (LEVELS - 1)) for i in range(LEVELS)}) if alive else []
    found = []
    for count in counts:
        if math.comb(len(alive), count) <= draws:
            sets = set(itertools.combinations(alive, count))
        else:
            sets = set()
            while len(sets) < draws:
                sets.add(tuple(sorted(generator.sample(alive, count))))
        found += [Variation(blocks) for blocks in sorted(sets)]
    return found


def exchangeable(network: Supernet | SingleTaskNets, alive: Sequence[int]) -> list[list[int]]:
    """Groups of two or more blocks, one after another, that could run in each other's place."""
    net = network if isinstance(network, Supernet) else next(iter(network.by_task().values()))
    groups: list[list[int]] = []
    shape: tuple[int, int] | None = None
    for step in net.steps:
        if step.block is not None and step.block not in alive and step.kind == "identity":
            continue  # nobody runs it: those around it are neighbours
        own = (step.channels, step.stride) if step.block is not None and step.kind == "identity" else None
        if own is not None and step.block is not None:
            if own == shape:
                groups[-1].append(step.block)
            else:
                groups.append([step.block])
        shape = own
    return [group for group in groups if len(group) > 1]


def reorderings(
    groups: Sequence[Sequence[int]], num_blocks: int, draws: int, generator: random.Random
) -> list[Variation]:
    """Different orders, reached by some random swaps of neighbours."""
    pairs = [(group, i) for group in groups for i in range(len(group) - 1)]
    if not pairs:
        return []
    farthest = sum(len(group) * (len(group) - 1) // 2 for group in groups)
    orders = set()
    for swaps in sorted({round(1 + i * (2 * farthest - 1) / (LEVELS - 1)) for i in range(LEVELS)}):
        for _ in range(draws):
            order = list(range(num_blocks))
            for group, i in generator.choices(pairs, k=swaps):
                a, b = group[i], group[i + 1]
                order[a], order[b] = order[b], order[a]
            orders.add(tuple(order))
    return [Variation(order=order) for order in sorted(orders - {tuple(range(num_blocks))})]


def tau(order: Sequence[int], alive: Sequence[int]) -> float:
    """Kendall's tau of an order to the trained one, over the blocks that run: 1 is equal, -1 the reverse."""
    return float(kendalltau(alive, [order[b] for b in alive]).statistic)


@torch.no_grad()
def qualities(
    network: Supernet | SingleTaskNets,
    plan: Plan,
    variations: Sequence[Variation],
    batches: Iterable[Batch],
    tasks: Mapping[str, Task],
    device: torch.device,
) -> tuple[Tensor, Tensor]:
    """Mean quality of each variation and task (V, K), NaN without labels, and (N, K) that of the first, by picture.

    Pictures are read once: each batch goes through all variations.
    """
    network.eval().to(device)
    sums_VK = torch.zeros(len(variations), len(tasks), dtype=torch.float64)
    counts_K = torch.zeros(len(tasks), dtype=torch.float64)
    first = []
    for batch in batches:
        batch = batch.to(device)
        for v, variation in enumerate(variations):
            with reordered(network, variation.order):
                outputs = network(batch.image_BCHW, without(plan, variation.deleted))
            columns = [
                task.quality(outputs[name].float(), batch.targets[name]) for name, task in tasks.items()
            ]
            quality_BK = torch.stack(columns, -1).double().cpu()
            sums_VK[v] += quality_BK.nansum(0)
            if v == 0:
                counts_K += (~quality_BK.isnan()).sum(0)
                first.append(quality_BK)
    return sums_VK / counts_K, torch.cat(first)


def without(plan: Plan, blocks: Sequence[int]) -> Plan:
    """The plan with some blocks skipped by every task."""
    rows = (tuple("skip" if b in blocks else c for b, c in enumerate(row)) for row in plan.table)
    return replace(plan, table=tuple(rows)) if blocks else plan


@contextmanager
def reordered(network: Supernet | SingleTaskNets, order: Sequence[int] | None) -> Iterator[None]:
    """Blocks run in each other's place for a while; who keeps a block does not change with its place."""
    nets = [network] if isinstance(network, Supernet) else list(network.by_task().values())
    before = [net.steps for net in nets]
    try:
        for net in nets if order is not None else ():
            of_block = {step.block: step for step in net.steps}
            net.steps = [of_block[order[s.block]] if s.block is not None else s for s in net.steps]  # type: ignore[index]
        yield
    finally:
        for net, steps in zip(nets, before, strict=True):
            net.steps = steps


def _told(quality_K: Tensor, tasks: Sequence[str]) -> dict[str, Any]:
    """By task, and the mean over tasks with labels."""
    known = quality_K[~quality_K.isnan()]
    quality = dict(zip(tasks, quality_K.tolist(), strict=True))
    return {"quality": quality, "score": float(known.mean()) if len(known) else math.nan}
