"""The recipe: how to train, for any tasks file.

A recipe is complete on one screen; `perceptkit describe` prints it with every default filled in.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import (
    BeforeValidator,
    Discriminator,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    Tag,
    WithJsonSchema,
    model_validator,
)
from pydantic_core import PydanticCustomError

from perceptkit.spec.adaptation import AdaptationSpec
from perceptkit.spec.balance import BalanceSpec, Uniform
from perceptkit.spec.budget import BudgetSpec, budget_stage_fault
from perceptkit.spec.export import ExportSpec, export_faults
from perceptkit.spec.metric_learning import SamplerSpec
from perceptkit.spec.router import RouterSpec
from perceptkit.spec.sharing_options import WITHOUT_PLAN, lacks_one_net, sharing_faults
from perceptkit.spec.strict import Fraction, Seed, Size, Strict, bits_as_text, fault

Probability: TypeAlias = Annotated[float, Field(ge=0, le=1)]


def _form_of_workers(value: Any) -> str | None:
    return {int: "<number>", str: "<auto>"}.get(type(value))


Workers: TypeAlias = Annotated[
    Annotated[NonNegativeInt, Tag("<number>")] | Annotated[Literal["auto"], Tag("<auto>")],
    Discriminator(
        _form_of_workers, custom_error_type="workers", custom_error_message="expected a whole number, or auto"
    ),
]


Precision: TypeAlias = Annotated[
    Literal["auto", "32", "bf16", "16"],
    BeforeValidator(bits_as_text),
    WithJsonSchema({"enum": ["auto", "32", 32, "bf16", "16", 16]}),
]


class BackboneSpec(Strict):
    """The shared timm trunk."""

    name: str
    """Any name that `timm.create_model` knows, for example `resnet18`."""
    weights: str = "pretrained"
    """`pretrained` (from timm), `none`, or the path of a safetensors file with timm's keys."""
    args: dict[str, Any] = {}
    """Passed on to `timm.create_model`, for example `{channels: [32, 64, 128, 256]}`."""
    wide: dict[str, Any] | None = None
    """Of a ResNet: `weights` are of the wider network that timm makes with these arguments, `{}` for the usual one; the
    filters that say most of what all of them say are chosen (SOMP), and the layers that read them made to fit."""

    @model_validator(mode="after")
    def _has_weights(self) -> "BackboneSpec":
        if message := wide_fault(self.wide, self.weights):
            raise fault("wide", message)
        return self


def wide_fault(wide: object, weights: object) -> str:
    """What is wrong with a wider network to choose filters of; nothing is wrong with anything else here."""
    if wide is not None and weights == "none":
        return "there is nothing to choose from with weights none; drop this key, or give weights of the wider network"
    return ""


class HeadsSpec(Strict):
    """The neck and the heads."""

    channels: PositiveInt = 64
    """Width of the feature pyramid that the dense heads read."""
    classifier: Literal["new", "pretrained"] = "new"
    """`pretrained`: the head of the classification task starts as the classifier in `backbone.weights`."""


SharingMethod: TypeAlias = Literal[
    "adashare",
    "hard",
    "single",
    "branch",
    "fafs",
    "random",
    "stochastic_depth",
    "cross_stitch",
    "sluice",
    "nddr",
    "mtan",
]


class SharingSpec(Strict):
    """Which blocks the tasks share."""

    method: SharingMethod = "adashare"
    """`adashare` learns it, `hard` shares all blocks, `single` trains one net per task, `branch` shares the first
    blocks, `fafs` finds a tree in which tasks part, `random` draws a plan, `stochastic_depth` shares all and drops some
    while training; `cross_stitch`, `sluice` and `nddr` are a trunk per task with units in between, `mtan` one trunk
    with attention per task."""
    sparsity: NonNegativeFloat = 0.05
    """For `adashare`: weight (lambda_sp) of the sparsity loss."""
    sharing: NonNegativeFloat = 0.05
    """For `adashare`: weight (lambda_sh) of the sharing loss."""
    formulation: Literal["paper", "reference_code"] = "paper"
    """The regularisers as the paper prints them, or as the authors' code has them: sparsity as a mean over open blocks
    of -log(1 - a), sharing as the gap of raw logits weighted by l/L. The weights do not carry over. With the code's
    form, blocks that a task skips in a soft sample move their running statistics all the same, in policy steps too."""
    batchnorm: Literal["shared", "per_task"] = "shared"
    """`per_task`: every task has BatchNorms of its own. Tasks then share weights but no activations: all tasks together
    cost as many passes as there are tasks, and an artifact, where norms are folded, as many networks."""
    share_first: NonNegativeInt | None = None
    """For `branch`: how many blocks, counted from the image, the tasks share; each has a copy of the rest."""
    branch_cost: NonNegativeFloat | None = None
    """For `fafs`: what one more copy of a block costs (L0), against how unlike the tasks are that share one, in [0, 1];
    doubled for every halving of the features above the block. 0.1 by default; the larger, the more is shared."""
    level_epochs: PositiveInt | None = None
    """For `fafs`: epochs of the stage retrain that are trained after each level of the tree, before the level below is
    decided from the errors then; by default all levels are decided from the errors after the warm-up."""
    tree: list[list[list[str]]] | None = None
    """For `fafs`, instead of finding it: by block, next to the image first, the groups of tasks that share a copy; as
    `levels` in a run's tree.json."""
    skips: NonNegativeInt | None = None
    """For `random`: how many blocks are skipped, added up over tasks."""
    skips_of: str | None = None
    """For `random`, instead of skips: a finished run of the same tasks and backbone; each task skips as many blocks as
    there."""
    survival: Annotated[float, Field(gt=0, le=1)] | None = None
    """For `stochastic_depth`: probability (p_L) that the last block is kept in a training step; 0.5 by default."""
    orthogonality: NonNegativeFloat | None = None
    """For `sluice`: weight of the loss that keeps the subspaces of a task apart; 0.01 by default."""
    unit_lr_scale: PositiveFloat | None = None
    """For `cross_stitch`, `sluice`, `nddr`: factor of the learning rate of what lies between trunks; 1 by default."""

    @model_validator(mode="after")
    def _is_read(self) -> "SharingSpec":
        for key, message in sharing_faults(self.method, self.model_dump(exclude_defaults=True)):
            raise fault(key, message)
        return self


