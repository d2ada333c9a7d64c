"""Number types an exported file computes in; its input and outputs are float32 whatever it is.

32      float32, everywhere
bf16    bfloat16: for CUDA; runs on CPUs too, slowly where they have no instructions for it
fp16    float16: for CUDA
"""

from dataclasses import dataclass

import torch

from perceptkit.compact.verify import BOUND
from perceptkit.errors import SpecError


@dataclass(frozen=True)
class Precision:
    """A number type and how far from the float32 network its results may be."""

    name: str
    dtype: torch.dtype
    bound: float
    """Relative to each head's own scale, as in compact/verify.py."""


def _half(name: str, dtype: torch.dtype) -> Precision:
    # Measured on random networks: 1 to 2 roundings of the type; ten leave room for deep ones.
    return Precision(name, dtype, 10 * torch.finfo(dtype).eps)


PRECISIONS = {
    "32": Precision("32", torch.float32, BOUND),
    "bf16": _half("bf16", torch.bfloat16),
    "fp16": _half("fp16", torch.float16),
}


def find_precision(name: str) -> Precision:
    """Raises SpecError for a name that is none."""
    if name not in PRECISIONS:
        raise SpecError(f"{name!r} is not a precision; choose one of {', '.join(PRECISIONS)}")
    return PRECISIONS[name]
