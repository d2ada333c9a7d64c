"""The artifact: a folder that holds a compact model and all that an application needs to run it.

    manifest.json        format version, backbone, heads, tasks with label names and units, plan, input, cost
    model.safetensors    the compact weights
    policy.json          the plan
    labels.json          names of every task's output channels
    README.md            the model card

Whatever runs it reads the first two: JSON and tensors, nothing that could execute code.
"""

import hashlib
import json
import math
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, get_args

from pydantic import TypeAdapter
from safetensors.torch import load_file, save_file
from torch import nn

from perceptkit.compact.optimize import DEFAULT, Optimize, check_optimize
from perceptkit.errors import ExportError, PlanError, SpecError
from perceptkit.model.plan import Plan
from perceptkit.model.task_tree import TaskTree
from perceptkit.pixels import Fit
from perceptkit.spec.recipe import BackboneSpec, HeadsSpec, SharingSpec
from perceptkit.spec.router import RouterSpec
from perceptkit.spec.sharing_options import WITHOUT_PLAN
from perceptkit.spec.tasks_file import TaskSpec
from perceptkit.tasks.base import Task
from perceptkit.tasks.table import TASKS
from perceptkit.versions import installed

FORMAT = 1
SIGNS = {"keep": "#", "skip": ".", "route": "?"}
MANIFEST, WEIGHTS = "manifest.json", "model.safetensors"


