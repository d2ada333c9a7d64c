"""One picture with its targets, as a source gives it: at the network's size, not yet augmented."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from perceptkit.tasks.base import Task


@dataclass
class Sample:
    """The targets are what `Task.read` (or `Task.missing`) returns, brought to the picture's size."""

    id: str
    image: np.ndarray
    """RGB uint8 (H, W, 3)."""
    targets: dict[str, np.ndarray]
    """By task name."""


class Missing:
    """Targets of pictures without labels, as large as the picture.

    Args:
        tasks: by name.
        size_HW: of most pictures, for which they are made once.
    """

    def __init__(self, tasks: Mapping[str, Task], size_HW: tuple[int, int]) -> None:
        self.tasks, self.size_HW = dict(tasks), tuple(size_HW)
        self._usual = self._at(size_HW)

    def of(self, sample: Sample) -> dict[str, np.ndarray]:
        """By task; not to be changed."""
        size_HW = sample.image.shape[:2]
        return self._usual if size_HW == self.size_HW else self._at(size_HW)

    def _at(self, size_HW: tuple[int, int]) -> dict[str, np.ndarray]:
        return {name: task.missing(size_HW) for name, task in self.tasks.items()}
