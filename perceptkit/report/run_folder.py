"""A run folder as the report sees it, finished or not.

What is not there yet is None and listed in `Run.missing`; what is there but unreadable is listed as well.
"""

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import yaml

from perceptkit.errors import PlanError, SpecError
from perceptkit.model.plan import Plan
from perceptkit.model.task_tree import TaskTree
from perceptkit.report.adaptation_file import AdaptationFile, read_adaptation
from perceptkit.report.analysis_file import Affinity, Lesions, read_affinity, read_lesions
from perceptkit.report.budget_file import BudgetFile, read_budget
from perceptkit.report.chain_file import Chain, read_chain
from perceptkit.report.routing_file import Latency, RoutingFile, read_latency, read_routing
from perceptkit.report.samples_table import SampledPlans, read_samples
from perceptkit.train.run_log import read_rows

T = TypeVar("T")
Row = Mapping[str, Any]

MARKERS = ("resolved.yaml", "metrics.jsonl", "results.json")
"""A folder with none of these is not a run."""


@dataclass(frozen=True)
class MetricInfo:
    """How to read one metric."""

    higher_is_better: bool
    unit: str


@dataclass(frozen=True)
class TaskResult:
    """What the test said about one task."""

    type: str
    primary: str
    metrics: Mapping[str, float]
    info: Mapping[str, MetricInfo]

    @property
    def higher_is_better(self) -> dict[str, bool]:
        """By metric."""
        return {name: info.higher_is_better for name, info in self.info.items()}


@dataclass(frozen=True)
class Results:
    """results.json."""

    split: str
    method: str
    backbone: str
    seed: int
    tasks: Mapping[str, TaskResult]
    constant: Mapping[str, Mapping[str, float]]
    """The best constant predictor's metrics by task."""
    train_seconds: float
    stage_seconds: Mapping[str, float]
    samples: SampledPlans | None = None
    """Where the plan was decided by sampling."""

    @property
    def metrics(self) -> dict[str, Mapping[str, float]]:
        """By task and metric."""
        return {name: task.metrics for name, task in self.tasks.items()}


@dataclass(frozen=True)
class Price:
    """Parameters, and multiply-accumulates for one image."""

    params: int
    macs: int
    backbone_macs: int


@dataclass(frozen=True)
class Cost:
    """cost.json."""

    input_CHW: tuple[int, int, int]
    rows: Mapping[str, Price]
    """`compact` is what the run made; beside it `hard_shared` and `single_task_nets`, where they exist."""
    per_task_macs: Mapping[str, int]
    """Of the compact model when it is asked for one task only."""


@dataclass(frozen=True)
class Drawn:
    """One task's pictures of one image."""

    label: Path | None
    prediction: Path


@dataclass(frozen=True)
class Example:
    """One image with its labels and predictions."""

    id: str
    image: Path
    tasks: Mapping[str, Drawn]


