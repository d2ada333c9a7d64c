"""A gate runs a block (keep is True), skips it (False), mixes the two (a relaxed keep in [0, 1]), or runs it for some
of the pictures (a bool per picture).

The hard choices are made where blocks are run, in supernet.py: what is skipped is not executed. Here are the others.

Shapes: B batch.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

Keep = bool | Tensor


def mix(skipped: Tensor, kept: Tensor, keep: Tensor) -> Tensor:
    """S(x) + k * (block(x) - S(x)), for a scalar keep or one per sample."""
    if keep.ndim:
        keep = keep.view(-1, *[1] * (kept.ndim - 1))
    return skipped + keep.to(kept.dtype) * (kept - skipped)


def gather(
    run: Callable[[Tensor], Tensor], x: Tensor, skipped: Tensor, keep_B: Tensor, norms_learn: bool = False
) -> Tensor:
    """`run(x)` for the pictures that keep the block, `skipped` for the others; the block sees only the former.

    Gradients flow both ways. `x` and `skipped` are not changed; they may be one tensor.

    Args:
        run: the block.
        x: its input, (B, ...).
        skipped: what pictures get that skip it.
        keep_B: bool.
        norms_learn: the block's norms take statistics of these pictures. Ranks take them together, so it runs on all
            of them if any has a picture; and one picture alone may have no variance, so there it sees the whole batch.
    """
    rows = keep_B.nonzero()[:, 0]
    count = _over_ranks(len(rows), x.device) if norms_learn else len(rows)
    if count == 0:
        return skipped
    if len(rows) == len(keep_B):
        return run(x)
    kept = (
        run(x)[rows] if norms_learn and count == 1 else run(x[rows])
    )  # index_select would lose channels_last
    return skipped.index_copy(0, rows, kept.to(skipped.dtype))


def _over_ranks(count: int, device: torch.device) -> int:
    total = torch.tensor(float(count), device=device)
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.all_reduce(total)
    return int(total)


def norms_learn(block: nn.Module) -> bool:
    """Whether running the block moves the running statistics of a BatchNorm in it."""
    return any(isinstance(module, _BatchNorm) and module.training for module in block.modules())
