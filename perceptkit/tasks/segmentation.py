"""Segmentation: one class per pixel.

Loss: cross-entropy, averaged over the labelled pixels of the batch, by `class_weights` where there are some.

Metrics, counted over all labelled pixels of the data set:

    pixel_acc = right pixels / labelled pixels
    IoU_c     = |predicted c and labelled c| / |predicted c or labelled c|
    miou      = mean of IoU_c over the classes that occur in the labels of the evaluated data

A class that is declared but never labelled there is left out of the mean; predicting it still costs, because
those pixels are missing from the classes they belong to. Unlabelled pixels count nowhere.

With `compat: adashare` miou is the mean over the classes of which any pixel was found, and pixel_acc the mean over
pictures of their share of right pixels, where unlabelled ones count as wrong if their stored id (`ignore_index`) is
below the number of classes: Cityscapes' -1 does, NYUv2's 255 does not. There is a third, `err`, which AdaShare reports
for Taskonomy: the mean over pictures of the loss above on each picture's labelled pixels, at the full size. A picture
without any labelled pixel, which their data have not, counts nowhere here either.

Shapes: B images, C classes, H W pixels. Targets are int64 class ids, -1 = unlabelled.
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
from perceptkit.pixels import take_nearest
from perceptkit.spec.tasks_file import SegmentationSpec
from perceptkit.tasks.base import Geometry, MetricInfo, Prediction, Task, divide_by_labelled
from perceptkit.tasks.class_weights import class_weights
from perceptkit.tasks.heads import DenseHead
from perceptkit.tasks.label_arrays import label_map, read_label_map, shown
from perceptkit.tasks.palette import DARK, class_colours
from perceptkit.tasks.resize import resize_output

UNLABELLED = -1
OPACITY = 0.65
"""Of the class colour over the picture."""


def pixel_loss(output_BCHW: Tensor, target_BHW: Tensor, weight_C: Tensor | None = None) -> Tensor:
    """Mean cross-entropy over labelled pixels, weighted by their classes (class_weights.py); 0 with a gradient of 0
    where there are none."""
    known_BHW = target_BHW != UNLABELLED
    if weight_C is not None:
        weight_C = weight_C.to(output_BCHW.device)
    total = F.cross_entropy(
        output_BCHW.float(), target_BHW, weight_C, ignore_index=UNLABELLED, reduction="sum"
    )
    return divide_by_labelled(
        total, known_BHW if weight_C is None else weight_C[target_BHW.clamp(min=0)] * known_BHW
    )


def image_losses(output_BCHW: Tensor, target_BHW: Tensor, weight_C: Tensor | None = None) -> Tensor:
    """(B,) float64: `pixel_loss` of each image by itself; 0 where it has no labelled pixel."""
    if weight_C is None:
        weight_C = torch.ones(output_BCHW.shape[1])
    weight_C = weight_C.to(output_BCHW.device)
    loss_BHW = F.cross_entropy(
        output_BCHW.float(), target_BHW, weight_C, ignore_index=UNLABELLED, reduction="none"
    )
    weight_BHW = weight_C[target_BHW.clamp(min=0)] * (target_BHW != UNLABELLED)
    total_B, weight_B = (x.flatten(1).sum(1, dtype=torch.float64) for x in (loss_BHW, weight_BHW))
    return torch.where(weight_B > 0, total_B / weight_B, 0)


def class_counts(output_BCHW: Tensor, target_BHW: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Labelled pixels of each image by class, each (B, C) int64: found right, labelled, predicted."""
    B, C = output_BCHW.shape[:2]
    predicted_BHW = output_BCHW.max(1).indices  # ten times as fast as argmax over channels on a CPU
    known_BHW = target_BHW != UNLABELLED
    image_B11 = torch.arange(B, device=target_BHW.device).view(B, 1, 1)

    def count(class_BHW: Tensor, where_BHW: Tensor) -> Tensor:
        return torch.bincount((image_B11 * C + class_BHW)[where_BHW], minlength=B * C).view(B, C)

    right_BHW = known_BHW & (predicted_BHW == target_BHW)
    return count(target_BHW, right_BHW), count(target_BHW, known_BHW), count(predicted_BHW, known_BHW)


