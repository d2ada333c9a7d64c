"""What a task type must provide: one file per type holds the whole vertical slice.

Label -> target (read) -> head -> loss -> metrics -> per-image quality -> user units (decode) -> picture (draw).

Shapes: B batch, C output channels, H W pixels of the network input, h w pixels of an output.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import torch
import torch.distributed
from torch import Tensor, nn
from torchmetrics import Metric

from perceptkit.spec.tasks_file import TaskBase

Geometry = Literal["label_map", "depth", "normals", "points", "none"]
"""How a target moves when the picture is flipped, rotated, zoomed or resized (see data/geometry.py)."""


@dataclass(frozen=True)
class MetricInfo:
    """How to read one metric."""

    higher_is_better: bool
    unit: str = ""
    """`%`, `m`, `px`, `deg` or nothing."""


@dataclass(frozen=True)
class Prediction:
    """One task's answer for one picture, in the user's units and at the picture's own size.

    `values` holds numpy arrays, floats, strings or lists; each key is an attribute too
    (`prediction.metres`, `prediction.mask`).
    """

    task: str
    type: str
    values: Mapping[str, Any]

    def __getattr__(self, key: str) -> Any:
        values = self.__dict__.get("values", {})
        if key in values:
            return values[key]
        raise AttributeError(f"{self.__dict__.get('type')} predictions have {', '.join(values)}; no {key!r}")


class Task(ABC):
    """One declared task: its name, its spec and all that the SDK needs to know of its type.

    A target is a single tensor; a label that is absent is the target that `missing` returns, which
    loss, metrics and quality ignore exactly.
    """

    type: ClassVar[str]
    geometry: Geometry
    dense: ClassVar[bool]
    """Whether the head reads the feature pyramid (True) or the pooled last features (False)."""
    upsample: ClassVar[bool] = True
    """Whether a dense output is brought from stride 4 to the input size before loss, metrics and export."""
    joint: ClassVar[bool] = False
    """Whether loss and quality are of the pictures of a batch together. Then the loss is that of the batches of all
    ranks as one, and what val chooses weights by is the primary metric, as quality depends on which pictures happen to
    be in a batch."""
    metric_info: Mapping[str, MetricInfo]
    primary: str
    """The metric that stands for the task in one number."""

    def __init__(self, name: str, spec: TaskBase) -> None:
        self.name = name
        self.spec = spec
        # found out here: torch.compile does not trace through the spec
        compat = getattr(spec, "compat", None)
        self.upsampling: Literal["bilinear", "nearest"] = "nearest" if compat == "adashare" else "bilinear"
        """How a dense output is brought to the input size."""

    @property
    @abstractmethod
    def out_channels(self) -> int:
        """Channels of the head's output."""

    @property
    def labels(self) -> list[str]:
        """Names of the output channels where they have names (classes, points)."""
        return []

    @property
    def unit(self) -> str:
        """Unit of the decoded values, where they have one."""
        return ""

    @property
    def output_unit(self) -> str:
        """Unit of the head's output as it stands, before `decode`, where it has one."""
        return ""

    @property
    @abstractmethod
    def meaning(self) -> str:
        """What the head's output holds before `decode`, and what makes an answer of it: one sentence for people
        who run an exported file without perceptkit."""

    @property
    def output_in_words(self) -> str:
        """Shape and meaning of the output: `(batch, 1, height, width): depth in m`."""
        axes = ["batch", str(self.out_channels)]
        if self.dense:
            axes += ["height", "width"] if self.upsample else ["height / 4", "width / 4"]
        return f"({', '.join(axes)}): {self.meaning}"

    @abstractmethod
    def read(self, path: Path, image_id: str) -> np.ndarray | None:
        """Reads one image's label into a target at the label's own size; None where the file has none for it.

        Raises DataError that names the file and the offending values.
        """

    def read_at(self, path: Path, image_id: str, size_HW: tuple[int, int]) -> np.ndarray | None:
        """As `read`. Where each pixel is converted on its own, only those that are left at `size_HW` are: the target is
        then of that size, and otherwise still of the label's own. What is wrong with any pixel is found all the same.
        """
        return self.read(path, image_id)

    def target_of(self, values: np.ndarray, path: str, size_HW: tuple[int, int] | None = None) -> np.ndarray:
        """What `read` or, with a size, `read_at` gives of the numbers that one label map holds; only task types with
        label maps have it.

        Raises DataError that names the path.
        """
        raise TypeError(f"labels of type {self.type} are no maps of numbers")

    def target_of_words(self, words: Sequence[str], where: str) -> np.ndarray:
        """The target of a picture that a table labels with these words; only task types with such labels have it.

        Raises DataError that names `where`, the picture's place in the table.
        """
        raise TypeError(f"labels of type {self.type} are no words")

    @abstractmethod
    def missing(self, size_HW: tuple[int, int]) -> np.ndarray:
        """The target of a picture without a label."""

    @abstractmethod
    def is_labelled(self, target: Tensor) -> Tensor:
        """(B,) bool: which targets of a batch hold any label at all."""

    @abstractmethod
    def head(self, in_channels: int) -> nn.Module:
        """The task's head: (B, in_channels, h, w) at stride 4 when dense, (B, in_channels) otherwise."""

    @abstractmethod
    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        """Mean loss over labelled elements of the batch; a zero that still has a gradient where there are none."""

    @property
    def loss_module(self) -> nn.Module | None:
        """The weights that the loss has of its own: trained with the network, held in checkpoints, and no part of the
        model. None for most types."""
        return None

    def begin_loss(self) -> None:  # noqa: B027  # most losses have nothing to begin
        """Gives the loss fresh weights, where it has some; drawn from torch's global generator."""

    @abstractmethod
    def metric(self) -> Metric:
        """A fresh torchmetrics Metric: `update(output, target)`, `compute() -> dict[str, Tensor]`."""

    @abstractmethod
    def quality(self, output: Tensor, target: Tensor) -> Tensor:
        """(B,) quality of each image's prediction in [0, 1], 1 is perfect; NaN where there is no label."""

    @property
    def is_yes_or_no(self) -> bool:
        """Whether an answer is right or wrong by itself (`is_right`), and not better or worse than another."""
        return False

    def is_right(self, output: Tensor, target: Tensor) -> Tensor:
        """(B,) 1 where the answer is right, 0 where it is not, NaN where there is no label.

        Raises TypeError for tasks that are not `is_yes_or_no`.
        """
        raise TypeError(f"an answer of type {self.type} is better or worse, not right or wrong")

    @abstractmethod
    def constant_output(self, targets: Iterable[Tensor], size_HW: tuple[int, int]) -> Tensor:
        """The best constant predictor's output for one image, (1, C, ...), fitted on batches of training targets."""

    @abstractmethod
    def decode(self, output: Tensor, size_HW: tuple[int, int], input_HW: tuple[int, int]) -> Prediction:
        """One image's output (1, C, ...) in user units at `size_HW`, the picture's own size.

        `input_HW` is the size the network saw.
        """

    @abstractmethod
    def draw(self, image: np.ndarray, prediction: Prediction) -> np.ndarray:
        """The prediction as an RGB uint8 picture of the size of `image` (H, W, 3)."""

    @abstractmethod
    def as_prediction(self, target: Tensor, input_HW: tuple[int, int]) -> Prediction:
        """A target (without batch dimension) in the form `decode` returns, so that labels can be drawn too."""


def masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    """Mean of `values` where `mask`; zero with a gradient where the mask is empty.

    With several ranks every rank divides by the mean count over the ranks, so that the average of their
    gradients is that of one process with all images, however the labels are spread. All ranks must call it.
    """
    return divide_by_labelled(torch.where(mask, values, 0).sum(), mask)


def divide_by_labelled(total: Tensor, mask: Tensor) -> Tensor:
    """`total` divided as in `masked_mean`."""
    count = mean_over_ranks(mask.sum().to(total.dtype))
    return total / torch.where(count > 0, count, 1)


def mean_over_ranks(value: Tensor) -> Tensor:
    """The mean over all processes that train together, of a tensor that needs no gradient."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.all_reduce(value)
        value /= torch.distributed.get_world_size()
    return value