TWO_PRICES = "gamma is given too; max_drop solves for it"
TOLERANCE = 0.05
"""Of `RoutingSpec.tolerance`."""


class RoutingSpec(Strict):
    """Which blocks each picture skips (BlockDrop); learned in the stages `route` and `finetune`."""

    router: RouterSpec = RouterSpec()
    """The net that decides."""
    estimator: Literal["reinforce", "gumbel"] = "reinforce"
    """`reinforce`: the paper's, with a self-critical baseline; `gumbel`: differentiable samples."""
    usage: Literal["blocks", "macs", "latency"] = "blocks"
    """What a block costs: one each, its MACs, or its time measured on this machine."""
    latency_batch: PositiveInt | None = None
    """For usage latency: pictures per call that is timed, as many as will come at once in use; by default as many as in
    a training batch. What is dear for one picture need not be for many: there a call costs, whatever it computes."""
    gamma: PositiveFloat | None = None
    """Penalty of a wrong answer; 5 by default. The larger, the more blocks are kept."""
    max_drop: Fraction | None = None
    """Instead of gamma: what every task may lose on val, as 1%. For classification with one label the accuracy, so one
    point; for any other task this part of its mean quality with all blocks, before anything was skipped. The penalty is
    solved for by it, and of the epochs that keep to it the one that skips most is kept; where none does, the one that
    loses least, and the run says by how much."""
    alpha: Annotated[float, Field(gt=0.5, le=1)] = 0.8
    """Bounds the sampled probabilities to [1 - alpha, alpha], so that every choice is still tried."""
    entropy: NonNegativeFloat = 0.1
    """Weight (beta) of the entropy bonus in the stage `route`."""
    diversity: NonNegativeFloat = 0.0
    """While the router learns, weight of what its decisions say of the picture: mutual information in nats, summed over
    the open blocks. It pays for blocks that are kept for some pictures and skipped for others; 0 is the paper's. In
    docs/results.md 0.15 parted four blocks of 15. In `finetune` of `reinforce` it is times `rl_weight`."""
    directions: NonNegativeInt = 0
    """Principal directions of the network's own features by which the router is taught to tell pictures apart before it
    learns what to skip (train/directions.py). Each parts the pictures in two halves, and every block begins with a
    preference for one half of one of them, in turn; one direction is the coarsest. Without `diversity` only the tasks'
    losses can pay the router for keeping them apart. 0, the paper's: all pictures begin with the same answer."""
    tolerance: Fraction | None = None
    """For all tasks but classification an answer counts as right if its quality is at most this part below that of the
    network before anything was skipped, on the same picture; max_drop where that is given, else 5%."""
    fold_tolerance: Fraction | None = None
    """In the end a block is kept or skipped for all pictures where at most this part of them, as 1%, chose otherwise,
    and what that costs on val is told. By default where all 3,000 or more pictures chose alike. A policy that 99 % of
    the pictures share becomes static as a whole unless a task then loses more than this part of its quality on val,
    0.1% by default."""
    parity: bool = False
    """Reproduce the quirks of the released code, which policies/blockdrop.py lists, instead of correcting them. One of
    them is that norms move: `finetune` then wants `batchnorm: train`."""
    compare_epochs: NonNegativeInt | None = None
    """How long each rule that looks at no picture is fine-tuned for the table beside the router; by default as long as
    the stage `finetune`, or `route` where that is the last. 0 leaves them untuned, and the report says so."""
    measure_latency: bool = True
    """Time the model on pictures of the test split for a few seconds when all is done, beside the one that runs all
    blocks, for the report; `perceptkit benchmark` measures at length."""

    @property
    def quality_tolerance(self) -> float:
        """`tolerance`, or its default."""
        return next(t for t in (self.tolerance, self.max_drop, TOLERANCE) if t is not None)

    @model_validator(mode="after")
    def _is_read(self) -> "RoutingSpec":
        for key in (
            ("max_drop", "alpha", "entropy", "tolerance", "parity") if self.estimator == "gumbel" else ()
        ):
            default = type(self).model_fields[key].default
            # runs from before the tolerance followed max_drop have it written out
            if getattr(self, key) not in (default, TOLERANCE if key == "tolerance" else default):
                raise fault(key, "is for estimator reinforce; gumbel does not read it")
        for key in ("diversity", "directions"):
            if self.parity and getattr(self, key):
                raise fault(key, "the released code has none; drop it, or parity: true")
        return self

    @model_validator(mode="after")
    def _one_price(self) -> "RoutingSpec":
        if self.latency_batch is not None and self.usage != "latency":
            raise fault(
                "latency_batch",
                f"is for usage: latency, this is {self.usage}; drop it, or write usage: latency",
            )
        if self.gamma is not None and self.max_drop is not None:
            raise fault("max_drop", TWO_PRICES)
        return self


