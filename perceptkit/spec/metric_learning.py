"""The keys `loss` and `miner` of an embedding task, and `loader.sampler` of a recipe: names of pytorch-metric-learning.

The names are written out, so that a file is checked without torch; a test compares them with the library's.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import BeforeValidator, Field, PositiveFloat, PositiveInt, model_validator

from perceptkit.spec.strict import Strict, fault

_WRAPS = "wraps another loss; name that one"
_PART = "is a part of losses, not one by itself"
REFUSED_LOSSES = {
    "BaseLossWrapper": _PART,
    "BaseMetricLossFunction": _PART,
    "EmbeddingRegularizerMixin": _PART,
    "GenericPairLoss": _PART,
    "WeightRegularizerMixin": _PART,
    "CrossBatchMemory": f"{_WRAPS}, and raise loader.batch for more pairs",
    "HistogramLoss": "indexes in a way that torch reads otherwise in newer versions; write FastAPLoss or SmoothAPLoss, "
    "which rank pairs too",
    "InstanceLoss": "is a classification of given logits; write NormalizedSoftmaxLoss",
    "ManifoldLoss": "does not learn from ids alone; write ProxyAnchorLoss, which has proxies too",
    "MultipleLosses": f"{_WRAPS}, or have one task for each",
    "SelfSupervisedLoss": f"{_WRAPS}, which learns from ids; two views of a picture are not loaded",
    "VICRegLoss": "wants two views of each picture and no ids; write SupConLoss or NTXentLoss",
}
"""Losses of the library that a task cannot have, and why."""

REFUSED_MINERS = {
    "BaseMiner": "is a part of miners, not one by itself",
    "EmbeddingsAlreadyPackagedAsTriplets": "takes the batch for triplets side by side, which no order here keeps; drop "
    "the key, and the loss sees all triplets of the batch",
}
"""Miners of the library that a task cannot have, and why."""

OF_EQUAL_COUNTS = {
    "SmoothAPLoss": "wants as many pictures of every id in a batch; write loader.m_per_class in the recipe",
}
"""Losses that a batch must have as many pictures of every id for, and how it has."""

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
"""All losses of the library that learn from embeddings and ids alone; REFUSED_LOSSES says why the others are none."""

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


def _known(refused: Mapping[str, str], value: Any) -> Any:
    if isinstance(value, dict) and (reason := refused.get(str(value.get("name")))):
        raise fault("name", f"{value['name']} {reason}")
    return value


class MetricLossSpec(Strict):
    """A loss of pytorch-metric-learning."""

    name: LossName = "MultiSimilarityLoss"
    """Class name, for example `ProxyAnchorLoss`."""
    args: dict[str, Any] = {}
    """Its arguments; the number of ids and of dimensions are known and not to be given."""
    lr_scale: PositiveFloat = 1.0
    """Factor of the learning rate of weights that the loss has of its own (proxies, class centres), in losses that
    have some."""

    @model_validator(mode="before")
    @classmethod
    def _can_be_had(cls, value: Any) -> Any:
        return _known(REFUSED_LOSSES, value)


class MinerSpec(Strict):
    """A miner of pytorch-metric-learning."""

    name: MinerName
    """Class name, for example `MultiSimilarityMiner`."""
    args: dict[str, Any] = {}
    """Its arguments."""

    @model_validator(mode="before")
    @classmethod
    def _can_be_had(cls, value: Any) -> Any:
        return _known(REFUSED_MINERS, value)


class MPerClassSampler(Strict):
    """Batches of m pictures of each of some classes; every class is as likely, however many pictures it has."""

    name: Literal["MPerClassSampler"]
    m: Annotated[int, Field(ge=2)]
    """Pictures of each class, or id, in a batch, which is a multiple of it."""


class FixedSetOfTriplets(Strict):
    """Triplets drawn once: two pictures of a class and one of another, side by side in the batch, a multiple of 3.

    An epoch shuffles them, and again where they are fewer than its pictures; what is left over waits for another epoch.
    """

    name: Literal["FixedSetOfTriplets"]
    num_triplets: PositiveInt
    """How many there are for the whole run."""


REFUSED_SAMPLERS = {
    "HierarchicalSampler": "wants a class and a class of classes for each picture, and a task has one class; write "
    "MPerClassSampler",
    "TuplesToWeightsSampler": "draws by embeddings of the net in training, and batches here follow from seed and epoch "
    "alone; give the task a miner",
}
"""Samplers of the library that a recipe cannot have, and why."""

GIVEN_TO_SAMPLERS = ("labels", "batch_size", "length_before_new_iter")


def _can_be_given(value: Any) -> Any:
    if isinstance(_known(REFUSED_SAMPLERS, value), dict):
        if given := next((key for key in GIVEN_TO_SAMPLERS if key in value), None):
            raise fault(given, "follows from the data and loader.batch; drop it")
    return value


SamplerSpec: TypeAlias = Annotated[
    MPerClassSampler | FixedSetOfTriplets, Field(discriminator="name"), BeforeValidator(_can_be_given)
]
"""All samplers of the library whose order follows from one class of each picture."""