def mean_iou(right_C: Tensor, labelled_C: Tensor, predicted_C: Tensor) -> Tensor:
    """Mean IoU over the classes with labelled pixels, over the last dimension; NaN where there are none."""
    iou_C = right_C / (labelled_C + predicted_C - right_C)
    return torch.where(labelled_C > 0, iou_C, torch.nan).nanmean(-1)


class SegmentationMetric(Metric):
    """`miou` and `pixel_acc` from pixel counts per class; in compat `err` too.

    Args:
        num_classes: C.
        compat: `adashare`, or None.
        void_counts: in compat, whether unlabelled pixels count as wrong in `pixel_acc`.
        weight_C: in compat, the classes' factors in `err`; 1 by default.
    """

    full_state_update = False
    right: Tensor
    labelled: Tensor
    predicted: Tensor
    image_acc: Tensor
    image_err: Tensor
    images: Tensor

    def __init__(
        self,
        num_classes: int,
        compat: str | None = None,
        void_counts: bool = False,
        weight_C: Tensor | None = None,
    ) -> None:
        super().__init__()
        self.compat, self.void_counts, self.weight_C = compat, void_counts, weight_C
        self.add_state("image_err", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("image_acc", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("images", torch.zeros((), dtype=torch.long), dist_reduce_fx="sum")
        for name in ("right", "labelled", "predicted"):
            self.add_state(name, torch.zeros(num_classes, dtype=torch.long), dist_reduce_fx="sum")

    def update(self, output: Tensor, target: Tensor) -> None:
        """Adds a batch: (B, C, H, W) logits and (B, H, W) class ids."""
        right, labelled, predicted = class_counts(output, target)
        self.right += right.sum(0)
        self.labelled += labelled.sum(0)
        self.predicted += predicted.sum(0)
        if self.compat:
            of_image = target[0].numel()
            pixels_B = labelled.sum(1)
            if self.void_counts:
                pixels_B = torch.where(
                    pixels_B > 0, of_image, 0
                )  # a picture without any label is of no account
            self.image_acc += (right.sum(1) / pixels_B.clamp(min=1)).sum(dtype=torch.float64)
            self.image_err += image_losses(output, target, self.weight_C).sum()
            self.images += (pixels_B > 0).sum()

    def compute(self) -> dict[str, Tensor]:
        """Shares in [0, 1], `err` in nats; NaN where no pixel is labelled."""
        miou = mean_iou(self.right, self.labelled, self.predicted)
        if self.compat:
            iou_C = self.right / (self.labelled + self.predicted - self.right)
            miou = torch.where(self.right > 0, iou_C, torch.nan).nanmean()
            accuracy, error = self.image_acc / self.images, self.image_err / self.images
            return {"miou": miou, "pixel_acc": accuracy.float(), "err": error.float()}
        return {"miou": miou, "pixel_acc": self.right.sum() / self.labelled.sum()}


class Segmentation(Task):
    """One class per pixel, from a picture of class ids."""

    type: ClassVar[str] = "segmentation"
    geometry: Geometry = "label_map"
    dense: ClassVar[bool] = True
    metric_info: Mapping[str, MetricInfo] = {
        "miou": MetricInfo(higher_is_better=True),
        "pixel_acc": MetricInfo(higher_is_better=True),
    }
    primary = "miou"
    spec: SegmentationSpec

    def __init__(self, name: str, spec: SegmentationSpec, labels: list[str]) -> None:
        super().__init__(name, spec)
        self._labels = list(labels)
        assert not isinstance(spec.class_weights, str), "read when the tasks file is loaded"
        self._weight_C = class_weights(name, spec.class_weights, labels)
        if spec.compat == "adashare":
            self.metric_info = {**self.metric_info, "err": MetricInfo(higher_is_better=False)}
        small = len(labels) <= 255
        self.mask_dtype = np.dtype(np.uint8 if small else np.uint16)
        self.mask_unlabelled = 255 if small else 65535

    @property
    def out_channels(self) -> int:
        return len(self._labels)

    @property
    def labels(self) -> list[str]:
        return self._labels

    @property
    def meaning(self) -> str:
        return "one logit per class; the largest is the pixel's class, softmax over them gives probabilities"

    def read(self, path: Path, image_id: str) -> np.ndarray:
        """(H, W) int64 from a grey or palette picture, or a .npy of whole numbers."""
        return self.target_of(read_label_map(path), str(path))

    def read_at(self, path: Path, image_id: str, size_HW: tuple[int, int]) -> np.ndarray:
        """As `read`; takes the nearest pixels first."""
        return self.target_of(read_label_map(path), str(path), size_HW)

    def target_of(self, values: np.ndarray, path: str, size_HW: tuple[int, int] | None = None) -> np.ndarray:
        """As `read`."""
        values = label_map(values, path)
        if values.dtype.kind == "f":
            raise DataError(f"{path} holds values of type {values.dtype}; expected whole class ids")
        if values.dtype == bool:
            values = values.astype(np.uint8)
        # compared as stored: bytes are eight times as many at once as 64-bit numbers
        wrong = (values >= len(self._labels)) & (values != self.spec.ignore_index)
        if values.dtype.kind == "i":
            wrong |= (values < 0) & (values != self.spec.ignore_index)
        if wrong.any():
            strange = values[wrong].astype(np.int64)
            noun = "class id" if len(np.unique(strange)) == 1 else "class ids"
            raise DataError(
                f"{path} holds {noun} {shown(strange)}; {len(self._labels)} classes are declared; "
                f"{self.spec.ignore_index} is ignored"
            )
        if size_HW is not None:
            values = take_nearest(values, size_HW)
        ids = values.astype(np.int64)
        ids[values == self.spec.ignore_index] = UNLABELLED
        return ids

    def missing(self, size_HW: tuple[int, int]) -> np.ndarray:
        return np.full(size_HW, UNLABELLED, dtype=np.int64)

    def is_labelled(self, target: Tensor) -> Tensor:
        return (target != UNLABELLED).flatten(1).any(1)

    def head(self, in_channels: int) -> nn.Module:
        return DenseHead(in_channels, self.out_channels)

    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        return pixel_loss(output, target, self._weight_C)

    def metric(self) -> Metric:
        void_counts = self.spec.ignore_index < len(self._labels)
        return SegmentationMetric(len(self._labels), self.spec.compat, void_counts, self._weight_C)

    def quality(self, output: Tensor, target: Tensor) -> Tensor:
        """Mean IoU over the classes in the image's own label: small objects count as much as walls."""
        return mean_iou(*class_counts(output, target))

    def constant_output(self, targets: Iterable[Tensor], size_HW: tuple[int, int]) -> Tensor:
        """The class with the most labelled pixels, everywhere."""
        count_C = torch.zeros(len(self._labels), dtype=torch.long)
        for target in targets:
            count_C += torch.bincount(target[target != UNLABELLED].cpu(), minlength=len(count_C))
        one_hot_C = F.one_hot(count_C.argmax(), len(count_C)).float()
        return one_hot_C.view(1, -1, 1, 1).expand(1, -1, *size_HW)

    def decode(self, output: Tensor, size_HW: tuple[int, int], input_HW: tuple[int, int]) -> Prediction:
        """`mask` (H, W) of class ids, uint8 (uint16 from 256 classes on), and the names of `classes`."""
        # class by class: all logits at the size of a 12-megapixel picture may not fit into memory
        best = resize_output(output[:, :1], size_HW)
        mask = torch.zeros_like(best, dtype=torch.int32)
        for i in range(1, output.shape[1]):
            logit = resize_output(output[:, i : i + 1], size_HW)
            mask = torch.where(logit > best, i, mask)
            best = torch.maximum(logit, best)
        return self._prediction(mask[0, 0])

    def draw(self, image: np.ndarray, prediction: Prediction) -> np.ndarray:
        """The classes' colours over the picture; unlabelled pixels are dark."""
        mask: np.ndarray = prediction.values["mask"]
        unlabelled = mask == self.mask_unlabelled
        colours = class_colours(len(self._labels))[np.where(unlabelled, 0, mask)]
        blend = (1 - OPACITY) * image + OPACITY * colours
        drawn: np.ndarray = np.rint(np.where(unlabelled[..., None], DARK * image, blend)).astype(np.uint8)
        return drawn

    def as_prediction(self, target: Tensor, input_HW: tuple[int, int]) -> Prediction:
        """Unlabelled pixels hold the largest value of the mask's type, 255 or 65535."""
        return self._prediction(torch.where(target == UNLABELLED, self.mask_unlabelled, target))

    def _prediction(self, mask_HW: Tensor) -> Prediction:
        mask = mask_HW.cpu().numpy().astype(self.mask_dtype)
        return Prediction(self.name, self.type, {"mask": mask, "classes": self._labels})
