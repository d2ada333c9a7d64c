"""A network whose tasks part at several points: a block has one copy for each group of tasks that share it.

    x_g = B_{l,g}(x_{g'})        for every group g of level l, g' being the group of level l - 1 that g is a part of

Neck and heads are those of the last level: a neck for each group, a head for each task. What lies between two blocks
belongs to the upper one; what comes before the first block is always shared.

    params, MACs = sum over levels of (number of groups) * (those of the block)

Copies lie in the block's place in the trunk, under the name of the group's first task, as `layer3.0.task_seg`; where
all tasks are one group, the block is timm's own.

Shapes: B batch, H W pixels of the input.
"""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Self

from torch import Tensor, nn

from perceptkit.baselines.sharing.whole import WholeNetwork, with_heads
from perceptkit.model.copies import put
from perceptkit.model.supernet import Supernet, head_key
from perceptkit.model.task_tree import Group, TaskTree
from perceptkit.model.trunk import run_part, shared_inputs, to_map


@dataclass
class _Bough:
    """Tasks that have come the same way so far."""

    tasks: list[str]
    x: Tensor
    features: list[Tensor]


class TreeNet(WholeNetwork):
    """See the module's docstring.

    Args:
        net: with all tasks; it becomes a part of this network.
        tree: all copies of a block start alike; by default all tasks share everything.
    """

    def __init__(self, net: Supernet, tree: TaskTree | None = None) -> None:
        super().__init__(net, net.tasks)
        self.net = net
        self.tree = TaskTree.parting_after(len(net.blocks), list(net.tasks), len(net.blocks))
        self.levels = _levels(net)
        self.own: tuple[str, ...] = ()
        """Steps that have several copies; the others are shared, or hold nothing that could differ."""
        neck, net.neck = net.neck, None
        first = _key(tuple(net.tasks))
        dense = any(task.dense for task in net.tasks.values())
        self.necks = nn.ModuleDict({first: neck} if neck is not None and dense else {})
        if tree is not None:
            self.part(tree)

    def part(self, tree: TaskTree) -> None:
        """Gives every group of `tree` a copy of its own, with the weights that its tasks share now; in place.

        `tree` may part the tasks further than they are, not bring them together.
        """
        backbone, own = self.net.backbone, []
        for name, level in self.levels.items():
            before, after = self.tree.levels[level], tree.levels[level]
            modules = self._by_group(name, before)
            if len(after) > 1:
                own.append(name)
                put(backbone, name, _copies(modules, before, after))
        necks = {
            group: self.necks[_key(group)] for group in self.tree.levels[-1] if _key(group) in self.necks
        }
        dense = [group for group in tree.levels[-1] if any(self.tasks[task].dense for task in group)]
        if necks:
            self.necks = _copies(necks, self.tree.levels[-1], dense)
        self.tree, self.own = tree, tuple(own)

    def _by_group(self, name: str, groups: Sequence[Group]) -> dict[Group, nn.Module]:
        module = self.net.backbone.get_submodule(name)
        if len(groups) == 1:
            return {groups[0]: module}
        return {group: module.get_submodule(_key(group)) for group in groups}

    def run(self, image_BCHW: Tensor, tasks: Sequence[str]) -> dict[str, Tensor]:
        """Every group's copy once; groups of which no task is asked for do not run."""
        net, backbone = self.net, self.net.backbone
        size_HW = (image_BCHW.shape[2], image_BCHW.shape[3])
        shared, level = shared_inputs(backbone, size_HW), -1
        boughs = [_Bough(list(tasks), image_BCHW, [])]
        for i, step in enumerate(net.steps):
            if self.levels.get(step.name, level) > level:
                level = self.levels[step.name]
                boughs = [part for bough in boughs for part in self._forked(bough, level)]
            for bough in boughs:
                name = step.name
                if name in self.own:
                    name = f"{name}.{_key(self.tree.group(level, bough.tasks[0]))}"
                bough.x = run_part(backbone, name, bough.x, shared)
                if i in net.taps:
                    bough.features.append(to_map(backbone, bough.x, size_HW))
        outputs: dict[str, Tensor] = {}
        for bough in boughs:
            key = _key(self.tree.group(-1, bough.tasks[0]))
            neck = self.necks[key] if key in self.necks else None
            last = to_map(backbone, bough.x, size_HW)
            outputs |= net.run_heads(bough.features, last, bough.tasks, size_HW, neck=neck)
        return {name: outputs[name] for name in tasks}

    def _forked(self, bough: _Bough, level: int) -> list[_Bough]:
        """The bough's tasks by their groups of this level."""
        parts = [[t for t in bough.tasks if t in group] for group in self.tree.levels[level]]
        parts = [part for part in parts if part]
        if len(parts) == 1:
            return [bough]
        return [
            _Bough(part, bough.x.clone(), list(bough.features)) for part in parts
        ]  # a block may work in place

    def num_necks(self) -> int:
        """One for each group of the last level that has a dense task."""
        return len(self.necks)

    def head(self, task: str) -> nn.Module:
        """The head of a task."""
        return self.net.heads[head_key(task)]

    def plain(self) -> Supernet:
        """A copy of the blocks that the first task runs, with the heads of all tasks."""
        made = with_heads(self.net, {name: self.head(name) for name in self.tasks}, self.tasks)
        task = next(iter(self.tasks))
        for name in self.own:
            key = _key(self.tree.group(self.levels[name], task))
            put(made.backbone, name, made.backbone.get_submodule(f"{name}.{key}"))
        made.neck = copy.deepcopy(next(iter(self.necks.values()), None))  # type: ignore[assignment]
        return made

    def only(self, tasks: Sequence[str]) -> Self:
        """A copy with what some of the tasks need."""
        made, own = copy.deepcopy(self), []
        made.tree = self.tree.only(tasks)
        made.tasks = {name: task for name, task in self.tasks.items() if name in tasks}
        for name in self.own:
            kept = _kept(made._by_group(name, self.tree.levels[self.levels[name]]), set(made.tasks))
            own += [name] if len(kept) > 1 else []
            put(made.net.backbone, name, kept if len(kept) > 1 else next(iter(kept.values())))
        heads = {head_key(name): made.net.heads[head_key(name)] for name in made.tasks}
        made.net.tasks, made.net.heads, made.own = dict(made.tasks), nn.ModuleDict(heads), tuple(own)
        necks = {g: made.necks[_key(g)] for g in self.tree.levels[-1] if _key(g) in made.necks}
        dense = {name for name, task in made.tasks.items() if task.dense}
        needed = {group: neck for group, neck in necks.items() if dense & set(group)}
        made.necks = _kept(needed, set(made.tasks))
        return made


