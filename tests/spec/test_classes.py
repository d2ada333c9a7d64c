"""Class names from a number, a list, a file, or the train CSV."""

import sys
from types import SimpleNamespace

import pytest

from perceptkit.errors import DataError, SpecError
from perceptkit.spec.classes import class_names
from perceptkit.spec.label_csv import read_label_csv
from perceptkit.spec.load import load_tasks
from perceptkit.spec.tasks_file import ClassificationSpec, SegmentationSpec


def seg(classes):
    return SegmentationSpec(type="segmentation", classes=classes)


def room(**keys):
    return ClassificationSpec(type="classification", target="{split}.csv", **keys)


def test_a_number_and_a_list(tmp_path):
    assert class_names(seg(3), tmp_path) == ["0", "1", "2"]
    assert class_names(seg(["b", "a"]), tmp_path) == ["b", "a"]


def test_a_file(tmp_path):
    (tmp_path / "c.txt").write_text("wall\n floor \n\n")
    assert class_names(seg("c.txt"), tmp_path) == ["wall", "floor"]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "holds no class names"),
        ("a\n\nb\n", "line 2 is empty"),
        ("a\nb\na\n", "the class 'a' occurs twice"),
    ],
)
def test_a_bad_file(tmp_path, text, reason):
    (tmp_path / "c.txt").write_text(text)
    with pytest.raises(SpecError, match=reason):
        class_names(seg("c.txt"), tmp_path)


def test_from_the_train_csv(tmp_path):
    (tmp_path / "training.csv").write_text("id,label\n1,kitchen\n2,bath\n3,\n4,bath\n")
    assert class_names(room(), tmp_path, {"train": "training"}) == ["bath", "kitchen"]


def test_numbers_are_sorted_as_numbers(tmp_path):
    (tmp_path / "train.csv").write_text("a,10\nb,9\nc,2\n")
    assert class_names(room(), tmp_path) == ["2", "9", "10"]


def test_multi_label(tmp_path):
    (tmp_path / "train.csv").write_text("id,label\n1,cat|dog\n2,\n")
    assert class_names(room(multi_label=True), tmp_path) == ["cat", "dog"]
    assert read_label_csv(tmp_path / "train.csv", True).labels == {"1": ("cat", "dog"), "2": ()}
    assert read_label_csv(tmp_path / "train.csv", False).labels == {"1": ("cat|dog",)}
    (tmp_path / "train.csv").write_text("id,cat,dog\n1,1,0\n2,0,0\n")
    assert class_names(room(multi_label=True), tmp_path) == ["cat", "dog"]
    assert read_label_csv(tmp_path / "train.csv", True).labels == {"1": ("cat",), "2": ()}


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("id,label\n1,a\n1,b\n", "line 3 labels the image '1' a second time"),
        ("id,label\n1\n", "line 2 has 1 cells; expected 2"),
        ("id,cat,dog\n1,yes,0\n", "line 2 holds 'yes' in the column 'cat'"),
    ],
)
def test_a_bad_csv(tmp_path, text, reason):
    (tmp_path / "l.csv").write_text(text)
    with pytest.raises(DataError, match=reason):
        read_label_csv(tmp_path / "l.csv", True)


@pytest.fixture
def renderer(monkeypatch):
    labels = SimpleNamespace(
        SCENE_CLASSES=("wall", "ball"), SCENE_TYPES=("hall", "cell"), SCENE_KEYPOINTS=("l", "r", "top"),
        SCENE_FLIP_PAIRS=(("l", "r"),),
    )  # fmt: skip
    monkeypatch.setitem(sys.modules, "perceptkit.spec.scene_labels", labels)
    monkeypatch.setattr("perceptkit.spec.scene_labels", labels, raising=False)


SCENES = "name: x\ndata: {source: scenes}\ntasks:\n  t: {type: %s}\n"


@pytest.mark.parametrize(
    "task",
    [
        "segmentation", "segmentation, classes: 2", "segmentation, classes: [wall, ball]", "classification",
        "keypoints", "keypoints, names: [l, r, top], flip_pairs: [[r, l]]", "normals, frame: opengl",
    ],
)  # fmt: skip
def test_scenes_take_what_the_renderer_has(renderer, tmp_path, task):
    (tmp_path / "t.yaml").write_text(SCENES % task)
    load_tasks(tmp_path / "t.yaml")


@pytest.mark.parametrize(
    ("task", "reason"),
    [
        ("segmentation, classes: 3", "the renderer's 2 classes are wall, ball; drop the key"),
        ("segmentation, classes: [ball, wall]", "the renderer's 2 classes are wall, ball"),
        ("classification, classes: [a, b]", "the renderer's 2 classes are hall, cell"),
        ("keypoints, names: [l, r]", "the renderer's points are l, r, top"),
        ("keypoints, kinds: [corner]", "the renderer's points are l, r, top"),
        ("keypoints, flip_pairs: [[l, top]]", "the renderer knows which points change places"),
    ],
)
def test_scenes_refuse_contradictions(renderer, tmp_path, task, reason):
    (tmp_path / "t.yaml").write_text(SCENES % task)
    with pytest.raises(SpecError, match=f"1 problem\n(.|\n)*contradicts 'source: scenes': {reason}"):
        load_tasks(tmp_path / "t.yaml")


def test_scenes_know_their_classes(renderer):
    assert class_names(seg(None), None) == ["wall", "ball"]
    assert class_names(ClassificationSpec(type="classification"), None) == ["hall", "cell"]
