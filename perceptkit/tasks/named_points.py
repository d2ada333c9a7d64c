"""Named keypoints: each name occurs at most once per picture, and may be out of sight.

A name has two channels. Channel z holds a heat logit per cell, channel s the evidence that the point is in
sight, which counts at the place where the heat is:

    heat y     = exp(-d^2 / (2 sigma^2)) around a visible point, 0 everywhere for one that is not
    p(visible) = sigmoid( sum over cells of softmax(z) * s )            (no gradient through softmax(z))
    L          = sum over cells of BCE(sigmoid(z), y)  +  BCE(p(visible), visible)

summed over cells, so that one missed point costs the same at any resolution, and averaged over labelled
points. The place of a point is the maximum of the heat, refined to a fraction of a cell.

Chosen by measurement on a synthetic set (six coloured discs, 1500 pictures, a 16x16 map, two seeds): after
10 epochs a mean error of 3.7 px against 5.3 px for one softmax over all cells and "nowhere"; after 4 epochs
4.5 px against 5.5 px for the focal loss of point_kinds.py. Visibility 92 % right; 81 % with s averaged over
the whole map, 78 % from the mass of the heat without any s.

Shapes: B images, N names, h w cells, 3 = (x, y, v): v = 0 not labelled, 1 not visible, 2 visible.
Outputs are (B, 2N, h, w): N times z, then N times s.
"""

import math
from collections.abc import Iterable

import torch
from torch import Tensor
from torch.nn import functional as F
from torchmetrics import Metric

from perceptkit.tasks.base import masked_mean
from perceptkit.tasks.heatmaps import STRIDE, log_gaussians, radius_px, refine, to_cells, to_pixels

SIGMA = 0.5
"""Standard deviation of the Gaussian targets in cells; 0.4 to 0.6 measured the same, 1.0 worse."""

EMPTY_LOGIT = -4.0
"""Heat of an untrained head: nearly all cells are background."""


def is_visible(target_BN3: Tensor, size_hw: tuple[int, int]) -> Tensor:
    """(B, N) bool: labelled as visible and inside the picture."""
    x, y, v = target_BN3.unbind(-1)
    h, w = size_hw
    inside = (x >= -0.5) & (x <= w * STRIDE - 0.5) & (y >= -0.5) & (y <= h * STRIDE - 0.5)
    return (v == 2) & inside


def visibility_logit(output: Tensor) -> Tensor:
    """(B, N) logit of p(visible)."""
    heat, sight = output.float().flatten(2).chunk(2, dim=1)
    return (heat.detach().softmax(-1) * sight).sum(-1)


def locate(output: Tensor) -> Tensor:
    """(B, N, 2) x, y in input pixels of the hottest place of each point, whether it is visible or not."""
    log_heat = F.logsigmoid(output.float().chunk(2, dim=1)[0])
    cell = log_heat.flatten(2).argmax(-1, keepdim=True)
    return to_pixels(refine(log_heat, cell)[:, :, 0])


def point_loss(output: Tensor, target_BN3: Tensor) -> Tensor:
    """L of the header, averaged over the labelled points of the batch."""
    labelled = target_BN3[..., 2] > 0
    logit_BNhw = output.float().chunk(2, dim=1)[0]
    size_hw = (output.shape[-2], output.shape[-1])
    visible = is_visible(target_BN3, size_hw)
    heat = log_gaussians(to_cells(target_BN3[..., :2]), size_hw, SIGMA).exp() * visible[..., None, None]
    place = F.binary_cross_entropy_with_logits(logit_BNhw, heat, reduction="none").sum((-2, -1))
    sight = F.binary_cross_entropy_with_logits(visibility_logit(output), visible.float(), reduction="none")
    return masked_mean(place + sight, labelled)


