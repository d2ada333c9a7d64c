"""The tasks file: what to predict and from which data.

Every field has its documentation under it; `perceptkit schema` prints the same as JSON schema.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeAlias, Union, cast, get_args

from pydantic import (
    ConfigDict,
    Discriminator,
    Field,
    NonNegativeFloat,
    PositiveFloat,
    PositiveInt,
    Tag,
    create_model,
    model_validator,
)

from perceptkit.spec.metric_learning import MetricLossSpec, MinerSpec
from perceptkit.spec.strict import Fraction, Seed, Size, Strict, fault

Split: TypeAlias = Literal["train", "val", "test"]
SPLITS: tuple[Split, ...] = ("train", "val", "test")
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


def _form_of_limit(value: Any) -> str | None:
    return {int: "<number>", dict: "<splits>"}.get(type(value))


Limit: TypeAlias = Annotated[
    Annotated[PositiveInt, Tag("<number>")] | Annotated[dict[Split, PositiveInt], Tag("<splits>")],
    Discriminator(
        _form_of_limit,
        custom_error_type="limit",
        custom_error_message="expected a number, or numbers by split, as in {train: 50}",
    ),
]

RGB: TypeAlias = tuple[NonNegativeFloat, NonNegativeFloat, NonNegativeFloat]


class DataBase(Strict):
    """What every data source has."""

    train_on: Annotated[list[Literal["train", "val"]], Field(min_length=1)] = ["train"]
    """The splits to train on: [train], or [train, val] to train for good. Val is then no longer held out: its
    metrics, and the weights that are best by them, say nothing of new pictures."""
    mean: RGB | None = None
    """Subtracted from the pictures, red, green and blue in [0, 1]; by default what the backbone's weights expect."""
    std: RGB | None = None
    """Then divided by; given together with `mean`."""

    @model_validator(mode="after")
    def _consistent(self) -> "DataBase":
        if message := train_on_fault(self.train_on):
            raise fault("train_on", message)
        if found := normalisation_fault(self.mean, self.std):
            raise fault(*found)
        return self


def train_on_fault(splits: Sequence[object]) -> str:
    """What is wrong with the splits to train on, each of which is valid."""
    if "train" not in splits:
        return "expected [train], or [train, val]"
    return "a split occurs twice" if len(set(splits)) < len(splits) else ""


def normalisation_fault(mean: Sequence[float] | None, std: Sequence[float] | None) -> tuple[str, str] | None:
    """What is wrong with a pair of mean and std, as (key, message); None where nothing is."""
    if (mean is None) != (std is None):
        return ("std", "missing key beside 'mean'") if std is None else ("mean", "missing key beside 'std'")
    if mean is not None and max(mean) > 1:
        return "mean", f"holds {max(mean):g}; pictures are in [0, 1] here, so divide by 255"
    if std is not None and (min(std) == 0 or max(std) > 1):
        wrong = max(std) if max(std) > 1 else 0
        return "std", f"holds {wrong:g}; expected numbers above 0 and up to 1, of pictures in [0, 1]"
    return None


def _form_of_excluded(value: Any) -> str | None:
    return "<file>" if isinstance(value, str) else "<splits>" if isinstance(value, dict) else None


Excluded: TypeAlias = Annotated[
    Annotated[str, Tag("<file>")] | Annotated[dict[Split, list[str]], Tag("<splits>")],
    Discriminator(
        _form_of_excluded,
        custom_error_type="exclude",
        custom_error_message="expected a file as check --fix-list writes it, or ids by split, as in {train: [a3]}",
    ),
]


class FilesData(DataBase):
    """What the sources have whose pictures are files."""

    on_bad: Literal["error", "skip"] = "error"
    """What becomes of a picture that cannot be read, or whose labels cannot. `error`: the run stops and names the file.
    `skip`: all pictures are read once before the first step, those that fail are left out of their split, and the run
    says how many and which; a resumed run leaves out the same ones."""
    exclude: Excluded | None = None
    """Pictures that their split is without, in training, evaluation and `check`: a file, relative to this one, as
    `check --fix-list` writes it (split, id and perhaps a reason, with tabs between them; lines with # are comments), or
    ids by split, as in {train: [a3]}. Ids of one of `sources` may begin with its name, as in rooms/a3. What `limit`
    chooses stays as it is."""


