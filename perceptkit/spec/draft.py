"""A tasks file or recipe on its way to a spec: the parts that are valid by themselves, and absolute paths.

Problems between keys (a flip pair that is not a name) must be found in the same pass as problems of single
keys, so the checks read a draft, in which invalid values are None, instead of the finished model.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from pydantic import ValidationError

from perceptkit.errors import SpecError
from perceptkit.spec.coco import with_points
from perceptkit.spec.decathlon import SIZES, mean_std
from perceptkit.spec.excluded import of_source, read_excluded
from perceptkit.spec.layout_table import depth_kind
from perceptkit.spec.messages import Model, validate
from perceptkit.spec.recipe import Recipe
from perceptkit.spec.several import ALONE, SEPARATOR, parts, with_data
from perceptkit.spec.tasks_file import (
    DATA_SOURCES,
    TASK_SPECS,
    CocoData,
    Data,
    DataBase,
    DecathlonData,
    DepthSpec,
    KeypointsSpec,
    SegmentationSpec,
    TaskBase,
    TasksFile,
)
from perceptkit.spec.yaml_source import KeyPath, Source


@dataclass(frozen=True)
class Draft:
    """What can be read of a tasks file; invalid values are None in `data` and in the `tasks`."""

    source: Source
    folder: Path
    """Where the tasks file lies; its relative paths start here."""
    data: DataBase | None
    tasks: dict[str, TaskBase]
    """Those whose type is known."""

    @classmethod
    def of(cls, source: Source, folder: Path) -> "Draft":
        """Salvages what is valid of `source.data`."""
        data = _mapping(_mapping(source.data).get("data"))
        data_model = DATA_SOURCES.get(str(data.get("source")))
        tasks: dict[str, TaskBase] = {}
        for name, written in _mapping(_mapping(source.data).get("tasks")).items():
            model = TASK_SPECS.get(str(_mapping(written).get("type")))
            if model:
                tasks[name] = _salvage(model, written)
        return cls(source, folder, _salvage(data_model, data) if data_model else None, tasks)

    def written(self, path: KeyPath) -> Any:
        """What the file says at `path`; None where it says nothing."""
        here = self.source.data
        for part in path:
            here = _mapping(here).get(part)
        return here

    def root(self) -> Path | None:
        """The data root, absolute; None for scenes and where it is not a path."""
        root = getattr(self.data, "root", None)
        return None if root is None else absolute(self.source, ("data", "root"), str(root), self.folder)

    def class_file(self, name: str, classes: str) -> Path:
        """The file of class names: below the data root, or else beside the tasks file."""
        return class_file(self.source, ("tasks", name, "classes"), classes, self.folder, self.root())


def resolve_tasks(spec: TasksFile, source: Source, folder: Path) -> TasksFile:
    """The same tasks file with absolute paths, the ids that `exclude` lists, and the mean, std and keypoints that its
    data source knows."""
    place: dict[str, KeyPath] = {name: ("sources", name) for name in spec.sources or ()} or {ALONE: ("data",)}

    def known(name: str, data: Data) -> dict[str, Any]:
        written = getattr(data, "root", None)
        if written is None:
            return {}
        changed: dict[str, Any] = {"root": absolute(source, (*place[name], "root"), str(written), folder)}
        if (listed := getattr(data, "exclude", None)) is not None:
            if isinstance(listed, str):
                listed = read_excluded(absolute(source, (*place[name], "exclude"), listed, folder))
            several = list(spec.sources or ())
            changed["exclude"] = of_source(listed, name, several, SEPARATOR) if several else listed
        if name == ALONE and isinstance(data, DecathlonData):
            if "size" not in data.model_fields_set:
                changed["size"] = SIZES.get(data.domain, data.size)
            if data.mean is None and (found := mean_std(changed["root"], data.domain)) is not None:
                changed["mean"], changed["std"] = found
        return changed

    spec = with_data(spec, known)
    tasks = dict(spec.tasks)
    for name, task in spec.tasks.items():
        of_parts = [part.data for part in parts(spec).values() if name in part.tasks]
        classes = getattr(task, "classes", None)
        if isinstance(classes, str):
            roots = [getattr(data, "root", None) for data in of_parts]
            key = ("tasks", name, "classes")
            files = [class_file(source, key, classes, folder, root) for root in roots or [None]]
            chosen = next((file for file in files if file.is_file()), files[0])
            tasks[name] = task.model_copy(update={"classes": str(chosen)})
        if isinstance(task, SegmentationSpec) and isinstance(task.class_weights, str):
            roots = [getattr(data, "root", None) for data in of_parts]
            factors = _factors(cast(SegmentationSpec, tasks[name]), name, source, folder, roots)
            tasks[name] = tasks[name].model_copy(update={"class_weights": factors})
        for data in of_parts:
            if isinstance(data, CocoData) and isinstance(task, KeypointsSpec):
                tasks[name] = with_points(task, data)
            kind = depth_kind(data)
            if isinstance(task, DepthSpec) and kind not in (None, task.kind):
                tasks[name] = task.model_copy(update={"kind": kind})
    return spec.model_copy(update={"tasks": tasks})


def resolve_recipe(spec: Recipe, source: Source, folder: Path) -> Recipe:
    """The same recipe with absolute paths of weights, of the runs it names and of reference pictures."""
    changed: dict[str, Any] = {}
    if (weights := weights_file(spec.backbone.weights, source, folder)) is not None:
        changed["backbone"] = spec.backbone.model_copy(update={"weights": str(weights)})
    if spec.start_from is not None:
        changed["start_from"] = str(absolute(source, ("start_from",), spec.start_from, folder))
    if (counted := spec.sharing.skips_of) is not None:
        run = str(absolute(source, ("sharing", "skips_of"), counted, folder))
        changed["sharing"] = spec.sharing.model_copy(update={"skips_of": run})
    if any(transform.references for transform in spec.augment.photometric):
        key = ("augment", "photometric")
        resolved = [
            one.model_copy(
                update={"references": [str(absolute(source, key, path, folder)) for path in one.references]}
            )
            for one in spec.augment.photometric
        ]
        changed["augment"] = spec.augment.model_copy(update={"photometric": resolved})
    return spec.model_copy(update=changed)


def weights_file(weights: str, source: Source, folder: Path) -> Path | None:
    """The path that `backbone.weights` means; None for the words `pretrained` and `none`."""
    if weights in ("pretrained", "none"):
        return None
    return absolute(source, ("backbone", "weights"), weights, folder)


def _factors(
    spec: SegmentationSpec, task: str, source: Source, folder: Path, roots: Sequence[Path | None]
) -> dict[str, float]:
    """`class_weights` that a file holds, by name of their class."""
    from perceptkit.spec.class_factors import read_factors  # numpy: for those who have such a file
    from perceptkit.spec.classes import class_names

    key: KeyPath = ("tasks", task, "class_weights")
    files = [class_file(source, key, str(spec.class_weights), folder, root) for root in roots]
    try:
        return read_factors(next((f for f in files if f.is_file()), files[0]), class_names(spec, roots[0]))
    except SpecError as error:
        raise SpecError(f"tasks.{task}.class_weights: {error}") from error


def class_file(source: Source, key: KeyPath, classes: str, folder: Path, root: Path | None) -> Path:
    """The file of class names: below the data root, or else beside the tasks file."""
    beside = absolute(source, key, classes, folder)
    below = root / classes if root else beside
    return beside if beside.is_file() and not below.is_file() else below


def absolute(source: Source, key: KeyPath, path: str, folder: Path) -> Path:
    """A path written in a file starts from its folder, one typed as `--set` from the working folder."""
    start = Path.cwd() if source.override_of(key) else folder
    return Path(os.path.abspath(start / Path(path).expanduser()))


def _mapping(value: Any) -> dict[Any, Any]:
    return value if isinstance(value, dict) else {}


def _salvage(model: type[Model], written: dict[str, Any]) -> Model:
    """The model with None for whatever is invalid or missing."""
    try:
        return validate(model, written)
    except ValidationError as error:
        invalid = {details["loc"][0] for details in error.errors() if details["loc"]}
        valid = {key: written[key] for key in model.model_fields if key in written and key not in invalid}
        nothing = {k: None for k, info in model.model_fields.items() if k in invalid or info.is_required()}
        return model.model_construct(**{**nothing, **valid})
