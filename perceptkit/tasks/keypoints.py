"""Keypoints: named points, each at most once per picture, or any number of points of each kind.

The two modes share heat maps at stride 4, label files and drawing; what differs has a file each:

    names    named_points.py    mean pixel error, PCK, visibility
    kinds    point_kinds.py     average precision at a pixel distance

Shapes: B images, N names, K kinds, P rows of a target of kinds, h w cells of the heat maps.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import ClassVar

import numpy as np
from torch import Tensor, nn
from torchmetrics import Metric

from perceptkit.spec.scene_labels import SCENE_FLIP_PAIRS
from perceptkit.spec.tasks_file import KeypointsSpec
from perceptkit.tasks import named_points, point_kinds
from perceptkit.tasks.base import Geometry, MetricInfo, Prediction, Task
from perceptkit.tasks.draw_points import draw_points
from perceptkit.tasks.heads import DenseHead
from perceptkit.tasks.heatmaps import STRIDE, radius_px
from perceptkit.tasks.point_files import MAX_POINTS, kinds_target, load_entry, named_target

VISIBLE_FROM = 0.5
"""Named points are drawn from this p(visible) on."""

LISTED_FROM = 0.1
DRAWN_FROM = 0.3
"""Scores from which on points of a kind are listed, and drawn (the best F1 was measured near 0.4)."""

NAMED_METRICS = {
    "mean_px": MetricInfo(higher_is_better=False, unit="px"),
    "pck": MetricInfo(higher_is_better=True),
    "visibility_acc": MetricInfo(higher_is_better=True),
}
KIND_METRICS = {"ap": MetricInfo(higher_is_better=True), "f1": MetricInfo(higher_is_better=True)}


class Keypoints(Task):
    """Points by heat map: `names` (the default, and what the built-in scenes have) or `kinds`."""

    type: ClassVar[str] = "keypoints"
    geometry: Geometry = "points"
    dense: ClassVar[bool] = True
    upsample: ClassVar[bool] = False
    spec: KeypointsSpec

    def __init__(self, name: str, spec: KeypointsSpec, labels: list[str]) -> None:
        super().__init__(name, spec)
        self._labels = list(labels)
        self.has_names = spec.kinds is None
        self.metric_info = NAMED_METRICS if self.has_names else KIND_METRICS
        self.primary = "mean_px" if self.has_names else "ap"

    @property
    def out_channels(self) -> int:
        return len(self._labels) * (2 if self.has_names else 1)

    @property
    def labels(self) -> list[str]:
        return self._labels

    @property
    def unit(self) -> str:
        return "px"

    @property
    def meaning(self) -> str:
        place = f"row i, column j is around the input pixel x = {STRIDE} j + 1.5, y = {STRIDE} i + 1.5"
        if not self.has_names:
            return f"heat logits, one map per kind; local maxima are points, sigmoid their score; {place}"
        N = len(self._labels)
        return (
            f"{N} maps of heat logits, one per name, the maximum of each is the point's place; then {N} of evidence s "
            f"that it is visible, p(visible) = sigmoid(sum of softmax(heat) * s over the map); {place}"
        )

    @property
    def flip_index(self) -> list[int]:
        """Name or kind i of a mirrored target is flip_index[i] of the original one."""
        pairs = self.spec.flip_pairs
        if self.has_names and self.spec.names is None:
            pairs = pairs or [(left, right) for left, right in SCENE_FLIP_PAIRS]
        index = list(range(len(self._labels)))
        for left, right in pairs:
            if left in self._labels and right in self._labels:
                i, j = self._labels.index(left), self._labels.index(right)
                index[i], index[j] = j, i
        return index

    def read(self, path: Path, image_id: str) -> np.ndarray | None:
        per_picture = self.spec.target is None or "{id}" in self.spec.target
        entry = load_entry(path, image_id, per_picture)
        if entry is None:
            return None
        where = str(path) if per_picture else f"{path}, picture {image_id}"
        target = named_target if self.has_names else kinds_target
        points: np.ndarray = target(entry, self._labels, where)
        return points

    def missing(self, size_HW: tuple[int, int]) -> np.ndarray:
        if self.has_names:
            return np.zeros((len(self._labels), 3), dtype=np.float32)
        return np.full((MAX_POINTS, 3), np.nan, dtype=np.float32)

    def is_labelled(self, target: Tensor) -> Tensor:
        return (target[..., 2] > 0).any(1) if self.has_names else point_kinds.labelled(target)

    def head(self, in_channels: int) -> nn.Module:
        head = DenseHead(in_channels, self.out_channels)
        mode = named_points if self.has_names else point_kinds
        head.predict.bias = nn.Parameter(mode.head_bias(len(self._labels)))
        return head

    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        return (named_points.point_loss if self.has_names else point_kinds.kind_loss)(output, target)

    def metric(self) -> Metric:
        if self.has_names:
            return named_points.PointMetric(self.spec.radius)
        return point_kinds.KindMetric(len(self._labels), self.spec.radius)

    def quality(self, output: Tensor, target: Tensor) -> Tensor:
        """Names: how near visible points are and how well hidden ones are known to be; kinds: best F1."""
        quality = named_points.point_quality if self.has_names else point_kinds.kind_quality
        return quality(output, target, radius_px(self.spec.radius, output))

    def constant_output(self, targets: Iterable[Tensor], size_HW: tuple[int, int]) -> Tensor:
        """Names: every point at its mean position; kinds: the logit of the mean heat map in training."""
        constant = named_points.mean_points if self.has_names else point_kinds.location_histogram
        return constant(targets, len(self._labels), named_points.cells_of(size_HW))

    def decode(self, output: Tensor, size_HW: tuple[int, int], input_HW: tuple[int, int]) -> Prediction:
        """`points` in pixels of the picture.

        Names: {name: (x, y, p(visible))}. Kinds: [(x, y, kind, score), ...], the strongest first.
        """

        def place(xy: Tensor) -> tuple[float, float]:
            x, y = xy.tolist()
            return (
                (x + 0.5) * size_HW[1] / input_HW[1] - 0.5,
                (y + 0.5) * size_HW[0] / input_HW[0] - 0.5,
            )

        if self.has_names:
            xy_N2 = named_points.locate(output)[0]
            p_N = named_points.visibility_logit(output)[0].sigmoid().tolist()
            named = {name: (*place(xy), p) for name, xy, p in zip(self._labels, xy_N2, p_N, strict=True)}
            return Prediction(self.name, self.type, {"points": named})
        xy, score = point_kinds.detect(output)
        found = [
            (*place(xy[0, k, i]), self._labels[k], float(score[0, k, i]))
            for k, i in (score[0] >= LISTED_FROM).nonzero().tolist()
        ]
        return Prediction(self.name, self.type, {"points": sorted(found, key=lambda p: -p[3])})

    def draw(self, image: np.ndarray, prediction: Prediction) -> np.ndarray:
        """A dot and its name for each visible or strong enough point."""
        points = prediction.values["points"]
        if isinstance(points, dict):
            shown = [(x, y, name) for name, (x, y, p) in points.items() if p >= VISIBLE_FROM]
        else:
            shown = [(x, y, kind) for x, y, kind, score in points if score >= DRAWN_FROM]
        return draw_points(image, ((x, y, self._labels.index(label), label) for x, y, label in shown))

    def as_prediction(self, target: Tensor, input_HW: tuple[int, int]) -> Prediction:
        """Unlabelled names are left out; a score is 1, or 0 for a labelled point that is not visible."""
        rows = target.tolist()
        if self.has_names:
            named = {
                name: (x, y, float(v == 2))
                for name, (x, y, v) in zip(self._labels, rows, strict=True)
                if v > 0
            }
            return Prediction(self.name, self.type, {"points": named})
        kinds = [(x, y, self._labels[int(kind)], 1.0) for x, y, kind in rows if kind >= 0]
        return Prediction(self.name, self.type, {"points": kinds})