def _levels(net: Supernet) -> dict[str, int]:
    """The level of every step that holds something, but for those before the first block."""
    level, found = -1, {}
    last = max(i for i, step in enumerate(net.steps) if step.block is not None)
    for i, step in enumerate(net.steps):
        level = level if step.block is None else step.block
        upper = level + 1 if step.block is None and 0 <= level and i < last else level
        if upper >= 0 and net.backbone.get_submodule(step.name).state_dict():
            found[step.name] = upper
    return found


def _key(group: Group) -> str:
    return head_key(group[0])


def _copies(
    modules: Mapping[Group, nn.Module], before: Sequence[Group], after: Sequence[Group]
) -> nn.ModuleDict:
    """By key of the groups after: the module of the group before that it is a part of, then copies of it."""
    made, used = nn.ModuleDict(), set()
    for group in after:
        source = next(other for other in before if group[0] in other)
        made[_key(group)] = copy.deepcopy(modules[source]) if source in used else modules[source]
        used.add(source)
    return made


def _kept(modules: Mapping[Group, nn.Module], tasks: set[str]) -> nn.ModuleDict:
    """Of the groups that have some of the tasks, under the name of the first of them."""
    left = {tuple(task for task in group if task in tasks): module for group, module in modules.items()}
    return nn.ModuleDict({_key(group): module for group, module in left.items() if group})
