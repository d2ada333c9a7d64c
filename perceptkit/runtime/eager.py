"""An artifact's network on a device: channels_last and mixed precision where they pay.

The same code on every device: on a CPU the layout stays that of the artifact and `auto` means float32.
"""

import copy

import torch
from torch import Tensor, nn

from perceptkit.compact.precision import find_precision
from perceptkit.compact.verify import Forward
from perceptkit.errors import SpecError


def on_device(network: nn.Module, device: torch.device, precision: str = "auto") -> Forward:
    """What runs `network`, which itself stays on the CPU and unchanged: it can still be exported.

    Args:
        network: compact model.
        device: where to run it.
        precision: `auto`: bf16 on CUDA that has it, else 32; or one of compact/precision.py.

    Raises:
        SpecError: the device cannot be used, or there is no such precision.
    """
    dtype = autocast_dtype(precision, device)
    layout = torch.preserve_format
    moved = network
    if device.type != "cpu":
        layout = torch.channels_last
        try:
            moved = copy.deepcopy(network).to(device).to(memory_format=layout)
        except (RuntimeError, AssertionError) as error:
            first = str(error).splitlines()[0]
            raise SpecError(f"device {str(device)!r} cannot be used here: {first}") from error

    def forward(image_BCHW: Tensor) -> dict[str, Tensor]:
        image_BCHW = image_BCHW.to(device, memory_format=layout)
        with torch.autocast(device.type, dtype=dtype, enabled=dtype is not None):
            outputs: dict[str, Tensor] = moved(image_BCHW)
        return outputs

    return forward


def autocast_dtype(precision: str, device: torch.device) -> torch.dtype | None:
    """The type to mix in; None for float32 throughout. Raises SpecError."""
    if precision == "auto":
        return torch.bfloat16 if device.type == "cuda" and torch.cuda.is_bf16_supported() else None
    dtype = find_precision(precision).dtype
    return None if dtype == torch.float32 else dtype
