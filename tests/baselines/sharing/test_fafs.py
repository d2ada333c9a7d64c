"""The choice of groups, by hand."""

import json

import numpy as np
import pytest

from perceptkit import api
from perceptkit.baselines.sharing.fafs import (
    best_grouping,
    branch_affinity,
    groupings,
    grow,
    grow_level,
    separation,
)
from perceptkit.model.task_tree import TaskTree
from perceptkit.train.describe import as_text

TASKS = ["a", "b", "c", "d"]
PAIRS = np.array(
    [
        [1.0, 0.9, 0.5, 0.6],
        [0.9, 1.0, 0.4, 0.5],
        [0.5, 0.4, 1.0, 0.8],
        [0.6, 0.5, 0.8, 1.0],
    ]
)
"""a and b are alike, and so are c and d."""


def test_all_groupings():
    found = [frozenset(map(frozenset, grouping)) for grouping in groupings(4)]
    assert len(found) == len(set(found)) == 15  # Bell numbers
    assert [len(list(groupings(n))) for n in (1, 2, 3, 5)] == [1, 2, 5, 52]
    assert list(groupings(3)) == [
        ((0, 1, 2),), ((0, 1), (2,)), ((0, 2), (1,)), ((0,), (1, 2)), ((0,), (1,), (2,)),
    ]  # fmt: skip


def test_separation_by_hand():
    """Together: the least of each row is 0.5, 0.4, 0.4, 0.5. In pairs: (0.1 + 0.2) / 2. Alone nobody is unlike."""
    assert separation(PAIRS, ((0, 1, 2, 3),)) == pytest.approx(1 - (0.5 + 0.4 + 0.4 + 0.5) / 4)
    assert separation(PAIRS, ((0, 1), (2, 3))) == pytest.approx(0.15)
    assert separation(PAIRS, ((0, 1), (2,), (3,))) == pytest.approx(0.1 / 3)
    assert separation(PAIRS, ((0,), (1,), (2,), (3,))) == 0


def test_the_affinity_of_branches_by_hand():
    """From {a, b} to {c, d}: a's least is 0.5, b's 0.4. Back: c's is 0.4, d's 0.5."""
    found = branch_affinity(PAIRS, [(0, 1), (2, 3)])
    assert found == pytest.approx(np.array([[0.9, 0.45], [0.45, 0.8]]))
    skewed = branch_affinity(PAIRS, [(0,), (1, 2)])  # a: least of 0.9 and 0.5; back: mean of 0.9 and 0.5
    assert skewed[0, 1] == skewed[1, 0] == pytest.approx((0.5 + 0.7) / 2)


def test_the_best_grouping_of_each_number():
    assert best_grouping(PAIRS, 1) == ((0, 1, 2, 3),)
    assert best_grouping(PAIRS, 2) == ((0, 1), (2, 3))
    assert best_grouping(PAIRS, 3) == ((0, 1), (2,), (3,))
    assert best_grouping(PAIRS, 4) == ((0,), (1,), (2,), (3,))


def test_many_branches_are_linked_by_their_average():
    """Ten branches of three kinds."""
    kind = np.array([0, 1, 2, 0, 1, 2, 0, 1, 2, 0])
    similar = np.where(kind[:, None] == kind, 0.9, 0.3)
    np.fill_diagonal(similar, 1)
    found = best_grouping(similar, 3)
    assert {frozenset(group) for group in found} == {
        frozenset(np.flatnonzero(kind == k).tolist()) for k in range(3)
    }
    assert len(best_grouping(similar, 10)) == 10 and len(best_grouping(similar, 1)) == 1


def test_one_level_at_a_time_is_the_same_tree():
    """With errors that change in between, a level is decided by those of its time."""
    halvings = [1, 0, 0]
    whole, tried = grow(PAIRS, TASKS, halvings)
    tree = TaskTree.parting_after(3, TASKS, 3)
    for done in range(3):
        tree, found = grow_level(tree, done, PAIRS, TASKS, halvings)
        assert found == tried[2 - done]
    assert tree == whole
    first, _ = grow_level(TaskTree.parting_after(3, TASKS, 3), 0, PAIRS, TASKS, halvings)
    assert first.levels[:2] == ((tuple(TASKS),),) * 2 and first.levels[2] == (("a", "b"), ("c",), ("d",))
    alike, _ = grow_level(first, 1, np.ones((4, 4)), TASKS, halvings)
    assert alike.levels[1] == (tuple(TASKS),)
    assert grow_level(alike, 2, PAIRS, TASKS, halvings) == (alike, [])  # shared above: nothing is asked


def test_the_greedy_choice_by_hand():
    """L0 is 0.1. Last block: 0.55 for one group, 0.15 + 0.1 for two, 0.033 + 0.2 for three, 0.3 for four.

    The block below, p = 1, of {a, b}, {c}, {d}: 0.35 for {a, b}, {c, d}, more for three and for one. Below that, p = 2,
    of {a, b}, {c, d}: together (0.45 twice) 0.55, and apart 0.15 + 0.4: of equals the fewest.
    """
    tree, tried = grow(PAIRS, TASKS, [2, 2, 1, 0], branch_cost=0.1)
    assert tree.to_lists() == [
        [["a", "b", "c", "d"]], [["a", "b", "c", "d"]], [["a", "b"], ["c", "d"]], [["a", "b"], ["c"], ["d"]],
    ]  # fmt: skip
    assert [len(of_block) for of_block in tried] == [0, 2, 3, 4]
    assert [c.total for c in tried[3]] == pytest.approx([0.55, 0.25, 0.1 / 3 + 0.2, 0.3])
    two = tried[2][1]
    assert (two.cost, two.groups) == (0.2, (("a", "b"), ("c", "d"))) and two.separation == pytest.approx(0.15)


