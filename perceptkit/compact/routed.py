"""A compact model that decides by picture: a router in front, and a network whose routed nodes may be skipped.

    forward(image_BCHW) -> {task: output}

This forward is the reference for all that runs such a model: every block runs for every picture, and a mask chooses.
It is what published code does, and saves no time; runtime/skipping.py and the dynamic exports do.

Shapes: B batch, R routed blocks.
"""

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from perceptkit.compact.network import CompactNet, Node
from perceptkit.errors import SpecError
from perceptkit.model.plan import Plan
from perceptkit.model.router import Router
from perceptkit.model.trunk import run_part


class RoutedNet(nn.Module):
    """A router and the compact network it decides for.

    Args:
        router: one decision per routed block; in eval mode.
        network: made from a plan with routed blocks.
        plan: that plan.
    """

    def __init__(self, router: Router, network: CompactNet, plan: Plan) -> None:
        super().__init__()
        self.router, self.network, self.plan = router, network, plan
        self.eval()

    def forward(self, image_BCHW: Tensor) -> dict[str, Tensor]:
        """All tasks on a batch of normalised images."""
        return self.masked(image_BCHW, self.router.keep(image_BCHW))

    def masked(self, image_BCHW: Tensor, keep_BR: Tensor) -> dict[str, Tensor]:
        """All tasks, with the decisions given: (B, R) bool."""

        def visit(node: Node, x: Tensor, shared: Any, last: bool) -> Tensor:
            kept = run_node(self.network, node, x, shared)
            if node.route is None:
                return kept
            keep_B = keep_BR[:, node.route].view(len(keep_BR), *[1] * (kept.ndim - 1))
            return kept.where(keep_B, run_otherwise(self.network, node, x, shared))

        return self.network.walk(image_BCHW, visit)

    def static(self, keep_R: Sequence[bool], share: bool = False) -> CompactNet:
        """The network of the pictures that get this decision: what they skip is not in it.

        `share`: see CompactNet.resolved.
        """
        return self.network.resolved(keep_R, share)

    def only(self, tasks: Sequence[str]) -> "RoutedNet":
        """The model of some of the tasks. The router still decides on all routed blocks."""
        return RoutedNet(self.router, self.network.only(tasks), self.plan)


def run_node(network: CompactNet, node: Node, x: Tensor, shared: Any) -> Tensor:
    """The node's module."""
    return run_part(network.net.backbone, node.module, x, shared)


def run_otherwise(network: CompactNet, node: Node, x: Tensor, shared: Any) -> Tensor:
    """What a routed node gives for pictures that skip it."""
    return run_part(network.net.backbone, node.otherwise, x, shared) if node.otherwise else x


def refuse_routed(network: nn.Module, what: str) -> None:
    """Raises SpecError for a model that decides by picture: a plain file would run, and mask, every block."""
    if isinstance(network, RoutedNet):
        raise SpecError(
            f"this model decides by picture which blocks run, and {what} would run all of them; "
            "--dynamic-skip branch (one picture at a time), gather or codebook (batches) skips them in ONNX, "
            "--format artifact keeps the model as it is"
        )
