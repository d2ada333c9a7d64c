"""The tasks file: what to predict and from which data.

Every field has its documentation under it; `perceptkit schema` prints the same as JSON schema.
"""

from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias, get_args

from pydantic import Discriminator, Field, PositiveFloat, PositiveInt, Tag, model_validator

from perceptkit.spec.strict import Seed, Strict, fault

Split: TypeAlias = Literal["train", "val", "test"]
SPLITS: tuple[Split, ...] = ("train", "val", "test")
Size: TypeAlias = tuple[Annotated[int, Field(ge=32)], Annotated[int, Field(ge=32)]]
Style: TypeAlias = Literal["studio", "dusk", "sketch", "thermal"]


def _form_of_classes(value: Any) -> str | None:
    return {int: "<number>", list: "<names>", str: "<file>"}.get(type(value))


Classes: TypeAlias = Annotated[
    Annotated[PositiveInt, Tag("<number>")]
    | Annotated[list[str], Field(min_length=1), Tag("<names>")]
    | Annotated[str, Tag("<file>")],
    Discriminator(
        _form_of_classes,
        custom_error_type="classes",
        custom_error_message="expected a number of classes, a list of names or a file with one name a line",
    ),
]


def _own_names() -> dict[Split, str]:
    return {split: split for split in SPLITS}


class FolderData(Strict):
    """Pictures and labels in folders, found by templates with `{split}` and `{id}`."""

    source: Literal["folder"]
    root: Path
    """Folder that all templates start from, relative to this file."""
    image: str
    """Template of the pictures, for example `images/{split}/{id}.png`."""
    size: Size
    """Network input as [height, width] in pixels; pictures and labels are resized to it."""
    splits: dict[Split, str] = Field(default_factory=_own_names)
    """The folder name that stands for each split; by default its own name."""
    limit: PositiveInt | None = None
    """Use only the first so many pictures of each split, in the order of their ids."""


class SceneCounts(Strict):
    """How many scenes each split holds."""

    train: PositiveInt = 1000
    """Rooms to train on."""
    val: PositiveInt = 200
    """Rooms that choose the best weights."""
    test: PositiveInt = 300
    """Rooms that are only measured, once."""


class ScenesData(Strict):
    """The built-in renderer: rooms with solids, and exact labels for every task type."""

    source: Literal["scenes"]
    size: Size = (64, 64)
    """Picture size as [height, width] in pixels."""
    style: Style = "studio"
    """How the rooms are drawn; the labels are the same in every style."""
    seed: Seed = 0
    """Another seed gives other rooms; the splits of one seed never share a room."""
    count: SceneCounts = SceneCounts()
    """How many rooms each split holds."""


DATA_SOURCES: dict[str, type[FolderData] | type[ScenesData]] = {"folder": FolderData, "scenes": ScenesData}
Data: TypeAlias = Annotated[FolderData | ScenesData, Field(discriminator="source")]


class TaskBase(Strict):
    """What every task type has."""

    target: str | None = None
    """Template of the label files (`source: folder`); `source: scenes` renders the label."""
    weight: PositiveFloat = 1.0
    """Factor of this task's loss in the sum (lambda_k of AdaShare)."""


class SegmentationSpec(TaskBase):
    """One class per pixel."""

    type: Literal["segmentation"]
    classes: Classes | None = None
    """Number of classes, their names, or a file with one name per line. `source: scenes` knows its own."""
    ignore_index: int = 255
    """Pixels with this value are neither trained on nor counted."""


class DepthSpec(TaskBase):
    """Distance along the optical axis per pixel."""

    type: Literal["depth"]
    unit: str = "m"
    """Name of the unit, for metrics and pictures."""
    scale: PositiveFloat = 1.0
    """Stored value that means one unit (256 for KITTI-style uint16 PNG, 1000 for millimetres)."""
    max: PositiveFloat | None = None
    """Values above it, in units, are invalid; a value of 0 always is."""
    log: bool = False
    """Predict log depth: the loss becomes L1 on logarithms."""


class NormalsSpec(TaskBase):
    """Unit surface normal per pixel."""

    type: Literal["normals"]
    encoding: Literal["signed"] = "signed"
    """`signed`: n = 2 * value / 255 - 1 for 8-bit pictures, floats in .npy are taken as they are."""
    frame: Literal["opengl", "camera"] = "camera"
    """`camera`: x right, y down, z forward. `opengl`: x right, y up, z towards the viewer."""


class KeypointsSpec(TaskBase):
    """Named points (`names`), or any number of points of each kind (`kinds`)."""

    type: Literal["keypoints"]
    names: Annotated[list[str], Field(min_length=1)] | None = None
    """Points that occur at most once per picture, each with its own name."""
    kinds: Annotated[list[str], Field(min_length=1)] | None = None
    """Kinds of point that may occur any number of times."""
    flip_pairs: list[tuple[str, str]] = []
    """Names that change places when the picture is mirrored."""
    radius: PositiveFloat | None = None
    """Pixels (at input size) within which a detection counts; default 5 % of the longer side."""

    @model_validator(mode="after")
    def _one_mode(self) -> "KeypointsSpec":
        if self.names is not None and self.kinds is not None:
            raise fault("kinds", "give either 'names' or 'kinds', not both")
        return self


class EdgesSpec(TaskBase):
    """Probability that a pixel lies on an edge."""

    type: Literal["edges"]
    derive: Annotated[list[str], Field(min_length=1)] | None = None
    """Instead of `target`: names of segmentation, depth or normals tasks whose labels give the edges."""
    tolerance: PositiveFloat = 1.5
    """Distance in pixels (at input size) within which an edge pixel counts as found."""


class ClassificationSpec(TaskBase):
    """One class per picture, or several with `multi_label`."""

    type: Literal["classification"]
    classes: Classes | None = None
    """As for segmentation; without it the names are the labels that occur in the train CSV, sorted."""
    multi_label: bool = False
    """Any number of classes may be true of one picture."""


TaskSpec: TypeAlias = Annotated[
    SegmentationSpec | DepthSpec | NormalsSpec | KeypointsSpec | EdgesSpec | ClassificationSpec,
    Field(discriminator="type"),
]

TASK_SPECS: dict[str, type[TaskBase]] = {
    get_args(spec.model_fields["type"].annotation)[0]: spec for spec in get_args(get_args(TaskSpec)[0])
}
"""The model of each task type."""


class TasksFile(Strict):
    """A whole tasks file."""

    version: Literal[1] = 1
    """Of the format of this file."""
    name: str
    """A short name; the run folder gets it."""
    data: Data
    """Where the pictures come from: `source: folder` or `source: scenes`, and its keys."""
    tasks: Annotated[dict[str, TaskSpec], Field(min_length=1)]
    """A name of your own for each task, then its `type` and keys; metrics and outputs get these names."""
