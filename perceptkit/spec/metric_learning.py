"""The keys `loss` and `miner` of an embedding task: names of pytorch-metric-learning.

The names are written out, so that a file is checked without torch; a test compares them with the library's.
"""

from typing import Any, Literal, TypeAlias

from pydantic import PositiveFloat

from perceptkit.spec.strict import Strict

LossName: TypeAlias = Literal[
    "AngularLoss",
    "ArcFaceLoss",
    "CircleLoss",
    "ContrastiveLoss",
    "CosFaceLoss",
    "DynamicSoftMarginLoss",
    "FastAPLoss",
    "GeneralizedLiftedStructureLoss",
    "IntraPairVarianceLoss",
    "LargeMarginSoftmaxLoss",
    "LiftedStructureLoss",
    "MarginLoss",
    "MultiSimilarityLoss",
    "NCALoss",
    "NPairsLoss",
    "NTXentLoss",
    "NormalizedSoftmaxLoss",
    "P2SGradLoss",
    "PNPLoss",
    "ProxyAnchorLoss",
    "ProxyNCALoss",
    "RankedListLoss",
    "SignalToNoiseRatioContrastiveLoss",
    "SmoothAPLoss",
    "SoftTripleLoss",
    "SphereFaceLoss",
    "SubCenterArcFaceLoss",
    "SupConLoss",
    "ThresholdConsistentMarginLoss",
    "TripletMarginLoss",
    "TupletMarginLoss",
]
"""All losses of the library that learn from embeddings and ids alone: no wrappers of other losses, none without ids,
and not HistogramLoss, which indexes in a way that newer versions of torch read otherwise."""

MinerName: TypeAlias = Literal[
    "AngularMiner",
    "BatchEasyHardMiner",
    "BatchHardMiner",
    "DistanceWeightedMiner",
    "HDCMiner",
    "MultiSimilarityMiner",
    "PairMarginMiner",
    "TripletMarginMiner",
    "UniformHistogramMiner",
]
"""All miners of the library that choose among the pairs of a batch by their ids."""


class MetricLossSpec(Strict):
    """A loss of pytorch-metric-learning."""

    name: LossName = "MultiSimilarityLoss"
    """Class name, for example `ProxyAnchorLoss`."""
    args: dict[str, Any] = {}
    """Its arguments; the number of ids and of dimensions are known and not to be given."""
    lr_scale: PositiveFloat = 1.0
    """Factor of the learning rate of weights that the loss has of its own (proxies, class centres), in losses that
    have some."""


class MinerSpec(Strict):
    """A miner of pytorch-metric-learning."""

    name: MinerName
    """Class name, for example `MultiSimilarityMiner`."""
    args: dict[str, Any] = {}
    """Its arguments."""
