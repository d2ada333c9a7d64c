"""stages.json: what every stage of a chain made of the network, from the base to the model that is emitted.

    rows    [{"stage", "val", "test", "macs", "bits"}]      in the order in which they were made
    tasks   {task: {"primary", "info"}}                     how to read the metrics

    stage   base, then the names of the recipe's stages, `fold` after `adapt`, and in the end `emitted`
    val     metrics by task, on the run's own data; of the base only tasks whose heads it brings
    test    the same, of the base and of what is emitted: neither chooses anything; {} for all others
    macs    of one picture with all tasks; where a router skips, the mean over val, its own included
    bits    of all tensors that the plan's network reads, a router's included; of what is emitted, of the file

Written by runs that adapt or route. A stage that is followed by another is judged as it stands when that one begins;
the last one by the weights that are best on val.
"""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from perceptkit.data.sources import Source
from perceptkit.model import cost
from perceptkit.model.supernet import Supernet
from perceptkit.spec.recipe import AdaptStage, FinetuneStage, Recipe, RouteStage
from perceptkit.train.domain_file import bits_of, needed
from perceptkit.train.evaluate import Evaluation, evaluate
from perceptkit.train.routing_check import decisions, on_val
from perceptkit.train.run_folder import write_json
from perceptkit.train.training import Training

FILE = "stages.json"
BASE, FOLD, EMITTED = "base", "fold", "emitted"
Row = Mapping[str, Any]


def is_chain(recipe: Recipe) -> bool:
    """Whether a run writes the file."""
    return any(isinstance(stage, AdaptStage | RouteStage | FinetuneStage) for stage in recipe.stages)


def rows_of(run: Path) -> list[dict[str, Any]]:
    """What is there so far."""
    path = run / FILE
    rows: list[dict[str, Any]] = (
        json.loads(path.read_text(encoding="utf-8"))["rows"] if path.is_file() else []
    )
    return rows


def base_row(run: Path) -> dict[str, Any] | None:
    """The base on the run's own data; None where there is none."""
    return next((row for row in rows_of(run) if row["stage"] == BASE), None)


def record_base(training: Training, test: Source) -> None:
    """The network that the run starts from, before its first step. Every rank must call it."""
    names = training.transferred
    val, tested = (
        {task: metrics for task, metrics in _metrics(training, source).items() if task in names}
        if names
        else {}
        for source in (training.val, test)
    )
    plain, plan = training.make_supernet(), replace(training.plan, dual=())
    assert isinstance(plain, Supernet)  # without what a strategy has added
    steps = cost.measure(plain, plain.size_HW)
    bits = bits_of(needed(plain, plan, plain.state_dict()))
    _write(training, BASE, val, tested, cost.macs(plain, plan, steps)[0], bits)


def record_stage(training: Training, stage: str) -> None:
    """The network as it is now, on val. Every rank must call it."""
    if is_chain(training.recipe) and isinstance(training.supernet, Supernet):
        _write(training, stage, on_val(training).metrics, {}, mean_macs(training), stored_bits(training))


def record_final(training: Training, val: Evaluation, test: Evaluation) -> None:
    """The network that the model is made of. Every rank must call it."""
    if is_chain(training.recipe) and isinstance(training.supernet, Supernet):
        _write(training, EMITTED, val.metrics, test.metrics, mean_macs(training), stored_bits(training))


def record_file(run: Path, model: Path, macs: int | None) -> None:
    """Corrects the last row by the model's file, whose norms are folded.

    Args:
        run: its folder.
        model: the file with its tensors.
        macs: as counted from the model; None where they differ by picture.
    """
    if not (run / FILE).is_file():
        return
    found = json.loads((run / FILE).read_text(encoding="utf-8"))
    for row in found["rows"]:
        if row["stage"] == EMITTED:
            row["bits"] = 8 * model.stat().st_size
            row["macs"] = row["macs"] if macs is None else macs
    write_json(run / FILE, found)


def stored_bits(training: Training) -> int:
    """Of the network's tensors that its plan reads, and of the router's."""
    assert isinstance(training.supernet, Supernet)
    tensors = needed(training.supernet, training.plan, training.supernet.state_dict())
    router = training.routing.router.state_dict() if training.routing is not None else {}
    return bits_of(tensors) + bits_of(router)


@torch.no_grad()
def mean_macs(training: Training) -> float:
    """Of one picture; where a router skips, the mean over val, with the router's own."""
    supernet, routing = training.supernet, training.routing
    assert isinstance(supernet, Supernet)
    steps = cost.measure(supernet, supernet.size_HW)
    if routing is None:
        return float(cost.macs(supernet, training.plan, steps)[0])
    base, added_R = cost.routed_macs(supernet, training.plan, steps)
    picture = torch.zeros(1, 3, *supernet.size_HW, device=training.fabric.device)
    own = cost.measured_macs(lambda: routing.router.eval()(picture))
    keep_NR, _ = decisions(training, training.val)
    rate_R = keep_NR.double().mean(0).tolist()
    return base + own + sum(rate * added for rate, added in zip(rate_R, added_R, strict=True))


def _metrics(training: Training, source: Source) -> dict[str, dict[str, float]]:
    training.supernet.eval()
    if training.routing is not None:
        training.routing.router.eval()
    batches = training.loader(source, range(len(source)), train=False)
    return evaluate(training.forward, batches, training.tasks, training.fabric.device).metrics


def _write(
    training: Training, stage: str, val: Mapping[str, Any], test: Mapping[str, Any], macs: float, bits: int
) -> None:
    """Adds a row, or writes it anew: a run that was killed at the end of a stage ends it again."""
    if training.fabric.global_rank != 0:
        return
    row = {"stage": stage, "val": val, "test": test, "macs": macs, "bits": bits}
    rows = rows_of(training.run)
    names = [other["stage"] for other in rows]
    if stage in names:
        rows[names.index(stage)] = row
    else:
        rows.append(row)
    tasks = {
        name: {
            "primary": task.primary,
            "info": {
                key: {"higher_is_better": info.higher_is_better, "unit": info.unit}
                for key, info in task.metric_info.items()
            },
        }
        for name, task in training.tasks.items()
    }
    write_json(training.run / FILE, {"rows": rows, "tasks": tasks})
