"""Several processes as one: gradients, BatchNorm statistics and sums over all ranks.

The supernet's graph changes from step to step (blocks are skipped, policy and weights take turns), so
gradients are averaged explicitly after the backward pass instead of by a DDP wrapper's hooks.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import torch
import torch.distributed as dist
from timm.layers import BatchNormAct2d, convert_sync_batchnorm
from torch import Tensor, nn
from torch.distributed.nn.functional import all_reduce

from perceptkit.tasks.base import mean_over_ranks


def is_distributed() -> bool:
    """Whether several processes train one model."""
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def average_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Replaces every gradient by its mean over the ranks; a parameter unused on all ranks stays without one.

    One collective for all of them: the gradients travel in a single flat buffer.
    """
    if not is_distributed():
        return
    trained = [p for p in parameters if p.requires_grad]
    if not trained:
        return
    used = torch.tensor([float(p.grad is not None) for p in trained], device=trained[0].device)
    dist.all_reduce(used)
    trained = [p for p, count in zip(trained, used.tolist(), strict=True) if count]
    for parameter in trained:
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
    flat = torch.cat([p.grad.flatten() for p in trained if p.grad is not None])
    dist.all_reduce(flat)
    flat /= dist.get_world_size()
    offset = 0
    for parameter in trained:
        count = parameter.numel()
        parameter.grad = flat[offset : offset + count].view_as(parameter).clone()
        offset += count


def sum_over_ranks(values: Tensor) -> Tensor:
    """The sum over ranks of a tensor that needs no gradient."""
    if is_distributed():
        dist.all_reduce(values)
    return values


def rows_of_all_ranks(table_NR: Tensor) -> Tensor:
    """The rows of every rank's table, one rank's after another's; the table itself where there is one process.

    Args:
        table_NR: on the CPU; N may differ.
    """
    if not is_distributed():
        return table_NR
    tables: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(tables, table_NR)
    return torch.cat(tables)


def batch_of_all_ranks(x_B: Tensor) -> Tensor:
    """What all ranks have of one batch, in the order in which one process would have it; itself where there is one.

    Of a gradient, the part that belongs to this rank's rows, times the number of ranks: every rank computes the same
    loss of the same batch, and the average of their gradients is that of one process.

    Args:
        x_B: (B, ...), B the same on every rank.
    """
    if not is_distributed():
        return x_B
    count, rank = dist.get_world_size(), dist.get_rank()
    parts = [torch.empty_like(x_B, requires_grad=False).contiguous() for _ in range(count)]
    dist.all_gather(parts, x_B.detach().contiguous())
    if x_B.requires_grad:
        parts[rank] = _scale_gradient(x_B, count)
    return torch.stack(parts, 1).flatten(0, 1)  # rank r has every count-th picture (data/loader.py)


def _scale_gradient(x: Tensor, factor: int) -> Tensor:
    scaled = factor * x
    return scaled - (scaled - x).detach()


def mean_losses(losses: Mapping[str, Tensor]) -> dict[str, float]:
    """Every loss averaged over the ranks: what one process with all images would have computed."""
    if not losses:
        return {}
    values = mean_over_ranks(torch.stack([loss.detach().float() for loss in losses.values()]))
    return dict(zip(losses, values.tolist(), strict=True))


class _RankBatchNorm2d(nn.BatchNorm2d):
    """BatchNorm over the batches of all ranks, in plain tensor operations.

    `torch.nn.SyncBatchNorm` refuses CPU tensors; this is what runs there.
    """

    def forward(self, x_BCHW: Tensor) -> Tensor:
        if not self.training or not is_distributed():
            return super().forward(x_BCHW)
        return _normalise_over_ranks(self, x_BCHW)


class _RankBatchNormAct2d(BatchNormAct2d):
    """timm's BatchNorm with activation, over the batches of all ranks."""

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or not is_distributed():
            return super().forward(x)
        return self.act(self.drop(_normalise_over_ranks(self, x)))


def _normalise_over_ranks(bn: nn.BatchNorm2d, x_BCHW: Tensor) -> Tensor:
    count = torch.full((1,), x_BCHW.numel() / x_BCHW.shape[1], dtype=torch.float64, device=x_BCHW.device)
    x64 = x_BCHW.double()  # E[x^2] - E[x]^2 cancels in float32
    sums = all_reduce(torch.cat([x64.sum((0, 2, 3)), x64.square().sum((0, 2, 3)), count]))
    channels = x_BCHW.shape[1]
    total = sums[-1].detach()
    mean = sums[:channels] / total
    var = sums[channels:-1] / total - mean.square()
    if bn.track_running_stats and bn.running_mean is not None and bn.running_var is not None:
        with torch.no_grad():
            if bn.num_batches_tracked is not None:
                bn.num_batches_tracked.add_(1)
            # without a momentum it is the average of all batches, as torch's
            momentum = bn.momentum if bn.momentum is not None else 1 / float(bn.num_batches_tracked or 1)
            bn.running_mean.lerp_(mean.to(bn.running_mean.dtype), momentum)
            bn.running_var.lerp_((var * total / (total - 1)).to(bn.running_var.dtype), momentum)
    scale, shift = (var + bn.eps).rsqrt(), -mean * (var + bn.eps).rsqrt()
    if bn.affine:
        scale, shift = scale * bn.weight, shift * bn.weight + bn.bias
    return torch.addcmul(shift.to(x_BCHW)[:, None, None], x_BCHW, scale.to(x_BCHW)[:, None, None])


def synchronise_batchnorm(model: nn.Module, device: torch.device) -> None:
    """Makes every BatchNorm inside `model` see the batches of all ranks; state-dict keys do not change."""
    if not is_distributed():
        return
    if device.type != "cpu":
        convert_sync_batchnorm(model)
        return
    for module in model.modules():
        if type(module) is nn.BatchNorm2d:
            module.__class__ = _RankBatchNorm2d
        elif type(module) is BatchNormAct2d:
            module.__class__ = _RankBatchNormAct2d