class StageBase(Strict):
    """What every train stage has."""

    epochs: PositiveInt = 1
    """Passes over the train split."""
    steps: PositiveInt | None = None
    """Instead of epochs: about so many steps, of weights and policy together, brought to whole epochs."""
    lr: PositiveFloat | None = None
    """Overrides `optim.lr` for this stage."""
    schedule: Literal["cosine", "constant"] | None = None
    """Overrides `optim.schedule` for this stage."""
    batch: PositiveInt | None = None
    """Overrides `loader.batch` for this stage."""

    @model_validator(mode="after")
    def _has_a_length(self) -> "StageBase":
        if self.steps is None and "epochs" not in self.model_fields_set:
            raise fault("epochs", "missing key: passes over the train split; or 'steps'")
        if self.steps is not None and "epochs" in self.model_fields_set:
            raise fault("steps", "give either 'epochs' or 'steps', not both")
        return self


class WarmupStage(StageBase):
    """All blocks on for all tasks."""

    name: Literal["warmup"]


DEFAULT_SPEED = 1.0
"""Epochs in which a curriculum opens one more block."""


class SearchStage(StageBase):
    """The policy is learned; weights and policy are updated in turn, on disjoint parts of the train split."""

    name: Literal["search"]
    tau: tuple[PositiveFloat, PositiveFloat] = (5.0, 0.3)
    """Gumbel-softmax temperature at the start and its floor; it falls geometrically in between."""
    gumbel: Literal["soft", "straight_through"] = "soft"
    """`soft` mixes each block with its shortcut, as the authors' code does; `straight_through` runs it or not, with
    the gradient of the soft sample: what is searched is then of the kind that is decided, and weight steps skip."""
    curriculum: Literal["top_down", "none"] = "top_down"
    """`top_down` frees the last block first and one more per `speed` epochs."""
    speed: PositiveFloat = DEFAULT_SPEED
    """With `curriculum: top_down`, epochs until it frees one more block."""
    alternate: Literal["epochs", "steps"] = "epochs"
    """`epochs`: the weights see all their pictures, then the policy all of its own; `steps`: turns of `turn_steps`."""
    turn_steps: tuple[PositiveInt, PositiveInt] | None = None
    """With `alternate: steps`, weight steps and policy steps of a turn, for example [400, 100]. An epoch ends when the
    weights have seen all their pictures; the curriculum may open blocks within it."""
    policy_fraction: Annotated[float, Field(gt=0, lt=1)] = 0.2
    """Share of the train split that only the policy sees."""
    policy_lr: PositiveFloat = 0.01
    """Learning rate of the policy's logits."""
    policy_weight_decay: NonNegativeFloat = 0.0
    """L2 pull of the policy's logits towards zero, so towards undecided; 5e-4 in the authors' code."""

    samples: NonNegativeInt = 0
    """Plans that are drawn from the learned policy when the search is over; AdaShare drew 8. Mean and deviation over
    them are reported. 0 decides for the most probable choice of every task and block instead."""
    retrain: Literal["each", "best"] = "each"
    """With `samples`: `each` is retrained and the best on val is the run's, or only that which is `best` on val with
    the weights of the search."""

    @model_validator(mode="after")
    def _is_read(self) -> "SearchStage":
        if found := search_fault(self.model_dump()):
            raise fault(*found)
        return self

    @model_validator(mode="after")
    def _cools(self) -> "SearchStage":
        if message := tau_fault(self.tau):
            raise fault("tau", message)
        return self


def tau_fault(tau: Sequence[object]) -> str:
    """What is wrong with the order of temperatures at start and end; nothing is wrong with anything else here."""
    ends = [end for end in tau if isinstance(end, int | float)]
    rises = len(tau) == len(ends) == 2 and ends[0] < ends[1]
    return f"expected [start, floor], which falls, got [{ends[0]:g}, {ends[1]:g}]" if rises else ""


def search_fault(stage: Mapping[str, object]) -> tuple[str, str] | None:
    """What is wrong between the keys of a stage `search`, as (key, message); None where nothing is."""
    by_steps = stage.get("alternate", "epochs") == "steps"
    if by_steps and stage.get("turn_steps") is None:
        message = (
            "missing key: 'alternate: steps' takes turns of so many weight and policy steps, as in [4, 1]"
        )
        return "turn_steps", message
    if not by_steps and stage.get("turn_steps") is not None:
        return "turn_steps", "is for 'alternate: steps'; drop it, or write alternate: steps"
    if stage.get("retrain") == "best" and not stage.get("samples"):
        return "retrain", "chooses between sampled plans, and samples is 0; drop it, or write samples: 8"
    if stage.get("curriculum") == "none" and stage.get("speed", DEFAULT_SPEED) != DEFAULT_SPEED:
        return "speed", "is for 'curriculum: top_down'; drop it, or write curriculum: top_down"
    return None


