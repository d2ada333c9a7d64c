"""How much memory one training step takes, estimated before anything is trained.

    total = parameters and buffers + gradients + optimiser states + batch + activations

All but the last are counted. Activations are what else is alive at the worst moment of a forward and backward
pass: two small batches of made-up, fully labelled pictures are run, the live bytes after every operation are
noted, and each moment is extrapolated to the recipe's batch size, in which it is linear. In the search every
block that the curriculum has opened in the end is relaxed, so that each task walks it with an activation of
its own.

Measured against the peak of PyTorch's allocator in real steps on a CPU (96x128, five tasks, batches of 4 to
16; ResNet-18 hard-shared, searching and as single-task nets; ResNet-50, MobileNetV3, ConvNeXt, ViT): within
0.1 %. Not measured on a GPU, whose allocator rounds up and whose convolutions take workspace.
Not in it: the process itself (some 400 MiB with PyTorch), decoded pictures in the cache of the data source,
and workers.
"""

import weakref
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from perceptkit.model.gates import Keep
from perceptkit.policies.adashare import open_blocks
from perceptkit.spec.recipe import Recipe, SearchStage
from perceptkit.tasks.base import Task
from perceptkit.tasks.keypoints import Keypoints

OPTIMIZER_STATES = {"adamw": 2, "adam": 2, "sgd": 1}
"""Tensors of the size of a parameter that each optimiser keeps for it."""
PROBED = (2, 3)
"""Batch sizes of the two probes; BatchNorm cannot train on one picture."""


class LiveBytes(TorchDispatchMode):
    """Notes how many bytes of tensors made inside it are alive after each operation."""

    def __init__(self, known: Sequence[Tensor]) -> None:
        super().__init__()
        self.known = {tensor.untyped_storage().data_ptr() for tensor in known}
        self.alive: dict[int, int] = {}
        self.moments: list[int] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, Tensor):
                storage = tensor.untyped_storage()
                address = storage.data_ptr()
                if address not in self.known and address not in self.alive:
                    self.alive[address] = storage.nbytes()
                    weakref.finalize(storage, self.alive.pop, address, None)
        self.moments.append(sum(self.alive.values()))
        return result


def estimate(
    network: nn.Module, tasks: Mapping[str, Task], recipe: Recipe, size_HW: tuple[int, int]
) -> dict[str, Any]:
    """Bytes of the largest step of each train stage, by what takes them."""
    weights = sum(p.nbytes for p in network.parameters())
    fixed = {
        "parameters": weights + sum(b.nbytes for b in network.buffers()),
        "gradients": weights,
        "optimizer": weights * OPTIMIZER_STATES[recipe.optim.name],
    }
    picture = sum(t.nbytes for t in labelled_batch(tasks, size_HW, 1))
    stages: dict[str, dict[str, int]] = {}
    activations: dict[tuple[int, int], int] = {}
    num_blocks = len(network.blocks)  # type: ignore[arg-type]  # nn.Module's attributes are untyped
    for stage in recipe.stages:
        num_open = 0
        if isinstance(stage, SearchStage):
            num_open = num_blocks
            if stage.curriculum == "top_down":
                # in turns of steps it opens blocks until the end of the last epoch
                last = stage.epochs - (1 if stage.turn_steps is None else 1e-6)
                num_open = open_blocks(last, stage.speed, num_blocks)
        batch = recipe.batch_of(stage)
        if (num_open, batch) not in activations:
            activations[num_open, batch] = activation_bytes(
                network, tasks, recipe.precision, batch, size_HW, num_open
            )
        parts = {**fixed, "batch": batch * picture, "activations": activations[num_open, batch]}
        stages[stage.name] = {**parts, "total": sum(parts.values())}
    return {"batch_size": recipe.loader.batch, "stages": stages}


def activation_bytes(
    network: nn.Module,
    tasks: Mapping[str, Task],
    precision: str,
    batch: int,
    size_HW: tuple[int, int],
    num_open: int,
) -> int:
    """Bytes of activations of a step on `batch` pictures, with the last `num_open` blocks relaxed."""
    small, large = (
        np.array(live_bytes(network, tasks, labelled_batch(tasks, size_HW, probed), num_open, precision))
        for probed in PROBED
    )
    if len(small) != len(large):  # operations that depend on the data
        small, large = small.max(keepdims=True), large.max(keepdims=True)
    factor = (batch - PROBED[0]) / (PROBED[1] - PROBED[0])
    return int((small + (large - small) * factor).max())


def labelled_batch(tasks: Mapping[str, Task], size_HW: tuple[int, int], batch: int) -> list[Tensor]:
    """A grey picture and each task's target, `batch` times; every pixel and every point has a label."""
    targets = []
    for task in tasks.values():
        like = torch.from_numpy(np.stack([task.missing(size_HW)] * batch))
        is_kinds = isinstance(task, Keypoints) and not task.has_names  # the third number is a kind: the first
        targets.append(torch.zeros_like(like) if is_kinds else torch.ones_like(like))
    return [torch.zeros(batch, 3, *size_HW).to(memory_format=torch.channels_last), *targets]


def live_bytes(
    network: nn.Module, tasks: Mapping[str, Task], batch: Sequence[Tensor], num_open: int, precision: str
) -> list[int]:
    """Bytes alive after each operation of one step, without what was there before and without gradients."""
    image_BCHW, *targets = batch
    num_blocks = len(network.blocks)  # type: ignore[arg-type]  # nn.Module's attributes are untyped
    row: list[Keep] = [True] * (num_blocks - num_open)
    row += [torch.tensor(0.5) for _ in range(num_open)]
    hooks = [p.register_post_accumulate_grad_hook(_drop_gradient) for p in network.parameters()]
    with LiveBytes([*network.parameters(), *network.buffers(), *batch]) as live:
        with _autocast(precision):
            outputs = network(image_BCHW, {name: row for name in tasks})
        pairs = zip(tasks.items(), targets, strict=True)
        losses = [task.loss(outputs[name].float(), target) for (name, task), target in pairs]
        torch.stack(losses).sum().backward()
    for hook in hooks:
        hook.remove()
    return live.moments


def _drop_gradient(parameter: Tensor) -> None:
    parameter.grad = None


def _autocast(precision: str) -> AbstractContextManager[Any]:
    """Half precision where the recipe trains in it: float16 has the size of bfloat16."""
    can_bf16 = torch.cuda.is_available() and torch.cuda.is_bf16_supported()
    is_half = precision in ("bf16", "16") or (precision == "auto" and can_bf16)
    return torch.autocast("cpu", torch.bfloat16) if is_half else nullcontext()
