"""Kinds of point that occur any number of times per picture: heat maps, their loss and average precision.

Each kind has one heat map; y in (0, 1] is a Gaussian around the nearest point, and the cell nearest to a
point is a positive whatever its value. The loss is CenterNet's penalty-reduced focal loss,

    L = -1/n * sum over cells of  (1 - p)^2 log p                 at the n positives
                                  (1 - y)^4 p^2 log(1 - p)        elsewhere

Zhou, Wang, Kraehenbuehl. *Objects as Points.* 2019. https://arxiv.org/abs/1904.07850 (equation 1). Points
are local maxima (3x3) of the map, refined to a fraction of a cell.

Shapes: B images, K kinds, h w cells, P rows of a target, 3 = (x, y, kind), kind -1 in padding rows; a target
of NaN means that the picture has no label, which differs from a picture without points.
"""

from collections.abc import Iterable

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat

from perceptkit.tasks.average_precision import average_precision, match
from perceptkit.tasks.base import masked_mean
from perceptkit.tasks.heatmaps import STRIDE, log_gaussians, peaks, radius_px, to_cells, to_pixels

SIGMA = 0.6
"""Standard deviation of the Gaussian targets in cells."""

MAX_PEAKS = 100
"""Largest number of detections per kind and picture."""

MIN_SCORE = 0.01
"""Weaker maxima are noise; they could only lengthen the tail of the precision-recall curve."""


def labelled(target_BP3: Tensor) -> Tensor:
    """(B,) bool: which pictures have a list of points, be it empty."""
    return ~target_BP3.isnan().flatten(1).any(1)


