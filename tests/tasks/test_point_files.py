"""Keypoint label files."""

import json
import os

import numpy as np
import pytest

from perceptkit.errors import DataError
from perceptkit.tasks.point_files import MAX_POINTS, kinds_target, load_entry, named_target

NAMES = ["a", "b", "c"]


def test_named_points_by_hand():
    target = named_target({"a": [1.5, 2, 2], "c": [3, 4]}, NAMES, "f.json")
    assert target.dtype == np.float32
    assert target.tolist() == [[1.5, 2, 2], [0, 0, 0], [3, 4, 2]]


def test_null_and_zero_visibility_are_unlabelled():
    assert (named_target({"a": None, "b": [7, 7, 0]}, NAMES, "f.json") == 0).all()


def test_kinds_by_name_and_by_index():
    target = kinds_target([[1, 2, "v"], [3.5, 4, 0]], ["u", "v"], "f.json")
    assert target.shape == (MAX_POINTS, 3) and target.dtype == np.float32
    assert target[:3].tolist() == [[1, 2, 1], [3.5, 4, 0], [0, 0, -1]]
    assert (kinds_target([], ["u"], "f.json")[:, 2] == -1).all()


def test_no_point_is_dropped():
    target = kinds_target([[i, 0, 0] for i in range(MAX_POINTS)], ["u"], "f.json")
    assert target[:, 0].tolist() == list(range(MAX_POINTS))
    with pytest.raises(DataError, match="f.json: 257 points; a picture can have 256 at most"):
        kinds_target([[i, 0, 0] for i in range(MAX_POINTS + 1)], ["u"], "f.json")


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ([], "expected"),
        ({"d": [1, 2]}, "names d; the names declared are a, b, c"),
        ({"a": [1]}, "a is"),
        ({"a": [1, 2, 3]}, "visibility 3"),
        ({"a": [1, float("nan"), 2]}, "finite"),
        ({"a": ["x", 2]}, "finite"),
    ],
)
def test_wrong_named_points_are_named(entry, message):
    with pytest.raises(DataError, match=message) as error:
        named_target(entry, NAMES, "kp/7.json")
    assert "kp/7.json" in str(error.value)


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({}, "expected"),
        ([[1, 2]], "point 0 is"),
        ([[0, 0, 0], [1, 2, 5]], "point 1 has kind 5; the kinds declared are 0 u, 1 v"),
        ([[1, 2, "w"]], 'kind "w"'),
        ([[1, 2, True]], "kind true"),
        ([[1, 2, 0.5]], "kind 0.5"),
        ([[1, float("inf"), 0]], "finite"),
    ],
)
def test_wrong_kinds_are_named(entry, message):
    with pytest.raises(DataError, match=message):
        kinds_target(entry, ["u", "v"], "f.json")


def test_files_for_a_picture_and_for_a_split(tmp_path):
    one, split = tmp_path / "7.json", tmp_path / "all.json"
    one.write_text(json.dumps({"a": [1, 2]}))
    split.write_text(json.dumps({"7": [[1, 2, 0]]}))
    assert load_entry(one, "7", per_picture=True) == {"a": [1, 2]}
    assert load_entry(split, "7", per_picture=False) == [[1, 2, 0]]
    assert load_entry(split, "8", per_picture=False) is None


def test_a_changed_file_is_read_again(tmp_path):
    path = tmp_path / "all.json"
    path.write_text(json.dumps({"7": 1}))
    assert load_entry(path, "7", per_picture=False) == 1
    path.write_text(json.dumps({"7": 2}))
    os.utime(path, ns=(1, 1))
    assert load_entry(path, "7", per_picture=False) == 2


def test_unreadable_files_are_named(tmp_path):
    with pytest.raises(DataError, match=r"absent\.json"):
        load_entry(tmp_path / "absent.json", "7", per_picture=True)
    (tmp_path / "bad.json").write_text("{")
    with pytest.raises(DataError, match=r"bad\.json is not valid JSON"):
        load_entry(tmp_path / "bad.json", "7", per_picture=True)
    (tmp_path / "list.json").write_text("[]")
    with pytest.raises(DataError, match="must map picture ids"):
        load_entry(tmp_path / "list.json", "7", per_picture=False)
