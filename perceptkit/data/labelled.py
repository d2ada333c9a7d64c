"""Some of the labels of what is trained on: the others count as absent (`labelled` in the tasks file).

Which pictures keep theirs follows from the seed, the source's name and the number of pictures. Of one seed, a smaller
share is a part of a larger one. At least one picture keeps its labels.

Shapes: N pictures.
"""

import zlib
from collections.abc import Mapping, Sequence

import numpy as np

from perceptkit.data.sample import Missing, Sample
from perceptkit.data.source import Source
from perceptkit.tasks.base import Task


def draw_labelled(
    labelled: float | Mapping[str, float], tasks: Sequence[str], count: int, seed: int, source: str
) -> dict[str, np.ndarray]:
    """By task, bool (N,): which pictures keep their label; tasks that keep all are left out.

    Args:
        labelled: a share, for all tasks the same pictures; or shares by task, each by a draw of its own.
        tasks: those that have labels.
        count: N.
        seed, source: decide which.
    """
    if not isinstance(labelled, Mapping):
        kept_N = _draw(labelled, count, seed, source)
        return dict.fromkeys(tasks, kept_N)
    return {
        task: _draw(share, count, seed, f"{source}/{task}")
        for task, share in labelled.items()
        if task in tasks
    }


def _draw(share: float, count: int, seed: int, name: str) -> np.ndarray:
    order = np.random.default_rng([seed, zlib.crc32(name.encode())]).permutation(count)
    kept_N = np.zeros(count, dtype=bool)
    kept_N[order[: max(1, round(share * count))]] = True
    return kept_N


class PartlyLabelled:
    """A source without some of its labels.

    Args:
        source: the whole.
        tasks: its tasks by name.
        size_HW: of the pictures.
        labelled: by task, which pictures keep their label.
    """

    def __init__(
        self,
        source: Source,
        tasks: Mapping[str, Task],
        size_HW: tuple[int, int],
        labelled: Mapping[str, np.ndarray],
    ) -> None:
        self.source, self.labelled = source, labelled
        self._missing = Missing({name: tasks[name] for name in labelled}, size_HW)
        self.ids: Sequence[str] = source.ids

    def __len__(self) -> int:
        return len(self.source)

    def load(self, index: int, whole: bool = False) -> Sample:
        """One sample, with the labels that it keeps."""
        sample = self.source.load(index, whole)
        missing = self._missing.of(sample)
        gone = {name: missing[name] for name, kept_N in self.labelled.items() if not kept_N[index]}
        return Sample(sample.id, sample.image, {**sample.targets, **gone})

    def label(self, index: int, task: str) -> int:
        """The class or id of one sample, -1 where it does not keep it."""
        kept_N = self.labelled.get(task)
        return self.source.label(index, task) if kept_N is None or kept_N[index] else -1
