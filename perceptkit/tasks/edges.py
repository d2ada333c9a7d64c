"""Edges: the probability that a pixel lies on an edge.

Loss: class-balanced cross-entropy, for one picture with edge share 1 - beta,

    L = -beta * sum over edges of log p  -  (1 - beta) * sum elsewhere of log(1 - p)

Xie, Tu. *Holistically-Nested Edge Detection.* ICCV 2015. https://arxiv.org/abs/1504.06375 (equation 2).
Divided by 2 beta (1 - beta) times the number of pixels this is the mean over edges plus the mean elsewhere,
halved, which is what we compute: the scale then does not depend on the size of the picture or the number of
its edges. Soft labels weigh in on both sides. Balanced training calls a pixel an edge as soon as it is
likelier to be one than an average pixel, so probabilities are high and `l1` is large; the thresholds of
ODS-F and OIS-F take care of that.

The head answers at stride 2: four channels at stride 4 are shuffled into one (Shi et al. 2016,
https://arxiv.org/abs/1609.05158). One logit per 4x4 pixels, enlarged bilinearly, has its ridges at the
centres of those cells, up to 2 px from the edge: ODS-F .79 against .88 on a synthetic set after the same
five epochs.

Shapes: B images, H W pixels.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchmetrics import Metric

from perceptkit.errors import SpecError
from perceptkit.spec.tasks_file import EdgesSpec
from perceptkit.tasks.base import Geometry, MetricInfo, Prediction, Task, masked_mean
from perceptkit.tasks.edge_labels import DERIVE, IGNORED, edge_map, read_edge_map
from perceptkit.tasks.edge_matching import THRESHOLD_LOGITS, edge_counts, f_measure
from perceptkit.tasks.heads import DenseHead
from perceptkit.tasks.label_arrays import read_label_map
from perceptkit.tasks.resize import resize_output

QUALITY_LOGITS = THRESHOLD_LOGITS[::3]
"""Per-image quality is asked for inside training, so it looks at every third threshold only."""

CERTAIN_LOGIT = 10.0


def balanced_loss(logit_BHW: Tensor, target_BHW: Tensor) -> Tensor:
    """(B,) class-balanced cross-entropy of each picture, log 2 for logits of 0; ignores targets below 0."""
    known = (target_BHW >= 0).to(logit_BHW.dtype)
    edge = target_BHW.clamp(min=0) * known
    other = known - edge

    def mean(loss: Tensor, weight: Tensor) -> Tensor:
        return (loss * weight).flatten(1).sum(1) / weight.flatten(1).sum(1).clamp(min=1e-6)

    return 0.5 * (mean(F.softplus(-logit_BHW), edge) + mean(F.softplus(logit_BHW), other))


def _arrays(output_B1HW: Tensor, target_B1HW: Tensor) -> tuple[np.ndarray, np.ndarray]:
    return output_B1HW[:, 0].float().cpu().numpy(), target_B1HW[:, 0].float().cpu().numpy()


class EdgeMetric(Metric):
    """ODS-F, OIS-F and the mean absolute error of the probabilities; all states are sums over pictures."""

    full_state_update = False
    pairs: Tensor
    predicted: Tensor
    true: Tensor
    best_pairs: Tensor
    best_predicted: Tensor
    error: Tensor
    pixels: Tensor

    def __init__(self, tolerance: float) -> None:
        super().__init__()
        self.tolerance = tolerance
        thresholds = len(THRESHOLD_LOGITS)
        for name, length in (("pairs", thresholds), ("predicted", thresholds)):
            self.add_state(name, torch.zeros(length, dtype=torch.long), dist_reduce_fx="sum")
        for name in ("true", "best_pairs", "best_predicted", "pixels"):
            self.add_state(name, torch.zeros((), dtype=torch.long), dist_reduce_fx="sum")
        self.add_state("error", torch.zeros(()), dist_reduce_fx="sum")

    def update(self, output: Tensor, target: Tensor) -> None:
        """Adds the counts of a batch, (B, 1, H, W) each."""
        known = target >= 0
        has_label = known.flatten(1).any(1)
        if not has_label.any():
            return
        self.error += ((output.float().sigmoid() - target).abs() * known).sum()
        self.pixels += known.sum()
        pairs_BS, predicted_BS, true_B = edge_counts(
            *_arrays(output[has_label], target[has_label]), self.tolerance
        )
        best_B = f_measure(pairs_BS, predicted_BS, true_B[:, None]).argmax(axis=1)
        rows = np.arange(len(best_B))
        for state, count in (
            (self.pairs, pairs_BS.sum(axis=0)),
            (self.predicted, predicted_BS.sum(axis=0)),
            (self.true, true_B.sum()),
            (self.best_pairs, pairs_BS[rows, best_B].sum()),
            (self.best_predicted, predicted_BS[rows, best_B].sum()),
        ):
            state += torch.as_tensor(count, device=state.device)

    def compute(self) -> dict[str, Tensor]:
        """`ods_f`, `ois_f`, `l1`; NaN without any label."""
        if not self.pixels:
            return {name: torch.tensor(torch.nan) for name in ("ods_f", "ois_f", "l1")}
        pairs, predicted, true = (s.cpu().numpy() for s in (self.pairs, self.predicted, self.true))
        best = f_measure(self.best_pairs.cpu().numpy(), self.best_predicted.cpu().numpy(), true)
        return {
            "ods_f": torch.tensor(float(f_measure(pairs, predicted, true).max())),
            "ois_f": torch.tensor(float(best)),
            "l1": self.error / self.pixels,
        }


class Edges(Task):
    """An edge map, from files or derived from the labels of other tasks."""

    type: ClassVar[str] = "edges"
    geometry: Geometry = "label_map"
    dense: ClassVar[bool] = True
    metric_info: Mapping[str, MetricInfo] = {
        "ods_f": MetricInfo(higher_is_better=True),
        "ois_f": MetricInfo(higher_is_better=True),
        "l1": MetricInfo(higher_is_better=False),
    }
    primary = "ods_f"
    spec: EdgesSpec

    def __init__(self, name: str, spec: EdgesSpec, labels: list[str]) -> None:
        super().__init__(name, spec)

    @property
    def out_channels(self) -> int:
        return 1

    @property
    def meaning(self) -> str:
        return "logit that the pixel lies on an edge; sigmoid gives the probability"

    def read(self, path: Path, image_id: str) -> np.ndarray | None:
        return read_edge_map(path)

    def read_at(self, path: Path, image_id: str, size_HW: tuple[int, int]) -> np.ndarray:
        """As `read`; takes the strongest pixels first."""
        return self.target_of(read_label_map(path), str(path), size_HW)

    def target_of(self, values: np.ndarray, path: str, size_HW: tuple[int, int] | None = None) -> np.ndarray:
        """As `read`."""
        return edge_map(values, path, size_HW)

    def derive(self, targets: Mapping[str, np.ndarray], specs: Mapping[str, Task]) -> np.ndarray:
        """(1, H, W) float32: the edges of all tasks named by `derive`, see edge_labels.py.

        A pixel that none of them knows is ignored. Where one of them has no label at all, nothing is known:
        edges that only it would show must not count as "no edge".

        Args:
            targets: The tasks' targets, all of one size.
            specs: The tasks.

        Raises:
            SpecError: A named task is not of a type that has edges.
        """
        edge, known, complete = None, None, True
        for name in self.spec.derive or []:
            if specs[name].type not in DERIVE:
                raise SpecError(
                    f"tasks.{self.name}.derive: {name} is a {specs[name].type} task; "
                    f"edges can be derived from {', '.join(DERIVE)}"
                )
            edge_here, known_here = DERIVE[specs[name].type](targets[name])
            edge = edge_here if edge is None else edge | edge_here
            known = known_here if known is None else known | known_here
            complete = complete and bool(known_here.any())
        if edge is None or known is None:
            raise SpecError(f"tasks.{self.name}.derive names no task")
        return np.where(known & complete, edge, IGNORED)[None].astype(np.float32)

    def missing(self, size_HW: tuple[int, int]) -> np.ndarray:
        return np.full((1, *size_HW), IGNORED, dtype=np.float32)

    def is_labelled(self, target: Tensor) -> Tensor:
        return (target >= 0).flatten(1).any(1)

    def head(self, in_channels: int) -> nn.Module:
        return nn.Sequential(DenseHead(in_channels, 4), nn.PixelShuffle(2))

    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        return masked_mean(balanced_loss(output[:, 0].float(), target[:, 0]), self.is_labelled(target))

    def metric(self) -> Metric:
        return EdgeMetric(self.spec.tolerance)

    def quality(self, output: Tensor, target: Tensor) -> Tensor:
        """Each picture's best F over thresholds."""
        has_label = self.is_labelled(target)
        quality = torch.full((len(output),), torch.nan, device=output.device)
        if has_label.any():
            logits, targets = _arrays(output[has_label], target[has_label])
            pairs, predicted, true = edge_counts(logits, targets, self.spec.tolerance, QUALITY_LOGITS)
            best = f_measure(pairs, predicted, true[:, None]).max(axis=1)
            quality[has_label] = torch.as_tensor(best, dtype=quality.dtype, device=output.device)
        return quality

    def constant_output(self, targets: Iterable[Tensor], size_HW: tuple[int, int]) -> Tensor:
        """Every pixel is an edge: the best F of a map that is the same everywhere; needs no fitting."""
        return torch.full((1, 1, *size_HW), CERTAIN_LOGIT)

    def decode(self, output: Tensor, size_HW: tuple[int, int], input_HW: tuple[int, int]) -> Prediction:
        """`probability`: (H, W) float32."""
        probability = resize_output(output.float().sigmoid(), size_HW)
        return self._prediction(probability[0, 0].cpu().numpy())

    def draw(self, image: np.ndarray, prediction: Prediction) -> np.ndarray:
        """Edges in yellow on the dimmed picture."""
        weight = prediction.values["probability"][..., None]
        yellow = np.array([255.0, 220.0, 40.0])
        drawn: np.ndarray = np.rint(image * 0.4 * (1 - weight) + yellow * weight).astype(np.uint8)
        return drawn

    def as_prediction(self, target: Tensor, input_HW: tuple[int, int]) -> Prediction:
        return self._prediction(target[0].float().clamp(min=0).cpu().numpy())

    def _prediction(self, probability_HW: np.ndarray) -> Prediction:
        return Prediction(self.name, self.type, {"probability": probability_HW})