def test_the_ends_of_the_price():
    assert grow(PAIRS, TASKS, [1, 0], branch_cost=0.0)[0].to_lists() == [[["a"], ["b"], ["c"], ["d"]]] * 2
    assert grow(PAIRS, TASKS, [1, 0], branch_cost=9.0)[0].to_lists() == [[TASKS]] * 2
    assert grow(np.ones((1, 1)), ["a"], [1, 0])[0].to_lists() == [[["a"]]] * 2


def test_describe_says_how_tasks_part(fafs_run):
    assert "found after warm-up" in api.describe(*fafs_run)["tree"][0]
    rest = "[normals, keypoints, edges, room]"
    levels = f"[[[seg, depth, {rest[1:-1]}]], [[seg, depth], {rest}], [[seg, depth], {rest}], [[seg], [depth], {rest}]]"
    found = api.describe(*fafs_run, [f"sharing={{method: fafs, tree: {levels}}}"])
    assert [line.split(": ")[1] for line in found["tree"]] == [
        "seg + depth + normals + keypoints + edges + room",
        "seg + depth | normals + keypoints + edges + room",
        "seg | depth | normals + keypoints + edges + room",
    ]
    assert "how tasks part, a copy for each group" in as_text(found)
    rows = found["cost"]["rows"]
    assert rows["hard_shared"]["params"] < rows["supernet"]["params"] < rows["single_task_nets"]["params"]


@pytest.mark.slow
def test_a_run(fafs_run, tmp_path):
    """It parts, its artifact loads with the tree, and another run goes on from it."""
    run = api.train(*fafs_run, tmp_path / "run", overrides=["data.count.train=8"], quiet=True)
    told = json.loads((run.path / "tree.json").read_text())
    assert set(told) == {"blocks", "levels", "split", "pictures", "tasks", "affinity", "branch_cost", "tried"}
    assert (told["split"], told["pictures"], len(told["levels"])) == ("val", 4, 4)
    assert len(told["levels"][-1]) > 1  # six tasks, a small price
    model = api.load(run.path)
    assert model.manifest.options == {"tree": told["levels"]}
    assert json.loads((run.path / "artifact/parity.json").read_text())["ok"]
    assert run.cost["rows"]["compact"]["params"] > run.cost["rows"]["hard_shared"]["params"]
    assert "Tasks part; each group has a copy" in (run.path / "artifact/README.md").read_text()
    page = api.report(run.path).read_text(encoding="utf-8")
    assert "Tasks part where the same pictures are not hard" in page and " | " in page
    out = api.export(run.path, tmp_path / "one", format="artifact", per_task=True)
    assert list(api.load(out / "artifact_room").tasks) == ["room"]
    changes = [
        f"start_from={run.path}",
        "stages=[{name: retrain, epochs: 1, start: search}]",
        "data.count.train=8",
    ]
    again = api.train(*fafs_run, tmp_path / "again", overrides=changes, quiet=True)
    assert json.loads((again.path / "tree.json").read_text())["levels"] == told["levels"]


@pytest.mark.slow
def test_levels_are_decided_in_the_course_of_the_training(levels_run, tmp_path):
    run = api.train(*levels_run, tmp_path / "run", overrides=["data.count.train=8"], quiet=True)
    told = json.loads((run.path / "tree.json").read_text())
    decided = (run.path / "log.txt").read_text().count("tasks part so")
    shared = [len(groups) == 1 for groups in told["levels"]]
    # after 0, 1 and 2 epochs; the third time for all that is left, unless all tasks share the level above
    assert decided == (3 if not shared[2] else 2 if not shared[3] else 1)
    assert len(told["tried"]) == 4 and told["tried"][3]
    assert api.load(run.path).manifest.options == {"tree": told["levels"]}
    assert json.loads((run.path / "artifact/parity.json").read_text())["ok"]


@pytest.mark.slow
def test_a_run_from_scratch_with_the_tree_of_another(fafs_run, tmp_path):
    tree = (
        "["
        + ", ".join(["[[seg, depth, normals, keypoints, edges, room]]"] * 2)
        + (
            ", [[seg, depth], [normals, keypoints, edges, room]], [[seg], [depth], [normals, keypoints, edges, room]]]"
        )
    )
    changes = [
        f"sharing={{method: fafs, tree: {tree}}}",
        "stages=[{name: retrain, epochs: 1}]",
        "data.count.train=8",
    ]
    run = api.train(*fafs_run, tmp_path / "run", overrides=changes, quiet=True)
    assert set(json.loads((run.path / "tree.json").read_text())) == {"blocks", "levels"}
    assert "seg | depth | normals" in (run.path / "log.txt").read_text()
    assert api.load(run.path).manifest.options["tree"][3][1] == ["depth"]
