"""The recipe's section `adaptation`: how a trained network becomes that of a new domain.

Each method reads its own keys and no others.
"""

from typing import Annotated, Literal, TypeAlias, get_args

from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt, model_validator

from perceptkit.spec.router import RouterSpec
from perceptkit.spec.strict import Fraction, Strict, fault


class CopyRouterSpec(RouterSpec):
    """The small net that decides, from the picture alone, which copy of a block runs."""

    keep: Annotated[float, Field(gt=0, lt=1)] = 0.5
    """Probability of the tuned copy before training."""


Tuned: TypeAlias = Literal["full_copy", "parallel_adapter", "lora", "bn"]


RANK = 8
"""Of low-rank updates, where nobody says."""


def _refuse_rank(tuned: str, rank: int) -> None:
    if rank != RANK and tuned != "lora":
        raise fault("rank", f"is for tuned lora; tuned {tuned} has no rank")


class Scratch(Strict):
    """Random weights, all of them trained: nothing is transferred."""

    method: Literal["scratch"]


class FeatureExtractor(Strict):
    """The trunk is fixed, norms included; neck and heads are trained."""

    method: Literal["feature_extractor"]


class Finetune(Strict):
    """All weights start from the base's and are trained."""

    method: Literal["finetune"]


class LastK(Strict):
    """The last blocks are trained, with all that comes after them; what comes before is fixed."""

    method: Literal["last_k"]
    k: PositiveInt = 3
    """How many residual blocks, counted from the last."""


class Bn(Strict):
    """Each domain has its own norms (where there is no BatchNorm: norms and biases); convolutions are fixed."""

    method: Literal["bn"]


class Lwf(Strict):
    """Learning without forgetting: all weights are trained, and the base's heads must go on answering as before."""

    method: Literal["lwf"]
    weight: NonNegativeFloat = 1.0
    """Of the old answers beside the new labels (lambda_o)."""
    temperature: PositiveFloat = 2.0
    """That softens the class probabilities compared (T)."""


class SeriesAdapter(Strict):
    """A residual 1x1 convolution with a norm after every spatial convolution; those are fixed."""

    method: Literal["series_adapter"]


class ParallelAdapter(Strict):
    """A 1x1 convolution beside every spatial convolution, added to it; those are fixed."""

    method: Literal["parallel_adapter"]


class Piggyback(Strict):
    """A binary mask on every weight; the weights are fixed."""

    method: Literal["piggyback"]
    threshold: PositiveFloat = 5e-3
    """A weight is used where its real-valued mask, which starts at 1e-2, is above this."""
    mask_lr: PositiveFloat | None = None
    """Highest learning rate of the masks; by default 1e-4 as in the authors' code, with sgd that of the weights: masks
    would not move otherwise."""


class Dan(Strict):
    """New filters that are linear combinations of the fixed ones (controller networks)."""

    method: Literal["dan"]


class L2sp(Strict):
    """Fine-tuning with a pull towards the base's weights instead of towards zero."""

    method: Literal["l2sp"]
    alpha: NonNegativeFloat = 0.1
    """Of the pull towards the base's weights."""
    beta: NonNegativeFloat = 0.01
    """Of the pull of new weights towards zero."""
    weight_decay: NonNegativeFloat = 0.0
    """Of the optimiser in the stage adapt, in place of `optim.weight_decay`: that pulls to zero what alpha pulls to the
    base."""


class Spottune(Strict):
    """A fixed and a tuned copy of each block; a router says by picture which of them runs."""

    method: Literal["spottune"]
    tuned: Tuned = "full_copy"
    """The tuned side: a copy of the block, or the fixed one with adapters, low-rank updates or its own norms."""
    frozen_bn: Literal["adapt", "freeze"] = "adapt"
    """Whether the norms of the fixed side learn too, as in the authors' code."""
    outside: Literal["tuned", "fixed"] = "tuned"
    """What is in no block (stem, transitions that cannot be skipped) is tuned for all pictures, as in the authors'
    code."""
    router: CopyRouterSpec = CopyRouterSpec()
    """The net that decides."""
    router_lr: PositiveFloat | None = None
    """Highest learning rate of the router; by default that of the weights, with sgd a tenth of it as in the authors'
    code."""
    tau: PositiveFloat = 5.0
    """Temperature of the Gumbel samples."""
    rank: PositiveInt = RANK
    """Of the updates, for `tuned: lora`."""
    fold_tolerance: Fraction | None = None
    """In the end one copy of a block runs for all pictures where at most this part of them, as 1%, chose the other, and
    what that costs on val is told. By default where all of 3,000 or more pictures of train and val chose alike, so that
    with 95 % confidence at most 0.1 % of others choose otherwise; with fewer nothing is fixed unless this says so."""

    @model_validator(mode="after")
    def _is_read(self) -> "Spottune":
        _refuse_rank(self.tuned, self.rank)
        return self


class SpottuneGlobal(Strict):
    """SpotTune whose pictures all agree in the end: k tuned blocks, no router at run time."""

    method: Literal["spottune_global"]
    k: PositiveInt = 3
    """How many blocks are tuned; all, where fewer have two copies."""
    tuned: Tuned = "full_copy"
    """As for `spottune`."""
    frozen_bn: Literal["adapt", "freeze"] = "adapt"
    """As for `spottune`."""
    outside: Literal["tuned", "fixed"] = "tuned"
    """As for `spottune`."""
    router: CopyRouterSpec = CopyRouterSpec()
    """As for `spottune`; it is only needed while the k blocks are learned."""
    router_lr: PositiveFloat | None = None
    """As for `spottune`."""
    tau: PositiveFloat = 5.0
    """As for `spottune`."""
    rank: PositiveInt = RANK
    """As for `spottune`."""
    count_weight: NonNegativeFloat = 1.0
    """Of the squared difference between tuned blocks and k (lambda_1)."""
    agree_weight: NonNegativeFloat = 0.1
    """Of the entropy of each block's share of pictures (lambda_2)."""
    settle: Annotated[float, Field(ge=0, lt=1)] = 0.2
    """Last part of the stage, in which the k blocks with the largest shares are tuned for all pictures and the weights
    go on learning without the router."""

    @model_validator(mode="after")
    def _is_read(self) -> "SpottuneGlobal":
        _refuse_rank(self.tuned, self.rank)
        return self


class Taps(Strict):
    """Which layers are tuned is learned, the same for all pictures."""

    method: Literal["taps"]
    sparsity: NonNegativeFloat = 1.0
    """Weight (lambda) of the mean layer score, which makes a layer keep the base's weights."""
    threshold: PositiveFloat = 0.1
    """A layer is tuned where its score, which starts at 0.15, is at least this."""
    score_lr: PositiveFloat | None = None
    """Highest learning rate of the scores; by default 1e-2, with sgd that of the weights as in the unofficial code: at
    1e-3 Adam would not bring a score below the threshold in fifty steps, and everything would be tuned."""
    warmup: Annotated[float, Field(ge=0, lt=1)] = 0.07
    """Part of the stage before the penalty sets in."""


AdaptationSpec: TypeAlias = Annotated[
    Scratch
    | FeatureExtractor
    | Finetune
    | LastK
    | Bn
    | Lwf
    | SeriesAdapter
    | ParallelAdapter
    | Piggyback
    | Dan
    | L2sp
    | Spottune
    | SpottuneGlobal
    | Taps,
    Field(discriminator="method"),
]
ADAPTATIONS: dict[str, type[Strict]] = {
    get_args(kind.model_fields["method"].annotation)[0]: kind
    for kind in get_args(get_args(AdaptationSpec)[0])
}
"""By method."""
