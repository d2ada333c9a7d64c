"""The compact model: only the blocks that some task keeps, no gates, each distinct activation once.

A plan is compiled into a list of nodes, the prefix trie with all steps between the blocks:

    values = [image]
    for node in nodes: values.append(module(node)(values[node.parent]))

A skipped identity block is no node at all: its children hang on its parent. A skipped stage transition is a node of
its projection, which the block, where other tasks keep it, computes inside itself once more. What no node calls, no
task of the model reads or no head needs is not in the model.

Shapes: B batch, H W pixels of the input.
"""

import copy
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor, nn

from perceptkit.baselines.sharing.single import SingleTaskNets
from perceptkit.baselines.sharing.whole import WholeNetwork
from perceptkit.compact.whole import WholeNet
from perceptkit.model.copies import put
from perceptkit.model.plan import Plan
from perceptkit.model.supernet import Supernet, head_key
from perceptkit.model.trunk import Step, run_part, shared_inputs, to_map

MERGED = "merged"
"""Child of the backbone that holds projections which stand for two."""


@dataclass(frozen=True)
class Node:
    """One module call."""

    module: str
    """Name in the backbone; empty for a ViT's opening."""
    parent: int
    """Index into the values: 0 is the image, i + 1 the output of node i."""
    route: int | None = None
    """Column of the keep table that says for which pictures it runs; None: for all."""
    otherwise: str = ""
    """Of a routed node: the module that runs for the other pictures, a projection or the block's other copy; empty:
    none, they pass unchanged."""


Visit = Callable[[Node, Tensor, Any, bool], Tensor]
"""visit(node, x, shared inputs, whether nothing reads x afterwards, the heads included) -> the node's output."""


@dataclass(frozen=True)
class Leaf:
    """Where the heads of tasks with the same plan are attached."""

    tasks: tuple[str, ...]
    last: int
    features: tuple[int, ...]
    """What the neck reads; empty where no task is dense."""


