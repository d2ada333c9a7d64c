"""The prefix trie by hand."""

from perceptkit.model.plan import Plan
from perceptkit.model.trie import Node, leaves, trie

PLAN = Plan.from_keep(
    ["a", "b", "c"], ["x", "y", "z"], [[True, True, False], [True, True, True], [True, False, True]]
)


def test_nodes_by_hand():
    assert trie(PLAN) == [
        Node(0, True, None, ("a", "b", "c")),
        Node(1, True, 0, ("a", "b")),
        Node(1, False, 0, ("c",)),
        Node(2, True, 1, ("b",)),
        Node(2, False, 1, ("a",)),
        Node(2, True, 2, ("c",)),
    ]


def test_tasks_that_part_never_meet_again():
    plan = Plan.from_keep(["a", "b"], ["x", "y"], [[True, True], [False, True]])
    assert [node.tasks for node in trie(plan) if node.block == 1] == [("a",), ("b",)]


def test_some_tasks_only():
    assert [node.kept for node in trie(PLAN, ["c"])] == [True, False, True]


def test_leaves():
    assert leaves(PLAN) == [("a",), ("b",), ("c",)]
    assert leaves(Plan.all_keep("ab", "xy")) == [("a", "b")]
