"""MACs of a routed model: what every picture costs, and what each routed block adds where it runs.

The same numbers as `model/cost.routed_macs`, of the compact model itself: no supernet is needed.

Shapes: R routed blocks.
"""

from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from perceptkit.compact.network import Node
from perceptkit.compact.routed import RoutedNet, run_node, run_otherwise
from perceptkit.compact.verify import probe_images
from perceptkit.model.cost import measured_macs


@dataclass(frozen=True)
class RouteCost:
    """MACs of one picture."""

    always: int
    """Of a picture that skips all routed blocks, without the router."""
    added_R: tuple[int, ...]
    """What a block adds where it runs, over its projection."""
    router: int

    @property
    def full(self) -> int:
        """Of a picture that keeps all blocks, without the router: what a model without choice costs."""
        return self.always + sum(self.added_R)


@torch.no_grad()
def route_cost(routed: RoutedNet, size_HW: tuple[int, int]) -> RouteCost:
    """Measured by running every part once on a picture of this size."""
    added = [0] * len(routed.plan.routed())
    image = probe_images(size_HW)[0]

    def visit(node: Node, x: Tensor, shared: Any, last: bool) -> Tensor:
        if node.route is not None:
            block = partial(run_node, routed.network, node, x.clone(), shared)  # it may work in place
            rest = partial(run_otherwise, routed.network, node, x.clone(), shared)
            added[node.route] += measured_macs(block) - measured_macs(rest)
        return run_node(routed.network, node, x, shared)

    routed.network.walk(image, visit)
    total = measured_macs(lambda: routed.network(image))
    router = measured_macs(lambda: routed.router(image))
    return RouteCost(total - sum(added), tuple(added), router)