@dataclass(frozen=True)
class Run:
    """Everything the report reads of a run."""

    path: Path
    rows: tuple[Row, ...]
    results: Results | None
    cost: Cost | None
    plan: Plan | None
    examples: tuple[Example, ...]
    specs: Mapping[str, Any]
    """resolved.yaml."""
    environment: Mapping[str, Any]
    routing: RoutingFile | None
    """Of runs with a stage `route`."""
    adaptation: AdaptationFile | None
    """Of runs with a stage `adapt`."""
    budget: BudgetFile | None
    """Of runs with a budget, from the end of the search on."""
    chain: Chain | None
    """What every stage did, of runs that adapt or route."""
    affinity: Affinity | None
    """How tasks relate; runs from before it was written down have none."""
    tree: tuple[str, ...] | None
    """How tasks part, in words, where they do so in a tree."""
    lesions: Lesions | None
    """Of a lesion study, where one was asked for."""
    latency: Latency
    """Of a routed model, where it was measured."""
    missing: tuple[str, ...]
    """What is not there or not readable, in words."""

    @property
    def name(self) -> str:
        """The folder's name."""
        return self.path.resolve().name

    @property
    def finished(self) -> bool:
        """Whether training got to its end; its results may be unreadable all the same."""
        return (self.path / "results.json").is_file()

    @property
    def tasks(self) -> list[str]:
        """The user's task names, in the order of the tasks file where that is known."""
        if self.results:
            return list(self.results.tasks)
        declared = list((self.specs.get("tasks_file") or {}).get("tasks") or {})
        return declared or (list(self.plan.tasks) if self.plan else [])

    @property
    def method(self) -> str:
        """`adashare`, `hard`, `single`; empty where nothing says."""
        return self.results.method if self.results else str(self._recipe("sharing", "method") or "")

    @property
    def has_own_norms(self) -> bool:
        """Whether every task has norms of its own: tasks with the same plan then compute nothing together."""
        return self._recipe("sharing", "batchnorm") == "per_task"

    @property
    def backbone(self) -> str:
        """The trunk's timm name; empty where nothing says."""
        return self.results.backbone if self.results else str(self._recipe("backbone", "name") or "")

    @property
    def stages(self) -> dict[str, int]:
        """Epochs by stage, as the recipe says."""
        return {stage["name"]: stage["epochs"] for stage in self._recipe("stages") or []}

    @property
    def adapts(self) -> bool:
        """Whether it is the adaptation of a base."""
        return self.adaptation is not None or "adapt" in self.stages

    def of_kind(self, kind: str) -> list[Row]:
        """The rows of the log of one kind: train, val, policy, routing."""
        return [row for row in self.rows if row.get("kind") == kind]

    def _recipe(self, *keys: str) -> Any:
        value: Any = self.specs.get("recipe") or {}
        for key in keys:
            value = value.get(key) if isinstance(value, dict) else None
        return value


def read_run(path: Path) -> Run:
    """Reads a run folder. Raises SpecError where `path` is none."""
    if not path.is_dir():
        raise SpecError(f"no such run folder: {path}")
    if not any((path / name).is_file() for name in MARKERS):
        raise SpecError(f"{path} is not a run folder: it holds none of {', '.join(MARKERS)}")
    missing: list[str] = []

    def read(name: str, parse: Callable[[Path], T], without: str) -> T | None:
        file = path / name
        if not file.is_file():
            missing.append(f"{name} is not there yet: {without}")
            return None
        try:
            return parse(file)
        except (
            OSError,
            ValueError,
            KeyError,
            TypeError,
            AttributeError,
            PlanError,
            SpecError,
            yaml.YAMLError,
        ) as error:
            missing.append(f"{name} cannot be read ({type(error).__name__}: {error}): {without}")
            return None

    def read_if_there(name: str, parse: Callable[[Path], T], without: str) -> T | None:
        return read(name, parse, without) if (path / name).is_file() else None

    specs = read("resolved.yaml", _specs, "the settings are unknown") or {}
    stages = [stage["name"] for stage in specs["recipe"]["stages"]] if specs else []
    is_routed = "route" in stages or (path / "routing.json").is_file()
    adapts = "adapt" in stages or (path / "adaptation.json").is_file()
    return Run(
        path,
        rows=read("metrics.jsonl", _rows, "no curves") or (),
        results=read("results.json", _results, "no test results"),
        cost=read("cost.json", _cost, "no parameters and MACs"),
        plan=read("policy.json", _plan, "no keep table"),
        examples=read("predictions/index.json", _examples, "no pictures") or (),
        specs=specs,
        environment=read("env.json", _mapping, "versions and command are unknown") or {},
        routing=read("routing.json", read_routing, "nothing on what pictures skip") if is_routed else None,
        adaptation=read("adaptation.json", read_adaptation, "nothing on what was adapted")
        if adapts
        else None,
        budget=read_if_there("budget.json", read_budget, "nothing on the budget"),
        chain=read_if_there("stages.json", read_chain, "nothing on what every stage did"),
        affinity=read_if_there("affinity.json", read_affinity, "nothing on how tasks relate"),
        tree=read_if_there("tree.json", _tree, "nothing on how tasks part"),
        lesions=read_if_there("lesion.json", read_lesions, "no lesion study"),
        latency=read_latency(path),
        missing=tuple(missing),
    )


