"""Pictures of several sources, each with labels of some of the tasks, and the order in which batches mix them.

A source gives weight / (sum of weights) of every batch, up to rounding, and what rounding takes it gets in the next. It
gives all its pictures once before it gives any again. Without weights a source's share is that of its pictures, so that
a pass gives each once, but for the last few.

Shapes: N pictures, S sources.
"""

from collections.abc import Collection, Mapping, Sequence

import numpy as np

from perceptkit.data.sample import Missing, Sample
from perceptkit.data.source import Joined, Source
from perceptkit.spec.several import SEPARATOR
from perceptkit.tasks.base import Task


class Mixed(Joined):
    """One split of all sources: their pictures one source after the other, with `name/id` as ids.

    Args:
        sources: by name; each has samples with the targets of its own tasks.
        tasks_of: by source, those.
        tasks: all tasks whose targets are wanted; those that a source does not have are unlabelled there.
        size_HW: of the pictures.
        weights: how often each source's pictures come in training; None for as often as there are pictures.
    """

    def __init__(
        self,
        sources: Mapping[str, Source],
        tasks_of: Mapping[str, Collection[str]],
        tasks: Mapping[str, Task],
        size_HW: tuple[int, int],
        weights: Mapping[str, float] | None = None,
    ) -> None:
        super().__init__(list(sources.values()))
        self.tasks_of = {name: list(tasks_of[name]) for name in sources}
        self.weights = None if weights is None else [weights[name] for name in sources]
        self.source_N = np.repeat(np.arange(len(sources)), [len(source) for source in self.sources])
        """Which source a picture is of."""
        self.ids = [
            f"{name}{SEPARATOR}{image_id}" for name, source in sources.items() for image_id in source.ids
        ]
        self._missing = Missing(tasks, size_HW)

    def load(self, index: int, whole: bool = False) -> Sample:
        """One sample with a target for every task."""
        sample = super().load(index, whole)
        missing = self._missing.of(sample)
        targets = {name: sample.targets.get(name, nothing) for name, nothing in missing.items()}
        return Sample(self.ids[index], sample.image, targets)

    def label(self, index: int, task: str) -> int:
        """From the source that holds it, -1 where that has no labels of the task."""
        source = list(self.tasks_of)[self.source_N[index]]
        return super().label(index, task) if task in self.tasks_of[source] else -1


def mixed_order(
    source_N: Sequence[int], weights: Sequence[float] | None, batch: int, rng: np.random.Generator
) -> np.ndarray:
    """Positions in `source_N`, as many as it has.

    Args:
        source_N: of the pictures, numbers from 0.
        weights: by source; None for its number of pictures.
        batch: pictures, those of all ranks.
        rng: decides everything.
    """
    of_source = np.asarray(source_N)
    members = [np.flatnonzero(of_source == s) for s in range(int(of_source.max(initial=-1)) + 1)]
    sizes_S = np.array([len(indices) for indices in members], dtype=float)
    weight_S = (
        sizes_S if weights is None else np.asarray(weights, dtype=float)[: len(members)] * (sizes_S > 0)
    )
    share_S = weight_S / weight_S.sum() if len(of_source) else weight_S
    given_S = np.zeros(len(members))
    waiting: list[list[int]] = [[] for _ in members]
    order: list[int] = []
    for start in range(0, len(of_source), batch):
        count = min(batch, len(of_source) - start)
        drawn = []
        owed_S = share_S * (start + count) - given_S
        tie_S = rng.random(len(members)) * 1e-6
        for _ in range(count):
            s = int((owed_S + tie_S).argmax())
            if not waiting[s]:
                waiting[s] = rng.permutation(members[s]).tolist()
            drawn.append(waiting[s].pop())
            owed_S[s] -= 1
            given_S[s] += 1
        order += [drawn[i] for i in rng.permutation(count)]  # each rank takes every so many-th picture
    return np.array(order, dtype=int)
