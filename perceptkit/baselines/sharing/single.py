"""One whole network per task: nothing is shared.

What every multi-task paper measures against: T nets of the same backbone, heads and data, trained side by
side on the same batches in one run, so that all else is equal. Net k has weights w_k of the trunk g and v_k of the
head h,

    min_{w_k, v_k} L_k(h(g(x; w_k); v_k), y_k)        for each task k <= T by itself

and the run minimises sum_k lambda_k L_k, in which no weight occurs in two terms: d/dw_k = lambda_k dL_k/dw_k. So the
nets cost T trunks in parameters and in MACs. One thing does couple them: `optim.clip_norm` bounds the norm of the
gradient of all nets together, as of any network.
"""

from collections.abc import Mapping, Sequence
from typing import cast

from torch import Tensor, nn

from perceptkit.model.build import build_supernet
from perceptkit.model.plan import Plan
from perceptkit.model.supernet import RGB, BlockInfo, KeepRows, Supernet, head_key
from perceptkit.spec.recipe import BackboneSpec, HeadsSpec
from perceptkit.tasks.base import Task


class SingleTaskNets(nn.Module):
    """A Supernet per task behind the interface of one Supernet."""

    def __init__(self, nets: Mapping[str, Supernet]) -> None:
        super().__init__()
        self.nets = nn.ModuleDict({head_key(name): net for name, net in nets.items()})
        first = next(iter(nets.values()))
        self.mean, self.std, self.size_HW = first.mean, first.std, first.size_HW
        self.blocks: list[BlockInfo] = first.blocks
        self.tasks = {name: net.tasks[name] for name, net in nets.items()}

    def by_task(self) -> dict[str, Supernet]:
        """The networks by task name."""
        return {name: cast(Supernet, self.nets[head_key(name)]) for name in self.tasks}

    def forward(
        self, image_BCHW: Tensor, keep: Plan | KeepRows, tasks: Sequence[str] | None = None
    ) -> dict[str, Tensor]:
        """Each task's own network on the same image."""
        chosen = list(tasks) if tasks is not None else list(self.tasks)
        return {name: self.nets[head_key(name)](image_BCHW, keep, [name])[name] for name in chosen}


def build_single(
    backbone: BackboneSpec,
    heads: HeadsSpec,
    tasks: Mapping[str, Task],
    size_HW: tuple[int, int],
    load: bool = True,
    mean: RGB | None = None,
    std: RGB | None = None,
) -> SingleTaskNets:
    """One net per task, each with its own initial weights. Arguments as for `build_supernet`."""
    return SingleTaskNets(
        {
            name: build_supernet(backbone, heads, {name: task}, size_HW, load, mean, std)
            for name, task in tasks.items()
        }
    )
