"""Two copies of a block in one network: the base's, and one that is tuned to a domain (SpotTune).

    y = (1 - w) * base(x) + w * tuned(x)          w by picture: 0, 1, or relaxed in between

The block's place in the trunk is taken by a container of both, so their names begin with the block's: `layer1.0.base`,
`layer1.0.tuned`. A stage transition that some task skips and another keeps cannot have two: the projection that the
first runs in its place belongs to one of them.
"""

import copy
from collections.abc import Iterable
from dataclasses import replace

from torch import nn

from perceptkit.model.plan import Plan
from perceptkit.model.supernet import Supernet
from perceptkit.model.trunk import BASE, TUNED, Step


def may_have_copies(net: Supernet, plan: Plan) -> tuple[str, ...]:
    """The blocks that some task keeps, but for stage transitions that another one skips."""
    kept_by_all = [all(plan.row(task)[b] for task in plan.tasks) for b in range(len(plan.blocks))]
    return tuple(
        block.name
        for block, by_any, by_all in zip(net.blocks, plan.kept_by_any(), kept_by_all, strict=True)
        if by_all or (by_any and block.kind == "identity")
    )


def add_copies(net: Supernet, blocks: Iterable[str]) -> None:
    """Gives these blocks a tuned copy each, with the same weights in memory of its own; in place."""
    for name in blocks:
        block = net.backbone.get_submodule(name)
        put(net.backbone, name, nn.ModuleDict({BASE: block, TUNED: copy.deepcopy(block)}))
        _change(net, name, True)


def choose_copy(net: Supernet, block: str, tuned: bool) -> None:
    """Puts one of the two copies in the block's place, in place: the network is as if there had never been another."""
    put(net.backbone, block, net.backbone.get_submodule(f"{block}.{TUNED if tuned else BASE}"))
    _change(net, block, False)


def put(backbone: nn.Module, name: str, module: nn.Module) -> None:
    """Replaces a module by its dotted name."""
    parent, _, child = name.rpartition(".")
    setattr(backbone.get_submodule(parent), child, module)


def _change(net: Supernet, block: str, has_copies: bool) -> None:
    def changed(step: Step) -> Step:
        if step.name != block:
            return step
        new = replace(step, has_copies=has_copies)
        if step.projection is None:
            return new
        return replace(new, projection=f"{new.base}.{step.projection.rpartition('.')[2]}")

    net.steps = [changed(step) for step in net.steps]
