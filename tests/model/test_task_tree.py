"""Which tasks share which blocks, as data and in words."""

import pytest

from perceptkit.errors import SpecError
from perceptkit.model.task_tree import TaskTree

TASKS = ["seg", "depth", "room"]
LEVELS = [[["seg", "depth", "room"]], [["seg", "depth"], ["room"]], [["seg"], ["depth"], ["room"]]]


def test_lists_and_back():
    tree = TaskTree.of(LEVELS, TASKS, 3)
    assert tree.to_lists() == LEVELS
    assert tree.group(1, "depth") == ("seg", "depth") and tree.group(2, "depth") == ("depth",)


def test_the_order_is_that_of_the_tasks():
    shuffled = [[["room", "depth", "seg"]], [["room"], ["depth", "seg"]], [["depth"], ["room"], ["seg"]]]
    assert TaskTree.of(shuffled, TASKS, 3).to_lists() == LEVELS


def test_some_of_the_tasks():
    expected = [[["depth", "room"]], [["depth"], ["room"]], [["depth"], ["room"]]]
    assert TaskTree.of(LEVELS, TASKS, 3).only(["room", "depth"]).to_lists() == expected
    assert TaskTree.of(LEVELS, ["depth", "room"], 3).to_lists() == expected


def test_words_join_levels_that_are_alike():
    tree = TaskTree.of([*LEVELS[:2], LEVELS[1]], TASKS, 3)
    assert tree.words(["a", "b", "c"]) == ["a: seg + depth + room", "b to c: seg + depth | room"]


@pytest.mark.parametrize(
    ("levels", "message"),
    [
        (LEVELS[:2], "2 levels; this backbone has 3 blocks"),
        (
            [LEVELS[0], [["seg", "depth"]], LEVELS[2]],
            "level 1 has seg, depth; expected each of seg, depth, room once",
        ),
        ([[["seg", "seg", "depth", "room"]], *LEVELS[1:]], "level 0 has seg, seg, depth, room"),
        ([LEVELS[1], LEVELS[0], LEVELS[2]], "seg and room share level 1 but not the one before"),
    ],
)
def test_what_is_no_tree(levels, message):
    with pytest.raises(SpecError, match=message):
        TaskTree.of(levels, TASKS, 3)
