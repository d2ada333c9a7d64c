"""Sluice networks: subspaces of every task's features are mixed, and the answer reads a mixture of all stages.

Ruder, Bingel, Augenstein, Sogaard. *Latent Multi-Task Architecture Learning.* AAAI 2019. https://arxiv.org/abs/1705.08142.
The channels of every stage s and task t are split in two subspaces G_{t,s,1} and G_{t,s,2}. Three parts:

    sharing        h~_(t,i) = sum_(u,j) a_{(t,i),(u,j)} h_(u,j)          a: (2T, 2T) at every stage, scalars
    skipping       h~_t = sum_s b_{t,s} h~_{t,s}                         what the head of task t reads
    orthogonality  L_c = sum_t sum_s || G_{t,s,1}^T G_{t,s,2} ||_F^2     added to the losses, times a weight

a starts with 0.9 on each subspace itself and the rest evenly on all others, b with 0.9 on the last stage and the rest
evenly on those before. For G the filters are taken that write the two subspaces: the rows of the last convolution or
linear layer of the stage's last block, shortcut aside. So L_c compares weights, and does not depend on the batch.

Differs: the paper's layers are recurrent and all of one width. Stages differ in size and width, so those before the
last are brought to the last one's size (bilinear) and, where the widths differ, by a 1x1 convolution to its width. The
dense heads' neck reads the mixture in the place of the last stage. Weight decay does not act on a and b.

Shapes: B batch, T tasks, S stages, C channels, h w pixels of a map.
"""

import copy
from collections.abc import Mapping, Sequence
from functools import partial, reduce
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from perceptkit.baselines.sharing.columns import OWN, Columns, own_share
from perceptkit.errors import SpecError
from perceptkit.model.supernet import Supernet
from perceptkit.model.trunk import run_part, shared_inputs

ORTHOGONALITY = 0.01
"""Weight of L_c, where the recipe does not say."""


def mix_subspaces(x_T: Sequence[Tensor], alpha_2T2T: Tensor, axis: int) -> list[Tensor]:
    """h~_(t,i) = sum_(u,j) a_{(t,i),(u,j)} h_(u,j); subspaces are the halves of the channels."""
    halves_2T = [half for x in x_T for half in x.chunk(2, dim=axis)]
    alpha_2T2T = alpha_2T2T.to(x_T[0].dtype)
    mixed_2T = [
        reduce(torch.add, [a * half for a, half in zip(alpha_2T, halves_2T, strict=True)])
        for alpha_2T in alpha_2T2T
    ]
    return [torch.cat(mixed_2T[2 * t : 2 * t + 2], dim=axis) for t in range(len(x_T))]


def orthogonality(weight: Tensor) -> Tensor:
    """|| G_1^T G_2 ||_F^2 of a layer's filters, one per row: the first half of the channels with the other."""
    first, second = weight.flatten(1).chunk(2)
    return (first @ second.T).square().sum()


class SluiceUnit(nn.Module):
    """The numbers a of one stage."""

    def __init__(self, num_tasks: int, channels: int, axis: int) -> None:
        super().__init__()
        if channels % 2:
            raise SpecError(
                f"sharing.method sluice halves the channels of every stage, and one has {channels} here; "
                "take another backbone"
            )
        self.axis = axis
        self.alpha = nn.Parameter(own_share(2 * num_tasks))

    def forward(self, x_T: Sequence[Tensor]) -> list[Tensor]:
        """Features of all tasks -> their mixtures."""
        return mix_subspaces(x_T, self.alpha, self.axis)


