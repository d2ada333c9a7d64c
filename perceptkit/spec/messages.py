"""pydantic's errors -> problems in the words of the person who typed the file.

pydantic's location of an error names what it tried (`tasks.depth.depth.scale` for the `scale` of the task
`depth` of type `depth`); here it becomes the path as written, by walking the models along with it.
"""

import json
import types
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, TypeVar, Union, get_args, get_origin

from pydantic import BaseModel, Tag, ValidationError
from pydantic_core import ErrorDetails

from perceptkit.spec.adaptation import ADAPTATIONS
from perceptkit.spec.problems import Problem, closest, did_you_mean
from perceptkit.spec.recipe import STAGES, Recipe
from perceptkit.spec.tasks_file import DATA_SOURCES, SEVERAL_SOURCES, TASK_SPECS, TasksFile
from perceptkit.spec.yaml_source import KeyPath, Source, plain_value

_TAG_NOUNS = {"type": "a task type", "source": "a data source", "name": "a stage", "method": "a method"}
_FAMILIES: dict[tuple[str, int], tuple[str, Mapping[str, type[BaseModel]]]] = {
    ("tasks", 3): ("tasks of type", TASK_SPECS),
    ("data", 2): ("source:", DATA_SOURCES),
    ("sources", 3): ("source:", SEVERAL_SOURCES),
    ("stages", 3): ("the stage", STAGES),
    ("adaptation", 2): ("method", ADAPTATIONS),
}
"""By first part and length of a key's path: the models among which a key may be in the wrong one."""

Model = TypeVar("Model", bound=BaseModel)


def validate(model: type[Model], data: Any) -> Model:
    """Validates plain data by the rules for files: lists are tuples, but '5' and true are not numbers.

    Raises pydantic's ValidationError.
    """
    return model.model_validate_json(json.dumps(data), strict=True)


def problems_of(error: ValidationError, model: type[BaseModel], source: Source) -> list[Problem]:
    """Every error of a validation of `source.data`, at the key or value it is about."""
    return list(dict.fromkeys(_problem(details, model, source) for details in error.errors()))


def _problem(error: ErrorDetails, model: type[BaseModel], source: Source) -> Problem:
    kind, value, context = error["type"], error.get("input"), error.get("ctx", {})
    path, annotation = walk(model, error["loc"])
    if kind == "missing" and path and isinstance(path[-1], int):  # a tuple that is too short
        parent = walk(model, error["loc"][:-1])[0]
        return source.problem(parent, _wrong_length(annotation_at(model, error["loc"][:-1]), value))
    if kind == "missing":
        return source.problem(path, _missing(model, error["loc"]), at="key")
    if kind == "extra_forbidden":
        return source.problem(path, _unknown(model, error["loc"], path, source), at="key")
    if kind in ("union_tag_invalid", "union_tag_not_found"):
        tag_key = context["discriminator"].strip("'")
        if kind == "union_tag_not_found" or not isinstance(value[tag_key], str):
            tags = ", ".join(_tags(annotation))
            if tag_key in value:
                message = f"expected one of {tags}; got {describe(value[tag_key])}"
                return source.problem((*path, tag_key), message)
            return source.problem((*path, tag_key), f"missing key; one of {tags}", at="key")
        noun = "a sampler" if path[-1] == "sampler" else _TAG_NOUNS[tag_key]
        message = f"'{value[tag_key]}' is not {noun}{did_you_mean(value[tag_key], _tags(annotation))}"
        return source.problem((*path, tag_key), message)
    if kind == "fault":
        keys = (int(part) if part.isdigit() else part for part in context["key"].split("."))
        return source.problem((*path, *keys), context["message"])
    if kind in ("too_long", "too_short") and get_origin(annotation) is tuple:
        return source.problem(path, _wrong_length(annotation, value))
    if path and error["loc"][-1] == "[key]":  # pydantic puts the bad key before this marker
        return source.problem(path, f"unknown key{did_you_mean(str(value), _literals(context))}", at="key")
    return source.problem(path, _wrong_value(kind, value, context, error["msg"], annotation))


def _wrong_value(kind: str, value: Any, context: dict[str, Any], fallback: str, annotation: Any) -> str:
    """The message for a value of the wrong type or outside its range."""
    if kind == "literal_error":
        literals = _literals(context)
        if isinstance(value, str):
            return f"'{value}' is not valid{did_you_mean(value, literals)}"
        one_of = "one of " if len(literals) > 1 else ""
        return f"expected {one_of}{', '.join(literals)}{';' if one_of else ','} got {describe(value)}"
    if kind in ("too_short", "too_long"):
        return "is empty; expected at least one"
    got = describe(value)
    if kind in ("greater_than", "greater_than_equal", "less_than", "less_than_equal"):
        words = {"gt": "above", "ge": "of at least", "lt": "below", "le": "of at most"}
        (name, bound), *_ = context.items()
        return f"expected a number {words[name]} {bound:g}, got {got}"
    if kind.startswith(("int_", "float_")):
        wanted = "a whole number" if kind.startswith("int_") else "a number"
        number = isinstance(value, str) and plain_value(value.replace("_", "").strip())
        hint = f"; write {number}, without quotes" if type(number) in (int, float) else ""
        return f"expected {wanted}, got {got}{hint}"
    if kind.startswith("bool_"):
        word = {"yes": "true", "on": "true", "no": "false", "off": "false"}.get(str(value).lower())
        return f"expected true or false, got {got}" + (f"; write {word}" if word else "")
    if kind in ("string_type", "path_type"):
        hint = f"; put it in quotes: '{json.dumps(value)}'" if isinstance(value, int | float) else ""
        return f"expected text, got {got}{hint}"
    if kind in ("list_type", "tuple_type"):
        if get_origin(annotation) is tuple:
            return f"expected a list of {len(get_args(annotation))} values, got {got}"
        return f"expected a list, got {got}" + (f"; write [{value}]" if isinstance(value, str) else "")
    if kind in ("model_type", "dict_type", "model_attributes_type"):
        hint = ""
        if isinstance(value, str) and _is_model(annotation) and "name" in annotation.model_fields:
            hint = f"; write {{name: {value}}}"
        return f"expected keys with values, got {got}{hint}"
    return fallback if kind in ("classes", "workers") and value is None else f"{fallback}, got {got}"


