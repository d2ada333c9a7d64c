"""A gate runs a block (keep is True), skips it (False), mixes the two (a relaxed keep in [0, 1]), or runs it for some
of the pictures (a bool per picture).

The hard choices are made where blocks are run, in supernet.py: what is skipped is not executed. Here are the others.

Shapes: B batch.
"""

from collections.abc import Callable

from torch import Tensor

Keep = bool | Tensor


def mix(skipped: Tensor, kept: Tensor, keep: Tensor) -> Tensor:
    """S(x) + k * (block(x) - S(x)), for a scalar keep or one per sample."""
    if keep.ndim:
        keep = keep.view(-1, *[1] * (kept.ndim - 1))
    return skipped + keep.to(kept.dtype) * (kept - skipped)


def gather(run: Callable[[Tensor], Tensor], x: Tensor, skipped: Tensor, keep_B: Tensor) -> Tensor:
    """`run(x)` for the pictures that keep the block, `skipped` for the others; the block sees only the former.

    Gradients flow both ways. `x` and `skipped` are not changed; they may be one tensor.
    """
    rows = keep_B.nonzero()[:, 0]
    if len(rows) == len(keep_B):
        return run(x)
    if len(rows) == 0:
        return skipped
    kept = run(x[rows])  # index_select would lose channels_last
    return skipped.index_copy(0, rows, kept.to(skipped.dtype))
