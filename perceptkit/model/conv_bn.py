"""Finds the BatchNorms that read a convolution's output and nothing else, whose affine map can be moved into it.

The pairs are found by running the network once: a BatchNorm is one of a pair when its input is, every time it
is called, exactly the output of one and the same convolution, and nothing else reads that output (the shortcut of a
pre-activation block does). Nothing is assumed about names or types.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

NORMS = (nn.BatchNorm2d, nn.SyncBatchNorm)
CONVOLUTIONS = (nn.Conv2d, nn.ConvTranspose2d)


class _Readers(TorchDispatchMode):
    """Counts by id how many operations read a tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.count: Counter[int] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count.update(id(value) for value in tree_leaves((args, kwargs)) if isinstance(value, Tensor))
        return func(*args, **(kwargs or {}))


@torch.no_grad()
def conv_bn_pairs(
    network: nn.Module, image_BCHW: Tensor, passes: Sequence[Callable[[Tensor], object]] = ()
) -> list[tuple[str, str]]:
    """(convolution, BatchNorm) module names, by one forward pass, or by those of `passes`."""
    names = {module: name for name, module in network.named_modules()}
    made_by: dict[tuple[int, int], str] = {}  # by identity and version: activations may work in place
    alive: list[Tensor] = []  # keeps outputs alive, so that an id stays unique
    outputs: dict[str, list[int]] = defaultdict(list)
    sources: dict[str, set[str | None]] = defaultdict(set)
    users: dict[str, set[str]] = defaultdict(set)
    readers = _Readers()

    def after_conv(module: nn.Module, args: tuple, output: Tensor) -> None:
        made_by[id(output), output._version] = names[module]
        outputs[names[module]].append(id(output))
        alive.append(output)
        readers.count[id(output)] = 0  # of a tensor that had this id before

    def before_bn(module: nn.Module, args: tuple) -> None:
        conv = made_by.get((id(args[0]), args[0]._version))
        sources[names[module]].add(conv)
        if conv is not None:
            users[conv].add(names[module])

    hooks = []
    for module in network.modules():
        if isinstance(module, CONVOLUTIONS) and not (module.transposed and module.groups > 1):
            hooks.append(module.register_forward_hook(after_conv))
        elif isinstance(module, NORMS):
            hooks.append(module.register_forward_pre_hook(before_bn))
    try:
        # tensors have no version in inference mode
        with torch.inference_mode(False), torch.no_grad(), readers:
            for run in passes or (network,):
                run(image_BCHW.clone())
    finally:
        for hook in hooks:
            hook.remove()
    pairs = []
    for bn, convs in sources.items():
        conv = next(iter(convs))
        if len(convs) > 1 or conv is None or users[conv] != {bn}:
            continue
        if all(readers.count[output] == 1 for output in outputs[conv]):
            pairs.append((conv, bn))
    return pairs
