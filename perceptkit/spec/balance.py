"""The recipe's section `balance`: how the losses of several tasks become one.

Each method reads its own keys and no others.
"""

from typing import Annotated, Literal, TypeAlias

from pydantic import Field, NonNegativeFloat, PositiveFloat

from perceptkit.spec.strict import Strict


class Uniform(Strict):
    """The tasks' own `weight`s, which never change."""

    method: Literal["uniform"] = "uniform"


class Uncertainty(Strict):
    """A variance of each task's noise, learned with the weights (Kendall et al., CVPR 2018)."""

    method: Literal["uncertainty"]


class Dwa(Strict):
    """More weight to tasks whose loss fell least from one epoch to the next (Liu et al., CVPR 2019)."""

    method: Literal["dwa"]
    temperature: PositiveFloat = 2.0
    """The higher, the more equal the weights."""


class Gradnorm(Strict):
    """Weights under which all tasks train at similar rates, by their gradients' norms (Chen et al., ICML 2018)."""

    method: Literal["gradnorm"]
    alpha: NonNegativeFloat = 1.5
    """How strongly tasks that lag behind are pushed; 0 gives all gradients one norm."""
    lr: PositiveFloat = 0.025
    """Learning rate of the weights, by Adam."""


class Famo(Strict):
    """Weights under which the losses fall at one relative rate, from the losses alone (Liu et al., NeurIPS 2023)."""

    method: Literal["famo"]
    lr: PositiveFloat = 0.025
    """Learning rate of the weights' logits, by Adam."""
    decay: NonNegativeFloat = 1e-3
    """Weight decay of the logits."""


class Torchjd(Strict):
    """The tasks' gradients are combined, not their losses: by an aggregator of the package torchjd (extra `jd`)."""

    method: Literal["torchjd"]
    aggregator: str = "UPGrad"
    """A name in `torchjd.aggregation` that needs no arguments: UPGrad, MGDA, PCGrad, CAGrad, AlignedMTL, ..."""


BalanceSpec: TypeAlias = Annotated[
    Uniform | Uncertainty | Dwa | Gradnorm | Famo | Torchjd, Field(discriminator="method")
]
