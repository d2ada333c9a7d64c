"""The folder of one run: what is in it and how it is written.

    tasks.yaml recipe.yaml resolved.yaml env.json     as typed / every default filled in / versions, seed, command
    metrics.jsonl metrics.csv log.txt                 the run log
    left_out.json                                     pictures that cannot be read, where they are skipped
    policy.json budget.json                           the plan / what it costs, where there is a budget
    checkpoints/last.pt best.pt                       full state / the best weights on validation
    checkpoints/sample_N.pt searched.pt               the best weights of a sampled plan / where all of them start
    results.json cost.json predictions/               the test, the price, pictures
    tree.json                                         how tasks part, where they do so in a tree
    affinity.json lesion.json                         how tasks relate on val / what is lost without which blocks
    stages.json                                       what every stage of a run that adapts or routes did
    routing.json routing/ rules/                      what a router does, pictures, what it is compared with
    routing_latency.json                              how long it takes, measured for a few seconds

All writes are atomic: a file is either the old one or the new one, whole.
"""

import json
import math
import os
import platform
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from perceptkit.errors import ResumeError, SpecError
from perceptkit.spec.recipe import Recipe
from perceptkit.spec.tasks_file import TasksFile
from perceptkit.versions import installed

LIBRARIES = ("perceptkit", "torch", "timm", "torchmetrics", "lightning-fabric", "albumentations", "numpy")


def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Calls `write` with a temporary path beside `path`, then renames it into place."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        temporary.touch()
        mode = (
            temporary.stat().st_mode & 0o777
        )  # by the umask, which cannot be read without setting it for all threads
        write(temporary)
        temporary.chmod(mode)  # safetensors makes files that only their owner reads
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Writes UTF-8 text atomically."""
    write_atomically(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))


def write_json(path: Path, value: Any) -> None:
    """Writes JSON atomically; a number that is none becomes null."""
    write_text(path, json.dumps(_without_nan(value), indent=1, allow_nan=False) + "\n")


def _without_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nan(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def resolved(tasks: TasksFile, recipe: Recipe) -> dict[str, Any]:
    """Both specs with every default filled in, as plain data."""
    return {"tasks_file": tasks.model_dump(mode="json"), "recipe": recipe.model_dump(mode="json")}


def environment(seed: int) -> dict[str, Any]:
    """Versions, machine, command and seed: what one needs to run it again."""
    return {
        "command": sys.argv,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "versions": {name: installed(name) for name in LIBRARIES},
        "seed": seed,
    }


def start(
    run: Path,
    tasks: TasksFile,
    recipe: Recipe,
    tasks_text: str,
    recipe_text: str,
    seed: int,
    base_digest: str = "",
) -> None:
    """Fills an empty folder. Raises SpecError when it holds anything already.

    `base_digest` is of the run that this one starts from; where that lies, seen from here, is written down beside it.
    """
    refuse_used(run)
    write_text(run / "tasks.yaml", tasks_text)
    write_text(run / "recipe.yaml", recipe_text)
    specs = resolved(tasks, recipe)
    if recipe.start_from is not None:
        path = os.path.relpath(Path(recipe.start_from).absolute(), run.absolute())
        specs["base"] = {"path": path, "digest": base_digest}
    write_text(run / "resolved.yaml", yaml.safe_dump(specs, sort_keys=False))
    write_json(run / "env.json", environment(seed))


def is_finished(run: Path) -> bool:
    """Whether nothing is left to do: the artifact is what a run writes last."""
    return (run / "artifact/manifest.json").is_file()


def refuse_used(run: Path) -> None:
    """Raises SpecError where `run` is no folder, or holds anything already."""
    existing = next(path for path in (run, *run.absolute().parents) if path.exists())
    if not existing.is_dir():
        raise SpecError(f"{existing} is a file; choose another --out")
    if run.exists() and any(run.iterdir()):
        raise SpecError(
            f"{run} is not empty: continue it with `perceptkit train --resume --out {run}`, or choose another --out"
        )


def read_resolved(run: Path) -> tuple[TasksFile, Recipe]:
    """The specs a run was started with. Raises ResumeError where `run` is no run folder."""
    path = run / "resolved.yaml"
    if not path.is_file():
        raise ResumeError(f"{run} holds no run: {path.name} is missing")
    try:
        loaded = yaml.safe_load(path.read_text(encoding="utf-8"))
        return TasksFile.model_validate(loaded["tasks_file"]), Recipe.model_validate(loaded["recipe"])
    except (yaml.YAMLError, KeyError, TypeError, ValueError) as error:
        raise ResumeError(f"{path} is damaged: {type(error).__name__}") from error


def read_base(run: Path) -> tuple[Path | None, str]:
    """Where the base lay, seen from the run's folder, and its digest; None and "" of runs that wrote neither down."""
    base = yaml.safe_load((run / "resolved.yaml").read_text(encoding="utf-8")).get("base") or {}
    path = run / str(base["path"]) if "path" in base else None
    return path, str(base.get("digest", ""))


def changed_keys(old: Any, new: Any, at: str = "") -> list[str]:
    """Dotted keys whose values differ between two plain structures, each as `key: old -> new`."""
    if isinstance(old, dict) and isinstance(new, dict):
        keys = list(dict.fromkeys([*old, *new]))
        return [line for k in keys for line in changed_keys(old.get(k), new.get(k), f"{at}.{k}" if at else k)]
    if isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        pairs = enumerate(zip(old, new, strict=True))
        return [line for i, (a, b) in pairs for line in changed_keys(a, b, f"{at}.{i}")]
    return [] if old == new else [f"{at}: {old!r} -> {new!r}"]


FREE_TO_CHANGE = re.compile(
    r"recipe\.(start_from|export(\..+)?|loader\.(workers|cache|cache_limit|cache_dir))"
    r"|tasks_file\.(data|sources\.[^.]+)\.root"
)
"""Where data and base lie, how many processes read, where they keep what they read and what is exported in the end
change no step of a run; that it is the same base is checked by its digest."""


def refuse_changes(run: Path, tasks: TasksFile, recipe: Recipe) -> None:
    """Raises ResumeError naming every key that differs from what the run was started with and may not."""
    changes = changed_keys(resolved(*read_resolved(run)), resolved(tasks, recipe))
    changes = [line for line in changes if not FREE_TO_CHANGE.fullmatch(line.partition(": ")[0])]
    if changes:
        listed = "\n".join(f"  {line}" for line in changes)
        raise ResumeError(f"{run} was started with other settings:\n{listed}\nNothing was started.")