class RetrainStage(StageBase):
    """The decided plan is fixed and the weights are trained."""

    name: Literal["retrain"]
    start: Literal["scratch", "search"] = "scratch"
    """`scratch`: from the initial weights, as in the paper; `search`: from those the search ended with,
    or those of `start_from`."""


class RouteStage(StageBase):
    """The router is learned; all other weights are fixed."""

    name: Literal["route"]
    curriculum: Literal["last_first", "none"] = "last_first"
    """`last_first` lets the router decide on the last block first and on one more per `speed` epochs."""
    speed: PositiveFloat = DEFAULT_SPEED
    """With `curriculum: last_first`, epochs until it frees one more block."""
    tau: tuple[PositiveFloat, PositiveFloat] = (5.0, 0.5)
    """With `estimator: gumbel`, the temperature at the start and its floor; it falls geometrically in between."""

    @model_validator(mode="after")
    def _cools(self) -> "RouteStage":
        if message := tau_fault(self.tau):
            raise fault("tau", message)
        return self


class AdaptStage(StageBase):
    """The base is adapted to the domain of the tasks file, as `adaptation` says."""

    name: Literal["adapt"]


class FinetuneStage(StageBase):
    """Router and weights are trained together, with all blocks under the router's control, also those that the
    curriculum of `route` had not reached; with `estimator: gumbel` it may come without `route`."""

    name: Literal["finetune"]
    gamma: PositiveFloat | None = None
    """Overrides `routing.gamma` for this stage."""
    router_lr: PositiveFloat | None = None
    """Highest learning rate of the router, whose optimiser is Adam; that of the weights by default."""
    rl_weight: NonNegativeFloat = 1.0
    """Of the router's loss beside those of the tasks, in `estimator: reinforce`."""
    settle: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Last part of the stage in which the router is fixed: the weights are trained for what will run, its most probable
    decisions, and no more for samples of it. The best epoch is one that began so, or the last."""
    distill: NonNegativeFloat = 0.0
    """Weight of a loss that pulls the answers to those of the network before anything was skipped, which stays as it
    was; rules that the router is compared with are tuned with it too."""
    batchnorm: Literal["frozen", "train"] = "frozen"
    """`frozen` keeps the running statistics. `train` updates them, from the pictures that run the block; with
    `estimator: gumbel` or `parity` from those that skip it too, until the router is fixed (`settle`)."""


StageSpec: TypeAlias = Annotated[
    WarmupStage | SearchStage | RetrainStage | AdaptStage | RouteStage | FinetuneStage,
    Field(discriminator="name"),
]


class OptimSpec(Strict):
    """The optimiser of the weights."""

    name: Literal["adamw", "adam", "sgd"] = "adamw"
    """Which one; sgd has momentum 0.9."""
    lr: PositiveFloat = 1e-3
    """Highest learning rate of each stage."""
    weight_decay: NonNegativeFloat = 1e-4
    """Pull of the weights towards zero."""
    schedule: Literal["cosine", "constant", "step"] = "cosine"
    """`cosine` brings the learning rate to zero at the end of each stage, `step` lowers it at each of `milestones`, or
    `every` so many steps."""
    milestones: list[PositiveInt] = []
    """With `schedule: step`, epochs of a stage after which the learning rate falls, for example [40, 60, 80]."""
    every: PositiveInt | None = None
    """With `schedule: step`, instead of milestones: steps of a stage after which the learning rate falls, each time."""
    factor: Annotated[float, Field(gt=0, lt=1)] = 0.1
    """With `schedule: step`, what the learning rate is multiplied by."""
    backbone_lr_scale: PositiveFloat = 1.0
    """Factor of the learning rate in the backbone (below 1 for pretrained weights)."""
    clip_norm: PositiveFloat | None = None
    """Largest gradient norm."""

    @model_validator(mode="after")
    def _milestones_fit(self) -> "OptimSpec":
        if message := milestones_fault(self.schedule, self.milestones, self.every):
            raise fault("milestones" if self.every is None else "every", message)
        return self


def milestones_fault(schedule: object, milestones: Sequence[object], every: object = None) -> str:
    """What is wrong with the milestones of a schedule, or its `every`; nothing is wrong with anything else here."""
    if every is not None:
        if milestones:
            return "give either 'milestones' or 'every', not both"
        return "" if schedule == "step" else "is for 'schedule: step'; drop it, or write schedule: step"
    if schedule == "step" and not milestones:
        return "missing key: 'schedule: step' lowers the learning rate after these epochs, as in [40, 60, 80]"
    if schedule != "step" and milestones:
        return "is for 'schedule: step'; drop it, or write schedule: step"
    numbers = [epoch for epoch in milestones if isinstance(epoch, int)]
    if any(later <= earlier for earlier, later in zip(numbers, numbers[1:], strict=False)):
        return "expected rising numbers of epochs"
    return ""


def _as_bytes(value: Any) -> Any:
    """`512MB` is 512,000,000."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([kMGT]?)B", value.strip()) if isinstance(value, str) else None
    if found:
        return int(float(found[1]) * 1000 ** " kMGT".index(found[2] or " "))
    if type(value) is int:
        return value
    raise PydanticCustomError("bytes", "expected a size, as 512MB or 4GB")


