"""The running statistics of a decided plan, where a soft search has moved the network's own by what no plan runs.

A soft sample mixes every block with its shortcut: in a weight step all blocks run for all tasks, also those that a
task is about to skip, and what lies above them sees the mixture. That is the method, but the running means that it
leaves are not those of the plan which is then judged with them. So before a plan is judged on val, and before what
follows the search begins, norms take their statistics anew from pictures to train on that go through its blocks:

    running mean, variance = averages over the batches, all alike

A norm that the plan does not run keeps what it had. The search itself goes on with the statistics that it had: none of
its steps reads them. Which pictures are taken follows from the seed and the epoch, and labels play no part.

A hard search (straight-through) runs what it keeps and nothing else, and needs none of this; neither does
`formulation: reference_code`, which is to judge as the authors' code does.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from typing import TYPE_CHECKING

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim.swa_utils import update_bn

from perceptkit.model.plan import Plan
from perceptkit.spec.recipe import Recipe, SearchStage
from perceptkit.train.turns import steps_of_epoch

if TYPE_CHECKING:
    from perceptkit.train.training import Training

SHARE = 10
"""One batch for so many steps of an epoch: forward alone, so a few hundredths of what the epoch takes."""
LEAST, MOST = 8, 32
"""Batches, however short or long the epoch is."""


def is_mixed(recipe: Recipe) -> bool:
    """Whether the search of this recipe moves statistics by blocks that are skipped, and that is mended here."""
    search = _search_of(recipe)
    return search is not None and search.gumbel == "soft" and recipe.sharing.formulation == "paper"


@contextmanager
def statistics_of(training: "Training", plan: Plan) -> Iterator[None]:
    """Inside, the network has the running statistics of `plan`; afterwards its own again. Every rank must enter."""
    if not is_mixed(training.recipe):
        yield
        return
    own = _statistics(training.supernet)
    take_statistics(training, plan)
    try:
        yield
    finally:
        for norm, saved in own.items():
            _put_back(norm, saved)


def take_statistics(training: "Training", plan: Plan) -> None:
    """Gives the network the running statistics of `plan` for good, after a soft search. Every rank must call it."""
    recipe, network, position = training.recipe, training.supernet, training.position
    own, search = _statistics(network), _search_of(recipe)
    if not own or search is None or not is_mixed(recipe):
        return
    steps = steps_of_epoch(recipe, search, len(training.train), training.fabric.world_size)
    batches = training.loader(
        training.train,
        range(len(training.train)),
        train=True,
        batch=recipe.batch_of(search),
        order=position.stage * 10_000 + position.epoch * 10 + 2,  # 0 and 1 are the search's own passes
    )
    taken = islice(batches, min(max(LEAST, steps // SHARE), MOST))
    device = training.fabric.device
    update_bn((batch.to(device).image_BCHW for batch in taken), _UnderPlan(training, plan))
    for norm, saved in own.items():
        if not norm.num_batches_tracked:  # the plan does not run it
            _put_back(norm, saved)


class _UnderPlan(nn.Module):
    """The network as a function of pictures alone, in the network's mode."""

    def __init__(self, training: "Training", plan: Plan) -> None:
        super().__init__()
        self.network, self.plan, self.autocast = training.supernet, plan, training.fabric.autocast
        self.training = self.network.training

    def forward(self, image_BCHW: Tensor) -> None:
        with self.autocast():
            self.network(image_BCHW, self.plan)


def _search_of(recipe: Recipe) -> SearchStage | None:
    return next((stage for stage in recipe.stages if isinstance(stage, SearchStage)), None)


def _statistics(network: nn.Module) -> dict[_BatchNorm, dict[str, Tensor]]:
    """Copies of the statistics of all norms that have some."""
    norms = [m for m in network.modules() if isinstance(m, _BatchNorm) and m.track_running_stats]
    return {norm: {name: value.clone() for name, value in norm.named_buffers()} for norm in norms}


def _put_back(norm: _BatchNorm, saved: dict[str, Tensor]) -> None:
    for name, value in norm.named_buffers():
        value.copy_(saved[name])
