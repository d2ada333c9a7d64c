"""The network of every `sharing.method`.

`hard` has no file of its own: it is the Supernet with a plan that keeps every block for every task. Hard parameter
sharing (Caruana, *Multitask Learning*, Machine Learning 28, 1997) is one trunk g of weights w under all T tasks, and a
head h of weights v_k for each task,

    min_{w, v_1..v_T} sum_k lambda_k L_k(h(g(x; w); v_k), y_k)
    d/dw = sum_k lambda_k dL_k/dw        d/dv_k = lambda_k dL_k/dv_k

with lambda_k the task's `weight`, or what `balance` makes of it.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, TypeAlias

from perceptkit.baselines.sharing.branch import BranchNet
from perceptkit.baselines.sharing.columns import Columns
from perceptkit.baselines.sharing.cross_stitch import CrossStitchNet
from perceptkit.baselines.sharing.mtan import MtanNet
from perceptkit.baselines.sharing.nddr import NddrNet
from perceptkit.baselines.sharing.single import SingleTaskNets, build_single
from perceptkit.baselines.sharing.sluice import SluiceNet
from perceptkit.baselines.sharing.task_norms import build_task_norms
from perceptkit.baselines.sharing.tree import TreeNet
from perceptkit.baselines.sharing.whole import WholeNetwork
from perceptkit.model.build import build_supernet
from perceptkit.model.supernet import RGB, Supernet
from perceptkit.model.task_tree import TaskTree
from perceptkit.spec.recipe import BackboneSpec, HeadsSpec, SharingSpec
from perceptkit.tasks.base import Task

Network: TypeAlias = Supernet | SingleTaskNets | WholeNetwork
"""What can be trained."""


def build_network(
    sharing: SharingSpec,
    backbone: BackboneSpec,
    heads: HeadsSpec,
    tasks: Mapping[str, Task],
    size_HW: tuple[int, int],
    load: bool = True,
    mean: RGB | None = None,
    std: RGB | None = None,
) -> Network:
    """The network of a recipe. All arguments but the first as for `build_supernet`.

    Raises SpecError where the method does not fit the backbone.
    """
    arguments: Any = (size_HW, load, mean, std)
    if sharing.method == "single":
        return build_single(backbone, heads, tasks, *arguments)
    if sharing.batchnorm == "per_task":
        return build_task_norms(backbone, heads, tasks, *arguments)
    make = _WHOLE.get(sharing.method)
    build = partial(build_supernet, backbone, heads)
    return make(sharing, tasks, lambda some: build(some, *arguments)) if make else build(tasks, *arguments)


Build: TypeAlias = Callable[[Mapping[str, Task]], Supernet]
"""Makes a supernet for these tasks."""


def _branch(sharing: SharingSpec, tasks: Mapping[str, Task], build: Build) -> WholeNetwork:
    assert sharing.share_first is not None
    return BranchNet(build(tasks), sharing.share_first)


def _fafs(sharing: SharingSpec, tasks: Mapping[str, Task], build: Build) -> WholeNetwork:
    net = build(tasks)
    return TreeNet(net, TaskTree.of(sharing.tree, list(tasks), len(net.blocks)) if sharing.tree else None)


def _mtan(sharing: SharingSpec, tasks: Mapping[str, Task], build: Build) -> WholeNetwork:
    return MtanNet(build(tasks))


def _columns(kind: Callable[..., Columns]) -> "Make":
    def make(sharing: SharingSpec, tasks: Mapping[str, Task], build: Build) -> WholeNetwork:
        nets = {name: build({name: task}) for name, task in tasks.items()}
        scale = 1.0 if sharing.unit_lr_scale is None else sharing.unit_lr_scale
        return (
            kind(nets, scale) if sharing.orthogonality is None else kind(nets, scale, sharing.orthogonality)
        )

    return make


Make: TypeAlias = Callable[[SharingSpec, Mapping[str, Task], Build], WholeNetwork]
_WHOLE: dict[str, Make] = {
    "branch": _branch,
    "fafs": _fafs,
    "cross_stitch": _columns(CrossStitchNet),
    "nddr": _columns(NddrNet),
    "mtan": _mtan,
    "sluice": _columns(SluiceNet),
}
