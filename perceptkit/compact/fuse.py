"""Heads that read the same map become one: their first convolutions are one wider convolution.

    conv3x3_k: C -> C, for K tasks        =>    conv3x3: C -> K C, one read of the map
    conv1x1_k: C -> out_k                       split, then conv1x1_k as before

Each output channel is the same sum as before, so parameters and MACs stay what they were.

Shapes: B batch, C channels of the neck, h w pixels at stride 4, K tasks.
"""

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import skip_init

from perceptkit.compact.network import CompactNet
from perceptkit.model.supernet import head_key
from perceptkit.tasks.base import Task
from perceptkit.tasks.heads import DenseHead


class FusedHeads(nn.Module):
    """forward(feature_BChw) -> {task: output}, those of `heads`.

    Args:
        heads: by task; each is a DenseHead whose norm has been folded, or a Sequential that starts with one.
    """

    def __init__(self, heads: Mapping[str, nn.Module]) -> None:
        super().__init__()
        found = {task: _first(head) for task, head in heads.items()}
        self.tasks = tuple(heads)
        self.conv = _stacked([head.conv for head, _ in found.values()])
        self.relu = nn.ReLU(inplace=True)
        self.rest = nn.ModuleDict(
            {head_key(task): nn.Sequential(head.predict, *after) for task, (head, after) in found.items()}
        )

    def forward(self, feature_BChw: Tensor) -> dict[str, Tensor]:
        """All their outputs."""
        hidden = self.relu(self.conv(feature_BChw)).chunk(len(self.tasks), dim=1)
        return {task: self.rest[head_key(task)](part) for task, part in zip(self.tasks, hidden, strict=True)}

    @torch.no_grad()
    def head(self, task: str, declared: Task) -> nn.Module:
        """The head of one task as it was: a copy, its norm folded."""
        made = declared.head(self.conv.in_channels)
        (dense, after), rest = _first(made), self.rest[head_key(task)]
        assert isinstance(rest, nn.Sequential) and len(rest) == 1 + len(after)
        index = self.tasks.index(task)
        dense.conv = _like(self.conv, self.conv.out_channels // len(self.tasks))
        dense.norm = nn.Identity()  # type: ignore[assignment]  # as folding leaves it
        assert dense.conv.bias is not None and self.conv.bias is not None
        dense.conv.weight.copy_(self.conv.weight.chunk(len(self.tasks))[index])
        dense.conv.bias.copy_(self.conv.bias.chunk(len(self.tasks))[index])
        dense.predict = copy.deepcopy(rest[0])  # type: ignore[assignment]  # it was a convolution when it was fused
        for i, module in enumerate(rest[1:], start=1):
            made[i] = copy.deepcopy(module)  # type: ignore[operator]  # a Sequential, since there is more
        return made.train(self.training)

    def only(self, tasks: Sequence[str]) -> "FusedHeads":
        """The same for some of the tasks; the weights of the others are gone."""
        small = FusedHeads.__new__(FusedHeads)
        nn.Module.__init__(small)
        small.tasks = tuple(task for task in self.tasks if task in tasks)
        width = self.conv.out_channels // len(self.tasks)
        rows = [i for i, task in enumerate(self.tasks) if task in tasks]
        small.conv = _like(self.conv, width * len(rows))
        assert small.conv.bias is not None and self.conv.bias is not None
        with torch.no_grad():
            small.conv.weight.copy_(torch.cat([self.conv.weight.chunk(len(self.tasks))[i] for i in rows]))
            small.conv.bias.copy_(torch.cat([self.conv.bias.chunk(len(self.tasks))[i] for i in rows]))
        small.relu = self.relu
        small.rest = nn.ModuleDict({head_key(task): self.rest[head_key(task)] for task in small.tasks})
        return small.train(self.training)


def fuse_heads(network: CompactNet) -> int:
    """Fuses, leaf by leaf, the dense heads of a folded network that can be, in place. Returns how many."""
    count = 0
    for i, leaf in enumerate(network.leaves):
        heads = {
            task: network.net.heads[head_key(task)] for task in leaf.tasks if _can_be_fused(network, task)
        }
        if len(heads) < 2:
            continue
        network.fused[str(i)] = FusedHeads(heads).eval()
        for task in heads:
            del network.net.heads[head_key(task)]
        count += len(heads)
    return count


def _can_be_fused(network: CompactNet, task: str) -> bool:
    """Whether the head is a DenseHead, and what may follow it, with nothing between its convolution and relu."""
    if head_key(task) not in network.net.heads:
        return False  # it has been fused already
    head = network.net.heads[head_key(task)]
    first = head[0] if isinstance(head, nn.Sequential) and len(head) else head
    return network.net.tasks[task].dense and type(first) is DenseHead and isinstance(first.norm, nn.Identity)


def _first(head: nn.Module) -> tuple[DenseHead, list[nn.Module]]:
    first, after = (head[0], list(head[1:])) if isinstance(head, nn.Sequential) else (head, [])
    assert isinstance(first, DenseHead)
    return first, after


def _like(conv: nn.Conv2d, out_channels: int) -> nn.Conv2d:
    """A convolution of the heads' kind with that many outputs, and a bias: the norm's shift is in it."""
    like: dict[str, Any] = {"device": conv.weight.device, "dtype": conv.weight.dtype}
    made = skip_init(nn.Conv2d, conv.in_channels, out_channels, kernel_size=3, padding=1, bias=True, **like)
    assert isinstance(made, nn.Conv2d)
    return made


@torch.no_grad()
def _stacked(convs: Sequence[nn.Conv2d]) -> nn.Conv2d:
    made = _like(convs[0], sum(conv.out_channels for conv in convs))
    assert made.bias is not None
    made.weight.copy_(torch.cat([conv.weight for conv in convs]))
    made.bias.copy_(torch.cat([conv.bias for conv in convs if conv.bias is not None]))
    return made
