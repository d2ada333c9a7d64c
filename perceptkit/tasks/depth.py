"""Depth: distance along the optical axis per pixel.

Loss: |p - t|, or |log p - log t| with `log: true` (the network's output then is log p), averaged over the
valid pixels of the batch.

Metrics, pooled over all N valid pixels of the data set, with predictions p clamped to at least MIN_DEPTH
units and labels t (Eigen, Puhrsch, Fergus. NeurIPS 2014, https://arxiv.org/abs/1406.2283):

    abs_rel = 1/N sum |p - t| / t        abs_err = 1/N sum |p - t|        rmse = sqrt(1/N sum (p - t)^2)
    delta_n = share of pixels with max(p / t, t / p) < 1.25^n

With `compat: adashare` predictions have no lower bound, so that a negative one, whose ratio is negative, counts as
right; delta_n counts a ratio of just 1.25^n; abs_rel and abs_err are means over pictures of the means over their
pixels; labels up to COMPAT_MIN are invalid.

Shapes: B images, H W pixels. Targets are (B, 1, H, W) in the user's unit, 0 = invalid.
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
from perceptkit.spec.tasks_file import DepthSpec
from perceptkit.tasks.base import Geometry, MetricInfo, Prediction, Task, masked_mean
from perceptkit.tasks.heads import DenseHead
from perceptkit.tasks.label_arrays import label_map, read_label_map, shown
from perceptkit.tasks.palette import DARK, turbo
from perceptkit.tasks.resize import resize_output

MIN_DEPTH = 1e-3
"""Smallest depth, in the user's unit, that metrics and decoded values hold."""

COMPAT_MIN = 3e-5
"""Largest label that AdaShare's code takes for invalid."""

DRAWN_OCTAVES = 6
"""Largest range of depths, in powers of two, that has colours: a few clamped pixels must not take them all."""

MAX_LOG = 20.0
"""Largest log depth that is decoded: an untrained network must not give infinity."""

METRICS = ("abs_rel", "abs_err", "rmse", "delta1", "delta2", "delta3")


def depth_loss(output_B1HW: Tensor, target_B1HW: Tensor, log: bool) -> Tensor:
    """L1 over valid pixels, on logarithms with `log`; 0 with a gradient where none is valid."""
    valid = target_B1HW > 0
    goal = torch.where(valid, target_B1HW, 1.0).log() if log else target_B1HW
    return masked_mean((output_B1HW.float() - goal).abs(), valid)


def to_depth(output: Tensor, log: bool) -> Tensor:
    """Positive depth in the user's unit from the network's output."""
    output = output.float()
    return (output.clamp(max=MAX_LOG).exp() if log else output).clamp(min=MIN_DEPTH)


def pixel_errors(depth_B1HW: Tensor, target_B1HW: Tensor, compat: bool = False) -> Tensor:
    """(6, B) float64: sums of the terms of `METRICS` (squares for rmse) over each image's valid pixels."""
    is_within = torch.le if compat else torch.lt
    valid = target_B1HW > 0
    true = torch.where(valid, target_B1HW, 1.0)
    error = (depth_B1HW - true).abs()
    ratio = torch.maximum(depth_B1HW / true, true / depth_B1HW)
    terms = (error / true, error, error.square(), *(is_within(ratio, 1.25**n) for n in (1, 2, 3)))
    return torch.stack([torch.where(valid, t, 0).flatten(1).sum(1, dtype=torch.float64) for t in terms])