def _tree(file: Path) -> tuple[str, ...]:
    loaded = json.loads(file.read_text(encoding="utf-8"))
    blocks = list(loaded["blocks"])
    tasks = list(dict.fromkeys(task for groups in loaded["levels"] for group in groups for task in group))
    return tuple(TaskTree.of(loaded["levels"], tasks, len(blocks)).words(blocks))


def _mapping(file: Path) -> dict[str, Any]:
    return _as_mapping(json.loads(file.read_text(encoding="utf-8")))


def _as_mapping(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise TypeError("expected a mapping")
    return value


def _specs(file: Path) -> dict[str, Any]:
    specs = _as_mapping(yaml.safe_load(file.read_text(encoding="utf-8")))
    for stage in specs["recipe"]["stages"]:
        str(stage["name"]), int(stage["epochs"])
    _as_mapping(specs["tasks_file"]["tasks"])
    return specs


def _rows(file: Path) -> tuple[Row, ...]:
    """The rows that say where in training they belong."""
    place = {"kind": str, "stage": str, "epoch": int, "step": int}
    return tuple(
        row
        for row in read_rows(file)
        if isinstance(row, dict) and all(isinstance(row.get(key), kind) for key, kind in place.items())
    )


def _plan(file: Path) -> Plan:
    return Plan.from_json(file.read_text(encoding="utf-8"))


def _numbers(values: Mapping[str, Any]) -> dict[str, float]:
    return {name: math.nan if value is None else float(value) for name, value in values.items()}


def _results(file: Path) -> Results:
    loaded = _mapping(file)
    tasks = {}
    for name, task in loaded["tasks"].items():
        infos = {m: MetricInfo(bool(i["higher_is_better"]), str(i["unit"])) for m, i in task["info"].items()}
        tasks[name] = TaskResult(task["type"], task["primary"], _numbers(task["metrics"]), infos)
    return Results(
        split=loaded["split"],
        method=loaded["method"],
        backbone=loaded["backbone"],
        seed=int(loaded["seed"]),
        tasks=tasks,
        constant={task: _numbers(values) for task, values in loaded["constant"].items()},
        train_seconds=float(loaded["train_seconds"]),
        stage_seconds=_numbers(loaded["stage_seconds"]),
        samples=read_samples(loaded["samples"]) if "samples" in loaded else None,
    )


def _cost(file: Path) -> Cost:
    loaded = _mapping(file)
    keys = ("params", "macs", "backbone_macs")
    rows = {
        name: Price(*(int(loaded["rows"][name][key]) for key in keys))
        for name in ("compact", "hard_shared", "single_task_nets")
        if name == "compact" or name in loaded["rows"]
    }
    channels, height, width = loaded["input"]
    per_task = {task: int(macs) for task, macs in loaded["per_task_macs"].items()}
    return Cost((channels, height, width), rows, per_task)


def _examples(file: Path) -> tuple[Example, ...]:
    # `.name`: an index never reaches outside its own folder
    def picture(name: str) -> Path:
        return file.parent / Path(name).name

    index = json.loads(file.read_text(encoding="utf-8"))
    if not isinstance(index, list):
        raise TypeError("expected a list")
    return tuple(
        Example(
            str(row["id"]),
            picture(row["image"]),
            {
                task: Drawn(picture(drawn["label"]) if drawn["label"] else None, picture(drawn["prediction"]))
                for task, drawn in row["tasks"].items()
            },
        )
        for row in index
    )