Bytes: TypeAlias = Annotated[
    PositiveInt,
    BeforeValidator(_as_bytes),
    WithJsonSchema({"anyOf": [{"type": "integer"}, {"type": "string"}]}),
]


class LoaderSpec(Strict):
    """How batches are made."""

    batch: PositiveInt = 16
    """Pictures per step and process."""
    workers: Workers = "auto"
    """Processes that read pictures; 0 reads in the training process."""
    cache: Literal["auto", "none", "ram", "disk"] = "auto"
    """Where decoded pictures are kept for the next epoch. `ram`: in memory that all workers share, each rank its own;
    `disk`: in files that all ranks and later runs share; `auto`: in memory, in a quarter of what is free at most."""
    cache_limit: Bytes | None = None
    """The most they may take, for example `512MB`; half of what is free by default. The rest is decoded anew."""
    cache_dir: str | None = None
    """With `cache: disk`, the folder of the files; `cache` in the run folder by default."""
    m_per_class: Annotated[int, Field(ge=2)] | None = None
    """Pictures of each class, or id, in a batch to train on, by the first embedding of the tasks file, or else its
    first classification; `batch` is a multiple of it. By default batches are drawn without looking at labels."""
    sampler: SamplerSpec | None = None
    """Instead of `m_per_class`: a sampler of pytorch-metric-learning by name, with its arguments beside it."""

    @property
    def by_class(self) -> str | None:
        """The key that draws batches by class, if one does."""
        return next((key for key in ("m_per_class", "sampler") if getattr(self, key) is not None), None)

    @model_validator(mode="after")
    def _is_read(self) -> "LoaderSpec":
        if self.cache_dir is not None and self.cache != "disk":
            raise fault("cache_dir", "is for 'cache: disk'; drop it, or write cache: disk")
        if self.cache_limit is not None and self.cache == "none":
            raise fault("cache_limit", "limits nothing with 'cache: none'; drop it, or write cache: ram")
        if self.sampler is not None and self.m_per_class is not None:
            raise fault("sampler", "says what is in a batch, and so does m_per_class; drop one")
        return self


class PhotometricSpec(Strict):
    """One image-only transform of albumentations."""

    name: str
    """Class name, for example `RandomBrightnessContrast`."""
    args: dict[str, Any] = {}
    """Its arguments."""
    references: list[str] = []
    """Pictures that FDA, HistogramMatching and PixelDistributionAdaptation take their look from; paths start from this
    file."""


class AugmentSpec(Strict):
    """Training-time augmentation: geometry moves the picture and every label together."""

    hflip: Probability = 0.0
    """Probability of mirroring left and right."""
    vflip: Probability = 0.0
    """Probability of turning upside down."""
    rotate: Annotated[float, Field(ge=0, le=180)] = 0.0
    """Largest angle in degrees, to either side."""
    zoom: tuple[PositiveFloat, PositiveFloat] = (1.0, 1.0)
    """Range of the scale factor; above 1 crops, below 1 pads."""
    zoom_depth: Literal["none", "divide"] = "none"
    """What zooming by s does to depth. `none`: nothing, as a longer lens at the same place; right for every scene, and
    what AdaShare's loader does. `divide`: depth is divided by s (inverse depth multiplied, see
    `kind` of a depth task) and normals turn to fit, as if the camera had come nearer: for a network that is to believe
    in one focal length; exact where a flat surface faces the camera."""
    pad: NonNegativeInt = 0
    """Pixels added on every side, black and without labels, before the crop."""
    crop: Size | None = None
    """[height, width] of a window at random; evaluation sees the whole picture. Where a source cuts pictures to its
    size (`fit: crop`) the window may lie in what is cut off too."""
    resize: Size | None = None
    """[height, width] that the picture is brought to after all else, with `crop` the window."""
    photometric: list[PhotometricSpec] = []
    """Image-only transforms, applied in this order."""

    @model_validator(mode="after")
    def _ordered(self) -> "AugmentSpec":
        if message := zoom_fault(self.zoom):
            raise fault("zoom", message)
        return self

    def size_HW(self, size_HW: tuple[int, int]) -> tuple[int, int]:
        """Height and width of what comes of a picture of `size_HW`."""
        return self.resize or self.crop or (size_HW[0] + 2 * self.pad, size_HW[1] + 2 * self.pad)


def zoom_fault(zoom: Sequence[object]) -> str:
    """What is wrong with the order of a range of numbers; nothing is wrong with anything else here."""
    numbers = [end for end in zoom if isinstance(end, int | float)]
    is_falling = len(zoom) == len(numbers) == 2 and numbers[0] > numbers[1]
    return f"expected [smallest, largest], got [{numbers[0]:g}, {numbers[1]:g}]" if is_falling else ""


STAGES: dict[str, type[StageBase]] = {
    "warmup": WarmupStage,
    "search": SearchStage,
    "retrain": RetrainStage,
    "adapt": AdaptStage,
    "route": RouteStage,
    "finetune": FinetuneStage,
}
STAGE_ORDER = tuple(STAGES)