class DepthMetric(Metric):
    """The six metrics of the header."""

    full_state_update = False
    sums: Tensor
    pixels: Tensor
    image_means: Tensor
    images: Tensor

    def __init__(self, log: bool, compat: bool = False) -> None:
        super().__init__()
        self.log, self.compat = log, compat
        self.add_state("image_means", torch.zeros(len(METRICS), dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("images", torch.zeros((), dtype=torch.long), dist_reduce_fx="sum")
        self.add_state("sums", torch.zeros(len(METRICS), dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("pixels", torch.zeros((), dtype=torch.long), dist_reduce_fx="sum")

    def update(self, output: Tensor, target: Tensor) -> None:
        """Adds a batch, (B, 1, H, W) each."""
        if self.compat:
            depth = output.float().exp() if self.log else output.float()
        else:
            depth = to_depth(output, self.log)
        sums = pixel_errors(depth, target, self.compat)
        pixels_B = (target > 0).flatten(1).sum(1)
        self.sums += sums.sum(1)
        self.pixels += pixels_B.sum()
        self.image_means += (sums / pixels_B.clamp(min=1)).sum(1)
        self.images += (pixels_B > 0).sum()

    def compute(self) -> dict[str, Tensor]:
        """By name; NaN where no pixel is valid."""
        means = dict(zip(METRICS, (self.sums / self.pixels).float(), strict=True))
        if self.compat:
            of_images = dict(zip(METRICS, (self.image_means / self.images).float(), strict=True))
            means |= {name: of_images[name] for name in ("abs_rel", "abs_err")}
        return {**means, "rmse": means["rmse"].sqrt()}


class Depth(Task):
    """Depth in the user's unit, from 16-bit pictures or arrays."""

    type: ClassVar[str] = "depth"
    geometry: Geometry = "depth"
    dense: ClassVar[bool] = True
    primary = "abs_rel"
    spec: DepthSpec

    def __init__(self, name: str, spec: DepthSpec, labels: list[str]) -> None:
        super().__init__(name, spec)
        self.metric_info: Mapping[str, MetricInfo] = {
            "abs_rel": MetricInfo(higher_is_better=False),
            "abs_err": MetricInfo(higher_is_better=False, unit=spec.unit),
            "rmse": MetricInfo(higher_is_better=False, unit=spec.unit),
            **{f"delta{n}": MetricInfo(higher_is_better=True) for n in (1, 2, 3)},
        }

    @property
    def out_channels(self) -> int:
        return 1

    @property
    def unit(self) -> str:
        return self.spec.unit

    @property
    def output_unit(self) -> str:
        return "" if self.spec.log else self.unit

    @property
    def meaning(self) -> str:
        if self.spec.log:
            return f"natural logarithm of the depth in {self.unit}; exp gives the depth"
        return f"depth in {self.unit}; what is below {MIN_DEPTH:g} counts as {MIN_DEPTH:g}"

    def read(self, path: Path, image_id: str) -> np.ndarray:
        """(1, H, W) float32 in units, 0 = invalid, from a grey picture or a .npy of stored values.

        0, NaN, infinity and anything above `max` are invalid.
        """
        return self.target_of(read_label_map(path), str(path))

    def read_at(self, path: Path, image_id: str, size_HW: tuple[int, int]) -> np.ndarray:
        """As `read`; takes the nearest pixels first."""
        return self.target_of(read_label_map(path), str(path), size_HW)

    def target_of(self, values: np.ndarray, path: str, size_HW: tuple[int, int] | None = None) -> np.ndarray:
        """As `read`."""
        values = label_map(values, path)
        if values.dtype.kind not in "ub" and (values < 0).any():
            negative = shown(values[values < 0])
            raise DataError(f"{path} holds negative depth ({negative}); 0 means invalid")
        if size_HW is not None:
            values = take_nearest(values, size_HW)
        with np.errstate(over="ignore"):  # too large for float32 is infinite, which is invalid
            depth = (values / np.float64(self.spec.scale)).astype(np.float32)
        depth[~np.isfinite(depth)] = 0
        if self.spec.max is not None:
            depth[depth > self.spec.max] = 0
        if self.spec.compat == "adashare":
            depth[depth <= COMPAT_MIN] = 0
        return depth[None]

    def missing(self, size_HW: tuple[int, int]) -> np.ndarray:
        return np.zeros((1, *size_HW), dtype=np.float32)

    def is_labelled(self, target: Tensor) -> Tensor:
        return (target > 0).flatten(1).any(1)

    def head(self, in_channels: int) -> nn.Module:
        return DenseHead(in_channels, 1)

    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        return depth_loss(output, target, self.spec.log)

    def metric(self) -> Metric:
        return DepthMetric(self.spec.log, self.spec.compat == "adashare")

    def quality(self, output: Tensor, target: Tensor) -> Tensor:
        """delta1: the share of the image's valid pixels that are right to a factor of 1.25."""
        right_B = pixel_errors(to_depth(output, self.spec.log), target)[METRICS.index("delta1")]
        return (right_B / (target > 0).flatten(1).sum(1)).float()

    def constant_output(self, targets: Iterable[Tensor], size_HW: tuple[int, int]) -> Tensor:
        """The mean depth of all valid pixels."""
        total, count = 0.0, 0
        for target in targets:
            total += float(target.sum(dtype=torch.float64))  # invalid pixels are 0
            count += int((target > 0).sum())
        mean = torch.tensor(total / count if count else 1.0)
        return (mean.log() if self.spec.log else mean).expand(1, 1, *size_HW)

    def decode(self, output: Tensor, size_HW: tuple[int, int], input_HW: tuple[int, int]) -> Prediction:
        """`values` (H, W) float32 in `unit`; the same as `metres` where the unit is m."""
        depth = to_depth(resize_output(output, size_HW), self.spec.log)
        return self._prediction(depth[0, 0].cpu().numpy())

    def draw(self, image: np.ndarray, prediction: Prediction) -> np.ndarray:
        """Near is red and far is blue, on a logarithmic scale; invalid pixels are the darkened picture.

        The ends of the scale are powers of two around the picture's own range, so that a label and its
        prediction mostly have the same colours.
        """
        depth = prediction.values["values"]
        valid = depth > 0
        if not valid.any():
            return np.rint(DARK * image).astype(np.uint8)
        octave = np.log2(np.where(valid, depth, 1))
        low, high = np.percentile(octave[valid], (2, 98))
        high = max(np.ceil(high), np.floor(low) + 1)
        low = max(np.floor(low), high - DRAWN_OCTAVES)
        colours = turbo((high - octave) / (high - low))
        return np.where(valid[..., None], colours, np.rint(DARK * image)).astype(np.uint8)

    def as_prediction(self, target: Tensor, input_HW: tuple[int, int]) -> Prediction:
        """Invalid pixels are 0."""
        return self._prediction(target[0].float().cpu().numpy())

    def _prediction(self, depth_HW: np.ndarray) -> Prediction:
        values = {"values": depth_HW, "unit": self.unit}
        if self.unit == "m":
            values["metres"] = depth_HW
        return Prediction(self.name, self.type, values)
