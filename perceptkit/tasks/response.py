"""Response: how strongly a detector responds at each pixel, from -1 (not at all) to 1.

Taskonomy's maps keypoints2d and edge_texture (Zamir et al. *Taskonomy: Disentangling Task Transfer Learning.* CVPR
2018. https://arxiv.org/abs/1804.08328) are learned like this in AdaShare: the loss and the metric are the mean of
|p - t| over the labelled pixels, on this scale.

Shapes: B images, H W pixels. Targets are (B, 1, H, W), below -1 = unlabelled.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn
from torchmetrics import Metric

from perceptkit.errors import DataError
from perceptkit.pixels import take_nearest
from perceptkit.spec.tasks_file import ResponseSpec
from perceptkit.tasks.base import Geometry, MetricInfo, Prediction, Task, masked_mean
from perceptkit.tasks.heads import DenseHead
from perceptkit.tasks.label_arrays import label_map, read_label_map, shown
from perceptkit.tasks.resize import resize_output

UNLABELLED = -2.0


def is_known(target_B1HW: Tensor) -> Tensor:
    """Bool of the same shape: pixels with a label."""
    return target_B1HW >= -1


class ResponseMetric(Metric):
    """`l1`, the mean absolute error over all labelled pixels."""

    full_state_update = False
    error: Tensor
    pixels: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.add_state("error", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("pixels", torch.zeros((), dtype=torch.long), dist_reduce_fx="sum")

    def update(self, output: Tensor, target: Tensor) -> None:
        """Adds a batch, (B, 1, H, W) each."""
        known = is_known(target)
        self.error += torch.where(known, (output.float() - target).abs(), 0).sum(dtype=torch.float64)
        self.pixels += known.sum()

    def compute(self) -> dict[str, Tensor]:
        """By name; NaN where no pixel is labelled."""
        return {"l1": (self.error / self.pixels).float()}


class Response(Task):
    """One number per pixel."""

    type: ClassVar[str] = "response"
    geometry: Geometry = "label_map"
    dense: ClassVar[bool] = True
    metric_info: Mapping[str, MetricInfo] = {"l1": MetricInfo(higher_is_better=False)}
    primary = "l1"
    spec: ResponseSpec

    def __init__(self, name: str, spec: ResponseSpec, labels: list[str]) -> None:
        super().__init__(name, spec)

    @property
    def out_channels(self) -> int:
        return 1

    @property
    def meaning(self) -> str:
        return "how strongly a detector responds, from -1 (not at all) to 1"

    def read(self, path: Path, image_id: str) -> np.ndarray:
        """(1, H, W) float32 from a grey picture, whose largest value becomes 1, or a .npy of floats in [0, 1]."""
        values = read_label_map(path)
        if values.dtype.kind in "ui":
            values = values / np.float64(np.iinfo(values.dtype).max)
        return self.target_of(values, str(path))

    def target_of(self, values: np.ndarray, path: str, size_HW: tuple[int, int] | None = None) -> np.ndarray:
        """As `read`, of numbers from 0 to 1; NaN is unlabelled."""
        values = label_map(values, path).astype(np.float32)
        outside = values[(values < 0) | (values > 1)]
        if outside.size:
            raise DataError(f"{path} holds {shown(outside)}; expected numbers from 0 to 1")
        if size_HW is not None:
            values = take_nearest(values, size_HW)
        return np.where(np.isfinite(values), 2 * values - 1, np.float32(UNLABELLED))[None]

    def missing(self, size_HW: tuple[int, int]) -> np.ndarray:
        return np.full((1, *size_HW), UNLABELLED, dtype=np.float32)

    def is_labelled(self, target: Tensor) -> Tensor:
        return is_known(target).flatten(1).any(1)

    def head(self, in_channels: int) -> nn.Module:
        return DenseHead(in_channels, 1)

    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        return masked_mean((output.float() - target).abs(), is_known(target))

    def metric(self) -> Metric:
        return ResponseMetric()

    def quality(self, output: Tensor, target: Tensor) -> Tensor:
        """1 - half the mean absolute error of the image's labelled pixels."""
        known = is_known(target)
        error = torch.where(known, (output.float().clamp(-1, 1) - target).abs(), 0)
        return 1 - error.flatten(1).sum(1) / known.flatten(1).sum(1) / 2

    def constant_output(self, targets: Iterable[Tensor], size_HW: tuple[int, int]) -> Tensor:
        """The median of the labelled pixels, to 0.01: no constant has a smaller mean absolute error."""
        count = torch.zeros(201, dtype=torch.long)
        for target in targets:
            bins = ((target[is_known(target)].cpu() + 1) * 100).round().long()
            count += torch.bincount(bins, minlength=len(count))
        middle = int(torch.searchsorted(count.cumsum(0), (count.sum() + 1) // 2))
        return torch.full((1, 1, *size_HW), middle / 100 - 1 if count.any() else 0.0)

    def decode(self, output: Tensor, size_HW: tuple[int, int], input_HW: tuple[int, int]) -> Prediction:
        """`values`: (H, W) float32 from -1 to 1."""
        return self._prediction(resize_output(output, size_HW)[0, 0].clamp(-1, 1))

    def draw(self, image: np.ndarray, prediction: Prediction) -> np.ndarray:
        """Strong responses in yellow on the dimmed picture."""
        weight = (prediction.values["values"][..., None] + 1) / 2
        yellow = np.array([255.0, 220.0, 40.0])
        drawn: np.ndarray = np.rint(image * 0.4 * (1 - weight) + yellow * weight).astype(np.uint8)
        return drawn

    def as_prediction(self, target: Tensor, input_HW: tuple[int, int]) -> Prediction:
        """Unlabelled pixels are -1."""
        return self._prediction(target[0].float().clamp(min=-1))

    def _prediction(self, response_HW: Tensor) -> Prediction:
        return Prediction(self.name, self.type, {"values": response_HW.cpu().numpy()})
