"""The keys `loss` and `miner` of an embedding task, and `loader.sampler` of a recipe: names of pytorch-metric-learning.

The names are written out, so that a file is checked without torch; a test compares them with the library's.
"""

from typing import Annotated, Any, Literal, TypeAlias

from pydantic import BeforeValidator, Field, PositiveFloat, PositiveInt

from perceptkit.spec.strict import Strict, fault

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
    if isinstance(value, dict):
        if reason := REFUSED_SAMPLERS.get(str(value.get("name"))):
            raise fault("name", f"{value['name']} {reason}")
        if given := next((key for key in GIVEN_TO_SAMPLERS if key in value), None):
            raise fault(given, "follows from the data and loader.batch; drop it")
    return value


SamplerSpec: TypeAlias = Annotated[
    MPerClassSampler | FixedSetOfTriplets, Field(discriminator="name"), BeforeValidator(_can_be_given)
]
"""All samplers of the library whose order follows from one class of each picture."""
