"""From a recipe's `balance` to the method."""

from collections.abc import Mapping
from typing import assert_never

import torch

from perceptkit.baselines.balancing.balance import Balance
from perceptkit.baselines.balancing.dwa import Dwa
from perceptkit.baselines.balancing.famo import Famo
from perceptkit.baselines.balancing.gradnorm import Gradnorm
from perceptkit.baselines.balancing.jacobian import Jacobian
from perceptkit.baselines.balancing.uncertainty import Uncertainty
from perceptkit.spec import balance as specs
from perceptkit.tasks.base import Task
from perceptkit.tasks.distillation import regresses


def build_balance(spec: specs.BalanceSpec, tasks: Mapping[str, Task]) -> Balance:
    """A fresh method for these tasks, in their order. Raises SpecError where a package is missing (torchjd)."""
    weight_K = torch.tensor([task.spec.weight for task in tasks.values()])
    match spec:
        case specs.Uniform():
            return Balance(weight_K)
        case specs.Uncertainty():
            return Uncertainty(weight_K, torch.tensor([regresses(task) for task in tasks.values()]))
        case specs.Dwa():
            return Dwa(weight_K, spec.temperature)
        case specs.Gradnorm():
            return Gradnorm(weight_K, spec.alpha, spec.lr)
        case specs.Famo():
            return Famo(weight_K, spec.lr, spec.decay)
        case specs.Torchjd():
            return Jacobian(weight_K, spec.aggregator)
        case _:
            assert_never(spec)
