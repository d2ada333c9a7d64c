"""A gate runs a block (keep is True), skips it (False), or mixes the two (a relaxed keep in [0, 1]).

The hard choices are made where blocks are run, in supernet.py: what is skipped is not executed. This is the mix.
"""

from torch import Tensor

Keep = bool | Tensor


def mix(skipped: Tensor, kept: Tensor, keep: Tensor) -> Tensor:
    """S(x) + k * (block(x) - S(x)), for a scalar keep or one per sample."""
    if keep.ndim:
        keep = keep.view(-1, *[1] * (kept.ndim - 1))
    return skipped + keep.to(kept.dtype) * (kept - skipped)
