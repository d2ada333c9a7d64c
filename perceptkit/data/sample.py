"""One picture with its targets, as a source gives it: at the network's size, not yet augmented."""

from dataclasses import dataclass

import numpy as np


@dataclass
class Sample:
    """The targets are what `Task.read` (or `Task.missing`) returns, brought to the picture's size."""

    id: str
    image: np.ndarray
    """RGB uint8 (H, W, 3)."""
    targets: dict[str, np.ndarray]
    """By task name."""
