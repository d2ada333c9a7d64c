"""Batches in a fixed order: what a step sees follows from (seed, epoch, index) alone.

Neither the number of workers nor the number of ranks changes it: rank r of n takes every n-th image of each
global batch, so that n ranks with batch b see what one process with batch n * b sees.
"""

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from perceptkit.data.batch import Batch, collate
from perceptkit.data.geometry import apply_geometry, sample_geometry
from perceptkit.data.m_per_class import m_per_class_order
from perceptkit.data.metric_samplers import sampler_order
from perceptkit.data.mixed import mixed_order
from perceptkit.data.photometric import Photometric
from perceptkit.data.sample import Sample
from perceptkit.data.source import Source
from perceptkit.errors import PerceptkitError
from perceptkit.spec.metric_learning import SamplerSpec
from perceptkit.spec.recipe import AugmentSpec
from perceptkit.tasks.base import Task


def split_indices(count: int, fraction: float, seed: int) -> tuple[list[int], list[int]]:
    """Two disjoint, sorted lists that cover range(count): `fraction` of it, and the rest."""
    order = np.random.default_rng([seed, 0x5B117]).permutation(count)
    cut = round(count * fraction)
    return sorted(order[:cut].tolist()), sorted(order[cut:].tolist())


def make_loader(
    source: Source,
    indices: Sequence[int],
    tasks: Mapping[str, Task],
    *,
    batch: int,
    workers: int | str,
    augment: AugmentSpec | None,
    mean: Sequence[float],
    std: Sequence[float],
    seed: int,
    epoch: int,
    shuffle: bool,
    drop_last: bool,
    rank: int = 0,
    world_size: int = 1,
    start_batch: int = 0,
    classes: Sequence[int] | None = None,
    m_per_class: int | None = None,
    sampler: SamplerSpec | None = None,
    sources: Sequence[int] | None = None,
    weights: Sequence[float] | None = None,
) -> Iterator[Batch]:
    """The batches of one epoch on one rank.

    Args:
        source: where samples come from.
        indices: which of them.
        tasks: by name; they decide how targets move.
        batch: images per rank and step.
        workers: processes that decode and augment; 0 does it in this one, `auto` decides by the machine.
        augment: None for evaluation.
        mean, std: normalisation, RGB in [0, 1].
        seed, epoch: decide order and augmentation.
        drop_last: leave out a last batch that is not full.
        rank, world_size: of the processes that train together.
        start_batch: how many batches were done before.
        classes, m_per_class: of each of `indices`, and how many of one are in a batch; None leaves that to chance.
        sampler: of pytorch-metric-learning, that draws by `classes` instead.
        sources, weights: of each of `indices`, and of each source; a batch has pictures of all by their weights.
    """
    order = np.asarray(indices)
    whole = batch * world_size
    rng = np.random.default_rng([seed, epoch])
    if shuffle and classes is not None and m_per_class is not None:
        order = order[m_per_class_order(classes, m_per_class, whole, rng)]
    elif shuffle and classes is not None and sampler is not None:
        order = order[sampler_order(sampler, classes, whole, seed, epoch)]
    elif shuffle and sources is not None:
        order = order[mixed_order(sources, weights, whole, rng)]
    elif shuffle:
        order = order[rng.permutation(len(order))]
    steps = len(order) // whole if drop_last else -(-len(order) // whole)
    groups = [
        order[i * whole : (i + 1) * whole][rank::world_size].tolist() for i in range(start_batch, steps)
    ]
    groups = [group for group in groups if group]
    count = auto_workers() if workers == "auto" else int(workers)
    dataset = _Augmented(source, tasks, augment, seed, epoch)
    if count == 0:
        return (collate([dataset[i] for i in group], mean, std) for group in groups)
    loader = DataLoader(
        _Batches(dataset, mean, std),
        batch_sampler=groups,
        num_workers=count,
        collate_fn=_as_it_is,
        pin_memory=torch.cuda.is_available(),
        worker_init_fn=_one_thread,
        generator=torch.Generator().manual_seed(0),  # or it would draw from the global one, unlike 0 workers
        multiprocessing_context="fork" if not torch.cuda.is_available() else "forkserver",
    )
    return _or_raise(loader)


def auto_workers() -> int:
    """None where the CPU trains too: workers would take the cores they feed. Otherwise the cores but one."""
    if not torch.cuda.is_available():
        return 0
    return max(1, min(8, (os.cpu_count() or 2) - 1))


class _Augmented(Dataset):
    """Samples of a source, augmented by (seed, epoch, index)."""

    def __init__(
        self, source: Source, tasks: Mapping[str, Task], augment: AugmentSpec | None, seed: int, epoch: int
    ) -> None:
        self.source, self.tasks, self.augment, self.seed, self.epoch = source, tasks, augment, seed, epoch
        self.photometric = Photometric(augment.photometric) if augment and augment.photometric else None

    def __getitem__(self, index: int) -> Sample:
        if self.augment is None:
            return self.source.load(index)
        sample = self.source.load(index, whole=self.augment.crop is not None)
        rng = np.random.default_rng([self.seed, self.epoch, index])
        sample = apply_geometry(sample, sample_geometry(self.augment, rng), self.tasks)
        if self.photometric is not None:
            sample.image = self.photometric(sample.image, int(rng.integers(2**31)))
        return sample


class _Batches(Dataset):
    """Whole batches, for worker processes: they hand a user's error over as it is, not as a traceback."""

    def __init__(self, samples: _Augmented, mean: Sequence[float], std: Sequence[float]) -> None:
        self.samples, self.mean, self.std = samples, mean, std

    def __getitems__(self, indices: list[int]) -> Batch | PerceptkitError:
        try:
            return collate([self.samples[i] for i in indices], self.mean, self.std)
        except PerceptkitError as error:
            return error


def _or_raise(batches: Iterable[Batch | PerceptkitError]) -> Iterator[Batch]:
    for batch in batches:
        if isinstance(batch, PerceptkitError):
            raise batch
        yield batch


def _as_it_is(batch: Any) -> Any:
    return batch


def _one_thread(_: int) -> None:
    torch.set_num_threads(1)
