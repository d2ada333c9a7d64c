"""A compact model as a `torch.export` program: what every format but the artifact is made from.

Shapes: B batch, H W pixels of the input.
"""

import copy
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from math import gcd

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from perceptkit.compact.precision import Precision
from perceptkit.compact.verify import probe_images

MAX_BATCH, MAX_PIXELS = 4096, 8192
COARSEST = 32
"""Sizes that are multiples of it suit every feature map of a trunk."""


class Outputs(nn.Module):
    """The network with a tuple of outputs, in the order of `tasks`; float32 in and out, `dtype` in between."""

    def __init__(self, network: nn.Module, tasks: list[str], dtype: torch.dtype) -> None:
        super().__init__()
        self.network, self.tasks, self.dtype = network, tasks, dtype

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        outputs = self.network(image.to(self.dtype))
        return tuple(outputs[task].float() for task in self.tasks)


def size_multiple(network: nn.Module, size_HW: tuple[int, int]) -> int:
    """The step in which height and width may vary, `size_HW` among the sizes.

    That of the coarsest features, or of patches it is no multiple of, as of 14 pixels (patches that overlap are no
    patches here); a divisor of it where the size is no multiple.
    """
    largest = max(map(_patch, network.modules()), default=1)
    return gcd(COARSEST if COARSEST % largest == 0 else largest, *size_HW)


def _patch(module: nn.Module) -> int:
    """Pixels along the longer side of the patches that this module makes; 1 where it makes none that stand apart."""
    size = getattr(module, "patch_size", None)
    if not isinstance(size, tuple | list):
        return size if isinstance(size, int) else 1
    stride = getattr(getattr(module, "proj", None), "stride", size)
    return max(size) if tuple(stride) == tuple(size) else 1


@torch.no_grad()
def export_program(
    network: nn.Module,
    tasks: list[str],
    size_HW: tuple[int, int],
    precision: Precision,
    device: torch.device | str = "cpu",
    multiple: int | None = None,
) -> ExportedProgram:
    """image (B, 3, H, W) -> one output per task, for any batch.

    Args:
        network: compact model; it is copied.
        tasks: names of the outputs, in order.
        size_HW: of the example that is traced.
        precision: what it computes in.
        device: where it will run.
        multiple: height and width are free in steps of it; None fixes them to `size_HW`.

    Raises:
        Exception: of many types, torch's own; with `multiple` it may mean no more than that sizes cannot vary.
    """
    example = probe_images(size_HW, device)[1]
    shapes: dict[int, object] = {0: Dim("batch", min=1, max=MAX_BATCH)}
    if multiple is not None:
        for axis, name in ((2, "height"), (3, "width")):
            steps = Dim(f"{name}_steps", min=1, max=MAX_PIXELS // multiple)
            shapes[axis] = multiple * steps if multiple > 1 else steps
    module = Outputs(copy.deepcopy(network), tasks, precision.dtype).eval().requires_grad_(False)
    module = module.to(device=device, dtype=precision.dtype)
    with quiet():
        return torch.export.export(module, (example,), dynamic_shapes=(shapes,))


@contextmanager
def quiet() -> Iterator[None]:
    """Hides what exporters say about themselves: nothing in it is for a user to act on."""
    names = ("torch.onnx", "torch.export", "torch._inductor", "torch.utils.cpp_extension", "onnxscript")
    loggers = [logging.getLogger(name) for name in names]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
