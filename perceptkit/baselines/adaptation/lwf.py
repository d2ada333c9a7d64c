"""Learning without forgetting: all weights are trained, and the base's heads must go on answering as before.

Li, Hoiem. *Learning without Forgetting.* ECCV 2016, TPAMI 2018. https://arxiv.org/abs/1606.09282

    L     = L_new + lambda_o sum_tasks L_old
    L_old = - sum_i y'_i log yhat'_i,    y' = softmax(z / T)

y comes from the base, yhat from the old heads on the network that learns. As in the paper L_old is a cross-entropy, the
entropy of y' included, and is not multiplied by T^2. What it is for tasks that do not classify is in
tasks/distillation.py.

Nothing is fixed, everything learns: trunk (theta_s), new heads (theta_n) and the old heads (theta_o), which start from
the base's. A dense old task reads the domain's neck, which starts from the base's: it counts as shared. A domain
stores all weights of its own network; the old heads are dropped, as folding does.

Differs from the paper: the base answers for the same augmented picture, in eval mode and normalised as it expects, at
every step, instead of once before training; and there is no stage that trains the new heads alone first.

Shapes: B batch.
"""

import copy
from collections.abc import Mapping
from dataclasses import replace
from typing import TypeVar

import torch
from torch import Tensor, nn

from perceptkit.errors import SpecError
from perceptkit.model.neck import Neck
from perceptkit.model.plan import Plan
from perceptkit.model.strategy import Strategy, freeze
from perceptkit.model.supernet import Supernet, head_key
from perceptkit.spec import adaptation as specs
from perceptkit.tasks.distillation import distillation

M = TypeVar("M", bound=nn.Module)
OLD = "base/"
"""Before the names of the base's tasks: no task of a domain can be called so."""


def as_normalised_for(base: Supernet, net: Supernet, image_BCHW: Tensor) -> Tensor:
    """Pictures normalised for `net`, as `base` expects them: a domain may have a mean and std of its own."""
    if (base.mean, base.std) == (net.mean, net.std):
        return image_BCHW
    old_mean, old_std, mean, std = (
        torch.tensor(values, device=image_BCHW.device).view(1, 3, 1, 1)
        for values in (base.mean, base.std, net.mean, net.std)
    )
    return (image_BCHW * std + mean - old_mean) / old_std


class Lwf(Strategy):
    """See the module's docstring. Needs `Origin.net`, with its heads, and `Origin.plan`."""

    def __init__(self, spec: specs.Lwf) -> None:
        super().__init__(spec)
        self.weight, self.temperature = spec.weight, spec.temperature

    @property
    def _base(self) -> tuple[Supernet, Plan]:
        net, plan = self.origin.net, self.origin.plan
        if net is None or plan is None or not net.tasks:
            raise SpecError(
                "adaptation.method lwf keeps the answers of the base's heads, and the base has none: start from a run "
                "of perceptkit (start_from) instead of backbone.weights, or use finetune or l2sp"
            )
        return net, plan

    def begin(self, net: Supernet, plan: Plan) -> None:
        base, _ = self._base
        freeze(base.eval())
        for name, task in base.tasks.items():
            net.guests[OLD + name] = copy.deepcopy(task)
            net.heads[head_key(OLD + name)] = _learning_copy(base.heads[head_key(name)])
        if base.neck is not None:
            if net.neck is None:
                net.neck = _learning_copy(base.neck)
            else:
                _copy_neck(base.neck, net.neck)

    def asked(self, plan: Plan) -> Plan:
        _, old = self._base
        tasks = tuple(OLD + task for task in old.tasks)
        rows = old.with_routed(plan.routed()).table
        return replace(plan, tasks=plan.tasks + tasks, table=plan.table + rows)

    def penalty(
        self, net: Supernet, progress: float, image_BCHW: Tensor, outputs: Mapping[str, Tensor]
    ) -> Tensor | None:
        base, plan = self._base
        base.to(image_BCHW.device)
        with torch.no_grad():
            old = base.eval()(as_normalised_for(base, net, image_BCHW), plan)
        losses = [
            distillation(task, outputs[OLD + name], old[name], self.temperature)
            for name, task in base.tasks.items()
        ]
        return self.weight * torch.stack(losses).sum()

    def fold(self, net: Supernet) -> None:
        for name in net.guests:
            del net.heads[head_key(name)]
        net.guests = {}
        if _neck_is_guest(net):
            net.neck = None

    def pack(self, net: Supernet) -> dict[str, Tensor]:
        """Without the old heads."""
        guests = tuple(f"heads.{head_key(name)}." for name in net.guests)
        if _neck_is_guest(net):
            guests += ("neck.",)
        return {name: value for name, value in super().pack(net).items() if not name.startswith(guests)}


def _copy_neck(base: Neck, neck: Neck) -> None:
    state = base.state_dict()
    if any(value.shape != state[name].shape for name, value in neck.state_dict().items()):
        raise SpecError(
            "adaptation.method lwf gives old and new tasks one neck: set heads.channels to what the base's recipe has"
        )
    neck.load_state_dict(state)


def _neck_is_guest(net: Supernet) -> bool:
    """Whether no task of the domain reads it."""
    return not any(task.dense for task in net.tasks.values())


def _learning_copy(module: M) -> M:
    return copy.deepcopy(module).requires_grad_(True)
