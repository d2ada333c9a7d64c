"""Branching by hand: all tasks share the first k blocks, then each has a copy of the rest.

    x = B_k(... B_1(stem(image)))            once, for all tasks
    y_t = N_t(B_{t,L}(... B_{t,k+1}(x)))     for every task t: blocks, what lies between them, neck N_t and head

The tree that branched multi-task networks learn to improve on (Lu et al., *Fully-adaptive Feature Sharing in Multi-Task
Networks with Applications in Person Attribute Classification*, CVPR 2017, https://arxiv.org/abs/1611.05377; Vandenhende
et al., *Branched Multi-Task Networks*, BMVC 2020, https://arxiv.org/abs/1904.02920). k is `sharing.share_first`.
With k = 0 only what comes before the first block is shared.

    params = params(shared) + T * params(rest)        MACs = MACs(shared) + T * MACs(rest)

Copies lie in the block's place in the trunk, as `layer3.0.task_seg`, and start alike.

Shapes: B batch, H W pixels of the input.
"""

import copy
from collections.abc import Sequence
from typing import Self

from torch import Tensor, nn

from perceptkit.baselines.sharing.whole import WholeNetwork, with_heads
from perceptkit.errors import SpecError
from perceptkit.model.copies import put
from perceptkit.model.supernet import Supernet, head_key
from perceptkit.model.trunk import run_part, shared_inputs, to_map


class BranchNet(WholeNetwork):
    """See the module's docstring.

    Args:
        net: with all tasks; it becomes a part of this network.
        share_first: k.

    Raises SpecError where no block is left for the tasks.
    """

    def __init__(self, net: Supernet, share_first: int) -> None:
        super().__init__(net, net.tasks)
        if share_first >= len(net.blocks):
            raise SpecError(
                f"sharing.share_first: {share_first} leaves none of the {len(net.blocks)} blocks to the tasks; "
                f"expected at most {len(net.blocks) - 1}, or sharing.method hard"
            )
        at = [i for i, step in enumerate(net.steps) if step.block is not None]
        self.split = at[share_first - 1] + 1 if share_first else at[0]
        self.net = net
        keys = [head_key(name) for name in self.tasks]
        self.own = tuple(step.name for step in net.steps[self.split :] if _has_state(net, step.name))
        """Steps of which each task has a copy; the others hold nothing that could differ."""
        for name in self.own:
            put(net.backbone, name, _copies(net.backbone.get_submodule(name), keys))
        neck, net.neck = net.neck, None
        dense = [head_key(name) for name, task in self.tasks.items() if task.dense]
        self.necks = _copies(neck, dense) if neck is not None else nn.ModuleDict()

    def run(self, image_BCHW: Tensor, tasks: Sequence[str]) -> dict[str, Tensor]:
        """The shared part once, then each task's own."""
        net, backbone = self.net, self.net.backbone
        size_HW = (image_BCHW.shape[2], image_BCHW.shape[3])
        shared = shared_inputs(backbone, size_HW)
        x, features = image_BCHW, []
        for i, step in enumerate(net.steps[: self.split]):
            x = run_part(backbone, step.name, x, shared)
            if i in net.taps:
                features.append(to_map(backbone, x, size_HW))
        outputs: dict[str, Tensor] = {}
        for name in tasks:
            key = head_key(name)
            y, own = x.clone(), list(features)  # a block may work in place
            for i, step in enumerate(net.steps[self.split :], self.split):
                part = f"{step.name}.{key}" if step.name in self.own else step.name
                y = run_part(backbone, part, y, shared)
                if i in net.taps:
                    own.append(to_map(backbone, y, size_HW))
            neck = self.necks[key] if key in self.necks else None
            outputs |= net.run_heads(own, to_map(backbone, y, size_HW), [name], size_HW, neck=neck)
        return outputs

    def head(self, task: str) -> nn.Module:
        """The head of a task."""
        return self.net.heads[head_key(task)]

    def plain(self) -> Supernet:
        """A copy of the shared part and of one task's copy of the rest, with the heads of all tasks."""
        made = with_heads(self.net, {name: self.head(name) for name in self.tasks}, self.tasks)
        key = head_key(next(iter(self.tasks)))
        for name in self.own:
            put(made.backbone, name, made.backbone.get_submodule(f"{name}.{key}"))
        made.neck = copy.deepcopy(next(iter(self.necks.values()), None))  # type: ignore[assignment]
        return made

    def only(self, tasks: Sequence[str]) -> Self:
        """A copy with the shared part and the rest of some of the tasks."""
        made = copy.deepcopy(self)
        made.tasks = {name: task for name, task in self.tasks.items() if name in tasks}
        keys = {head_key(name) for name in made.tasks}
        for name in made.own:
            put(made.net.backbone, name, _some(made.net.backbone.get_submodule(name), keys))
        made.net.tasks, made.net.heads = dict(made.tasks), _some(made.net.heads, keys)
        made.necks = _some(made.necks, keys)
        return made


def _copies(module: nn.Module, keys: Sequence[str]) -> nn.ModuleDict:
    """By key: the module, then copies of it."""
    return nn.ModuleDict({key: copy.deepcopy(module) if i else module for i, key in enumerate(keys)})


def _some(modules: nn.Module, keys: set[str]) -> nn.ModuleDict:
    return nn.ModuleDict({key: module for key, module in modules.named_children() if key in keys})


def _has_state(net: Supernet, name: str) -> bool:
    return bool(net.backbone.get_submodule(name).state_dict())