def compile_plan(steps: Sequence[Step], taps: Sequence[int], plan: Plan) -> tuple[list[Node], list[Leaf]]:
    """The nodes in the order of execution, and the leaves."""
    nodes: list[Node] = []
    column = {block: r for r, block in enumerate(plan.routed())}

    def call(module: str, parent: int, route: int | None = None, otherwise: str = "") -> int:
        nodes.append(Node(module, parent, route, otherwise))
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
                route = column.get(step.block)
                instead = step.base if step.has_copies else step.projection or ""
                otherwise = instead if route is not None else ""
                parts = [(call(step.runs, value, route, otherwise), kept)] if kept else []
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
        tasks: those that the model shall answer; all of the supernet's by default.
    """

    def __init__(self, supernet: Supernet, plan: Plan, tasks: Sequence[str] | None = None) -> None:
        super().__init__()
        net: Supernet = copy.deepcopy(supernet).cpu().eval()
        net.rows(plan, tasks)  # refuses a plan of another network
        self.net = net
        self.fused = nn.ModuleDict()
        """By leaf: heads that run as one (compact/fuse.py); the others are in `net`."""
        self.projections = {step.projection: step.base for step in net.steps if step.projection is not None}
        """By module name: the block a projection belongs to; itself where projections have been merged."""
        chosen = list(tasks) if tasks is not None else list(net.tasks)
        nodes, leaves = compile_plan(net.steps, net.taps, plan.only(chosen))
        self.leaves = [leaf if self._is_dense(leaf.tasks) else replace(leaf, features=()) for leaf in leaves]
        self._drop_other_tasks(chosen)
        self.rewire(nodes)
        self.eval()

    def forward(self, image_BCHW: Tensor) -> dict[str, Tensor]:
        """All tasks on a batch of normalised images; routed blocks run for all of them."""
        return self.walk(image_BCHW, self._run)

    def skipping(self, image_BCHW: Tensor) -> dict[str, Tensor]:
        """All tasks, with what runs otherwise in the place of every routed block."""
        return self.walk(image_BCHW, self._run_otherwise)

    def _run_otherwise(self, node: Node, x: Tensor, shared: Any, last: bool) -> Tensor:
        if node.route is not None:
            return run_part(self.net.backbone, node.otherwise, x, shared) if node.otherwise else x
        return self._run(node, x, shared, last)

    def _run(self, node: Node, x: Tensor, shared: Any, last: bool) -> Tensor:
        return run_part(self.net.backbone, node.module, x, shared)

    def walk(self, image_BCHW: Tensor, visit: Visit) -> dict[str, Tensor]:
        """All tasks on a batch of normalised images, by whatever runs a node."""
        backbone = self.net.backbone
        size_HW = (image_BCHW.shape[2], image_BCHW.shape[3])
        shared = shared_inputs(backbone, size_HW)
        values: list[Tensor | None] = [image_BCHW]
        outputs: dict[str, Tensor] = {}
        for i, node in enumerate(self.nodes):
            x = _there(values[node.parent])
            done = self.last_use.get(i, ())
            values.append(visit(node, x, shared, i in self.spending))
            for leaf in self.answered_after.get(i, ()):
                outputs |= self._answer(leaf, values, size_HW)
            for value in done:
                values[value] = None  # peak memory is that of the live branches only
        return {task: outputs[task] for task in self.net.tasks}

    def _answer(
        self, index: int, values: Sequence[Tensor | None], size_HW: tuple[int, int]
    ) -> dict[str, Tensor]:
        """Neck and heads of one leaf."""
        leaf, backbone = self.leaves[index], self.net.backbone
        features = [to_map(backbone, _there(values[at]), size_HW) for at in leaf.features]
        last = (
            features[-1]
            if leaf.last in leaf.features
            else to_map(backbone, _there(values[leaf.last]), size_HW)
        )
        return self.net.run_heads(features, last, leaf.tasks, size_HW, self._fused_of(index))

    def only(self, tasks: Sequence[str]) -> "CompactNet":
        """The model of some of the tasks: their own paths and heads, and nothing of the others."""
        small = copy.deepcopy(self)
        small.fused, small.leaves = nn.ModuleDict(), []
        for i, leaf in enumerate(self.leaves):
            left = replace(leaf, tasks=tuple(task for task in leaf.tasks if task in tasks))
            if not left.tasks:
                continue
            fused: Any = self.fused[str(i)] if str(i) in self.fused else None
            answered = [task for task in fused.tasks if task in tasks] if fused is not None else []
            if len(answered) == 1:  # a head of its own again, as in a model that never had the others
                small.net.heads[head_key(answered[0])] = fused.head(answered[0], self.net.tasks[answered[0]])
            elif answered:
                small.fused[str(len(small.leaves))] = copy.deepcopy(fused.only(tasks))
            small.leaves.append(left if self._is_dense(left.tasks) else replace(left, features=()))
        small._drop_other_tasks(tasks)
        small.rewire(self.nodes)
        return small

    def resolved(self, keep_R: Sequence[bool], share: bool = False) -> "CompactNet":
        """The network without choice: routed nodes run, or are gone, as `keep_R` says by column.

        `share` leaves the weights in the memory they are in: they are then those of both networks.
        """
        tensors = [*self.parameters(), *self.buffers()] if share else []
        fixed = copy.deepcopy(self, {id(tensor): tensor for tensor in tensors})
        nodes: list[Node] = []
        values = [0]  # by old value, the new one
        for node in self.nodes:
            parent = values[node.parent]
            if node.route is None or keep_R[node.route]:
                nodes.append(Node(node.module, parent))
            elif node.otherwise:
                nodes.append(Node(node.otherwise, parent))
            else:
                values.append(parent)
                continue
            values.append(len(nodes))
        fixed.leaves = [
            replace(leaf, last=values[leaf.last], features=tuple(values[at] for at in leaf.features))
            for leaf in self.leaves
        ]
        fixed.rewire(nodes)
        return fixed

    def add_merged(self, projection: nn.Module) -> str:
        """Takes in a projection that stands for two; gives the name that nodes call it by."""
        backbone = self.net.backbone
        if not hasattr(backbone, MERGED):
            backbone.add_module(MERGED, nn.ModuleDict())
        merged = backbone.get_submodule(MERGED)
        assert isinstance(merged, nn.ModuleDict)
        name = f"{MERGED}.{len(merged)}"
        merged[str(len(merged))] = projection
        self.projections[name] = name
        return name

    def is_merged(self, parameter: str) -> bool:
        """Whether a name in the state dict is of such a projection."""
        return parameter.startswith(f"net.backbone.{MERGED}.")

    def has_merged(self) -> bool:
        """Whether some projection stands for two."""
        return any(node.module.startswith(f"{MERGED}.") for node in self.nodes)

    def rewire(self, nodes: Sequence[Node]) -> None:
        """Runs these nodes from now on; drops those that lead nowhere, and the modules that none calls."""
        self.nodes, self.leaves = in_order(nodes, self.leaves)
        self.last_use = _last_use(self.nodes, self.leaves)
        self.spending = _spending(self.nodes, self.leaves)
        self.answered_after: dict[int, list[int]] = {}
        for i, leaf in enumerate(self.leaves):
            self.answered_after.setdefault(leaf.last - 1, []).append(i)
        called = {node.module for node in self.nodes} | {node.otherwise for node in self.nodes}
        for step in self.net.steps:
            for module in {step.runs, step.base} if step.block is not None else ():
                if module not in called:
                    _drop_block(self.net.backbone, module, step.projection, called)
        for name, owner in self.projections.items():
            if name == owner and name not in called:  # merged once more, or of another task
                put(self.net.backbone, name, nn.Identity())

    def _is_dense(self, tasks: Sequence[str]) -> bool:
        return any(self.net.tasks[task].dense for task in tasks)

    def _fused_of(self, leaf: int) -> "Callable[[Tensor], dict[str, Tensor]] | None":
        return self.fused[str(leaf)] if str(leaf) in self.fused else None

    def _drop_other_tasks(self, tasks: Collection[str]) -> None:
        net = self.net
        net.tasks = {name: task for name, task in net.tasks.items() if name in tasks}
        keys = {head_key(name) for name in net.tasks}
        net.heads = nn.ModuleDict({key: head for key, head in net.heads.items() if key in keys})
        if not self._is_dense(list(net.tasks)):
            net.neck = None


class CompactNets(nn.Module):
    """One CompactNet per task, for nets that share nothing."""

    def __init__(self, nets: Mapping[str, CompactNet]) -> None:
        super().__init__()
        self.nets = nn.ModuleDict({head_key(name): net for name, net in nets.items()})
        self.tasks = tuple(nets)

    def forward(self, image_BCHW: Tensor) -> dict[str, Tensor]:
        """All tasks on a batch of normalised images."""
        return {name: self.nets[head_key(name)](image_BCHW)[name] for name in self.tasks}

    def only(self, tasks: Sequence[str]) -> "CompactNets":
        """The nets of some of the tasks."""
        return CompactNets({t: copy.deepcopy(self.nets[head_key(t)]) for t in self.tasks if t in tasks})  # type: ignore[misc]  # ModuleDict is not generic


def compact(network: Any, plan: Plan, tasks: Sequence[str] | None = None) -> nn.Module:
    """The compact model of a trained network, for all tasks or some of them."""
    if isinstance(network, WholeNetwork):
        return WholeNet(network, tasks)
    if isinstance(network, SingleTaskNets):
        chosen = tasks if tasks is not None else list(network.tasks)
        nets = network.by_task()
        return CompactNets({name: CompactNet(nets[name], plan.only([name])) for name in chosen})
    return CompactNet(network, plan, tasks)


def parts(network: nn.Module) -> list[CompactNet]:
    """The networks that a compact model consists of: one, or one per task; none where it is used only as a whole."""
    return [module for module in network.modules() if isinstance(module, CompactNet)]


def in_order(nodes: Sequence[Node], leaves: Sequence[Leaf]) -> tuple[list[Node], list[Leaf]]:
    """The nodes that lead to a leaf, one branch after the other, and the leaves, numbered anew.

    Depth first: a branch's memory is given back before the next one starts. It takes the same time as breadth first.
    """
    needed = {at for leaf in leaves for at in (*leaf.features, leaf.last)}
    for i in range(len(nodes) - 1, -1, -1):  # children come after their parents
        if i + 1 in needed:
            needed.add(nodes[i].parent)
    order, waiting = [], [0]
    while waiting:
        order.append(value := waiting.pop())
        children = [i + 1 for i, node in enumerate(nodes) if node.parent == value and i + 1 in needed]
        waiting += reversed(children)
    number = {old: new for new, old in enumerate(order)}
    kept = [replace(nodes[i - 1], parent=number[nodes[i - 1].parent]) for i in order[1:]]
    return kept, [
        Leaf(leaf.tasks, number[leaf.last], tuple(number[at] for at in leaf.features)) for leaf in leaves
    ]


def _drop_block(backbone: nn.Module, module: str, projection: str | None, called: Collection[str]) -> None:
    """Takes out a block that nobody calls, but not a projection of it that somebody does."""
    rest: nn.Module = nn.Identity()
    if projection is not None and projection in called and projection.startswith(f"{module}."):
        rest = _Projection(projection.rpartition(".")[2], backbone.get_submodule(projection))
    put(backbone, module, rest)


def _last_use(nodes: Sequence[Node], leaves: Sequence[Leaf]) -> dict[int, list[int]]:
    """After which node, and the heads that follow it, which values are needed no more."""
    last = {node.parent: i for i, node in enumerate(nodes)}
    for leaf in leaves:
        for at in (*leaf.features, leaf.last):
            last[at] = max(last.get(at, 0), leaf.last - 1)
    done: dict[int, list[int]] = {}
    for value, i in last.items():
        done.setdefault(i, []).append(value)
    return done


def _spending(nodes: Sequence[Node], leaves: Sequence[Leaf]) -> frozenset[int]:
    """Nodes that are the last to read their input: they may write over it.

    Not the same as `_last_use`, which counts the heads in that answer right after a node: those read their features
    after it has run.
    """
    last = {node.parent: i for i, node in enumerate(nodes)}
    answered = {
        at: leaf.last - 1
        for leaf in sorted(leaves, key=lambda f: f.last)
        for at in (*leaf.features, leaf.last)
    }
    return frozenset(i for value, i in last.items() if answered.get(value, -1) < i)


def _there(value: Tensor | None) -> Tensor:
    assert value is not None
    return value
