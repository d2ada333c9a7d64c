"""Classification: one class per picture, or several with `multi_label`.

Loss, averaged over the labelled pictures of the batch: cross-entropy, or binary cross-entropy averaged over
the classes too; both by `class_weights` where there are some.

Metrics over all labelled pictures:

    top1, top5   share of pictures whose class is the likeliest, or among the five likeliest; top5 only
                 from 6 classes on
    map          (multi_label) average precision as of PASCAL VOC, see average_precision.py, averaged over the
                 classes that occur in the labels of the evaluated data

Shapes: B pictures, C classes. Targets are (B,) int64, -1 = unlabelled; multi-label (B, C) float32 of 0 and 1,
all -1 = unlabelled.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat

from perceptkit.errors import DataError
from perceptkit.spec.problems import closest
from perceptkit.spec.tasks_file import ClassificationSpec
from perceptkit.tasks.average_precision import average_precision
from perceptkit.tasks.base import Geometry, MetricInfo, Prediction, Task, divide_by_labelled, masked_mean
from perceptkit.tasks.class_weights import class_weights
from perceptkit.tasks.draw_text import draw_bar
from perceptkit.tasks.heads import GlobalHead
from perceptkit.tasks.label_tables import label_table

UNLABELLED = -1
TRUE_FROM = 0.5
"""Probability from which on a class of `multi_label` counts as present."""

MIN_SHARE = 1e-6
"""Of a class that never occurs in training, so that the constant predictor's logits are finite."""


class TopMetric(Metric):
    """`top1` and, from 6 classes on, `top5`."""

    full_state_update = False
    right: Tensor
    pictures: Tensor

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.ranks = (1, 5) if num_classes > 5 else (1,)
        self.add_state("right", torch.zeros(len(self.ranks), dtype=torch.long), dist_reduce_fx="sum")
        self.add_state("pictures", torch.zeros((), dtype=torch.long), dist_reduce_fx="sum")

    def update(self, output: Tensor, target: Tensor) -> None:
        """Adds a batch: (B, C) logits and (B,) class ids."""
        first_BR = output.topk(self.ranks[-1], dim=1).indices
        hit_BR = (first_BR == target[:, None]) & (target != UNLABELLED)[:, None]
        self.right += torch.stack([hit_BR[:, :rank].sum() for rank in self.ranks])
        self.pictures += (target != UNLABELLED).sum()

    def compute(self) -> dict[str, Tensor]:
        """Shares in [0, 1]; NaN where no picture is labelled."""
        shares = (self.right / self.pictures).unbind()
        return {f"top{rank}": share for rank, share in zip(self.ranks, shares, strict=True)}


class MapMetric(Metric):
    """`map` of a multi-label task; keeps the scores, as a ranking needs all of them."""

    full_state_update = False
    score: list[Tensor]
    true: list[Tensor]

    def __init__(self) -> None:
        super().__init__()
        for name in ("score", "true"):
            self.add_state(name, default=[], dist_reduce_fx="cat")

    def update(self, output: Tensor, target: Tensor) -> None:
        """Adds a batch: (B, C) logits and labels; rows without a label are left out."""
        known_B = (target >= 0).all(1)
        # appended even when empty: a rank without labels takes part in the gathering
        self.score.append(output.float()[known_B])
        self.true.append(target[known_B] > 0)

    def compute(self) -> dict[str, Tensor]:
        """In [0, 1]; NaN where no class occurs."""
        if isinstance(self.score, list) and not self.score:
            return {"map": torch.tensor(torch.nan)}
        score_NC, true_NC = (dim_zero_cat(state).cpu().numpy() for state in (self.score, self.true))
        precisions = [
            average_precision(score_N, true_N, int(true_N.sum()))[0]
            for score_N, true_N in zip(score_NC.T, true_NC.T, strict=True)
            if true_N.any()
        ]
        return {"map": torch.tensor(np.mean(precisions) if precisions else np.nan, dtype=torch.float32)}


