"""Separate timm nets, one per task, as one would write them without perceptkit: what a multi-task model replaces.

The trunk is run by timm's own `forward_intermediates` (dense tasks) or `forward_features` (global ones); neck and
head follow. There is no gate, no plan and no list of steps. Which of timm's intermediates the neck reads is found by
comparing them, bit by bit, with the features of the supernet; then the outputs are compared with the supernet's.

Shapes: B batch, H W pixels.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from perceptkit.compact.verify import parity, probe_images, refuse_mismatch
from perceptkit.errors import ExportError, SpecError
from perceptkit.model.plan import Plan
from perceptkit.model.supernet import Supernet
from perceptkit.model.trunk import run_part, shared_inputs, to_map


class BareNet(nn.Module):
    """forward(image_BCHW) -> {task: output}, with the weights of a supernet of one task, which it shares.

    Args:
        net: a Supernet of one task; it is not changed.

    Raises:
        SpecError: timm's API does not give the features that neck or head read.
        ExportError: the outputs are not those of the supernet that keeps all blocks.
    """

    def __init__(self, net: Supernet) -> None:
        super().__init__()
        self.trunk: Any = net.backbone
        self.neck, self.heads = net.neck, net.heads
        self.run_heads = (
            net.run_heads
        )  # a bound method: `net` itself is no child, so that nothing is counted twice
        (self.task,) = net.tasks
        self.taken: dict[str, Any] = _intermediates(net) if net.tasks[self.task].dense else {}
        everything = Plan.all_keep([self.task], [block.name for block in net.blocks])
        with torch.no_grad():
            compared = parity(lambda image: net(image, everything), self, probe_images(net.size_HW)[:1])
        refuse_mismatch(compared, "the bare timm net")

    def forward(self, image_BCHW: Tensor) -> dict[str, Tensor]:
        """The task's output on a batch of normalised images."""
        size_HW = (image_BCHW.shape[2], image_BCHW.shape[3])
        if self.taken:
            features = self.trunk.forward_intermediates(image_BCHW, **self.taken)
            return self.run_heads(features, features[-1], [self.task], size_HW)
        last = to_map(self.trunk, self.trunk.forward_features(image_BCHW), size_HW)
        return self.run_heads([], last, [self.task], size_HW)


class BareNets(nn.Module):
    """forward(image_BCHW) -> {task: output} of nets that share nothing, one after the other.

    Args:
        nets: a Supernet of one task by each task's name.

    Raises:
        SpecError, ExportError: as BareNet.
    """

    def __init__(self, nets: Mapping[str, Supernet]) -> None:
        super().__init__()
        self.nets = nn.ModuleList(BareNet(net) for net in nets.values())

    def forward(self, image_BCHW: Tensor) -> dict[str, Tensor]:
        """All tasks on a batch of normalised images."""
        return {task: output for net in self.nets for task, output in net(image_BCHW).items()}


@torch.no_grad()
def _intermediates(net: Supernet) -> dict[str, Any]:
    """Arguments of timm's `forward_intermediates` that make it give what the neck reads, fine to coarse.

    Raises SpecError where there are none.
    """
    image = probe_images(net.size_HW)[0]
    wanted, trunk = _features(net, image), net.backbone
    for norm in (False, True):
        asked: dict[str, Any] = {"norm": norm, "output_fmt": "NCHW", "intermediates_only": True}
        try:
            given = trunk.forward_intermediates(image, **asked)  # type: ignore[operator]  # timm's, of any class
        except Exception:  # no such method or argument, NCHW refused, ...: one type per family
            continue
        places = [_place(feature, given) for feature in wanted]
        if None not in places:
            return {**asked, "indices": places}
    raise SpecError("timm's forward_intermediates does not give the features that the neck reads")


def _features(net: Supernet, image_BCHW: Tensor) -> list[Tensor]:
    """What the supernet's neck reads."""
    size_HW = (image_BCHW.shape[2], image_BCHW.shape[3])
    shared, x, features = shared_inputs(net.backbone, size_HW), image_BCHW, []
    for i, step in enumerate(net.steps):
        x = run_part(net.backbone, step.runs, x, shared)
        if i in net.taps:
            features.append(to_map(net.backbone, x, size_HW).clone())
    return features


def _place(feature: Tensor, given: list[Tensor]) -> int | None:
    """Where it is among timm's intermediates; the last one of equal ones."""
    return max((i for i, other in enumerate(given) if torch.equal(feature, other)), default=None)


def bare_nets(nets: Mapping[str, Supernet]) -> tuple[BareNets | None, str]:
    """The bare nets and an empty reason; or None and why there are none.

    Args:
        nets: a Supernet of one task by each task's name, on the CPU and in eval mode.
    """
    try:
        return BareNets(nets), ""
    except (
        SpecError,
        ExportError,
        AttributeError,
    ) as error:  # AttributeError: a trunk without forward_features
        return None, str(error).splitlines()[0]
