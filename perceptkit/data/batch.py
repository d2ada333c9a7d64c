"""Samples stacked for the network.

Shapes: B batch, C = 3 (RGB), H W pixels.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from perceptkit.data.sample import Sample


@dataclass
class Batch:
    """Normalised pictures and stacked targets."""

    ids: list[str]
    image_BCHW: Tensor
    """float32, (x / 255 - mean) / std."""
    targets: dict[str, Tensor]

    def to(self, device: torch.device) -> "Batch":
        """The same batch on another device; does not wait where the memory is pinned."""
        if device.type == "cpu":
            return self
        moved = {name: target.to(device, non_blocking=True) for name, target in self.targets.items()}
        return Batch(self.ids, self.image_BCHW.to(device, non_blocking=True), moved)

    def pin_memory(self) -> "Batch":
        """Called by the DataLoader."""
        pinned = {name: target.pin_memory() for name, target in self.targets.items()}
        return Batch(self.ids, self.image_BCHW.pin_memory(), pinned)


def collate(samples: Sequence[Sample], mean: Sequence[float], std: Sequence[float]) -> Batch:
    """Stacks samples of one size and normalises the pictures."""
    image_BHWC = torch.from_numpy(np.stack([sample.image for sample in samples]))
    scale = 1 / (255 * torch.tensor(std))
    shift = -torch.tensor(mean) / torch.tensor(std)
    # The permuted view is channels_last, the faster layout for convolutions on CPU and GPU alike.
    image_BCHW = torch.addcmul(shift, image_BHWC.float(), scale).permute(0, 3, 1, 2)
    targets = {
        name: torch.from_numpy(np.stack([sample.targets[name] for sample in samples]))
        for name in samples[0].targets
    }
    return Batch([sample.id for sample in samples], image_BCHW, targets)