def point_quality(output: Tensor, target_BN3: Tensor, radius: float) -> Tensor:
    """(B,) mean over labelled points: radius / (radius + error) where visible, 1 - p(visible) where not."""
    labelled = target_BN3[..., 2] > 0
    error = (locate(output) - target_BN3[..., :2]).norm(dim=-1)
    visible = is_visible(target_BN3, (output.shape[-2], output.shape[-1]))
    quality = torch.where(visible, radius / (radius + error), 1 - visibility_logit(output).sigmoid())
    total = torch.where(labelled, quality, 0.0).sum(-1)
    return total / labelled.sum(-1)  # 0 / 0 = NaN where nothing is labelled


class PointMetric(Metric):
    """Distances of visible points and right answers on visibility; all states are sums over points."""

    full_state_update = False
    distance: Tensor
    within: Tensor
    visible: Tensor
    sight_right: Tensor
    labelled: Tensor

    def __init__(self, radius: float | None) -> None:
        super().__init__()
        self.radius = radius
        self.add_state("distance", torch.zeros(()), dist_reduce_fx="sum")
        for name in ("within", "visible", "sight_right", "labelled"):
            self.add_state(name, torch.zeros((), dtype=torch.long), dist_reduce_fx="sum")

    def update(self, output: Tensor, target: Tensor) -> None:
        """Adds a batch; points that are not visible have no place to be compared with."""
        labelled = target[..., 2] > 0
        visible = is_visible(target, (output.shape[-2], output.shape[-1])) & labelled
        distance = (locate(output) - target[..., :2]).norm(dim=-1)[visible]
        self.distance += distance.sum()
        self.within += (distance <= radius_px(self.radius, output)).sum()
        self.visible += visible.sum()
        self.sight_right += ((visibility_logit(output) >= 0) == visible)[labelled].sum()
        self.labelled += labelled.sum()

    def compute(self) -> dict[str, Tensor]:
        """`mean_px`, `pck`, `visibility_acc`; NaN where there is nothing to average."""
        return {
            "mean_px": self.distance / self.visible,
            "pck": self.within / self.visible,
            "visibility_acc": self.sight_right / self.labelled,
        }


def mean_points(targets: Iterable[Tensor], num_names: int, size_hw: tuple[int, int]) -> Tensor:
    """(1, 2N, h, w): each point at its mean training position, visible as often as in training."""
    position, visible, labelled = (
        torch.zeros(num_names, 2, dtype=torch.float64),
        torch.zeros(num_names, dtype=torch.float64),
        torch.zeros(num_names, dtype=torch.float64),
    )
    for target_BN3 in targets:
        target_BN3 = target_BN3.cpu().double()
        seen = is_visible(target_BN3, size_hw)
        position += torch.where(seen[..., None], target_BN3[..., :2], 0.0).sum(0)
        visible += seen.sum(0)
        labelled += (target_BN3[..., 2] > 0).sum(0)
    centre = torch.tensor([size_hw[1] * STRIDE - 1, size_hw[0] * STRIDE - 1], dtype=torch.float64) / 2
    mean_N2 = torch.where(visible[:, None] > 0, position / visible[:, None].clamp(min=1), centre)
    heat = log_gaussians(to_cells(mean_N2), size_hw, SIGMA).exp()
    sight = torch.logit(visible / labelled.clamp(min=1), eps=1e-6)[:, None, None].expand_as(heat)
    # without a floor the tails of the Gaussian vanish in float32 and the place could not be refined
    return torch.cat((torch.logit(heat, eps=1e-12), sight)).float()[None]


def head_bias(num_names: int) -> Tensor:
    """(2N,) bias of an untrained head: no heat anywhere, visibility undecided."""
    return torch.cat((torch.full((num_names,), EMPTY_LOGIT), torch.zeros(num_names)))


def cells_of(size_HW: tuple[int, int]) -> tuple[int, int]:
    """Size of the heat map for a network input of this size."""
    return math.ceil(size_HW[0] / STRIDE), math.ceil(size_HW[1] / STRIDE)
