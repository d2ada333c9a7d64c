"""`--set key=value`: changes to a file's data before it is validated.

The key is a dotted path; a list is entered by index or by the name of its element, so `stages.2.epochs=5` and
`stages.retrain.epochs=5` are the same. The value is read as YAML by the reader of the files, never evaluated.
"""

from collections.abc import Iterable
from typing import Any

from perceptkit.errors import SpecError
from perceptkit.spec.problems import Problem, did_you_mean
from perceptkit.spec.tasks_file import TasksFile
from perceptkit.spec.yaml_source import KeyPath, Place, Source, read_yaml


class BadOverrideError(Exception):
    """The message of a problem with one `--set`."""


def split_overrides(items: Iterable[str]) -> tuple[list[str], list[str]]:
    """Which of the `--set` items change the tasks file, and which the recipe.

    A key belongs to the tasks file when its first part does; `version` is in both, and means the tasks file.
    """
    mine: list[str] = []
    others: list[str] = []
    for item in items:
        key = item.split("=")[0].split(".")[0].strip()
        (mine if key in TasksFile.model_fields else others).append(item)
    return mine, others


def keys_of_section(items: Iterable[str], section: str) -> tuple[dict[str, Any], list[str]]:
    """What `--set` items say of keys right in one section, `{key: value}`, and the other items.

    Raises SpecError where a value is not YAML, or the section is given as a whole.
    """
    keys: dict[str, Any] = {}
    others: list[str] = []
    for item in items:
        name, equals, text = item.partition("=")
        head, _, key = name.strip().partition(".")
        if head != section:
            others.append(item)
            continue
        if not key or not equals:
            raise SpecError(
                f"--set {item}: only single keys of {section} can be given here, as {section}.KEY=VALUE"
            )
        try:
            keys[key] = _read_value(text)
        except BadOverrideError as error:
            raise SpecError(f"--set {item}: {error}") from error
    return keys, others


def apply_overrides(source: Source, items: Iterable[str]) -> None:
    """Changes `source.data` and the places in it; what cannot be applied is added to `source.problems`."""
    for item in items:
        key, equals, text = item.partition("=")
        key = key.strip()
        place = Place(0, 0, override=item)
        try:
            if not equals or not all(part.strip() for part in key.split(".")):
                raise BadOverrideError("expected key=value, for example optim.lr=1e-3")
            value = _read_value(text)
            path = _enter(source, key.split("."), value)
        except BadOverrideError as error:
            source.problems.append(_problem(source, item, key, str(error)))
            continue
        for places in (source.keys, source.values):
            for inner in [p for p in places if p[: len(path)] == path]:
                del places[inner]
            places[path] = place
        for end in range(1, len(path)):  # mappings that the override made on its way
            if path[:end] not in source.values:
                source.keys[path[:end]] = source.values[path[:end]] = place
        _mark(source, path, value, place)


def _problem(source: Source, item: str, key: str, message: str) -> Problem:
    return Problem(source.file, 0, 0, key, message, override=item)


def _read_value(text: str) -> Any:
    value = read_yaml(text, "--set")
    if not text.strip():
        return None
    if value.problems:
        raise BadOverrideError(f"the value is not YAML: {value.problems[0].message}")
    return value.data


def _enter(source: Source, parts: list[str], value: Any) -> KeyPath:
    """Puts `value` at `parts`, making mappings on the way; returns the path with list indexes."""
    if not isinstance(source.data, dict):
        raise BadOverrideError("the file itself is not a mapping")
    here: Any = source.data
    path: list[str | int] = []
    for depth, part in enumerate(parts):
        is_last = depth == len(parts) - 1
        if isinstance(here, list):
            index = _index(here, part, ".".join(map(str, path)))
            path.append(index)
            if is_last:
                here[index] = value
            here = here[index]
        elif isinstance(here, dict):
            if path == ["tasks"] and not is_last and part not in here:
                raise BadOverrideError(f"there is no task '{part}'{did_you_mean(part, here)}")
            path.append(part)
            if is_last:
                here[part] = value
            else:
                if here.get(part) is None:
                    here[part] = {}
                here = here[part]
        else:
            raise BadOverrideError(f"{'.'.join(map(str, path))} is a single value; it has no '{part}'")
    return tuple(path)


def _index(elements: list[Any], part: str, key: str) -> int:
    if part.isdigit() and int(part) < len(elements):
        return int(part)
    names = [str(element.get("name")) if isinstance(element, dict) else "" for element in elements]
    if part in names:
        return names.index(part)
    if part.lstrip("-").isdigit():
        raise BadOverrideError(f"{key} has {len(elements)} elements, counted from 0; there is no {part}")
    raise BadOverrideError(f"{key} has no element '{part}'{did_you_mean(part, filter(None, names))}")


def _mark(source: Source, path: KeyPath, value: Any, place: Place) -> None:
    """Everything below an overridden key comes from the same `--set`."""
    children: Iterable[tuple[str | int, Any]] = ()
    if isinstance(value, dict):
        children = value.items()
    elif isinstance(value, list):
        children = enumerate(value)
    for key, child in children:
        source.keys[(*path, key)] = source.values[(*path, key)] = place
        _mark(source, (*path, key), child, place)