class Recipe(Strict):
    """A whole recipe."""

    version: Literal[1] = 1
    """Of the format of this file."""
    backbone: BackboneSpec
    """The shared trunk, for example `{name: resnet18}`."""
    heads: HeadsSpec = HeadsSpec()
    """The neck and the heads."""
    sharing: SharingSpec = SharingSpec()
    """Which blocks the tasks share."""
    balance: BalanceSpec = Uniform()
    """How the tasks' losses become one in the stages warmup, search and retrain; the policy, the router and the stage
    adapt always weigh them by each task's `weight`."""
    budget: BudgetSpec | None = None
    """What all tasks on one picture may cost together, for example `{macs: 0.7}` of a hard-shared pass; the stage
    `search` keeps to it."""
    start_from: str | None = None
    """A finished run of the same backbone, heads, tasks and sharing.method, without a router: the first stage begins
    with its weights and its plan. With `adaptation` its tasks may be others: it is the base."""
    adaptation: AdaptationSpec | None = None
    """How the base, which is `start_from` or else `backbone.weights`, becomes the network of a new domain; with the
    stage `adapt`."""
    routing: RoutingSpec | None = None
    """Which blocks each picture skips; with the stages `route` and `finetune`."""
    stages: Annotated[list[StageSpec], Field(min_length=1)]
    """The train stages, in order: some of warmup, search, retrain, route, finetune; or adapt, which route and finetune
    may follow."""
    optim: OptimSpec = OptimSpec()
    """The optimiser of the weights."""
    loader: LoaderSpec = LoaderSpec()
    """How batches are made."""
    augment: AugmentSpec = AugmentSpec()
    """Training-time augmentation."""
    precision: Precision = "auto"
    """`auto`: bf16 where the GPU has it, else 32."""
    seed: Seed = 0
    """Of initial weights, order of pictures, augmentation and policy samples."""
    export: list[ExportSpec] = []
    """Files that are written and measured on val when all is done, for example `[{format: onnx}]`: the end of the chain
    that stages.json and the report show."""

    @property
    def router(self) -> RouterSpec | None:
        """The net that decides by picture, of whichever section has one."""
        section = self.routing if self.routing is not None else self.adaptation
        return getattr(section, "router", None)

    def batch_of(self, stage: StageBase) -> int:
        """Pictures per step and process in a stage."""
        return stage.batch or self.loader.batch

    def has_stage(self, name: str) -> bool:
        """Whether there is a train stage of this name."""
        return any(stage.name == name for stage in self.stages)

    @model_validator(mode="after")
    def _stages_fit_method(self) -> "Recipe":
        estimator = self.routing.estimator if self.routing is not None else None
        names, started = [stage.name for stage in self.stages], self.start_from is not None
        adapted = self.adaptation is not None
        samples = any(isinstance(stage, SearchStage) and stage.samples for stage in self.stages)
        tree, method = self.sharing.tree is not None, self.sharing.method
        for key, message in stage_faults(names, method, estimator, started, adapted, samples, tree):
            raise fault(key, message)
        routed = self.routing is not None
        budgeted = self.budget is not None
        if message := batchnorm_fault(self.sharing.batchnorm, self.sharing.method, routed, adapted, budgeted):
            raise fault("sharing.batchnorm", message)
        if self.routing is not None and (found := price_fault(self.routing.max_drop, self.stages)):
            raise fault(*found)
        given = [stage.model_dump(exclude_defaults=True) for stage in self.stages]
        if self.routing is not None:
            for key, message in routing_stage_faults(given, self.routing.estimator, self.routing.parity):
                raise fault(key, message)
        return self

    @model_validator(mode="after")
    def _balance_is_read(self) -> "Recipe":
        names = [stage.name for stage in self.stages]
        if message := balance_fault(self.balance.method, names, self.sharing.method):
            raise fault("balance.method", message)
        return self

    @model_validator(mode="after")
    def _budget_is_searched(self) -> "Recipe":
        names = [stage.name for stage in self.stages]
        if self.budget is not None and (message := budget_stage_fault(self.budget.kind, names)):
            raise fault("budget", message)
        return self

    @model_validator(mode="after")
    def _batches_are_of_classes(self) -> "Recipe":
        loader = self.loader
        found = m_per_class_fault(loader.m_per_class, loader.batch, self.stages)
        if found := found or sampler_fault(loader.sampler, loader.batch, self.stages):
            key, message = found
            written = key != "loader.batch" or "batch" in loader.model_fields_set
            raise fault(key if written else f"loader.{loader.by_class}", message)
        return self

    @model_validator(mode="after")
    def _exports_can_be_made(self) -> "Recipe":
        for found in export_faults(self.export, may_be_routed(self)):
            raise fault(*found)
        return self

    @model_validator(mode="after")
    def _classifier_has_weights(self) -> "Recipe":
        if message := classifier_fault(self.heads.classifier, self.backbone.weights):
            raise fault("heads.classifier", message)
        return self


def may_be_routed(recipe: object) -> bool:
    """Whether a recipe, validated or not, may end with a model that decides by picture."""
    routing, adaptation = _of(recipe, "routing"), _of(recipe, "adaptation")
    return routing is not None or _of(adaptation, "method") == "spottune"