class Classification(Task):
    """Classes of a whole picture, from a CSV."""

    type: ClassVar[str] = "classification"
    geometry: Geometry = "none"
    dense: ClassVar[bool] = False
    spec: ClassificationSpec

    def __init__(self, name: str, spec: ClassificationSpec, labels: list[str]) -> None:
        super().__init__(name, spec)
        self._labels = list(labels)
        self._weight_C = class_weights(name, spec.class_weights, labels)
        names = ["map"] if spec.multi_label else ["top1", "top5"] if len(labels) > 5 else ["top1"]
        self.metric_info = {name: MetricInfo(higher_is_better=True) for name in names}
        self.primary = names[0]

    @property
    def out_channels(self) -> int:
        return len(self._labels)

    @property
    def labels(self) -> list[str]:
        return self._labels

    @property
    def meaning(self) -> str:
        if self.spec.multi_label:
            return "one logit per class; sigmoid gives the probability of each, several may be true"
        return "one logit per class; softmax gives their probabilities, the largest is the picture's class"

    def read(self, path: Path, image_id: str) -> np.ndarray | None:
        """() int64, or (C,) float32 with `multi_label`; a label is a class name or the index of one."""
        written = label_table(path, self.spec.multi_label).labels.get(image_id)
        return None if written is None else self.target_of_words(written, f"{path}: {image_id}")

    def target_of_words(self, words: Sequence[str], where: str) -> np.ndarray:
        """As `read`: of one word, or of any number with `multi_label`."""
        indices = [self._index(label, where) for label in words]
        if not self.spec.multi_label:
            return np.array(indices[0], dtype=np.int64)
        target = np.zeros(len(self._labels), dtype=np.float32)
        target[indices] = 1
        return target

    def _index(self, label: str, where: str) -> int:
        if label in self._labels:
            return self._labels.index(label)
        if label.isdecimal() and int(label) < len(self._labels):
            return int(label)
        match = closest(label, self._labels)
        known = ", ".join(self._labels[:10]) + (", ..." if len(self._labels) > 10 else "")
        hint = f"; did you mean '{match}'?" if match else f": {known}"
        raise DataError(f"{where} has the label '{label}', which is not one of the classes{hint}")

    def missing(self, size_HW: tuple[int, int]) -> np.ndarray:
        if self.spec.multi_label:
            return np.full(len(self._labels), UNLABELLED, dtype=np.float32)
        return np.array(UNLABELLED, dtype=np.int64)

    def is_labelled(self, target: Tensor) -> Tensor:
        return (target >= 0).all(1) if self.spec.multi_label else target != UNLABELLED

    def head(self, in_channels: int) -> nn.Module:
        return GlobalHead(in_channels, self.out_channels)

    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        known_B = self.is_labelled(target)
        output = output.float()
        weight_C = self._weight_C.to(output.device) if self._weight_C is not None else None
        if self.spec.multi_label:
            loss_BC = F.binary_cross_entropy_with_logits(output, target.clamp(min=0), reduction="none")
            if weight_C is not None:
                loss_BC = loss_BC * (weight_C / weight_C.mean())
            return masked_mean(loss_BC.mean(1), known_B)
        loss_B = F.cross_entropy(output, target.clamp(min=0), weight_C, reduction="none")
        if weight_C is None:
            return masked_mean(loss_B, known_B)
        return divide_by_labelled(
            torch.where(known_B, loss_B, 0).sum(), weight_C[target.clamp(min=0)] * known_B
        )

    def metric(self) -> Metric:
        return MapMetric() if self.spec.multi_label else TopMetric(len(self._labels))

    def quality(self, output: Tensor, target: Tensor) -> Tensor:
        """Probability given to the truth: of the right class, or averaged over all yes-or-no answers."""
        if self.spec.multi_label:
            right_B = 1 - (output.float().sigmoid() - target).abs().mean(1)
        else:
            right_B = output.float().softmax(1).gather(1, target.clamp(min=0)[:, None])[:, 0]
        return torch.where(self.is_labelled(target), right_B, torch.nan)

    @property
    def is_yes_or_no(self) -> bool:
        """With one label per picture; several are more or less right together."""
        return not self.spec.multi_label

    def is_right(self, output: Tensor, target: Tensor) -> Tensor:
        """Whether the most probable class is the label's."""
        if not self.is_yes_or_no:
            return super().is_right(output, target)
        right_B = (output.argmax(1) == target).float()
        return torch.where(self.is_labelled(target), right_B, torch.nan)

    def constant_output(self, targets: Iterable[Tensor], size_HW: tuple[int, int]) -> Tensor:
        """Logits of the class frequencies."""
        C = len(self._labels)
        count_C, pictures = torch.zeros(C, dtype=torch.float64), 0
        for target in targets:
            known = target[self.is_labelled(target)].cpu()
            count_C += known.sum(0) if self.spec.multi_label else torch.bincount(known, minlength=C)
            pictures += len(known)
        share_C = count_C / max(pictures, 1)
        if self.spec.multi_label:
            return share_C.logit(eps=MIN_SHARE).float()[None]
        return share_C.clamp(min=MIN_SHARE).log().float()[None]

    def decode(self, output: Tensor, size_HW: tuple[int, int], input_HW: tuple[int, int]) -> Prediction:
        """`probabilities` by class name, with `label` and `index` of the likeliest.

        With `multi_label`: `labels`, the names with a probability of at least TRUE_FROM, likeliest first.
        """
        logit_C = output[0].float().cpu()
        return self._prediction(logit_C.sigmoid() if self.spec.multi_label else logit_C.softmax(0))

    def draw(self, image: np.ndarray, prediction: Prediction) -> np.ndarray:
        """The picture with the class, or classes, and their probabilities in a bar at the bottom."""
        values = prediction.values
        chosen = values["labels"] if self.spec.multi_label else [values["label"]]
        shares = values["probabilities"]
        if not shares:
            return draw_bar(image, "not labelled")
        return draw_bar(image, ", ".join(f"{name} {100 * shares[name]:.0f}%" for name in chosen) or "none")

    def as_prediction(self, target: Tensor, input_HW: tuple[int, int]) -> Prediction:
        """Probabilities are 0 and 1; without a label there are none and the rest is None."""
        if not self.is_labelled(target[None])[0]:
            keys = ["labels"] if self.spec.multi_label else ["label", "index"]
            return Prediction(self.name, self.type, {**dict.fromkeys(keys), "probabilities": {}})
        return self._prediction(
            target.float() if self.spec.multi_label else F.one_hot(target, len(self._labels)).float()
        )

    def _prediction(self, share_C: Tensor) -> Prediction:
        shares = dict(zip(self._labels, share_C.tolist(), strict=True))
        if self.spec.multi_label:
            present = sorted((name for name in shares if shares[name] >= TRUE_FROM), key=lambda n: -shares[n])
            values: dict[str, Any] = {"labels": present, "probabilities": shares}
        else:
            index = int(share_C.argmax())
            values = {"label": self._labels[index], "index": index, "probabilities": shares}
        return Prediction(self.name, self.type, values)
