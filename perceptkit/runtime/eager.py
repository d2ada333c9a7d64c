"""An artifact's network on a device: channels_last and mixed precision where they pay.

The same code on every device: on a CPU the layout stays that of the artifact and `auto` means float32.
"""

import copy
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Generic, TypeVar

import torch
from torch import Tensor, nn

from perceptkit.compact.precision import find_precision
from perceptkit.compact.verify import Forward
from perceptkit.errors import SpecError

Network = TypeVar("Network", bound=nn.Module)
_AS_IT_IS = nullcontext()


@dataclass(frozen=True)
class Placed(Generic[Network]):
    """A network where it runs."""

    network: Network
    device: torch.device
    layout: torch.memory_format
    """Of the pictures it is given."""
    dtype: torch.dtype | None
    """What it is mixed in; None for float32 throughout."""

    def take(self, image_BCHW: Tensor) -> Tensor:
        """The picture on the device, laid out as the network likes it."""
        if self.layout is torch.preserve_format and image_BCHW.device == self.device:
            return image_BCHW
        return image_BCHW.to(self.device, memory_format=self.layout)

    def mixed(self) -> AbstractContextManager[object]:
        """Autocast in the precision asked for."""
        if self.dtype is None and not torch.is_autocast_enabled(self.device.type):
            return _AS_IT_IS  # entering autocast takes as long as a small convolution
        return torch.autocast(self.device.type, dtype=self.dtype, enabled=self.dtype is not None)


def place(network: Network, device: torch.device, precision: str = "auto") -> Placed[Network]:
    """`network` on a device, a copy but on a CPU: the network itself stays as it is and can still be exported.

    Args:
        network: compact model.
        device: where to run it.
        precision: `auto`: bf16 on CUDA that has it, else 32; or one of compact/precision.py.

    Raises:
        SpecError: the device cannot be used, or there is no such precision.
    """
    dtype = autocast_dtype(precision, device)
    if device.type == "cpu":
        return Placed(network, device, torch.preserve_format, dtype)
    try:
        moved = copy.deepcopy(network).to(device).to(memory_format=torch.channels_last)
    except (RuntimeError, AssertionError) as error:
        first = str(error).splitlines()[0]
        raise SpecError(f"device {str(device)!r} cannot be used here: {first}") from error
    return Placed(moved, device, torch.channels_last, dtype)


def on_device(network: nn.Module, device: torch.device, precision: str = "auto") -> Forward:
    """What runs `network` on a device. Arguments and errors are those of `place`."""
    placed = place(network, device, precision)

    def forward(image_BCHW: Tensor) -> dict[str, Tensor]:
        image_BCHW = placed.take(image_BCHW)
        with placed.mixed():
            outputs: dict[str, Tensor] = placed.network(image_BCHW)
        return outputs

    return forward


def autocast_dtype(precision: str, device: torch.device) -> torch.dtype | None:
    """The type to mix in; None for float32 throughout. Raises SpecError."""
    if precision == "auto":
        return torch.bfloat16 if device.type == "cuda" and torch.cuda.is_bf16_supported() else None
    dtype = find_precision(precision).dtype
    return None if dtype == torch.float32 else dtype
