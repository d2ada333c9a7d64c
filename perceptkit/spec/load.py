"""A tasks file or a recipe, from its name to a validated model; all problems of it at once."""

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from perceptkit.errors import SpecError
from perceptkit.spec.decathlon_recipe import for_domain
from perceptkit.spec.draft import resolve_recipe, resolve_tasks
from perceptkit.spec.messages import problems_of, validate
from perceptkit.spec.overrides import apply_overrides, split_overrides
from perceptkit.spec.problems import Problem, SpecProblems
from perceptkit.spec.recipe import Recipe
from perceptkit.spec.recipe_checks import check_recipe
from perceptkit.spec.several import weights
from perceptkit.spec.shipped import NOUNS, Kind, find_spec, read_text
from perceptkit.spec.stage_steps import in_epochs
from perceptkit.spec.task_checks import check_tasks
from perceptkit.spec.tasks_file import TasksFile, class_task
from perceptkit.spec.templates import shown
from perceptkit.spec.yaml_source import Source, read_yaml

SpecModel = TypeVar("SpecModel", bound=BaseModel)


@dataclass(frozen=True)
class LoadedTasks:
    """A validated tasks file."""

    spec: TasksFile
    """With absolute paths."""
    path: Path
    text: str
    """As typed, without overrides."""


@dataclass(frozen=True)
class LoadedRecipe:
    """A validated recipe."""

    spec: Recipe
    """With absolute paths."""
    path: Path
    text: str
    """As typed, without overrides."""


def load_tasks(path_or_name: str | Path, overrides: Iterable[str] = ()) -> LoadedTasks:
    """Reads, overrides, validates and cross-checks a tasks file; looks for its folders and class files.

    Args:
        path_or_name: a YAML file, or the name of one that ships with perceptkit.
        overrides: `key=value` strings, as for `--set`.

    Raises:
        SpecError: there is no such file. SpecProblems: all that is wrong with what it says.
    """
    path, text, source = _read("tasks", path_or_name, overrides)
    spec = _validated(TasksFile, source, lambda: check_tasks(source, path.parent))
    return LoadedTasks(resolve_tasks(spec, source, path.parent), path, text)


def load_recipe(path_or_name: str | Path, overrides: Iterable[str] = ()) -> LoadedRecipe:
    """Reads, overrides, validates and cross-checks a recipe; looks for its weights on disk.

    Raises:
        SpecError: there is no such file. SpecProblems: all that is wrong with what it says.
    """
    path, text, source = _read("recipes", path_or_name, overrides)
    spec = _validated(Recipe, source, lambda: check_recipe(source, path.parent))
    return LoadedRecipe(resolve_recipe(spec, source, path.parent), path, text)


def load_both(
    tasks: str | Path, recipe: str | Path, overrides: Iterable[str] = ()
) -> tuple[LoadedTasks, LoadedRecipe]:
    """Both files of a run.

    A stage of so many `steps` has its epochs then, by the pictures that there are.

    Raises SpecProblems: all problems of both. SpecError: they do not go together. DataError: lists of pictures that
    are to be counted cannot be read.
    """
    for_tasks, for_recipe = split_overrides(overrides)
    try:
        loaded = load_tasks(tasks, for_tasks)
    except SpecProblems as first:
        try:
            load_recipe(recipe, for_recipe)
        except SpecProblems as second:
            raise SpecProblems([*first.problems, *second.problems]) from None
        raise
    how = load_recipe(recipe, for_recipe)
    how = LoadedRecipe(in_epochs(for_domain(how.spec, loaded.spec), loaded.spec), how.path, how.text)
    crop, pad, size = how.spec.augment.crop, how.spec.augment.pad, loaded.spec.first.size
    if crop is not None and (crop[0] > size[0] + 2 * pad or crop[1] > size[1] + 2 * pad):
        padded = f" with augment.pad {pad} on every side" if pad else ""
        raise SpecError(
            f"augment.crop {list(crop)} does not fit into data.size {list(size)}{padded}, [height, width]"
        )
    by_class = how.spec.loader.by_class
    if by_class is not None and class_task(loaded.spec) is None:
        raise SpecError(
            f"loader.{by_class}: no task has one class or id per picture (type embedding, or classification without "
            "multi_label); drop the key"
        )
    if by_class is not None and weights(loaded.spec):
        raise SpecError(
            f"loader.{by_class}: weights of sources say what is in a batch too; drop this key, or every 'weight'"
        )
    return loaded, how


def _read(kind: Kind, path_or_name: str | Path, overrides: Iterable[str]) -> tuple[Path, str, Source]:
    path = find_spec(kind, path_or_name)
    text = read_text(path)
    source = read_yaml(text, shown(path))
    if source.data is None and source.problems:  # a syntax error leaves nothing to check
        raise SpecProblems(source.problems)
    _is_the_other_kind(kind, source)
    apply_overrides(source, overrides)
    return Path(os.path.abspath(path)), text, source


def _is_the_other_kind(kind: Kind, source: Source) -> None:
    """Raises one clear problem for a recipe given as tasks file, or the other way round."""
    models: dict[Kind, type[BaseModel]] = {"tasks": TasksFile, "recipes": Recipe}
    fields = {k: set(model.model_fields) - {"version", "name"} for k, model in models.items()}
    other: Kind = "recipes" if kind == "tasks" else "tasks"
    written = set(source.data) if isinstance(source.data, dict) else set()
    if written & fields[other] and not written & fields[kind]:
        message = f"this is a {NOUNS[other]}; expected a {NOUNS[kind]}"
        raise SpecProblems([source.problem((), message)])


def _validated(model: type[SpecModel], source: Source, check: Callable[[], list[Problem]]) -> SpecModel:
    problems = list(source.problems)
    spec = None
    try:
        spec = validate(model, source.data)
    except ValidationError as error:
        problems += problems_of(error, model, source)
    problems += check()
    unread = {(problem.line, problem.col) for problem in source.problems if not problem.override}
    problems[len(source.problems) :] = [
        problem
        for problem in problems[len(source.problems) :]
        if problem.override or (problem.line, problem.col) not in unread  # follows from what was not read
    ]
    if spec is None or problems:
        raise SpecProblems(dict.fromkeys(problems))
    return spec