def describe(value: Any) -> str:
    """A value in a message: `nothing`, `true`, `the number 3`, `the text 'a'`, `a list`, `a mapping`."""
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return f"the number {value}"
    if isinstance(value, str):
        return f"the text '{value}'" if len(value) <= 60 else f"the text '{value[:57]}...'"
    return "a list" if isinstance(value, list) else "a mapping"


def _wrong_length(annotation: Any, value: Any) -> str:
    wanted = len(get_args(annotation))
    return f"expected {wanted} values, got {len(value)}"


def _missing(model: type[BaseModel], loc: tuple[int | str, ...]) -> str:
    container = annotation_at(model, loc[:-1])
    meaning = container.model_fields[str(loc[-1])].description if _is_model(container) else None
    if not meaning:
        return "missing key"
    first = meaning.split("\n")[0].rstrip(".").replace("`", "'")
    return f"missing key: {first[0].lower()}{first[1:]}"


def _unknown(model: type[BaseModel], loc: tuple[int | str, ...], path: KeyPath, source: Source) -> str:
    """The likeliest misspelling, or else the place where such a key does exist, or else all known keys."""
    container, key = annotation_at(model, loc[:-1]), str(path[-1])
    if key.isdigit():
        return "unknown key; was a decimal point meant, as in 1.5?"
    family = _FAMILIES.get((str(path[0]), len(path)))
    owners = [name for name, member in family[1].items() if key in member.model_fields] if family else []
    if family and owners:
        return f"unknown key; it belongs to {family[0]} {', '.join(owners)}"
    known = list(container.model_fields)
    if len(path) == 1 and source.override_of(path):  # `--set` may have meant the other file
        known += [key for other in (TasksFile, Recipe) for key in other.model_fields if key not in known]
    hint = did_you_mean(key, known)
    if hint.startswith("; did"):
        return "unknown key" + hint
    elsewhere = {place.split(".")[-1]: place for place in _leaf_places(model)}
    if match := closest(key, elsewhere):
        return f"unknown key; did you mean '{elsewhere[match]}'?"
    return f"unknown key; known here: {', '.join(known)}"


def _leaf_places(model: type[BaseModel], prefix: str = "") -> Iterable[str]:
    """Dotted paths of all keys that are reached through mappings alone, for example `optim.lr`."""
    for name, info in model.model_fields.items():
        yield prefix + name
        if _is_model(info.annotation):
            yield from _leaf_places(info.annotation, f"{prefix}{name}.")  # type: ignore[arg-type]  # just checked


def annotation_at(model: type[BaseModel], loc: tuple[int | str, ...]) -> Any:
    """The type that pydantic checks at one of its locations."""
    return walk(model, loc)[1]


def walk(model: type[BaseModel], loc: tuple[int | str, ...]) -> tuple[KeyPath, Any]:
    """pydantic's location without the tags of unions, and the type that is checked there."""
    path: list[str | int] = []
    here: Any = model
    for part in loc:
        if part == "[key]":
            continue
        here = _bare(here)
        member = _member(here, part)
        if member is not None:
            here = member
            continue
        path.append(part)
        if _is_model(here):
            info = here.model_fields.get(part)
            here = info.annotation if info else None
        else:
            arguments = get_args(here)
            is_tuple = get_origin(here) is tuple and isinstance(part, int) and part < len(arguments)
            here = arguments[part if is_tuple else -1] if arguments else None  # type: ignore[index]
    return tuple(path), _bare(here)


def _is_model(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)


def _bare(annotation: Any) -> Any:
    """Without `Annotated` and `| None`."""
    if get_origin(annotation) is Annotated:
        return _bare(get_args(annotation)[0])
    members = _members(annotation)
    if types.NoneType in members and len(members) == 2:
        return _bare(next(m for m in members if m is not types.NoneType))
    return annotation


def _members(annotation: Any) -> tuple[Any, ...]:
    return get_args(annotation) if get_origin(annotation) in (Union, types.UnionType) else ()


def _tag(member: Any) -> str | None:
    """What stands for a union's member in pydantic's locations."""
    if get_origin(member) is Annotated:
        return next((extra.tag for extra in get_args(member)[1:] if isinstance(extra, Tag)), None)
    for key in _TAG_NOUNS if _is_model(member) else ():
        if key in member.model_fields and (literals := get_args(member.model_fields[key].annotation)):
            return str(literals[0])
    return None


def _tags(annotation: Any) -> list[str]:
    return [tag for member in _members(annotation) if (tag := _tag(member))]


def _member(annotation: Any, tag: int | str) -> Any:
    return next((member for member in _members(annotation) if _tag(member) == tag), None)


def _literals(context: dict[str, Any]) -> list[str]:
    """The words of pydantic's `'a', 'b' or 'c'`."""
    return [word.strip("' ") for word in context["expected"].replace(" or ", ",").split(",")]
