"""Proves, without knowing any type, whether a module is a residual block and what its shortcut is.

Zeroed parameters silence a residual branch, and what is left is the shortcut:

    identity    all parameters zero:            f(x) == x     or  f(x) == relu(x)
    shortcut    all but the projection zero:    f(x) == P(x)  or  f(x) == relu(P(x)), and P runs alone

With relu, skipping to x is exact because the input of a post-activation block is never negative. A stage
transition that is skipped gives P(x) without the relu, as in AdaShare. P may have no parameters at all, as the
subsampling shortcuts of CIFAR ResNets.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor, nn

PROJECTIONS = ("downsample", "shortcut")
"""Attributes that hold a stage transition's projection in timm's residual blocks."""
RUN_ERRORS = (TypeError, RuntimeError, AttributeError, LookupError, ValueError, AssertionError)
"""What modules raise that want more than one tensor, or another shape."""


class Residual(NamedTuple):
    """What the probe proved of a block."""

    kind: str
    """`identity` or `shortcut`."""
    projection: str | None = None
    """Attribute of the block that is its shortcut."""


@torch.no_grad()
def probe(block: nn.Module, like: Tensor, run: Callable[[Tensor], Tensor] | None = None) -> Residual | None:
    """What kind of residual block this is, or None.

    Args:
        block: in eval mode; its parameters are zeroed and restored.
        like: an input it has seen; the probe has its shape, and both signs.
        run: calls the block, where it wants more than x.
    """
    # On the CPU first: a generator of another device would draw other numbers.
    run = run or block
    x = torch.randn(like.shape, generator=torch.Generator().manual_seed(0)).to(like)
    try:
        with zeroed(block):
            y = run(x.clone())
        if _same_or_rectified(y, x):
            return Residual("identity")
        for attribute in PROJECTIONS:
            projection = getattr(block, attribute, None)
            if isinstance(projection, nn.Module):
                with zeroed(block, spared=projection.parameters()):
                    y, p = run(x.clone()), projection(x.clone())
                if p.any() and _same_or_rectified(y, p):
                    return Residual("shortcut", attribute)
    except RUN_ERRORS:
        return None  # it wants more than one tensor: nothing that the chain could run
    return None


def num_params(module: nn.Module | None) -> int:
    """Parameters of a module, buffers not counted."""
    return sum(p.numel() for p in module.parameters()) if module is not None else 0


def _same_or_rectified(y: object, x: Tensor) -> bool:
    return isinstance(y, Tensor) and y.shape == x.shape and (torch.equal(y, x) or torch.equal(y, x.relu()))


@contextmanager
def zeroed(module: nn.Module, spared: Iterable[nn.Parameter] = ()) -> Iterator[None]:
    """All parameters of `module` are zero inside, those that are spared excepted."""
    excepted = {id(p) for p in spared}
    saved = [(p, p.detach().clone()) for p in module.parameters() if id(p) not in excepted]
    try:
        for parameter, _ in saved:
            parameter.data.zero_()
        yield
    finally:
        for parameter, values in saved:
            parameter.data.copy_(values)
