"""Embedding: a vector per picture, near those of pictures with the same id and far from all others.

Loss: any of pytorch-metric-learning, on the labelled pictures of the batch, those of all ranks as one batch; a miner
of it may choose the pairs. What the loss learns of its own (proxies, class centres) is trained with the network and
held in checkpoints, but is no part of the network: neither its parameters nor those of an artifact count it.
`perceptkit describe` does, as the loss's.

Metrics over all labelled pictures of a split, each a query against all others, see retrieval.py:

    recall@1, recall@5   share of pictures with one of the same id among the 1 or 5 nearest
    map@r                mean average precision at R

Quality of a picture is relative to its batch: of all pairs of a picture with the same id and one with another, the
share in which the former is nearer; NaN where the batch has no such pair. An embedding that is the same for all
pictures has 1/2. The score on val that chooses weights is recall@1 of the whole split, not the mean of this.

An id is any text. Those that are trained on are 0, 1, ... in the order of the task's ids; any other, on val or test,
is a large number made from its name, so that retrieval can be measured on ids that training never saw.

Shapes: B pictures, D dimensions. Targets are (B,) int64, -1 = unlabelled; outputs (B, D) of length 1.
"""

import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from perceptkit.errors import DataError, SpecError
from perceptkit.spec.tasks_file import EmbeddingSpec
from perceptkit.tasks.base import Geometry, MetricInfo, Prediction, Task
from perceptkit.tasks.draw_text import draw_bar
from perceptkit.tasks.heads import EmbeddingHead
from perceptkit.tasks.label_tables import label_table
from perceptkit.tasks.metric_losses import MetricLoss
from perceptkit.tasks.retrieval import RetrievalMetric, in_order

UNLABELLED = -1
FIRST_UNSEEN = 1 << 40
"""Numbers of ids that are not trained on start here."""


class Embedding(Task):
    """A vector per picture, from ids.

    Args:
        name, spec: as declared.
        ids: those to train on; none in a model that is only run.
    """

    type: ClassVar[str] = "embedding"
    geometry: Geometry = "none"
    dense: ClassVar[bool] = False
    joint: ClassVar[bool] = True
    spec: EmbeddingSpec

    def __init__(self, name: str, spec: EmbeddingSpec, ids: list[str]) -> None:
        super().__init__(name, spec)
        self.ids = list(ids)
        self._number = {label: i for i, label in enumerate(ids)}
        self._loss: MetricLoss | None = None
        self.metric_info = {
            key: MetricInfo(higher_is_better=True) for key in ("recall@1", "recall@5", "map@r")
        }
        self.primary = "recall@1"

    def __getstate__(self) -> dict[str, object]:
        """For copies and other processes: without the loss's weights, which only the run itself trains."""
        return {**self.__dict__, "_loss": None}

    @property
    def out_channels(self) -> int:
        return self.spec.dims

    @property
    def meaning(self) -> str:
        return "a vector of length 1; the dot product of two of them is their cosine similarity"

    def read(self, path: Path, image_id: str) -> np.ndarray | None:
        """() int64, the number of the picture's id."""
        table = label_table(path, multi_label=False)
        if table.columns:
            raise DataError(
                f"{path} has {len(table.columns)} columns beside the pictures; expected one, the id"
            )
        written = table.labels.get(image_id)
        return None if written is None else self.target_of_words(written, f"{path}: {image_id}")

    def target_of_words(self, words: Sequence[str], where: str) -> np.ndarray:
        """As `read`: of one word, the id."""
        return np.array(self.number_of(words[0]), dtype=np.int64)

    def number_of(self, label: str) -> int:
        """The number that stands for an id in targets; the same in every process and on every machine."""
        digest = hashlib.blake2b(label.encode(), digest_size=7).digest()
        return self._number.get(label, FIRST_UNSEEN + int.from_bytes(digest, "big"))

    def missing(self, size_HW: tuple[int, int]) -> np.ndarray:
        return np.array(UNLABELLED, dtype=np.int64)

    def is_labelled(self, target: Tensor) -> Tensor:
        return target != UNLABELLED

    def head(self, in_channels: int) -> nn.Module:
        return EmbeddingHead(in_channels, self.out_channels)

    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        known_B = self.is_labelled(target)
        output, target = output.float()[known_B], target[known_B]
        if not len(target):
            return output.sum()
        try:
            value: Tensor = self._made_loss().to(output.device)(output, target)
        except SpecError as error:
            raise SpecError(f"tasks.{self.name}.{error}") from error
        return value

    @property
    def loss_module(self) -> nn.Module | None:
        made = self._made_loss()
        return made if made.state_dict() else None

    def begin_loss(self) -> None:
        self._loss = None
        self._made_loss()

    def _made_loss(self) -> MetricLoss:
        if self._loss is None:
            spec = self.spec
            try:
                self._loss = MetricLoss(spec.loss, spec.miner, spec.dims, len(self.ids))
            except SpecError as error:
                raise SpecError(f"tasks.{self.name}.{error}") from error
        return self._loss

    def metric(self) -> RetrievalMetric:
        return RetrievalMetric()

    def quality(self, output: Tensor, target: Tensor) -> Tensor:
        """Among the pairs of this batch that a picture is in, the share that is in the right order."""
        output = output.float()
        return in_order(output @ output.T, target)

    def constant_output(self, targets: Iterable[Tensor], size_HW: tuple[int, int]) -> Tensor:
        """Any vector is as good as any other: the first axis. Its recall@1 is the mean of R / (N - 1)."""
        return torch.eye(1, self.spec.dims)

    def decode(self, output: Tensor, size_HW: tuple[int, int], input_HW: tuple[int, int]) -> Prediction:
        """`vector`, float32 (D,) of length 1."""
        return Prediction(self.name, self.type, {"vector": output[0].float().cpu().numpy()})

    def draw(self, image: np.ndarray, prediction: Prediction) -> np.ndarray:
        """The picture with the number of dimensions, or its id, in a bar at the bottom: a vector has no picture."""
        if prediction.vector is not None:
            return draw_bar(image, f"embedding, {len(prediction.vector)} dimensions")
        label = prediction.values["id"]
        return draw_bar(image, "not labelled" if label is None else f"id {label}")

    def as_prediction(self, target: Tensor, input_HW: tuple[int, int]) -> Prediction:
        """A label is an `id` and no vector; None without one. An id that is not trained on is shown as its number."""
        number = int(target)
        label = self.ids[number] if 0 <= number < len(self.ids) else str(number)
        values = {"vector": None, "id": None if number == UNLABELLED else label}
        return Prediction(self.name, self.type, values)
