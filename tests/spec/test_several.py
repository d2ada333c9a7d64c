"""A file with `sources` as one file for each."""

from perceptkit.spec.schema import json_schema
from perceptkit.spec.several import ALONE, parts, weights, with_data
from perceptkit.spec.stage_steps import count_pictures, count_train
from perceptkit.spec.tasks_file import TasksFile
from tests.json_schema import faults

DECLARED = {
    "name": "two",
    "labelled": 0.5,
    "sources": {
        "rooms": {"source": "scenes", "count": {"train": 30, "val": 5}, "train_on": ["train", "val"]},
        "home": {
            "source": "folder",
            "root": "home",
            "image": "{split}/{id}.png",
            "size": [64, 64],
            "tasks": {"depth": {"scale": 1000, "target": "mm/{split}/{id}.png"}, "edges": {}},
            "labelled": {"depth": "10%"},
        },
    },
    "tasks": {
        "seg": {"type": "segmentation"},
        "depth": {"type": "depth", "scale": 256, "target": "depth/{split}/{id}.png"},
        "edges": {"type": "edges", "target": "edges/{split}/{id}.png"},
    },
}
SPEC = TasksFile.model_validate(DECLARED)


def test_each_part_has_its_tasks_as_they_are_stored_there():
    rooms, home = parts(SPEC).values()
    assert list(rooms.tasks) == ["seg", "depth", "edges"] and list(home.tasks) == ["depth", "edges"]
    assert (rooms.tasks["depth"].scale, rooms.tasks["depth"].target) == (1, None)  # the renderer's own
    assert (home.tasks["depth"].scale, home.tasks["depth"].target) == (1000, "mm/{split}/{id}.png")
    assert home.tasks["edges"].target == "edges/{split}/{id}.png"
    assert (rooms.labelled, home.labelled) == (0.5, {"depth": 0.1})
    assert rooms.first.source == "scenes" and home.first.source == "folder"


def test_fewer_tasks_than_the_sources_have():
    narrowed = SPEC.model_copy(update={"tasks": {"seg": SPEC.tasks["seg"]}})
    assert [list(part.tasks) for part in parts(narrowed).values()] == [["seg"], []]


def test_data_is_its_own_part():
    alone = TasksFile.model_validate(
        {"name": "a", "data": {"source": "scenes"}, "tasks": {"d": {"type": "depth"}}}
    )
    assert parts(alone) == {ALONE: alone} and weights(alone) is None


def test_changes_reach_every_source():
    smaller = with_data(SPEC, lambda name, _: {"size": (32, 32 if name == "home" else 48)})
    assert [part.first.size for part in parts(smaller).values()] == [(32, 48), (32, 32)]


def test_counts_are_of_all():
    assert SPEC.sources is not None
    rooms = SPEC.model_copy(update={"sources": {name: SPEC.sources["rooms"] for name in "ab"}})
    assert count_train(rooms) == 70 and count_pictures(rooms, "test") == 600


def test_the_schema_takes_sources():
    schema = json_schema("tasks")
    assert faults(schema, DECLARED, schema) == []
    wrong = {**DECLARED, "sources": {"rooms": {"source": "scenes", "wieght": 1}}}
    assert faults(schema, wrong, schema)