class StageMixture(nn.Module):
    """The numbers b of one task, and what brings earlier stages to the width of the last."""

    def __init__(self, channels_S: Sequence[int]) -> None:
        super().__init__()
        before, last = len(channels_S) - 1, channels_S[-1]
        start = [(1 - OWN) / before] * before + [OWN] if before else [1.0]
        self.beta = nn.Parameter(torch.tensor(start))
        self.widen = nn.ModuleList(
            nn.Conv2d(c, last, 1, bias=False) if c != last else nn.Identity() for c in channels_S[:-1]
        )

    def forward(self, maps_S: Sequence[Tensor]) -> Tensor:
        """sum_s b_s h_s, at the size and width of the last stage."""
        last = maps_S[-1]
        beta_S = self.beta.to(last.dtype)
        mixed = beta_S[-1] * last
        for b, widen, x in zip(beta_S, self.widen, maps_S, strict=False):
            if x.shape[-2:] != last.shape[-2:]:
                x = F.interpolate(x, size=last.shape[-2:], mode="bilinear", align_corners=False)
            mixed = mixed + b * widen(x)
        return mixed


class SluiceNet(Columns):
    """See the module's docstring.

    Args:
        nets, unit_lr_scale: as for `Columns`.
        weight: of L_c.
    """

    def __init__(
        self, nets: Mapping[str, Supernet], unit_lr_scale: float = 1.0, weight: float = ORTHOGONALITY
    ) -> None:
        super().__init__(nets, unit_lr_scale)
        self.weight = weight
        first = self.columns()[0]
        channels_S = [first.steps[end].channels for end in self.ends]
        self.units.append(nn.ModuleList(StageMixture(channels_S) for _ in nets))
        self.writers = writing_layers(first, self.ends)

    def unit(self, num_tasks: int, channels: int, axis: int) -> nn.Module:
        """A unit that mixes subspaces."""
        return SluiceUnit(num_tasks, channels, axis)

    def summary(self, t: int, maps_S: list[Tensor]) -> list[Tensor]:
        """The last stage is the mixture of all."""
        mixtures: Any = self.units[-1]
        return [*maps_S[:-1], mixtures[t](maps_S)]

    def penalties(self) -> dict[str, Tensor]:
        """L_c with its weight."""
        weights: list[Any] = [
            net.backbone.get_submodule(name).weight for net in self.columns() for name in self.writers
        ]
        if not weights or not self.weight:
            return {}
        return {"orthogonality_loss": self.weight * torch.stack([orthogonality(w) for w in weights]).sum()}


@torch.no_grad()
def writing_layers(net: Supernet, ends: Sequence[int]) -> list[str]:
    """For every stage, the layer that writes the features of its last block: the last one to run whose output is of the
    block's width and no smaller. A stage without such a layer has no entry."""
    begins = [0, *(end + 1 for end in ends[:-1])]
    inside = [net.steps[a : b + 1] for a, b in zip(begins, ends, strict=True)]
    lasts = [blocks[-1] for steps in inside if (blocks := [s for s in steps if s.block is not None])]
    copied: Supernet = copy.deepcopy(net).eval()  # hooks stay out of the network
    backbone = copied.backbone
    x = torch.zeros(1, 3, *net.size_HW, device=next(net.parameters()).device)
    shared = shared_inputs(backbone, net.size_HW)
    found = []
    for step in net.steps:
        run = partial(run_part, backbone, step.name, x, shared)
        if step in lasts:
            x, ran = _recorded(backbone.get_submodule(step.name), run)
            aside = step.projection or "-"
            names = [f"{step.name}.{name}" for name, size in ran if size >= x.numel()]
            fits = [n for n in names if not n.startswith(aside) and _width(backbone, n) == step.channels]
            found += fits[-1:]
        else:
            x = run()
    return found


def _recorded(block: nn.Module, run: Any) -> tuple[Tensor, list[tuple[str, int]]]:
    """A block's output, and the layers that ran in it with the sizes of their outputs, in order."""
    ran: list[tuple[str, int]] = []
    for name, module in block.named_modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            module.register_forward_hook(lambda m, args, out, name=name: ran.append((name, out.numel())))
    return run(), ran


def _width(backbone: nn.Module, name: str) -> int:
    weight: Any = backbone.get_submodule(name).weight
    return weight.shape[0]
