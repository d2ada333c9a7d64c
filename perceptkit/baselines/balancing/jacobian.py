"""Gradients of tasks are combined, not their losses, by the package torchjd.

Quinton, Rey. *Jacobian Descent for Multi-Objective Optimization.* 2024. https://arxiv.org/abs/2406.16232

    J     = rows d(lambda_k L_k) / d theta          of the tasks that are labelled in the batch
    g     = aggregator(J)                           UPGrad, MGDA, PCGrad, CAGrad, ...; see torchjd's documentation

It costs a backward pass and a copy of all gradients per task. With several ranks J is averaged over them first.

Shapes: K tasks, P weights.
"""

from typing import Any

import torch
from torch import Tensor

from perceptkit.baselines.balancing.balance import Balance, Network
from perceptkit.errors import SpecError
from perceptkit.tasks.base import mean_over_ranks


class Jacobian(Balance):
    """See the module's docstring.

    Args:
        weight_K: lambda.
        aggregator: its name in `torchjd.aggregation`.

    Raises:
        SpecError: torchjd is not installed, has no aggregator of this name, or it needs arguments or other packages.
    """

    def __init__(self, weight_K: Tensor, aggregator: str) -> None:
        super().__init__(weight_K)
        self.aggregator = make_aggregator(aggregator)

    def backward(self, losses_K: Tensor, labelled_K: Tensor, network: Network) -> Tensor:
        weighed_K = self.weight_K * losses_K
        used = torch.zeros(len(network.weights), dtype=torch.bool)

        def row(loss: Tensor) -> Tensor:
            found = torch.autograd.grad(loss, network.weights, retain_graph=True, allow_unused=True)
            used.logical_or_(torch.tensor([g is not None for g in found]))
            zeros = (
                p.new_zeros(p.shape) if g is None else g for g, p in zip(found, network.weights, strict=True)
            )
            return torch.cat([g.flatten() for g in zeros])

        rows = [row(loss) for loss, is_known in zip(weighed_K, labelled_K.tolist(), strict=True) if is_known]
        if rows:
            gradient_P = self.aggregator(mean_over_ranks(torch.stack(rows)))
            if network.penalty is not None:
                gradient_P = gradient_P + mean_over_ranks(row(network.penalty))
            sizes = [p.numel() for p in network.weights]
            for p, part, is_used in zip(network.weights, gradient_P.split(sizes), used.tolist(), strict=True):
                p.grad = part.view_as(p).to(p.dtype) if is_used else None
        return weighed_K[labelled_K].sum().detach()


def make_aggregator(name: str) -> Any:
    """An aggregator of torchjd. Raises SpecError as `Jacobian` does."""
    try:
        from torchjd import aggregation
    except ImportError as error:
        raise SpecError("balance.method torchjd needs a package: pip install 'perceptkit[jd]'") from error
    kind = getattr(aggregation, name, None)
    if not (isinstance(kind, type) and issubclass(kind, aggregation.Aggregator)):
        known = sorted(n for n, v in vars(aggregation).items() if isinstance(v, type) and n[0] != "_")
        raise SpecError(f"balance.aggregator: torchjd has no {name!r}; it has {', '.join(known)}")
    try:
        return kind()
    except (TypeError, ImportError) as error:
        raise SpecError(f"balance.aggregator: {name} cannot be made by its name alone: {error}") from error