def render(target_BP3: Tensor, num_kinds: int, size_hw: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Gaussian heat (B, K, h, w) in [0, 1], the larger one where two overlap, and the positives, bool.

    Points outside the picture are left out.
    """
    h, w = size_hw
    target_BP3 = target_BP3.nan_to_num(nan=-1.0)
    x, y, kind_BP = target_BP3.unbind(-1)
    inside = (x >= -0.5) & (x <= w * STRIDE - 0.5) & (y >= -0.5) & (y <= h * STRIDE - 0.5)
    kinds_K1 = torch.arange(num_kinds, device=kind_BP.device)[:, None]
    is_kind_BKP = (kind_BP[:, None] == kinds_K1) & inside[:, None]
    cells_BP2 = to_cells(target_BP3[..., :2])
    gauss_BPhw = log_gaussians(cells_BP2, size_hw, SIGMA)
    heats_Bhw = [
        gauss_BPhw.masked_fill(~is_kind_BKP[:, k, :, None, None], -torch.inf).amax(1).exp()
        for k in range(num_kinds)
    ]
    column = cells_BP2[..., 0].round().clamp(0, w - 1).long()
    row = cells_BP2[..., 1].round().clamp(0, h - 1).long()
    hits = torch.zeros(*is_kind_BKP.shape[:2], h * w, device=target_BP3.device)
    hits.scatter_add_(2, (row * w + column)[:, None].expand_as(is_kind_BKP), is_kind_BKP.float())
    heat_BKhw = torch.stack(heats_Bhw, dim=1)
    return heat_BKhw, (hits > 0).view_as(heat_BKhw)


def kind_loss(output_BKhw: Tensor, target_BP3: Tensor) -> Tensor:
    """L of the header with each picture's own number of positives, averaged over the labelled pictures."""
    output_BKhw = output_BKhw.float()
    heat, positive = render(target_BP3, output_BKhw.shape[1], (output_BKhw.shape[2], output_BKhw.shape[3]))
    p = output_BKhw.sigmoid()
    found = (1 - p).square() * F.softplus(-output_BKhw)
    false = (1 - heat).pow(4) * p.square() * F.softplus(output_BKhw)
    positives_B = positive.flatten(1).sum(1).clamp(min=1)
    loss_B = torch.where(positive, found, false).flatten(1).sum(1) / positives_B
    return masked_mean(loss_B, labelled(target_BP3))


def detect(output_BKhw: Tensor) -> tuple[Tensor, Tensor]:
    """Detections: (B, K, P, 2) x, y in input pixels and (B, K, P) scores, 0 in the rows left over."""
    xy, log_score = peaks(F.logsigmoid(output_BKhw.float()), MAX_PEAKS)
    return to_pixels(xy), log_score.exp()


def picture_detections(
    output_BKhw: Tensor, target_BP3: Tensor, radius: float
) -> list[list[tuple[np.ndarray, np.ndarray, int]] | None]:
    """For each picture and kind: scores, whether each detection is right, and the number of true points.

    None stands for a picture without a label.
    """
    xy, score = (t.cpu().double().numpy() for t in detect(output_BKhw))
    target = target_BP3.cpu().double().numpy()
    found: list[list[tuple[np.ndarray, np.ndarray, int]] | None] = []
    for i, has_label in enumerate(labelled(target_BP3).tolist()):
        if not has_label:
            found.append(None)
            continue
        kinds = []
        for k in range(output_BKhw.shape[1]):
            strong = score[i, k] >= MIN_SCORE
            true_N2 = target[i][target[i, :, 2] == k, :2]
            kinds.append((score[i, k][strong], match(xy[i, k][strong], true_N2, radius), len(true_N2)))
        found.append(kinds)
    return found


class KindMetric(Metric):
    """AP and best F1 per kind over all pictures, averaged over the kinds that occur."""

    full_state_update = False
    score: list[Tensor]
    right: list[Tensor]
    kind: list[Tensor]
    num_true: Tensor

    def __init__(self, num_kinds: int, radius: float | None) -> None:
        super().__init__()
        self.radius = radius
        for name in ("score", "right", "kind"):
            self.add_state(name, default=[], dist_reduce_fx="cat")
        self.add_state("num_true", default=torch.zeros(num_kinds, dtype=torch.long), dist_reduce_fx="sum")

    def update(self, output: Tensor, target: Tensor) -> None:
        """Matches a batch; as no match crosses pictures, this is the matching of the whole data set."""
        pictures = picture_detections(output, target, radius_px(self.radius, output))
        # the empty start lets a rank without any detection take part in the gathering
        scores, rights, kinds = [np.zeros(0)], [np.zeros(0, dtype=bool)], [np.zeros(0, dtype=np.int64)]
        for picture in pictures:
            for k, (score, right, num_true) in enumerate(picture or []):
                scores.append(score)
                rights.append(right)
                kinds.append(np.full(len(score), k))
                self.num_true[k] += num_true
        self.score.append(torch.as_tensor(np.concatenate(scores), dtype=torch.float32, device=self.device))
        self.right.append(torch.as_tensor(np.concatenate(rights), device=self.device))
        self.kind.append(torch.as_tensor(np.concatenate(kinds), device=self.device))

    def compute(self) -> dict[str, Tensor]:
        """`ap` and `f1`; NaN where no point of any kind occurs."""
        if isinstance(self.score, list) and not self.score:
            return {"ap": torch.tensor(torch.nan), "f1": torch.tensor(torch.nan)}
        score, right, kind = (dim_zero_cat(s).cpu().numpy() for s in (self.score, self.right, self.kind))
        curves = [
            average_precision(score[kind == k], right[kind == k], n)
            for k, n in enumerate(self.num_true.tolist())
            if n
        ]
        ap, f1 = np.mean(curves, axis=0) if curves else (np.nan, np.nan)
        return {"ap": torch.tensor(ap), "f1": torch.tensor(f1)}


def kind_quality(output_BKhw: Tensor, target_BP3: Tensor, radius: float) -> Tensor:
    """(B,) best F1 of each picture over thresholds, all kinds together; 1 - top score where no point is."""
    values = []
    for picture in picture_detections(output_BKhw, target_BP3, radius):
        if picture is None:
            values.append(np.nan)
            continue
        score = np.concatenate([s for s, _, _ in picture])
        num_true = sum(n for _, _, n in picture)
        if num_true == 0:
            values.append(1.0 - score.max(initial=0.0))
        else:
            values.append(average_precision(score, np.concatenate([r for _, r, _ in picture]), num_true)[1])
    return torch.tensor(values, dtype=torch.float32, device=output_BKhw.device)


def location_histogram(targets: Iterable[Tensor], num_kinds: int, size_hw: tuple[int, int]) -> Tensor:
    """(1, K, h, w) logit of the mean heat over labelled training pictures: where such points tend to be."""
    total, count = torch.zeros(num_kinds, *size_hw, dtype=torch.float64), 0
    for target_BP3 in targets:
        target_BP3 = target_BP3[labelled(target_BP3)].cpu()
        if len(target_BP3):
            total += render(target_BP3, num_kinds, size_hw)[0].double().sum(0)
            count += len(target_BP3)
    return torch.logit(total / max(count, 1), eps=1e-6).float()[None]


def head_bias(num_kinds: int) -> Tensor:
    """(K,) bias of an untrained head: a probability of 0.1 everywhere, as in the paper."""
    return torch.full((num_kinds,), -2.19)