@dataclass(frozen=True)
class Manifest:
    """What is needed, besides the weights, to rebuild and to run a compact model."""

    name: str
    backbone: BackboneSpec
    heads: HeadsSpec
    tasks: Mapping[str, Task]
    plan: Plan
    method: str
    size_HW: tuple[int, int]
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    cost: Mapping[str, Any]
    """By formula, of the plan and of what it is compared with (model/cost.py); what is in the file is `written`."""
    metrics: Mapping[str, Any]
    fit: Fit = "stretch"
    """How a picture comes to `size_HW`, as in training."""
    optimize: Optimize = DEFAULT
    """How the network is arranged (compact/optimize.py); artifacts that do not say so are of `none`."""
    router: RouterSpec | None = None
    """Of a plan with routed blocks: the net that decides on them."""
    policies: tuple[tuple[bool, ...], ...] = ()
    """With a router: keep by routed block, as most pictures had it while it was learned, most frequent first."""
    host: Plan | None = None
    """Where a router was learned: what the tasks kept before it. What it decided alike for all pictures is no longer
    routed in `plan`, nor, if skipped, in the weights. Older artifacts do not say."""
    batchnorm: str = "shared"
    """`per_task`: each task has norms, and so, folded, a network of its own. Older artifacts are `shared`."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """Keys of the sharing method that the network's structure follows from: `share_first`, `tree`."""
    written: Mapping[str, int] | None = None
    """`params` and `macs` of the network as it is in the file, counted: norms are folded there, projections merged.
    With a router they are those of the whole, of a picture that keeps all blocks. Older artifacts do not say."""

    @property
    def sharing(self) -> SharingSpec:
        """How the network is made. What has one trunk and a plan is made alike, however the plan was found; tasks with
        norms of their own have, folded, a network each."""
        if self.batchnorm == "per_task":
            return SharingSpec(method="single")
        has_plan = self.method != "single" and self.method not in WITHOUT_PLAN
        return SharingSpec.model_validate({"method": "hard" if has_plan else self.method, **self.options})

    @property
    def size(self) -> Mapping[str, int]:
        """`params` and `macs` of the model: as written, or else by formula."""
        size: Mapping[str, int] = self.written or self.cost["rows"]["compact"]
        return size

    def only(self, tasks: Sequence[str]) -> "Manifest":
        """Of the model of some of the tasks. `cost` stays that of the whole; nothing is said of what is written."""
        chosen = [name for name in self.tasks if name in tasks]
        return replace(
            self,
            tasks={name: self.tasks[name] for name in chosen},
            plan=self.plan.only(chosen),
            host=self.host.only(chosen) if self.host is not None else None,
            metrics={name: values for name, values in self.metrics.items() if name in chosen},
            written=None,
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return {
            "format": FORMAT,
            "perceptkit": installed("perceptkit"),
            "name": self.name,
            "backbone": self.backbone.model_dump(mode="json"),
            "heads": self.heads.model_dump(mode="json"),
            "tasks": {
                name: {"spec": task.spec.model_dump(mode="json"), "labels": task.labels, "unit": task.unit}
                for name, task in self.tasks.items()
            },
            "plan": json.loads(self.plan.to_json()),
            "method": self.method,
            "batchnorm": self.batchnorm,
            "options": dict(self.options),
            "optimize": self.optimize,
            "router": self.router.model_dump(mode="json") if self.router is not None else None,
            "policies": [list(map(int, policy)) for policy in self.policies],
            "host": json.loads(self.host.to_json()) if self.host is not None else None,
            "input": {
                "size": list(self.size_HW),
                "mean": list(self.mean),
                "std": list(self.std),
                "fit": self.fit,
            },
            "cost": dict(self.cost),
            "written": dict(self.written) if self.written is not None else None,
            "metrics": dict(self.metrics),
        }

    @classmethod
    def from_dict(cls, loaded: Mapping[str, Any]) -> "Manifest":
        """Reads what `to_dict` gave. Raises ExportError for another format."""
        if loaded.get("format") != FORMAT:
            raise ExportError(f"artifact format {loaded.get('format')!r}; this version reads {FORMAT}")
        tasks, plan = tasks_from(loaded["tasks"]), Plan.from_json(json.dumps(loaded["plan"]))
        if set(plan.tasks) != set(tasks):
            raise ValueError(f"its plan is for {', '.join(plan.tasks)}; its tasks are {', '.join(tasks)}")
        told = loaded.get("router")
        router = RouterSpec.model_validate(told) if told is not None else None
        if (router is not None) != bool(plan.routed()):
            raise ValueError("it has routed blocks without a router, or a router without routed blocks")
        policies = tuple(tuple(map(bool, policy)) for policy in loaded.get("policies", ()))
        if any(len(policy) != len(plan.routed()) for policy in policies):
            raise ValueError(f"its policies are not of {len(plan.routed())} routed blocks")
        before = loaded.get("host")
        host = Plan.from_json(json.dumps(before)) if before is not None else None
        if host is not None and (host.blocks, set(host.tasks)) != (plan.blocks, set(plan.tasks)):
            raise ValueError("its host's plan is of other blocks or tasks than its plan")
        written = loaded.get("written")
        size, mean, std = (loaded["input"][key] for key in ("size", "mean", "std"))
        if not (len(size) == 2 and all(isinstance(pixels, int) and pixels > 0 for pixels in size)):
            raise ValueError(f"its input.size is {size}; expected [height, width]")
        for key, values in (("mean", mean), ("std", std)):
            if not (len(values) == 3 and all(math.isfinite(value) for value in values)):
                raise ValueError(f"its input.{key} is {values}; expected three numbers")
        if min(std) <= 0:
            raise ValueError(f"its input.std is {std}; expected numbers above 0")
        fit = loaded["input"].get("fit", "stretch")
        if fit not in get_args(Fit):
            raise ValueError(f"its input.fit is {fit!r}; expected one of {', '.join(get_args(Fit))}")
        made = cls(
            fit=fit,
            name=loaded["name"],
            backbone=BackboneSpec.model_validate(loaded["backbone"]),
            heads=HeadsSpec.model_validate(loaded["heads"]),
            tasks=tasks,
            plan=plan,
            method=loaded["method"],
            batchnorm=str(loaded.get("batchnorm", "shared")),
            size_HW=(size[0], size[1]),
            mean=(mean[0], mean[1], mean[2]),
            std=(std[0], std[1], std[2]),
            cost=loaded["cost"],
            metrics=loaded["metrics"],
            optimize=check_optimize(loaded.get("optimize", "none")),
            router=router,
            policies=policies,
            host=host,
            options=loaded.get("options", {}),
            written={key: int(written[key]) for key in ("params", "macs")} if written is not None else None,
        )
        if made.sharing.method in WITHOUT_PLAN and (plan.kept_fraction() < 1 or plan.routed()):
            raise ValueError(f"its plan skips blocks, which {made.method} cannot")
        return made


def tasks_from(declared: Mapping[str, Mapping[str, Any]]) -> dict[str, Task]:
    """Tasks from a manifest: their label names travel with them, so no file of the data is needed."""
    adapter: TypeAdapter = TypeAdapter(TaskSpec)
    tasks: dict[str, Task] = {}
    for name, entry in declared.items():
        spec = adapter.validate_python(entry["spec"])
        tasks[name] = TASKS[spec.type](name, spec, entry["labels"])
    return tasks


@contextmanager
def staged(folder: Path) -> Iterator[Path]:
    """A temporary folder whose files take their places in `folder` at the end, `manifest.json` last.

    After an error `folder` is as it was; a folder that has a manifest is whole at any time.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix=f".{folder.name}.", dir=folder.parent) as name:
        temporary = Path(name)
        yield temporary
        folder.mkdir(exist_ok=True)
        (folder / MANIFEST).unlink(missing_ok=True)
        for path in sorted(temporary.iterdir(), key=lambda path: path.name == MANIFEST):
            os.replace(path, folder / path.name)


def write(folder: Path, network: nn.Module, manifest: Manifest) -> None:
    """Writes all files; see `staged` for where."""
    save_file({k: v.contiguous() for k, v in network.state_dict().items()}, folder / WEIGHTS)
    _write_text(folder / "policy.json", manifest.plan.to_json())
    shutil.copymode(folder / "policy.json", folder / WEIGHTS)  # safetensors lets only the owner read
    labels = {name: task.labels for name, task in manifest.tasks.items()}
    _write_text(folder / "labels.json", json.dumps(labels, indent=1))
    _write_text(folder / "README.md", model_card(manifest))
    told = manifest.to_dict()
    told["sha256"] = {WEIGHTS: _digest(folder / WEIGHTS), MANIFEST: _digest_of_body(told)}
    _write_text(folder / MANIFEST, json.dumps(told, indent=1))


def read_manifest(folder: Path) -> Manifest:
    """Raises ExportError where `folder` is no artifact, or its manifest is damaged or was changed."""
    text = _manifest_of(folder)
    manifest = parse_manifest(text, str(folder / MANIFEST))
    loaded = json.loads(text)
    if _noted_digest(loaded, MANIFEST) != _digest_of_body(loaded):
        raise ExportError(f"{folder / MANIFEST} was changed after it was written: its SHA-256 differs")
    return manifest


def parse_manifest(text: str | bytes, where: str) -> Manifest:
    """A manifest from JSON. Raises ExportError that names `where` the text is from."""
    try:
        return Manifest.from_dict(json.loads(text))
    except ExportError as error:  # another format
        raise ExportError(f"{where}: {error}") from error
    except KeyError as error:
        raise ExportError(f"{where} is damaged: it has no {error}") from error
    except (ValueError, TypeError, AttributeError, IndexError, PlanError, SpecError) as error:
        raise ExportError(f"{where} is damaged: {_short(error)}") from error


def load_weights(folder: Path, network: nn.Module) -> None:
    """Fills `network`. Raises ExportError where the file is damaged or belongs to another manifest."""
    path = folder / WEIGHTS
    if not path.is_file():
        raise ExportError(f"{path} is missing")
    if _digest(path) != _noted_digest(json.loads(_manifest_of(folder)), WEIGHTS):
        raise ExportError(f"{path} is not the file that was written with {MANIFEST}: its SHA-256 differs")
    try:
        network.load_state_dict(load_file(path))
    except Exception as error:  # safetensors raises its own type, not exported
        raise ExportError(f"{path} does not fit {MANIFEST}: {_short(error)}") from error


def _manifest_of(folder: Path) -> bytes:
    path = folder / MANIFEST
    if not path.is_file():
        raise ExportError(f"{folder} is no artifact: it has no {MANIFEST}")
    return path.read_bytes()


def _write_text(path: Path, text: str) -> None:
    path.write_text(text.rstrip() + "\n", encoding="utf-8")


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _digest_of_body(told: Mapping[str, Any]) -> str:
    """Of everything in a manifest but the digests themselves, however it is laid out."""
    body = {key: value for key, value in told.items() if key != "sha256"}
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()


def _noted_digest(loaded: Mapping[str, Any], file: str) -> Any:
    noted = loaded.get("sha256")
    return noted.get(file) if isinstance(noted, dict) else None


def _short(error: Exception) -> str:
    text = " ".join(str(error).split())
    return text if len(text) <= 300 else text[:297] + "..."


def _figure(value: float | None) -> str:
    """A metric; a dash where the test split has no label."""
    return "-" if value is None or math.isnan(value) else f"{value:.4f}"


def model_card(manifest: Manifest) -> str:
    """What a stranger needs to know before using the model."""
    condition = ", where all blocks run, with the router" if manifest.router else ""
    lines = [
        f"# {manifest.name}",
        "",
        f"A compact multi-head model made by perceptkit {installed('perceptkit')}.",
        "",
        f"- backbone: `{manifest.backbone.name}`, sharing: {manifest.method}",
        f"- input: RGB, {manifest.size_HW[0]} x {manifest.size_HW[1]} (height x width), "
        f"(x / 255 - {list(manifest.mean)}) / {list(manifest.std)}",
        f"- parameters: {manifest.size['params']:,}; MACs for all tasks on one image{condition}: "
        f"{manifest.size['macs']:,}",
        "",
        "| task | type | metric | test |",
        "|---|---|---|---|",
    ]
    for task, values in manifest.metrics.items():
        lines += [f"| {task} | {values['type']} | {m} | {_figure(v)} |" for m, v in values["metrics"].items()]
    lines += [
        "",
        "`predict` gives results in the user's units. What the network and exported files put out:",
        "",
    ]
    lines += [f"- {name}: {task.output_in_words}" for name, task in manifest.tasks.items()]
    blocks = manifest.plan.blocks
    legend = "kept (#), skipped (.)" + (" and decided on by picture (?)" if manifest.router else "")
    lines += ["", f"Blocks {legend}:", "", "```"]
    for task in manifest.plan.tasks:
        choices = manifest.plan.table[manifest.plan.tasks.index(task)]
        lines.append(f"{task:>12} " + "".join(SIGNS[choice] for choice in choices))
    if tree := manifest.options.get("tree"):
        words = TaskTree.of(tree, manifest.plan.tasks, len(blocks)).words(blocks)
        lines += ["```", "", "Tasks part; each group has a copy of its own:", "", "```", *words]
    lines += ["```", "", f"Blocks, next to the image first: {', '.join(blocks)}.", ""]
    lines += ["```python", "import perceptkit as pk", 'model = pk.load("path/to/this/folder")']
    lines += ['result = model.predict("picture.jpg")', "```", ""]
    return "\n".join(lines)
