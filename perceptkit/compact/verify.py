"""Proof that two networks compute the same: the largest difference per head."""

from collections.abc import Callable, Mapping
from math import isfinite

import torch
from torch import Tensor

from perceptkit.errors import ExportError

BOUND = 1e-4
"""Largest difference accepted, relative to the head's own scale."""
SMALLEST_SCALE = 0.01
"""A head whose outputs are smaller than this is compared as if they were this large: a float32 file may then be off
by 1e-6. Activations are numbers near 1 whatever the output is, and a sum of them that cancels keeps their rounding:
1e-6 is eight roundings of a number of size 1 (2^-23), which adding it up in another order may well make."""

Forward = Callable[[Tensor], Mapping[str, Tensor]]


@torch.no_grad()
def parity(reference: Forward, candidate: Forward, images: list[Tensor]) -> dict[str, dict[str, float]]:
    """By head: `max_abs`, the largest absolute difference, and `scale`, the reference's largest value."""
    result: dict[str, dict[str, float]] = {}
    for image in images:
        expected, got = reference(image), candidate(image)
        for name, value in expected.items():
            row = result.setdefault(name, {"max_abs": 0.0, "scale": 0.0})
            same_shape = name in got and got[name].shape == value.shape  # else it might broadcast
            difference = (
                (value.float() - got[name].float()).abs().max().item() if same_shape else float("inf")
            )
            # NaN must not pass as "no difference"
            row["max_abs"] = max(row["max_abs"], difference if difference == difference else float("inf"))
            row["scale"] = max(row["scale"], value.abs().max().item())
    return result


def relative(row: Mapping[str, float]) -> float:
    """A head's largest difference as a part of its own scale, or of SMALLEST_SCALE where that is larger."""
    return row["max_abs"] / max(SMALLEST_SCALE, row["scale"])


def refuse_mismatch(result: Mapping[str, Mapping[str, float]], what: str, bound: float = BOUND) -> None:
    """Raises ExportError naming every head whose difference exceeds the bound."""
    broken = [
        f"{name}: {row['max_abs']:.2e} at a scale of {row['scale']:.2e}"
        for name, row in result.items()
        if not (isfinite(row["max_abs"]) and relative(row) <= bound)
    ]
    if broken:
        raise ExportError(f"{what} does not reproduce the trained network ({'; '.join(broken)})")


def probe_images(size_HW: tuple[int, int], device: torch.device | str = "cpu") -> list[Tensor]:
    """Normalised noise at batch 1 and 2, the same every time."""
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(batch, 3, *size_HW, generator=generator).to(device) for batch in (1, 2)]