class FolderData(FilesData):
    """Pictures and labels in folders, found by templates with `{split}` and `{id}`."""

    source: Literal["folder"]
    root: Path
    """Folder that all templates start from, relative to this file. A template that is absolute, or begins with `../`,
    leads out of it: labels may be kept elsewhere than pictures."""
    image: str
    """Template of the pictures, for example `images/{split}/{id}.png`."""
    size: Size
    """Network input as [height, width] in pixels; pictures and labels are resized to it."""
    splits: dict[Split, str] = Field(default_factory=_own_names)
    """The folder name that stands for each split; by default its own name."""
    limit: Limit | None = None
    """Use only so many pictures of each split, evenly spread; or by split, as in {train: 50}."""


def most_of(limit: Limit | None, split: Split) -> int | None:
    """How many pictures of a split are used at most; None for all."""
    return limit.get(split) if isinstance(limit, dict) else limit


class SceneCounts(Strict):
    """How many scenes each split holds."""

    train: PositiveInt = 1000
    """Rooms to train on."""
    val: PositiveInt = 200
    """Rooms that choose the best weights."""
    test: PositiveInt = 300
    """Rooms that are only measured, once."""


class ImageFolderData(FilesData):
    """Pictures in one folder per class, as torchvision's ImageFolder has them: `ROOT/train/CLASS/...`."""

    source: Literal["imagefolder"]
    root: Path
    """Folder that holds the folders of the splits, relative to this file."""
    size: Size
    """Network input as [height, width] in pixels; pictures are resized to it."""
    splits: dict[Split, str] = Field(default_factory=_own_names)
    """The folder name that stands for each split; by default its own name."""
    limit: Limit | None = None
    """Use only so many pictures of each split, evenly spread; or by split, as in {train: 50}."""


class DecathlonData(FilesData):
    """One domain of the Visual Decathlon: `ROOT/annotations/DOMAIN_train.json` and the like, `ROOT/data/...`."""

    source: Literal["decathlon"]
    root: Path
    """The folder `decathlon-1.0`, relative to this file."""
    domain: str
    """Which one, for example `aircraft`; its mean and std are the defaults of `mean` and `std`, its weight decay and
    crop those of the recipe."""
    size: Size = (72, 72)
    """Network input as [height, width] in pixels; pictures are brought to it. By default [144, 72] of daimlerpedcls."""
    fit: Literal["crop", "stretch"] = "crop"
    """`crop`, as the challenge: the shorter side is resized and the middle is taken, in training and in use alike, but
    that `augment.crop` cuts its windows from all of it; `stretch` changes a picture's shape."""
    limit: Limit | None = None
    """Use only so many pictures of each split, evenly spread; or by split, as in {train: 50}."""


class LayoutData(FilesData):
    """What the sources have whose folders and files have fixed names."""

    root: Path
    """The folder of the data set, relative to this file."""
    size: Size
    """Network input as [height, width] in pixels; pictures and labels are resized to it."""
    splits: dict[Split, str] | None = None
    """The list, or the folder, that stands for each split. By default train1, train2 and test of a list; train, val and
    val of folders."""
    lists: str | None = None
    """Name of the JSON file of lists below root, where it is not the usual one."""
    hold_out: Fraction | None = None
    """Instead of a split of its own, val is this last part of train, as 10%; train is the rest."""
    limit: Limit | None = None
    """Use only so many pictures of each split, evenly spread; or by split, as in {train: 50}."""


class NYUv2Data(LayoutData):
    """NYUv2 as prepared for AdaShare (40 classes), or as MTAN's arrays (13 classes)."""

    source: Literal["nyuv2"]
    layout: Literal["adashare", "mtan"] = "adashare"
    """`adashare`: nyu_v2_3task.json with img/, seg/, normal_mask/ and depth/. `mtan`: train/ and val/ with arrays in
    image/, label/, depth/ and normal/."""


