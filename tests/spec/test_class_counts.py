"""How often each class is labelled."""

import numpy as np

from perceptkit.spec.class_counts import ClassCounts, pixels_of_classes, points_of_kinds
from perceptkit.spec.tasks_file import KeypointsSpec, SegmentationSpec


def test_pixels():
    spec = SegmentationSpec(type="segmentation", classes=3)
    values = np.array([[0, 0, 2], [255, 7, 2]])
    for dtype in (np.uint8, np.int64):
        assert pixels_of_classes(spec, values.astype(dtype), 3) == {0: 2, 2: 2}  # 7 is no class
    assert pixels_of_classes(spec, values.astype(np.float32), 3) == {}
    assert pixels_of_classes(spec, np.array([[True, False, True]]), 3) == {0: 1, 1: 2}


def test_points():
    named = KeypointsSpec(type="keypoints", names=["left", "right", "nose"])
    points = {"left": [1, 2], "right": [1, 2, 0], "nose": [1, 2, 1], "tail": [1, 2, 2]}
    assert points_of_kinds(named, points) == {0: 1, 2: 1}  # right is not labelled, tail is no name
    kinds = KeypointsSpec(type="keypoints", kinds=["door", "window"])
    assert points_of_kinds(kinds, [[1, 1, 1], [2, 2, "window"], [3, 3, 0], [4, 4, 9], "x"]) == {1: 2, 0: 1}
    assert points_of_kinds(named, []) == {} == points_of_kinds(kinds, {})


def test_the_table():
    counts = ClassCounts(["floor", "wall"], "pixels", of_opened=True)
    counts.add("train", {0: 30})
    counts.add("train", {0: 30, 1: 40})
    counts.add("val", {})
    assert counts.lines("seg", ["train", "val", "test"]) == [
        "seg: pictures with each class (and its share of all labelled pixels), of those that were opened",
        "  class     train  val  test",
        "  floor  2 (60 %)    0     0",
        "  wall   1 (40 %)    0     0",
    ]
    assert counts.as_json()["train"] == {
        "floor": {"pictures": 2, "pixels": 60},
        "wall": {"pictures": 1, "pixels": 40},
    }


def test_many_classes_are_cut_short_in_the_text_alone():
    counts = ClassCounts([f"c{i}" for i in range(45)], "")
    counts.add("train", {44: 1})
    lines = counts.lines("kind", ["train"])
    assert lines[0] == "kind: pictures with each class"
    assert len(lines) == 43 and lines[-1] == "  and 5 more classes; --json has all"
    assert counts.as_json()["train"]["c44"] == {"pictures": 1}
    assert ClassCounts(["a"], "").lines("kind", ["train"]) == []
