"""Runs that differ in their seed only, put together."""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from os.path import commonprefix
from pathlib import Path
from typing import Any

from perceptkit.errors import SpecError
from perceptkit.report.run_folder import Run, read_run

SEED = re.compile(r"[\W_]*(seed|s)?[\W_]*$")
"""The end of what names such as `hard_s0` and `hard_s1` have in common."""


@dataclass(frozen=True)
class Group:
    """One system: a run, or several that differ in seed only."""

    title: str
    runs: tuple[Run, ...]

    @property
    def seeds(self) -> list[int]:
        """Of the runs, as results.json says."""
        return [run.results.seed for run in self.runs if run.results]


def grouped(runs: Sequence[Run]) -> list[Group]:
    """Groups in the order of their first runs; a run whose settings are unknown is a group of its own."""
    by_recipe: dict[str, list[Run]] = {}
    for run in runs:
        by_recipe.setdefault(recipe_key(run), []).append(run)
    titles = [_title(group) for group in by_recipe.values()]
    return [
        Group(title if titles.count(title) == 1 else _longer(title, group), tuple(group))
        for title, group in zip(titles, by_recipe.values(), strict=True)
    ]


def recipe_key(run: Run, depth: int = 3) -> str:
    """What is the same for runs that differ in seed only.

    These are the resolved tasks and recipe, without the seed, the run's name and the number of processes that read
    pictures. What a run started from, or counted its skips in, counts by its own key.

    `depth`: how many runs, each of which refers to the next, are looked into.
    """
    if not run.specs:
        return str(run.path.resolve())
    tasks = {key: value for key, value in run.specs["tasks_file"].items() if key != "name"}
    recipe: dict[str, Any] = {key: value for key, value in run.specs["recipe"].items() if key != "seed"}
    if isinstance(loader := recipe.get("loader"), dict):
        recipe["loader"] = {key: value for key, value in loader.items() if key != "workers"}
    recipe["start_from"] = _key_of(recipe.get("start_from"), depth)
    if isinstance(sharing := recipe.get("sharing"), dict):
        recipe["sharing"] = {**sharing, "skips_of": _key_of(sharing.get("skips_of"), depth)}
    return json.dumps([tasks, recipe], sort_keys=True)


def _key_of(run: str | None, depth: int) -> str | None:
    """Of a run that another refers to, by its path."""
    if run is None or not depth:
        return run
    try:
        return recipe_key(read_run(Path(run)), depth - 1)
    except SpecError:  # it was moved: the path must do
        return run


def _title(runs: Sequence[Run]) -> str:
    """The folder's name, or what the names have in common."""
    names = [run.name for run in runs]
    if len(set(names)) == 1:
        return names[0]
    return SEED.sub("", commonprefix(names)) or names[0]


def _longer(title: str, runs: Sequence[Run]) -> str:
    """With the folder above it: several systems have this name."""
    return f"{runs[0].path.resolve().parent.name}/{runs[0].name if len(runs) == 1 else title}"