class CityscapesData(LayoutData):
    """Cityscapes as MTAN's arrays, or as it is downloaded."""

    source: Literal["cityscapes"]
    layout: Literal["adashare", "mtan", "official"] = "adashare"
    """`adashare`: cityscape.json, which lists MTAN's arrays. `mtan`: train/ and val/ with image/, depth/, label_2/,
    label_7/ and label_19/, or LibMTL's label/ of 7 classes. `official`: leftImg8bit/, gtFine/ and disparity/."""


class TaskonomyData(LayoutData):
    """Tiny-Taskonomy: taskonomy.json lists RGB, segmentation, normals, depth, keypoints2d and edge_texture."""

    source: Literal["taskonomy"]


class CocoData(FilesData):
    """COCO, or any data set with annotation files like its: segmentation and keypoints of persons."""

    source: Literal["coco"]
    root: Path
    """Folder that all other paths start from, relative to this file."""
    images: str = "{split}"
    """Folder of the pictures of a split, which the names in the annotation files start from."""
    splits: dict[Split, str] | None = None
    """What stands for each split in names of folders and files. By default train2017, val2017 and val2017: COCO's own
    test pictures have no labels."""
    hold_out: Fraction | None = None
    """Instead of a split of its own, val is this last part of train, as 2%; train is the rest."""
    size: Size
    """Network input as [height, width] in pixels; pictures and labels are resized to it."""
    occluded: Literal["count", "hide"] = "count"
    """Keypoints that are marked as occluded (v = 1), whose places are known. `count`: they are points like the visible
    ones, as in COCO's own measure. `hide`: they are no points of `kinds`, and not visible ones of `names`."""
    limit: Limit | None = None
    """Use only so many pictures of each split, evenly spread; or by split, as in {train: 50}."""


class CsvData(FilesData):
    """Pictures that a CSV lists, one a row, with a column of labels for each task. The first row names the columns;
    commas, semicolons or tabs part them."""

    source: Literal["csv"]
    root: Path
    """Folder that the file and the paths of the pictures start from, relative to this file."""
    file: str
    """The CSV below root: `labels.csv` with a column of splits, or `{split}.csv`, a file for each."""
    image: str = "path"
    """The column of the pictures' paths below root."""
    split: str | None = None
    """The column that says which split a row is of, where one file holds all; rows with nothing there are not used."""
    splits: dict[Split, str] = Field(default_factory=_own_names)
    """The word that stands for each split, in that column or in the name of the file; by default its own name."""
    size: Size
    """Network input as [height, width] in pixels; pictures are resized to it."""
    limit: Limit | None = None
    """Use only so many pictures of each split, evenly spread; or by split, as in {train: 50}."""


def _form_of_files(value: Any) -> str | None:
    return "<pattern>" if isinstance(value, str) else "<splits>" if isinstance(value, dict) else None


Files: TypeAlias = Annotated[
    Annotated[str, Tag("<pattern>")] | Annotated[dict[Split, str], Tag("<splits>")],
    Discriminator(
        _form_of_files,
        custom_error_type="files",
        custom_error_message="expected a pattern of file names, or one by split: {train: a-*, val: b-*, test: c-*}",
    ),
]


class PackedData(FilesData):
    """What the sources have that hold many pictures, with their labels, in each file."""

    root: Path
    """Folder that the files are below, relative to this file."""
    splits: dict[Split, str] = Field(default_factory=_own_names)
    """The word that stands for each split in the names of files; by default its own name."""
    image: str
    """Which part of a sample is its picture."""
    size: Size
    """Network input as [height, width] in pixels; pictures and labels are resized to it."""
    limit: Limit | None = None
    """Use only so many pictures of each split, evenly spread; or by split, as in {train: 50}."""


class WebDatasetData(PackedData):
    """Tar files of pictures and labels that have one name and different endings, as the webdataset package has them."""

    source: Literal["webdataset"]
    shards: Files
    """The tar files below root, not compressed: `{split}-*.tar`, `{split}-{000000..000146}.tar`, or a pattern for each
    split by name."""
    image: str = "jpg;jpeg;png;webp"
    """The ending of the pictures; of several the first that a sample has."""


class HuggingFaceData(PackedData):
    """Parquet files on this disk, as Hugging Face's `datasets` writes them (extra `hf`). Nothing is fetched."""

    source: Literal["huggingface"]
    files: Files
    """The parquet files below root: `data/{split}-*.parquet`, or a pattern for each split by name."""
    image: str = "image"
    """The column of the pictures."""


