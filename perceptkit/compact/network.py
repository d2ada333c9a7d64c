"""The compact model: only the blocks that some task keeps, no gates, each distinct activation once.

A plan is compiled into a list of nodes, the prefix trie with all steps between the blocks:

    values = [image]
    for node in nodes: values.append(module(node)(values[node.parent]))

A skipped identity block is no node at all: its children hang on its parent.

Shapes: B batch, H W pixels of the input.
"""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from perceptkit.baselines.sharing.single import SingleTaskNets
from perceptkit.model.plan import Plan
from perceptkit.model.supernet import Supernet, head_key
from perceptkit.model.trunk import Step, run_part, shared_inputs, to_map


@dataclass(frozen=True)
class Node:
    """One module call."""

    module: str
    """Name in the backbone; empty for a ViT's opening."""
    parent: int
    """Index into the values: 0 is the image, i + 1 the output of node i."""


@dataclass(frozen=True)
class Leaf:
    """Where the heads of tasks with the same plan are attached."""

    tasks: tuple[str, ...]
    last: int
    features: tuple[int, ...]


def compile_plan(steps: Sequence[Step], taps: Sequence[int], plan: Plan) -> tuple[list[Node], list[Leaf]]:
    """The nodes in the order of execution, and the leaves."""
    nodes: list[Node] = []

    def call(module: str, parent: int) -> int:
        nodes.append(Node(module, parent))
        return len(nodes)

    branches: list[tuple[int, tuple[str, ...], tuple[int, ...]]] = [(0, plan.tasks, ())]
    for i, step in enumerate(steps):
        grown = []
        for value, tasks, features in branches:
            if step.block is None:
                parts = [(call(step.name, value), tasks)]
            else:
                kept = tuple(t for t in tasks if plan.row(t)[step.block])
                skipped = tuple(t for t in tasks if not plan.row(t)[step.block])
                parts = [(call(step.name, value), kept)] if kept else []
                if skipped:
                    parts.append((call(step.projection, value) if step.projection else value, skipped))
            grown += [(at, who, (*features, at) if i in taps else features) for at, who in parts]
        branches = grown
    return nodes, [Leaf(tasks, value, features) for value, tasks, features in branches]


class _Projection(nn.Module):
    """What is left of a stage transition that no task keeps: its projection, under its old name."""

    def __init__(self, name: str, projection: nn.Module) -> None:
        super().__init__()
        self.add_module(name, projection)


class CompactNet(nn.Module):
    """forward(image_BCHW) -> {task: output}, equal to the supernet's with the same plan.

    Args:
        supernet: trained; it is copied, not changed.
        plan: who keeps what.
    """

    def __init__(self, supernet: Supernet, plan: Plan) -> None:
        super().__init__()
        net: Supernet = copy.deepcopy(supernet).cpu().eval()
        net.rows(plan)  # refuses a plan of another network
        for step in net.steps:
            if step.block is not None and not plan.kept_by_any()[step.block]:
                _drop_block(net.backbone, step)
        self.net = net
        self.nodes, self.leaves = compile_plan(net.steps, net.taps, plan)
        self.last_use = _last_use(self.nodes, self.leaves)
        self.eval()

    def forward(self, image_BCHW: Tensor) -> dict[str, Tensor]:
        """All tasks on a batch of normalised images."""
        backbone = self.net.backbone
        size_HW = (image_BCHW.shape[2], image_BCHW.shape[3])
        shared = shared_inputs(backbone, size_HW)
        values: list[Tensor | None] = [image_BCHW]
        for i, node in enumerate(self.nodes):
            x = values[node.parent]
            assert x is not None
            values.append(run_part(backbone, node.module, x, shared))
            for done in self.last_use.get(i, ()):
                values[done] = None  # peak memory is that of the live branches only
        outputs: dict[str, Tensor] = {}
        for leaf in self.leaves:
            maps = [to_map(backbone, _there(values[at]), size_HW) for at in (*leaf.features, leaf.last)]
            outputs |= self.net.run_heads(maps[:-1], maps[-1], leaf.tasks, size_HW)
        return {task: outputs[task] for task in self.net.tasks}


class CompactNets(nn.Module):
    """One CompactNet per task, for nets that share nothing."""

    def __init__(self, nets: Mapping[str, CompactNet]) -> None:
        super().__init__()
        self.nets = nn.ModuleDict({head_key(name): net for name, net in nets.items()})
        self.tasks = tuple(nets)

    def forward(self, image_BCHW: Tensor) -> dict[str, Tensor]:
        """All tasks on a batch of normalised images."""
        return {name: self.nets[head_key(name)](image_BCHW)[name] for name in self.tasks}


def compact(network: Any, plan: Plan) -> nn.Module:
    """The compact model of a Supernet or of SingleTaskNets."""
    if isinstance(network, SingleTaskNets):
        return CompactNets(
            {name: CompactNet(net, plan.only([name])) for name, net in network.by_task().items()}
        )
    return CompactNet(network, plan)


def _drop_block(backbone: nn.Module, step: Step) -> None:
    parent, _, child = step.name.rpartition(".")
    rest: nn.Module = nn.Identity()
    if step.projection is not None:
        rest = _Projection(step.projection.rpartition(".")[2], backbone.get_submodule(step.projection))
    setattr(backbone.get_submodule(parent), child, rest)


def _last_use(nodes: Sequence[Node], leaves: Sequence[Leaf]) -> dict[int, list[int]]:
    """After which node which values are needed no more."""
    needed = {at for leaf in leaves for at in (*leaf.features, leaf.last)}
    last = {node.parent: i for i, node in enumerate(nodes)}
    done: dict[int, list[int]] = {}
    for value, i in last.items():
        if value not in needed:
            done.setdefault(i, []).append(value)
    return done


def _there(value: Tensor | None) -> Tensor:
    assert value is not None
    return value
