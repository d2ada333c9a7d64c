"""`--method auto`: the cheap methods are trained for a fifth of the epochs, and the best on val goes on.

Of methods whose scores on val lie within one percent of the best, the one that stores least is taken. It is a guess
from short runs: methods that learn slowly are judged too hard. Those of which little learns are tried with ten times
the learning rate as well, which suits them better where the head is new, and go on with the better one.
"""

import math
import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from perceptkit.errors import SpecError
from perceptkit.spec.adaptation import ADAPTATIONS, AdaptationSpec
from perceptkit.spec.recipe import Recipe, StageSpec
from perceptkit.train.domain_file import needed, trunk_bits
from perceptkit.train.loop import run_stages
from perceptkit.train.run_folder import refuse_used, write_json
from perceptkit.train.session import Specs, prepare

CANDIDATES = ("feature_extractor", "bn", "parallel_adapter", "last_k", "taps", "finetune")
LIGHT = ("feature_extractor", "bn", "parallel_adapter")
"""Of these little but the head learns."""
FASTER = 10
"""What their learning rate is multiplied by in a second trial."""
SHARE = 5
"""Part of the epochs that each of them gets: one of this many."""
CLOSE = 0.01
"""Scores that differ by less, of the best, are taken as equal."""


def candidates(keys: Mapping[str, Any], own: AdaptationSpec | None = None) -> dict[str, AdaptationSpec]:
    """The section `adaptation` of every method that is tried.

    Args:
        keys: given by `--set adaptation.KEY=VALUE`; each goes to the methods that read it.
        own: what the recipe says by itself; of one of these methods its keys stay.

    Raises SpecError for a key that none of them reads, and a value that is not for it.
    """
    adapter: TypeAdapter = TypeAdapter(AdaptationSpec)
    read = {
        method: [key for key in ADAPTATIONS[method].model_fields if key != "method"] for method in CANDIDATES
    }
    for key in keys:
        if not any(key in names for names in read.values()):
            listed = "; ".join(f"{method}: {', '.join(names)}" for method, names in read.items() if names)
            raise SpecError(
                f"adaptation.{key}: no method that --method auto tries reads it ({listed}); name the method that does"
            )
    found = {}
    for method, names in read.items():
        stated = own.model_dump() if own is not None and own.method == method else {"method": method}
        try:
            found[method] = adapter.validate_python(stated | {key: keys[key] for key in names if key in keys})
        except ValidationError as error:
            first = error.errors()[0]
            raise SpecError(f"adaptation.{first['loc'][-1]}, of {method}: {first['msg']}") from error
    return found


def choose_method(
    specs: Specs,
    run: Path,
    say: Callable[[str], None],
    tried: Mapping[str, AdaptationSpec] | None = None,
) -> Recipe:
    """The recipe to go on with: its section `adaptation`, and the learning rate of its stage. What was tried is told,
    and written beside the run, RUN.auto.json.

    `tried` are the sections by method; of `candidates({})` by default.

    Raises SpecError where the run folder is used already, there are several processes, or no method can be begun.
    """
    tried = tried or candidates({})
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise SpecError(
            "--method auto runs in one process; let it choose there, then name the method it chose"
        )
    run = run.absolute()
    refuse_used(run)
    stage = specs.recipe.stages[0]
    rows: list[dict[str, Any]] = []
    tried_with: list[Recipe] = []
    refused: SpecError | None = None
    for method, spec in tried.items():
        for factor in (1, FASTER) if method in LIGHT else (1,):
            lr = factor * (stage.lr or specs.recipe.optim.lr)
            named = f"{method}, lr {lr:g}" if method in LIGHT else method
            stages = [stage.model_copy(update={"lr": lr}), *specs.recipe.stages[1:]]
            changes = {"adaptation": spec, "stages": stages}
            recipe = specs.recipe.model_copy(update=changes)
            trial = run.with_name(f".{run.name}.{method}")
            try:
                score, bits = _try(replace(specs, recipe=recipe), trial)
            except SpecError as error:
                say(f"{method}: refused ({error})")
                refused = error
                break
            rows.append({"method": method, "lr": lr, "score": score, "trunk_bits": bits})
            tried_with.append(recipe)
            epochs = _short(stage).epochs
            say(f"{named}: {score:.4f} on val after {epochs} epochs, {bits / 8e6:.2f} MB of the trunk")
    if not rows and refused is not None:  # what all of them refuse is no matter of the method
        raise refused
    rows = [row | {"score": row["score"] if math.isfinite(row["score"]) else -math.inf} for row in rows]
    chosen = choose(rows)
    best = max(row["score"] for row in rows)
    why = (
        "the best on val"
        if chosen["score"] == best
        else f"within {CLOSE:.0%} of the best on val, and smaller"
    )
    rate = f" with lr {chosen['lr']:g}" if chosen["method"] in LIGHT else ""
    say(f"chosen: {chosen['method']}{rate}, {why}")
    about = {"rows": rows, "chosen": chosen["method"], "lr": chosen["lr"], "why": why}
    write_json(run.with_name(f"{run.name}.auto.json"), about)
    return tried_with[rows.index(chosen)]


def _try(specs: Specs, trial: Path) -> tuple[float, int]:
    """Score on val after a short stage, and bits that a domain would store of the trunk. Leaves no folder."""
    recipe = specs.recipe.model_copy(update={"stages": [_short(specs.recipe.stages[0])]})
    shutil.rmtree(trial, ignore_errors=True)
    try:
        training = prepare(replace(specs, recipe=recipe), trial, resume=False, quiet=True)
        run_stages(training)
    finally:
        shutil.rmtree(trial, ignore_errors=True)
    assert training.strategy is not None
    packed = training.strategy.pack(training.supernet)  # type: ignore[arg-type]  # adaptation has one network
    bits = trunk_bits(needed(training.supernet, training.plan, packed))  # type: ignore[arg-type]
    return training.best_score, bits


def _short(stage: StageSpec) -> StageSpec:
    return stage.model_copy(update={"epochs": max(1, stage.epochs // SHARE)})


def choose(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Of those whose score is nearly the best one, the row that stores least."""
    best = max(row["score"] for row in rows)
    near = [row for row in rows if row["score"] == best or row["score"] >= best - CLOSE * abs(best)]
    return min(near, key=lambda row: (row["trunk_bits"], -row["score"]))