class ScenesData(DataBase):
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


Data: TypeAlias = Annotated[
    FolderData
    | ImageFolderData
    | DecathlonData
    | NYUv2Data
    | CityscapesData
    | TaskonomyData
    | CocoData
    | CsvData
    | WebDatasetData
    | HuggingFaceData
    | ScenesData,
    Field(discriminator="source"),
]
DATA_SOURCES: dict[str, type[DataBase]] = {
    get_args(data.model_fields["source"].annotation)[0]: data for data in get_args(get_args(Data)[0])
}
"""The model of each data source."""

ListedData: TypeAlias = ImageFolderData | DecathlonData
"""Sources that list their pictures with one class each."""


class TaskBase(Strict):
    """What every task type has."""

    target: str | None = None
    """Template of the label files (`source: folder`) or of the annotation files (`coco`), the name of a `response` map
    of Taskonomy, a column (`csv`, `huggingface`; by default the task's own name), or the ending of a member
    (`webdataset`: `seg.png`, `cls`, or `json:FIELD` for a field of KEY.json)."""
    weight: PositiveFloat = 1.0
    """Factor of this task's loss in the sum (lambda_k of AdaShare)."""


class MapBase(TaskBase):
    """What task types have whose answer is a map at the size of the picture."""

    compat: Literal["adashare"] | None = None
    """`adashare`: enlarge and measure as AdaShare's released code does, to compare with its numbers. Outputs take the
    nearest pixel; mIoU is over the classes that were found; void pixels count as wrong where their id is below the
    number of classes; depth has no lower bound, so that a negative one counts as right; errors and accuracy are means
    over pictures, not over pixels. Segmentation has `err`, its cross-entropy, and normals `mean_cos` as
    metrics more."""


def _form_of_class_weights(value: Any) -> str | None:
    kinds: dict[type, str] = {dict: "<names>", str: "<file>"}
    return kinds.get(type(value))


ClassWeights: TypeAlias = Annotated[
    Annotated[dict[str, PositiveFloat], Tag("<names>")] | Annotated[str, Tag("<file>")],
    Discriminator(
        _form_of_class_weights,
        custom_error_type="class_weights",
        custom_error_message="expected factors by name, as in {door: 4}, or a .npy file with one for each class",
    ),
]


class SegmentationSpec(MapBase):
    """One class per pixel."""

    type: Literal["segmentation"]
    classes: Classes | None = None
    """Number of classes, their names, or a file with one name per line. `source: scenes` and `coco` know their own. In
    `coco` these are categories, and `background` is what belongs to none of them; without it that is not labelled."""
    ignore_index: int = 255
    """Pixels with this value are neither trained on nor counted."""
    class_weights: ClassWeights = {}
    """Factors of classes in the loss, by name; 1 for those that are not named. Or a .npy file with one for each class,
    below the data root or beside this file, as AdaShare's `semseg_prior_factor.npy`."""


DepthKind: TypeAlias = Literal["metric", "inverse", "log16"]


class DepthSpec(MapBase):
    """Distance along the optical axis per pixel."""

    type: Literal["depth"]
    unit: str = "m"
    """Name of the unit, for metrics and pictures."""
    scale: PositiveFloat = 1.0
    """Stored value that means one unit (256 for KITTI-style uint16 PNG, 1000 for millimetres)."""
    max: PositiveFloat | None = None
    """Values above it, in units, are invalid; a value of 0 always is."""
    kind: DepthKind = "metric"
    """What is stored, for `augment.zoom_depth`: distances, inverse ones as disparity (large is near), or Taskonomy's
    log(1 + d) / log(2^16) of a distance d. Known of `source: cityscapes` (inverse), `taskonomy` (log16), `nyuv2` and
    `scenes` (metric)."""
    log: bool = False
    """Predict log depth: the loss becomes L1 on logarithms."""