def balance_fault(balance: str, names: Sequence[str], method: str) -> str:
    """What is wrong with a way to balance losses; empty where nothing is.

    Args:
        balance: balance.method.
        names: of the stages.
        method: sharing.method.
    """
    if balance == "uniform":
        return ""
    if method == "single":
        return "sharing.method single has a net per task: there is nothing to balance"
    if balance == "gradnorm" and method in WITHOUT_PLAN:
        return f"gradnorm looks at the last layer that all tasks use, and sharing.method {method} has none"
    if not {"warmup", "search", "retrain"} & set(names):
        return "is read by the stages warmup, search and retrain, and there is none of them"
    return ""


def m_per_class_fault(
    m: object, batch: object, stages: Sequence[object], said: str = "loader.m_per_class"
) -> tuple[str, str] | None:
    """What is wrong with batches of m pictures of each class, as (key, message); None where nothing is."""
    if not isinstance(m, int) or m < 1:
        return None
    for key, size in _batches(batch, stages):
        if size % m or size < 2 * m:
            least = max(2 * m, size // m * m)
            return key, f"{size} pictures are not {m} of each of 2 classes or more ({said}); write {least}"
    return None


def sampler_fault(sampler: object, batch: object, stages: Sequence[object]) -> tuple[str, str] | None:
    """What is wrong with batches for a sampler, as (key, message); None where nothing is."""
    if _of(sampler, "name") == "MPerClassSampler":
        return m_per_class_fault(_of(sampler, "m"), batch, stages, "loader.sampler.m")
    if _of(sampler, "name") == "FixedSetOfTriplets":
        for key, size in _batches(batch, stages):
            if size % 3:
                message = (
                    f"{size} pictures are no whole triplets (loader.sampler); write {max(3, size // 3 * 3)}"
                )
                return key, message
    return None


def _batches(batch: object, stages: Sequence[object]) -> list[tuple[str, int]]:
    """The keys that say how large batches are, and what they say."""
    sizes = [("loader.batch", batch), *((f"stages.{i}.batch", _of(s, "batch")) for i, s in enumerate(stages))]
    return [(key, size) for key, size in sizes if isinstance(size, int)]


def _of(section: object, key: str) -> object:
    """What a section says, validated or not."""
    return section.get(key) if isinstance(section, dict) else getattr(section, key, None)


def classifier_fault(classifier: str, weights: str) -> str:
    """What is wrong with a head that starts as the backbone's classifier."""
    if classifier == "pretrained" and weights == "none":
        return "backbone.weights none holds no classifier; expected new, or weights"
    return ""


def batchnorm_fault(
    batchnorm: object, method: str, routed: bool, adapted: bool, budgeted: bool = False
) -> str:
    """What is wrong with norms of each task's own; nothing is wrong with anything else here."""
    if batchnorm != "per_task":
        return ""
    if method == "single":
        return "sharing.method single has a net per task, norms included; drop this key"
    if method in WITHOUT_PLAN:
        return f"sharing.method {method} {lacks_one_net(method)} of its own making; drop this key"
    if routed or adapted:
        section = "routing" if routed else "adaptation"
        return f"per_task leaves no activation that tasks share; {section} wants one network for all; drop this key"
    if budgeted:
        return (
            "per_task leaves no activation that tasks share, which a budget counts; drop this key, or budget"
        )
    return ""


def price_fault(max_drop: object, stages: Sequence[object]) -> tuple[str, str] | None:
    """What is wrong with a penalty that a stage states, as (key, message); None where nothing is."""
    for i, stage in enumerate(stages):
        gamma = stage.get("gamma") if isinstance(stage, dict) else getattr(stage, "gamma", None)
        if gamma is not None and max_drop is not None:
            return f"stages.{i}.gamma", "routing.max_drop is given, which solves for gamma"
    return None


def routing_stage_faults(stages: Sequence[object], estimator: str, parity: bool) -> list[tuple[str, str]]:
    """What is wrong between the keys of `route` and `finetune` and how the router is learned, each as (key, message).

    Args:
        stages: the keys that are given of each. Of a whole spec, in which everything has a value, those that are as
            by default are not given.
        estimator: routing.estimator.
        parity: routing.parity.
    """
    faults = []
    for i, stage in enumerate(stages):
        given = stage if isinstance(stage, dict) else {}
        if given.get("name") == "route" and "tau" in given and estimator == "reinforce":
            message = "is for routing.estimator gumbel; reinforce has no temperature; drop this key"
            faults.append((f"stages.{i}.tau", message))
        if given.get("name") == "route" and "speed" in given and given.get("curriculum") == "none":
            message = "is for 'curriculum: last_first'; drop it, or write curriculum: last_first"
            faults.append((f"stages.{i}.speed", message))
        if given.get("name") == "finetune" and "rl_weight" in given and estimator == "gumbel":
            message = (
                "is for routing.estimator reinforce; gumbel has one loss for router and tasks; drop this key"
            )
            faults.append((f"stages.{i}.rl_weight", message))
        frozen = given.get("batchnorm", "frozen") == "frozen"
        if given.get("name") == "finetune" and frozen and parity and estimator == "reinforce":
            message = "routing.parity moves the norms, as the released code does; write batchnorm: train"
            faults.append((f"stages.{i}.batchnorm", message))
    return faults


NEEDS_RETRAIN = {
    "random": "in which sharing.method random trains its plan",
    "stochastic_depth": "in which sharing.method stochastic_depth drops blocks",
    "fafs": "in which sharing.method fafs trains its tree",
}


def stage_faults(
    names: Sequence[str],
    method: str,
    estimator: str | None,
    started: bool = False,
    adapted: bool = False,
    samples: bool = False,
    tree: bool = False,
) -> list[tuple[str, str]]:
    """What is wrong with the order of the stages, each as (key, message).

    Args:
        names: of the stages.
        method: sharing.method.
        estimator: routing.estimator; None where there is no section `routing`.
        started: whether there is a `start_from`.
        adapted: whether there is a section `adaptation`.
        samples: whether the search decides by sampling.
        tree: whether there is a sharing.tree.
    """
    if adapted or "adapt" in names:
        return adapt_faults(names, method, estimator, adapted)
    faults = []
    for i, name in enumerate(names):
        before = [other for other in names[:i] if STAGE_ORDER.index(other) >= STAGE_ORDER.index(name)]
        if name in before:
            faults.append((f"stages.{i}.name", f"a second '{name}'; each stage may occur once"))
        elif before:
            order = ", ".join(STAGE_ORDER)
            faults.append((f"stages.{i}.name", f"'{name}' cannot follow '{before[0]}'; the order is {order}"))
    for name in ("warmup", "search") if started else ():
        if name in names:
            message = "start_from brings the weights and the plan that this stage would learn; drop the stage"
            faults.append((f"stages.{names.index(name)}.name", message))
    if method == "adashare" and "search" not in names and not started:
        faults.append(
            ("stages", "there is no stage 'search', in which sharing.method adashare learns its plan")
        )
    if "search" in names and "retrain" not in names and samples:
        message = (
            "there is no stage 'retrain', in which what is drawn is trained; drop this key, or add the stage"
        )
        faults.append((f"stages.{names.index('search')}.samples", message))
    if method != "adashare" and "search" in names:
        message = f"sharing.method {method} has nothing to search; drop this stage"
        faults.append((f"stages.{names.index('search')}.name", message))
    if method in NEEDS_RETRAIN and "retrain" not in names and not started:
        faults.append(("stages", f"there is no stage 'retrain', {NEEDS_RETRAIN[method]}"))
    if method == "fafs" and "warmup" not in names and not (started or tree):
        message = (
            "there is no stage 'warmup', after which sharing.method fafs finds its tree; or give sharing.tree"
        )
        faults.append(("stages", message))
    routed = estimator is not None
    for name in ("route", "finetune") if not routed else ():
        if name in names:
            message = "there is no section `routing`, which says what is learned here; `routing: {}` will do"
            faults.append((f"stages.{names.index(name)}.name", message))
    if routed and not {"route", "finetune"} & set(names):
        faults.append(("stages", "there is no stage 'route', in which routing learns what to skip"))
    elif estimator == "reinforce" and "route" not in names:
        message = "there is no stage 'route', without which estimator reinforce learns nothing; gumbel can do"
        faults.append(("stages", message))
    if routed and (reason := lacks_one_net(method)):
        faults.append(("routing", f"sharing.method {method} {reason}; routing wants one for all"))
    return faults


def adapt_faults(
    names: Sequence[str], method: str, estimator: str | None, adapted: bool
) -> list[tuple[str, str]]:
    """What is wrong with the stages of a recipe that adapts, each as (key, message). Arguments as `stage_faults`."""
    faults = []
    for i, name in enumerate(names):
        if name not in ("adapt", "route", "finetune"):
            message = "a recipe that adapts has no such stage: the base is trained in a run of its own"
            faults.append((f"stages.{i}.name", message))
        elif name in names[:i]:
            faults.append((f"stages.{i}.name", f"a second '{name}'; each stage may occur once"))
        elif any(STAGE_ORDER.index(other) > STAGE_ORDER.index(name) for other in names[:i]):
            faults.append((f"stages.{i}.name", f"'{name}' comes before '{names[i - 1]}'"))
    if not adapted:
        message = "there is no section `adaptation`, which says how; `adaptation: {method: finetune}` will do"
        faults.append((f"stages.{names.index('adapt')}.name", message))
    elif "adapt" not in names:
        faults.append(("stages", "there is no stage 'adapt', in which adaptation is learned"))
    if reason := lacks_one_net(method):
        faults.append(("adaptation", f"sharing.method {method} {reason}; adaptation wants one for all"))
    if "adapt" in names:
        faults += _routing_faults([name for name in names if name != "adapt"], estimator)
    return faults


def _routing_faults(names: Sequence[str], estimator: str | None) -> list[tuple[str, str]]:
    """What is wrong with `route` and `finetune` after another stage."""
    routes = {"route", "finetune"} & set(names)
    if estimator is None and routes:
        message = "there is no section `routing`, which says what is learned in 'route' and 'finetune'"
        return [("stages", f"{message}; `routing: {{}}` will do")]
    if estimator is not None and not routes:
        return [("stages", "there is no stage 'route', in which routing learns what to skip")]
    if estimator == "reinforce" and "route" not in names:
        message = "there is no stage 'route', without which estimator reinforce learns nothing; gumbel can do"
        return [("stages", message)]
    return []
