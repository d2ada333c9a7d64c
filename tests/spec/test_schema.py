"""The JSON schema says what the models say, with a description that an editor can show for every key."""

import json

import pytest

from perceptkit.spec.recipe import Recipe
from perceptkit.spec.schema import json_schema
from perceptkit.spec.tasks_file import TASK_SPECS, TasksFile


@pytest.mark.parametrize(("what", "model"), [("tasks", TasksFile), ("recipe", Recipe)])
def test_one_file(what, model):
    schema = json_schema(what)
    assert schema["$schema"].endswith("2020-12/schema")
    assert list(schema["properties"]) == list(model.model_fields)
    assert schema["additionalProperties"] is False


def test_both_files():
    schema = json_schema()
    assert schema["anyOf"] == [{"$ref": "#/$defs/TasksFile"}, {"$ref": "#/$defs/Recipe"}]
    assert {"TasksFile", "Recipe"} <= set(schema["$defs"])


def test_every_reference_resolves():
    schema = json_schema()
    references = json.dumps(schema).split('"$ref": "#/$defs/')[1:]
    assert {reference.split('"')[0] for reference in references} <= set(schema["$defs"])


def test_a_task_is_told_by_its_type():
    union = json_schema("tasks")["properties"]["tasks"]["additionalProperties"]
    assert union["discriminator"]["propertyName"] == "type"
    assert set(union["discriminator"]["mapping"]) == set(TASK_SPECS)


def test_every_key_is_described():
    for name, definition in json_schema()["$defs"].items():
        for key, meaning in definition["properties"].items():
            is_described_elsewhere = "const" in meaning or "$ref" in meaning
            assert is_described_elsewhere or meaning.get("description"), f"{name}.{key}"