class NormalsSpec(MapBase):
    """Unit surface normal per pixel."""

    type: Literal["normals"]
    encoding: Literal["signed", "raw_u8"] = "signed"
    """`signed`: n = 2 * value / 255 - 1 for 8-bit pictures, floats in .npy are taken as they are. `raw_u8`: the bytes
    themselves are brought to length 1, as AdaShare's code does: no directions, and angles about half as large."""
    frame: Literal["opengl", "camera"] = "camera"
    """`camera`: x right, y down, z forward. `opengl`: x right, y up, z towards the viewer."""

    @model_validator(mode="after")
    def _has_axes(self) -> "NormalsSpec":
        if self.encoding == "raw_u8" and self.frame != "camera":
            raise fault("frame", "encoding raw_u8 gives no directions, so there are no axes; drop the key")
        return self


class KeypointsSpec(TaskBase):
    """Named points (`names`), or any number of points of each kind (`kinds`)."""

    type: Literal["keypoints"]
    names: Annotated[list[str], Field(min_length=1)] | None = None
    """Points that occur at most once per picture, each with its own name; in `coco` those of the largest person."""
    kinds: Annotated[list[str], Field(min_length=1)] | None = None
    """Kinds of point that may occur any number of times; `coco` knows its own, of all persons."""
    flip_pairs: list[tuple[str, str]] = []
    """Names or kinds that change places when the picture is mirrored; `coco` pairs left_... and right_... by itself."""
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


class ResponseSpec(MapBase):
    """How strongly a detector responds, from -1 to 1 per pixel: Taskonomy's keypoints2d and edge_texture."""

    type: Literal["response"]


class ClassificationSpec(TaskBase):
    """One class per picture, or several with `multi_label`."""

    type: Literal["classification"]
    classes: Classes | None = None
    """As for segmentation; without it the names are the labels that occur in the train CSV, sorted, or those that the
    source knows."""
    multi_label: bool = False
    """Any number of classes may be true of one picture."""
    class_weights: dict[str, PositiveFloat] = {}
    """Factors of classes in the loss, by name; 1 for those that are not named."""


class EmbeddingSpec(TaskBase):
    """A vector per picture, near those of the same id and far from all others."""

    type: Literal["embedding"]
    dims: Annotated[int, Field(ge=2)] = 64
    """Length of the vector."""
    loss: MetricLossSpec = MetricLossSpec()
    """What is minimised, by its name in pytorch-metric-learning."""
    miner: MinerSpec | None = None
    """Which pairs or triplets of a batch the loss sees, by its name in pytorch-metric-learning; all by default."""


TaskSpec: TypeAlias = Annotated[
    SegmentationSpec
    | DepthSpec
    | NormalsSpec
    | KeypointsSpec
    | EdgesSpec
    | ResponseSpec
    | ClassificationSpec
    | EmbeddingSpec,
    Field(discriminator="type"),
]

TASK_SPECS: dict[str, type[TaskBase]] = {
    get_args(spec.model_fields["type"].annotation)[0]: spec for spec in get_args(get_args(TaskSpec)[0])
}
"""The model of each task type."""


def _form_of_labelled(value: Any) -> str | None:
    kinds: dict[type, str] = {int: "<share>", float: "<share>", str: "<share>", dict: "<tasks>"}
    return kinds.get(type(value))


Labelled: TypeAlias = Annotated[
    Annotated[Fraction, Tag("<share>")] | Annotated[dict[str, Fraction], Tag("<tasks>")],
    Discriminator(
        _form_of_labelled,
        custom_error_type="labelled",
        custom_error_message="expected a share, as 10%, or shares by task, as in {depth: 10%}",
    ),
]


class LabelsOfSource(Strict):
    """How one source stores the labels of a task, where that is not what the task itself says."""

    target: str | None = None
    """Template of the label files, or what else `target` means in this source."""
    ignore_index: int | None = None
    """Segmentation: pixels with this value are neither trained on nor counted."""
    scale: PositiveFloat | None = None
    """Depth: stored value that means one unit."""
    frame: Literal["opengl", "camera"] | None = None
    """Normals: the axes of the stored vectors."""


def _form_of_tasks(value: Any) -> str | None:
    kinds: dict[type, str] = {list: "<names>", dict: "<keys>"}
    return kinds.get(type(value))


