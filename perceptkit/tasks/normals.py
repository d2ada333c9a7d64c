"""Surface normals: a unit vector per pixel.

Inside perceptkit all normals are in camera axes (x right, y down, z forward), so visible surfaces have z < 0;
labels in OpenGL axes (x right, y up, z towards the viewer) are converted when read, and back when decoded.

Loss: 1 - cos(angle), averaged over the valid pixels of the batch.

With `encoding: raw_u8` the three bytes of a pixel are brought to length 1 as they are, as AdaShare's code does with
NYUv2: what is learned lies in one octant and is no direction, so mirroring leaves it alone, and angles are about half
as large. Pixels with a byte of 255, and black ones, are invalid.

Metrics, pooled over all valid pixels of the data set (Fouhey, Gupta, Hebert. ICCV 2013): mean and median
angle in degrees, and the share of pixels within 11.25, 22.5 and 30 degrees. The median is that of the angles
rounded to 0.01 degrees, so that it can be counted instead of kept. With `compat: adashare` an angle of just the
bound is within it, and there is the mean cosine, which AdaShare reports for Taskonomy.

Shapes: B images, 3 = (x, y, z), H W pixels. Targets are unit vectors, a zero vector = invalid.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchmetrics import Metric

from perceptkit.errors import DataError
from perceptkit.pixels import planes_nearest, take_nearest
from perceptkit.spec.tasks_file import NormalsSpec
from perceptkit.tasks.base import Geometry, MetricInfo, Prediction, Task, masked_mean
from perceptkit.tasks.heads import DenseHead
from perceptkit.tasks.label_arrays import label_map, read_label_map, shown
from perceptkit.tasks.palette import DARK
from perceptkit.tasks.resize import resize_output

BIN_DEG = 0.01
NUM_BINS = round(180 / BIN_DEG) + 1
WITHIN_DEG = {"within_11_25": 11.25, "within_22_5": 22.5, "within_30": 30.0}
MIN_NORM = 0.5
"""Stored vectors shorter than this are invalid: grey pixels decode to almost nothing."""

MAX_FLOAT = 2.0
"""Larger floats are no components of unit vectors but bytes or integers."""

OPENGL = np.array([1, -1, -1], dtype=np.float32)
"""Camera axes times this are OpenGL axes, and the other way round."""

FACING_CAMERA = (0.0, 0.0, -1.0)


def cosine_loss(output_B3HW: Tensor, target_B3HW: Tensor) -> Tensor:
    """Mean of 1 - cos over valid pixels; 0 with a gradient where none is valid."""
    # the bound keeps the gradient of an untrained output near the zero vector small
    unit_B3HW = unit_vectors(output_B3HW, min_norm=1e-3)
    return masked_mean(1 - (unit_B3HW * target_B3HW).sum(1), is_valid(target_B3HW))


def unit_vectors(vectors_B3HW: Tensor, min_norm: float = 1e-12) -> Tensor:
    """float32 vectors divided by their length, or by `min_norm` where they are shorter.

    The same as F.normalize, whose norm over channels takes a CPU a hundred times as long.
    """
    vectors_B3HW = vectors_B3HW.float()
    return vectors_B3HW / vectors_B3HW.square().sum(1, keepdim=True).clamp(min=min_norm**2).sqrt()


def is_valid(target_B3HW: Tensor) -> Tensor:
    """(B, H, W) bool: pixels with a label."""
    return (target_B3HW != 0).any(1)


def angle_deg(a_B3HW: Tensor, b_B3HW: Tensor) -> Tensor:
    """(B, H, W) angle between vectors of any length, exact near 0 and 180 degrees, where acos is not.

    Kahan: 2 atan2(|a - b|, |a + b|) for unit vectors. A zero vector is at 90 degrees to everything.
    """
    a, b = unit_vectors(a_B3HW), unit_vectors(b_B3HW)
    difference, total = (a - b).square().sum(1).sqrt(), (a + b).square().sum(1).sqrt()
    return torch.rad2deg(2 * torch.atan2(difference, total))


def raw_bytes(values_HW3: np.ndarray, path: str) -> np.ndarray:
    """(3, H, W) float32 of the bytes at `path`, each pixel brought to length 1, zero = invalid. Raises DataError."""
    if values_HW3.dtype != np.uint8:
        raise DataError(f"{path} holds values of type {values_HW3.dtype}; encoding raw_u8 is for bytes")
    vectors = values_HW3.astype(np.float32)
    vectors[(values_HW3 == 255).any(-1)] = 0
    norm = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return np.ascontiguousarray((vectors / np.maximum(norm, 1)).transpose(2, 0, 1))


class NormalsMetric(Metric):
    """The five metrics of the header."""

    full_state_update = False
    total: Tensor
    within: Tensor
    histogram: Tensor
    cosine: Tensor

    def __init__(self, compat: bool = False) -> None:
        super().__init__()
        self.compat = compat
        self.add_state("cosine", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("total", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("within", torch.zeros(len(WITHIN_DEG), dtype=torch.long), dist_reduce_fx="sum")
        self.add_state("histogram", torch.zeros(NUM_BINS, dtype=torch.long), dist_reduce_fx="sum")

    def update(self, output: Tensor, target: Tensor) -> None:
        """Adds a batch, (B, 3, H, W) each."""
        angle_N = angle_deg(output, target)[is_valid(target)]
        self.total += angle_N.sum(dtype=torch.float64)
        is_within = torch.le if self.compat else torch.lt
        self.within += torch.stack([is_within(angle_N, bound).sum() for bound in WITHIN_DEG.values()])
        if self.compat:
            self.cosine += angle_N.deg2rad().cos().sum(dtype=torch.float64)
        # an output of NaN shows in the mean; the histogram has no place for it
        bin_N = (angle_N.nan_to_num(nan=180.0) / BIN_DEG).round().long()
        self.histogram += torch.bincount(bin_N, minlength=NUM_BINS)

    def compute(self) -> dict[str, Tensor]:
        """By name; NaN where no pixel is valid."""
        count = self.histogram.sum()
        # of an even number of angles the median is between the two in the middle
        middle = torch.stack([(count + 1) // 2, count // 2 + 1])
        median = torch.searchsorted(self.histogram.cumsum(0), middle).double().mean() * BIN_DEG
        within = (self.within / count).unbind()
        more = {"mean_cos": (self.cosine / count).float()} if self.compat else {}
        return {
            "mean_deg": (self.total / count).float(),
            "median_deg": torch.where(count > 0, median, torch.nan).float(),
            **dict(zip(WITHIN_DEG, within, strict=True)),
            **more,
        }


class Normals(Task):
    """Unit surface normals, from pictures or arrays."""

    type: ClassVar[str] = "normals"
    geometry: Geometry = "normals"
    dense: ClassVar[bool] = True
    metric_info: Mapping[str, MetricInfo] = {
        "mean_deg": MetricInfo(higher_is_better=False, unit="deg"),
        "median_deg": MetricInfo(higher_is_better=False, unit="deg"),
        **{name: MetricInfo(higher_is_better=True) for name in WITHIN_DEG},
    }
    primary = "mean_deg"
    spec: NormalsSpec

    def __init__(self, name: str, spec: NormalsSpec, labels: list[str]) -> None:
        super().__init__(name, spec)
        self.is_raw = spec.encoding == "raw_u8"
        if self.is_raw:
            self.geometry = "label_map"
        if spec.compat == "adashare":
            self.metric_info = {**self.metric_info, "mean_cos": MetricInfo(higher_is_better=True)}
        self.from_camera = OPENGL if spec.frame == "opengl" else np.ones(3, dtype=np.float32)
        """User's axes = camera axes times this, and the other way round."""

    @property
    def out_channels(self) -> int:
        return 3

    @property
    def meaning(self) -> str:
        if self.is_raw:
            return "three numbers that, divided by their length, are those of the label's bytes so divided"
        told = (
            "x, y, z of surface normals that are not of length 1, in camera axes (x right, y down, z forward); "
            "divided by its length each is a unit vector"
        )
        if self.spec.frame == "opengl":
            told += ", and y and z with the other sign are those of the labels' opengl axes"
        return told

    def read(self, path: Path, image_id: str) -> np.ndarray:
        """(3, H, W) float32 unit vectors in camera axes, zero = invalid.

        From an RGB picture, n = 2 * value / 255 - 1, where black and white pixels are invalid; or from a .npy
        (H, W, 3) of bytes (the same) or floats (taken as they are). Vectors shorter than MIN_NORM and NaN
        are invalid; the others are brought to length 1.
        """
        return self.target_of(read_label_map(path, channels=3), str(path))

    def read_at(self, path: Path, image_id: str, size_HW: tuple[int, int]) -> np.ndarray:
        """As `read`; takes the nearest pixels first."""
        return self.target_of(read_label_map(path, channels=3), str(path), size_HW)

    def target_of(self, values: np.ndarray, path: str, size_HW: tuple[int, int] | None = None) -> np.ndarray:
        """As `read`."""
        values = label_map(values, path, channels=3)
        if values.dtype.kind == "f" and not self.is_raw:
            large = values[np.isfinite(values).all(-1)]
            large = large[np.abs(large) > MAX_FLOAT]
            if large.size:
                raise DataError(
                    f"{path} holds {shown(large)}; expected components of unit vectors, in [-1, 1]"
                )
        is_coloured = values.dtype in (np.uint8, np.uint16) and not self.is_raw
        if size_HW is not None and not is_coloured:
            values = take_nearest(values, size_HW)
        if self.is_raw:
            return raw_bytes(values, path)
        if is_coloured:
            largest = np.iinfo(values.dtype).max
            x, y, z = stored = planes_nearest(values, size_HW)
            marked = (x | y | z == 0) | (x & y & z == largest)
            vectors = stored.astype(np.float32) * np.float32(2 / largest) - 1
            vectors *= ~marked
        elif values.dtype.kind == "f":
            with np.errstate(over="ignore"):
                vectors = np.ascontiguousarray(values.transpose(2, 0, 1)).astype(np.float32)
            vectors[:, ~np.isfinite(vectors).all(0)] = 0
        else:
            raise DataError(
                f"{path} holds values of type {values.dtype}; expected 8- or 16-bit colours or floats"
            )
        # planes, not triples: numpy works on rows of pixels several times as fast
        x, y, z = vectors
        norm_HW = np.sqrt(x * x + y * y + z * z)
        scale_HW = (norm_HW >= MIN_NORM) / np.maximum(norm_HW, np.float32(MIN_NORM))
        vectors *= scale_HW.astype(np.float32) * self.from_camera[:, None, None]
        return vectors

    def missing(self, size_HW: tuple[int, int]) -> np.ndarray:
        return np.zeros((3, *size_HW), dtype=np.float32)

    def is_labelled(self, target: Tensor) -> Tensor:
        return is_valid(target).flatten(1).any(1)

    def head(self, in_channels: int) -> nn.Module:
        return DenseHead(in_channels, 3)

    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        return cosine_loss(output, target)

    def metric(self) -> Metric:
        return NormalsMetric(self.spec.compat == "adashare")

    def quality(self, output: Tensor, target: Tensor) -> Tensor:
        """Mean of 1 - angle / 90 over the image's valid pixels, 0 beyond 90 degrees: every degree counts."""
        good_BHW = (1 - angle_deg(output, target) / 90).clamp(min=0)
        valid_BHW = is_valid(target)
        return torch.where(valid_BHW, good_BHW, 0).flatten(1).sum(1) / valid_BHW.flatten(1).sum(1)

    def constant_output(self, targets: Iterable[Tensor], size_HW: tuple[int, int]) -> Tensor:
        """The direction of the mean of all valid normals."""
        total_3 = torch.zeros(3, dtype=torch.float64)
        for target in targets:
            total_3 += target.sum(dim=(0, 2, 3), dtype=torch.float64).cpu()  # invalid pixels are 0
        if not total_3.any():
            total_3 = torch.tensor(FACING_CAMERA, dtype=torch.float64)
        return F.normalize(total_3, dim=0).float().view(1, 3, 1, 1).expand(1, 3, *size_HW)

    def decode(self, output: Tensor, size_HW: tuple[int, int], input_HW: tuple[int, int]) -> Prediction:
        """`vectors` (H, W, 3) float32 of length 1 in the axes of the user's `frame`."""
        return self._prediction(unit_vectors(resize_output(output, size_HW))[0])

    def draw(self, image: np.ndarray, prediction: Prediction) -> np.ndarray:
        """(n + 1) / 2 as RGB in OpenGL axes, whatever the frame; invalid pixels are the darkened picture."""
        vectors = prediction.values["vectors"]
        colours = vectors * 255 if self.is_raw else (vectors * self.from_camera * OPENGL + 1) * 127.5
        valid = (vectors != 0).any(-1, keepdims=True)
        drawn: np.ndarray = np.rint(np.where(valid, colours, DARK * image)).clip(0, 255).astype(np.uint8)
        return drawn

    def as_prediction(self, target: Tensor, input_HW: tuple[int, int]) -> Prediction:
        """Invalid pixels are zero vectors."""
        return self._prediction(target.float())

    def _prediction(self, camera_3HW: Tensor) -> Prediction:
        vectors = camera_3HW.permute(1, 2, 0).cpu().numpy() * self.from_camera
        frame = self.spec.encoding if self.is_raw else self.spec.frame
        return Prediction(self.name, self.type, {"vectors": vectors, "frame": frame})
