"""The JSON schema of both files, for editors that complete and check while one types.

In VS Code (YAML extension) the first line of a tasks file names it:

    # yaml-language-server: $schema=./tasks.schema.json
"""

from typing import Any, Literal

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from perceptkit.spec.recipe import Recipe
from perceptkit.spec.tasks_file import TasksFile

DIALECT = "https://json-schema.org/draft/2020-12/schema"
_MODELS: dict[str, type[BaseModel]] = {"tasks": TasksFile, "recipe": Recipe}
_TITLES = {"tasks": "perceptkit tasks file", "recipe": "perceptkit recipe"}


def json_schema(what: Literal["tasks", "recipe"] | None = None) -> dict[str, Any]:
    """The schema of one file; without an argument, of either (`anyOf`), both under `$defs`."""
    if what is not None:
        return {"$schema": DIALECT, **_MODELS[what].model_json_schema(), "title": _TITLES[what]}
    references, definitions = models_json_schema([(model, "validation") for model in _MODELS.values()])
    either = [references[(model, "validation")] for model in _MODELS.values()]
    return {"$schema": DIALECT, "title": "perceptkit", "anyOf": either, **definitions}
