"""Annotation files are joined by id; what is wrong in one is named."""

import json
import pickle

import pytest

from perceptkit.errors import DataError
from perceptkit.report.decathlon import BASELINE
from perceptkit.spec.decathlon import (
    MEAN_STD,
    NOT_CROPPED,
    PICKLE,
    SIZES,
    WEIGHT_DECAY,
    annotation_file,
    domains,
    mean_std,
    read_annotations,
)
from tests.listed_files import label_test_split, write_decathlon


def test_images_and_classes_are_ordered_by_id(tmp_path):
    found = read_annotations(annotation_file(write_decathlon(tmp_path), "gtsrb", "train"))
    assert list(found.files) == list(range(50200001, 50200007))
    assert list(found.categories.values()) == ["TrafficSign1", "TrafficSign10", "TrafficSign2"]
    # written as 3, 1, 2 for each number, while the lists are turned and reversed
    assert [found.labels[i] % 10 for i in found.files] == [3, 1, 2, 3, 1, 2]
    assert found.files[50200001] == "data/gtsrb/train/a/000001.jpg"


def test_test_labels_where_there_are_some(tmp_path):
    write_decathlon(tmp_path)
    path = annotation_file(tmp_path, "gtsrb", "test")
    assert path.name == "gtsrb_test_stripped.json" and not read_annotations(path).labels
    label_test_split(tmp_path)
    path = annotation_file(tmp_path, "gtsrb", "test")
    assert path.name == "gtsrb_test.json" and len(read_annotations(path).labels) == 6
    assert domains(tmp_path) == ["gtsrb"]


def test_names_that_are_numbers(tmp_path):
    (tmp_path / "a.json").write_text('{"categories": [{"id": 12, "name": 10}, {"id": 11, "name": "9"}]}')
    assert read_annotations(tmp_path / "a.json").categories == {11: "9", 12: "10"}


def test_a_changed_file_is_read_again(tmp_path):
    path = tmp_path / "a.json"
    path.write_text('{"images": []}')
    assert not read_annotations(path).files
    path.write_text('{"images": [{"id": 1, "file_name": "a.jpg"}]}')
    assert read_annotations(path).files == {1: "a.jpg"}


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("{", "a.json is not JSON"),
        ("[]", "a.json is not a mapping with 'images', 'annotations' and 'categories'"),
        ('{"images": {}}', None),
        ('{"images": {"id": 1}}', "a.json: 'images' is not a list"),
        ('{"images": [{"id": "1", "file_name": "x"}]}', r"images\[0\] has no 'id' that is a whole number"),
        ('{"images": [{"id": true, "file_name": "x"}]}', r"images\[0\] has no 'id' that is a whole number"),
        ('{"images": [{"id": 1}]}', r"images\[0\] has no 'file_name' that is text"),
        ('{"images": [7]}', r"images\[0\] has no 'id'"),
        ('{"annotations": [{"image_id": 1}]}', r"annotations\[0\] has no 'category_id'"),
    ],
)
def test_damaged_files_are_named(tmp_path, content, reason):
    path = tmp_path / "a.json"
    path.write_text(content)
    if reason is None:
        assert not read_annotations(path).files
        return
    with pytest.raises(DataError, match=reason):
        read_annotations(path)


@pytest.mark.parametrize(
    ("key", "entries", "reason"),
    [
        ("images", [{"id": 1, "file_name": "a"}, {"id": 1, "file_name": "b"}], "two images have the id 1"),
        ("categories", [{"id": 1, "name": "a"}, {"id": 1, "name": "a"}], "two categories have the id 1"),
        (
            "annotations",
            [{"image_id": 1, "category_id": 2}, {"image_id": 1, "category_id": 3}],
            "image 1 has two classes, 2 and 3",
        ),
    ],
)
def test_contradictions_are_named(tmp_path, key, entries, reason):
    (tmp_path / "a.json").write_text(json.dumps({key: entries}))
    with pytest.raises(DataError, match=reason):
        read_annotations(tmp_path / "a.json")


def test_mean_and_std_come_from_the_pickle_or_else_from_the_table(tmp_path):
    assert mean_std(tmp_path, "svhn") == ((0.4377, 0.4438, 0.4728), (0.1980, 0.2010, 0.1970))
    assert mean_std(tmp_path, "birds") is None
    content = {f"{domain}{what}": [0.5] * 3 for domain in ("birds", "dtd") for what in ("mean", "std")}
    (tmp_path / PICKLE).write_bytes(pickle.dumps(content, 2))
    assert mean_std(tmp_path, "dtd") == mean_std(tmp_path, "birds") == ((0.5,) * 3, (0.5,) * 3)
    assert mean_std(tmp_path, "svhn") == MEAN_STD["svhn"]


def test_the_tables_have_the_domains_of_the_score():
    assert list(MEAN_STD) == list(WEIGHT_DECAY) == list(BASELINE)
    assert {*NOT_CROPPED, *SIZES} <= set(BASELINE)


def test_pedestrians_stand_upright():
    height, width = SIZES["daimlerpedcls"]
    assert (height, width) == (2 * width, 72)
