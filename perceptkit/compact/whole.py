"""The compact model of a network whose sharing is no plan: all of it, since every task needs all of its blocks."""

import copy
from collections.abc import Sequence

from torch import Tensor, nn

from perceptkit.baselines.sharing.whole import WholeNetwork


class WholeNet(nn.Module):
    """forward(image_BCHW) -> {task: output}, equal to the trained network's.

    Args:
        network: trained; it is copied, not changed.
        tasks: those that the model shall answer; all by default.
    """

    def __init__(self, network: WholeNetwork, tasks: Sequence[str] | None = None) -> None:
        super().__init__()
        chosen = [task for task in network.tasks if tasks is None or task in tasks]
        is_part = len(chosen) < len(network.tasks)
        self.network = (network.only(chosen) if is_part else copy.deepcopy(network)).cpu().eval()
        self.tasks = tuple(chosen)
        self.eval()

    def forward(self, image_BCHW: Tensor) -> dict[str, Tensor]:
        """All tasks on a batch of normalised images."""
        return self.network.run(image_BCHW, self.tasks)

    def only(self, tasks: Sequence[str]) -> "WholeNet":
        """The model of some of the tasks."""
        return WholeNet(self.network, tasks)
