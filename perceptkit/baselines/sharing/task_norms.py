"""One network in which every task has BatchNorms of its own and shares all other weights, head aside.

As in the branch `domainnet` of AdaShare's code (sunxm2357/AdaShare, `task_bn: True`; Sun et al., NeurIPS 2020,
https://arxiv.org/abs/1911.12423), where tasks see different domains.

The first norm comes right after the first convolution, so from there on no two tasks have the same activations: the
plan's prefix trie parts at once, and K tasks cost K passes (here the first convolution too). Norms are counted once
for each task. In a compact model norms are folded into convolutions, which then are each task's own too: what is
written has the size of K networks.
"""

from collections.abc import Callable, Mapping
from typing import Any

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from perceptkit.baselines.sharing.single import SingleTaskNets, build_single
from perceptkit.errors import SpecError
from perceptkit.model.supernet import RGB, Supernet
from perceptkit.spec.recipe import BackboneSpec, HeadsSpec
from perceptkit.tasks.base import Task


class TaskNormNets(SingleTaskNets):
    """A Supernet per task; but for norms and heads their parameters are the first one's.

    Raises SpecError where the backbone has no BatchNorm.
    """

    def __init__(self, nets: Mapping[str, Supernet]) -> None:
        super().__init__(nets)
        backbone = next(iter(nets.values())).backbone
        if not any(isinstance(module, _BatchNorm) for module in backbone.modules()):
            raise SpecError("sharing.batchnorm: this backbone has no BatchNorm; drop the key")
        self._tie()

    def _tie(self) -> None:
        shared: dict[str, nn.Parameter] = {}
        for net in self.by_task().values():
            for name, module in net.named_modules():
                if isinstance(module, _BatchNorm) or name.partition(".")[0] == "heads":
                    continue
                for key, parameter in list(module.named_parameters(recurse=False)):
                    module.register_parameter(key, shared.setdefault(f"{name}.{key}", parameter))

    def _apply(self, fn: Callable[..., Any], recurse: bool = True) -> "TaskNormNets":
        """On some devices moving a network makes new parameters, of each net its own."""
        super()._apply(fn, recurse)
        self._tie()
        return self


def build_task_norms(
    backbone: BackboneSpec,
    heads: HeadsSpec,
    tasks: Mapping[str, Task],
    size_HW: tuple[int, int],
    load: bool = True,
    mean: RGB | None = None,
    std: RGB | None = None,
) -> TaskNormNets:
    """The network with its initial weights. Arguments as for `build_supernet`."""
    return TaskNormNets(build_single(backbone, heads, tasks, size_HW, load, mean, std).by_task())