class OneOfSeveral(Strict):
    """What a data source has besides its own keys, where it is one of `sources`."""

    weight: PositiveFloat | None = None
    """How often its pictures come: an epoch has as many pictures as all sources have, and this source gives
    weight / (sum of weights) of them and of every batch, up to rounding; a source gives all its pictures once before
    any again. All sources have a weight or none; without, it is the number of pictures, so that each comes once."""
    tasks: (
        Annotated[
            Annotated[list[str], Field(min_length=1), Tag("<names>")]
            | Annotated[dict[str, LabelsOfSource], Field(min_length=1), Tag("<keys>")],
            Discriminator(
                _form_of_tasks,
                custom_error_type="tasks",
                custom_error_message="expected names, as [seg], or names with keys, as in {depth: {scale: 1000}}",
            ),
        ]
        | None
    ) = None
    """The tasks that have labels here, as names or with keys that differ here: {seg: {target: masks/{id}.png}}. Its
    pictures count as unlabelled for all others. By default all tasks."""
    labelled: Labelled | None = None
    """As `labelled` of the whole file, in its place for this source."""


class _NoSource(Strict):
    """Last base of a model made by a function: there is no class statement that docstrings could be read from, and
    pydantic's search for one goes through all callers, which took seconds under pytest."""

    model_config = ConfigDict(use_attribute_docstrings=False)


SEVERAL_SOURCES: dict[str, type[DataBase]] = {
    name: create_model(
        f"{data.__name__}OfSeveral", __base__=cast(Any, (OneOfSeveral, data, _NoSource)), __doc__=data.__doc__
    )
    for name, data in DATA_SOURCES.items()
}
"""The model of each data source in `sources`."""
if TYPE_CHECKING:
    SeveralData: TypeAlias = Data
else:
    SeveralData = Annotated[Union[tuple(SEVERAL_SOURCES.values())], Field(discriminator="source")]  # noqa: UP007


class TasksFile(Strict):
    """A whole tasks file."""

    version: Literal[1] = 1
    """Of the format of this file."""
    name: str
    """A short name; the run folder gets it."""
    data: Data | None = None
    """Where the pictures come from: its `source`, for example `folder`, `imagefolder` or `scenes`, and its keys."""
    sources: Annotated[dict[str, SeveralData], Field(min_length=1)] | None = None
    """Instead of `data`, several places: a name of your own for each, its `source` and keys, and which `tasks` have
    labels there. Batches mix them."""
    labelled: Labelled | None = None
    """The share of the pictures to train on whose labels are used; the others are trained on as unlabelled. As 10%: of
    all tasks, the same pictures. As {depth: 10%}: of these tasks, each by a draw of its own. Val and test keep all."""
    labelled_seed: Seed = 0
    """Which pictures `labelled` takes. Of one seed, a smaller share is a part of a larger one."""
    tasks: Annotated[dict[str, TaskSpec], Field(min_length=1)]
    """A name of your own for each task, then its `type` and keys; metrics and outputs get these names."""

    @model_validator(mode="after")
    def _has_data(self) -> "TasksFile":
        if found := data_fault(self.data is not None, self.sources is not None):
            raise fault(*found)
        return self

    @property
    def first(self) -> Data:
        """`data`, or the first of `sources`; `size`, `mean` and `std` are the same in all of them."""
        if self.data is not None:
            return self.data
        assert self.sources is not None
        return next(iter(self.sources.values()))


def data_fault(has_data: bool, has_sources: bool) -> tuple[str, str] | None:
    """What is wrong with where the pictures come from, as (key, message); None where nothing is."""
    if has_data and has_sources:
        return "sources", "give either 'data' or 'sources', not both"
    if not has_data and not has_sources:
        meaning = "its 'source', for example 'folder', 'imagefolder' or 'scenes', and its keys"
        return (
            "data",
            f"missing key: where the pictures come from: {meaning}; or 'sources' for several such places",
        )
    return None


def class_task(spec: TasksFile) -> str | None:
    """The task whose classes or ids `loader.m_per_class` and `loader.sampler` mean: the first embedding, or else the
    first classification with one class per picture; None where there is neither."""
    for kinds in (EmbeddingSpec, ClassificationSpec):
        for name, task in spec.tasks.items():
            if isinstance(task, kinds) and not getattr(task, "multi_label", False):
                return name
    return None
