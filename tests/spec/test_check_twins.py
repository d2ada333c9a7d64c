"""Equal pictures in two splits, by the bytes of their files, and ids that occur twice."""

from pathlib import Path

import pytest

from perceptkit.spec.check_report import CheckReport
from perceptkit.spec.check_twins import HEAD, Picture, check_twins, check_twins_of_sources, twins


@pytest.fixture
def write(tmp_path):
    def write(name: str, content: bytes) -> Picture:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(content)
        return Picture(Path(name).stem, tmp_path / name)

    return write


def pairs(pictures) -> list[str]:
    return [f"{a} {x.id} = {b} {y.id}" for (a, x), (b, y) in twins(pictures)]


def test_each_copy_is_paired_with_the_split_that_measures(write):
    pictures = {
        "train": [write("train/a", b"same"), write("train/b", b"mine"), write("train/c", b"same")],
        "val": [write("val/d", b"same")],
        "test": [write("test/e", b"same"), write("test/f", b"else")],
    }
    assert pairs(pictures) == ["train a = test e", "train c = test e", "val d = test e"]


def test_two_of_one_split_are_no_leak(write):
    assert pairs({"train": [write("a", b"same"), write("b", b"same")], "val": [write("c", b"other")]}) == []


def test_files_that_differ_after_their_first_bytes(write):
    head = b"x" * (2 * HEAD)
    pictures = {
        "train": [write("a", head + b"1"), write("b", head + b"2")],
        "val": [write("c", head + b"2")],
    }
    assert pairs(pictures) == ["train b = val c"]


def test_empty_and_absent_files_are_nobodys_twin(write, tmp_path):
    absent = [Picture("x", tmp_path / "absent")]
    assert pairs({"train": [write("a", b""), *absent], "val": [write("b", b""), *absent]}) == []


def test_one_file_may_serve_val_and_test_but_not_train(write):
    one, copy = write("one", b"same"), write("copy", b"same")
    assert pairs({"train": [], "val": [one], "test": [one]}) == []
    assert pairs({"train": [], "val": [one], "test": [copy]}) == ["val one = test copy"]
    assert pairs({"train": [one], "val": [one], "test": []}) == ["train one = val one"]


def test_what_is_said_and_listed(write, tmp_path):
    one = write("val/7.png", b"same")
    report = CheckReport("t", str(tmp_path))
    check_twins({"train": [write("train/1.png", b"same")], "val": [one, one]}, tmp_path, report, False)
    assert report.warnings == [
        "the picture '7' is 2 times in val; keep one of them in the list of the data",
        "train/1.png ('1' of train) is '7' of val too, byte for byte (val/7.png)",
    ]
    assert [tuple(bad) for bad in report.bad] == [("train", "1", "is '7' of val too (val/7.png)")]


def of_sources(pictures, tasks, tmp_path):
    report = CheckReport("t", "2 sources")
    check_twins_of_sources(pictures, tasks, dict.fromkeys(pictures, tmp_path), report)
    return report


def test_a_picture_to_train_on_that_another_source_measures_on(write, tmp_path):
    pictures = {
        "rooms": {"train": [write("a/1", b"same"), write("a/2", b"mine")], "val": [write("a/3", b"more")]},
        "street": {"train": [write("b/4", b"more")], "val": [write("b/5", b"same")], "test": []},
    }
    report = of_sources(pictures, {"rooms": ["seg"], "street": ["depth"]}, tmp_path)
    assert report.warnings == [
        "rooms: a/1 ('1' of train) is 'street/5' of val too, byte for byte (street: b/5)",
        "street: b/4 ('4' of train) is 'rooms/3' of val too, byte for byte (rooms: a/3)",
    ]
    assert [tuple(bad)[:2] for bad in report.bad] == [("train", "rooms/1"), ("train", "street/4")]
    assert not report.problems


def test_what_one_source_holds_twice_is_not_said_again(write, tmp_path):
    pictures = {
        "a": {"train": [write("a/1", b"same")], "val": [write("a/2", b"same")]},
        "b": {"train": [write("b/3", b"else")], "val": []},
    }
    report = of_sources(pictures, {"a": ["seg"], "b": ["seg"]}, tmp_path)
    assert not report.warnings and not report.bad


def test_two_sources_may_have_labels_of_different_tasks_for_one_picture(write, tmp_path):
    file, copy = write("a/1", b"same"), write("b/1", b"same")
    pictures = {"a": {"train": [file, write("a/2", b"else")]}, "b": {"train": [copy]}}
    assert not of_sources(pictures, {"a": ["seg"], "b": ["depth"]}, tmp_path).warnings
    report = of_sources(pictures, {"a": ["seg"], "b": ["depth", "seg"]}, tmp_path)
    assert report.warnings == [
        "b: train: 1 picture is in a too, byte for byte, and both have labels of seg",
    ]
    assert not report.bad


def test_one_file_may_serve_val_here_and_test_there(write, tmp_path):
    one = write("one", b"same")
    pictures = {"a": {"val": [one], "test": [one]}, "b": {"val": [one], "test": [one]}}
    assert not of_sources(pictures, {"a": ["seg"], "b": ["kp"]}, tmp_path).warnings
