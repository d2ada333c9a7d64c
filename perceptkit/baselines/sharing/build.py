"""Which network a recipe's section `sharing` asks for."""

from collections.abc import Callable

from perceptkit.baselines.sharing.single import Network, build_single
from perceptkit.baselines.sharing.task_norms import build_task_norms
from perceptkit.model.build import build_supernet
from perceptkit.spec.recipe import SharingSpec


def network_builder(sharing: SharingSpec) -> Callable[..., Network]:
    """A function that is called as `build_supernet`."""
    if sharing.method == "single":
        return build_single
    return build_task_norms if sharing.batchnorm == "per_task" else build_supernet
