"""Pictures and labels found by templates; what is absent is missing, never zero."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from perceptkit.data.folder import FolderSource
from perceptkit.data.sources import open_split
from perceptkit.errors import DataError
from perceptkit.spec.tasks_file import FolderData, TasksFile
from tests.data.conftest import DECLARED, make_tasks

TARGETS = {
    "seg": "seg/{split}/{id}.png",
    "edges": "edges/{split}/{id}.png",
    "depth": "depth/{split}/{id}.npy",
    "normals": "normals/{split}/{id}.npy",
    "points": "points/{split}/{id}.json",
    "kinds": "kinds/{split}.json",
    "room": "room.csv",
}
SIZE = (32, 40)


@pytest.fixture
def tasks():
    return make_tasks(**{name: {**spec, "target": TARGETS[name]} for name, spec in DECLARED.items()})


@pytest.fixture
def root(tmp_path):
    """Two pictures of 64 x 80 pixels; `a` has every label, `b` has none."""
    for name in ("images", "seg", "edges", "depth", "normals", "points"):
        (tmp_path / name / "train").mkdir(parents=True)
    for i, image_id in enumerate("ab"):
        save(tmp_path / f"images/train/{image_id}.png", np.full((64, 80, 3), 50 + i, np.uint8))
    half = np.zeros((64, 80), np.uint8)
    half[:, 40:] = 1
    save(tmp_path / "seg/train/a.png", np.where(half == 1, 7, 255).astype(np.uint8))
    save(tmp_path / "edges/train/a.png", half * 255)
    np.save(tmp_path / "depth/train/a.npy", half * 2.5)
    np.save(tmp_path / "normals/train/a.npy", np.stack([half * 0, half * 0, half * -1.0], axis=-1))
    named = {"left": [19.5, 9.5], "nose": [9.5, 29.5, 1]}
    (tmp_path / "points/train/a.json").write_text(json.dumps(named))
    (tmp_path / "kinds").mkdir()
    (tmp_path / "kinds/train.json").write_text(json.dumps({"a": [[39.5, 19.5, "window"]]}))
    (tmp_path / "room.csv").write_text("id,label\na,bath\n")
    return tmp_path


def save(path, array):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)


def data_of(root, **changes):
    declared = {"source": "folder", "root": root, "image": "images/{split}/{id}.png", "size": SIZE}
    return FolderData.model_validate(declared | changes)


def test_every_label_at_the_size_of_the_network(root, tasks):
    sample = FolderSource(data_of(root), "train", tasks).load(0)
    assert sample.id == "a" and sample.image.shape == (*SIZE, 3) and (sample.image == 50).all()
    targets = sample.targets
    right = np.arange(SIZE[1]) >= 20
    assert np.array_equal(targets["seg"], np.broadcast_to(np.where(right, 7, -1), SIZE))
    assert np.array_equal(targets["edges"], np.broadcast_to(right, (1, *SIZE)))
    assert np.array_equal(targets["depth"], np.broadcast_to(right * 2.5, (1, *SIZE)))
    assert np.array_equal(targets["normals"][2], np.broadcast_to(right * -1.0, SIZE))
    # half the size: (x + .5) / 2 - .5
    assert targets["points"].tolist() == [[9.5, 4.5, 2], [0, 0, 0], [4.5, 14.5, 1]]
    assert targets["kinds"][0].tolist() == [19.5, 9.5, 1] and (targets["kinds"][1:, 2] == -1).all()
    assert targets["room"] == 1


def test_what_is_absent_is_missing(root, tasks):
    """No file (seg, edges, ...), no entry in a file for the split (kinds), no row in a CSV (room)."""
    sample = FolderSource(data_of(root), "train", tasks).load(1)
    for name, task in tasks.items():
        target = sample.targets[name]
        np.testing.assert_array_equal(target, task.missing(SIZE))
        assert target.dtype == task.missing(SIZE).dtype
        assert not task.is_labelled(torch.from_numpy(target)[None]).any()


def test_a_task_without_a_template_is_missing(root):
    tasks = make_tasks()
    sample = FolderSource(data_of(root), "train", tasks).load(0)
    assert (sample.targets["seg"] == -1).all() and sample.targets["room"] == -1


def test_ids_come_sorted_from_the_template(root, tasks):
    for image_id in ("10", "9", "c"):
        save(root / f"images/train/{image_id}.png", np.zeros((8, 8, 3), np.uint8))
    (root / "images/train/notes.txt").write_text("no picture")
    assert FolderSource(data_of(root), "train", tasks).ids == ["10", "9", "a", "b", "c"]
    limited = FolderSource(data_of(root, limit=2), "train", tasks)
    assert limited.ids == ["10", "b"] and len(limited) == 2  # one of each half
    assert FolderSource(data_of(root, limit={"train": 1}), "train", tasks).ids == ["10"]
    assert len(FolderSource(data_of(root, limit={"val": 1}), "train", tasks)) == 5


def test_templates_with_the_id_as_a_folder(tmp_path):
    save(tmp_path / "train_set/7/left_camera.png", np.full((32, 40, 3), 9, np.uint8))
    save(tmp_path / "train_set/7/classes.png", np.full((32, 40), 3, np.uint8))
    tasks = make_tasks(seg={**DECLARED["seg"], "target": "{split}/{id}/classes.png"})
    data = data_of(tmp_path, image="{split}/{id}/left_camera.png", splits={"train": "train_set"})
    source = FolderSource(data, "train", tasks)
    assert source.ids == ["7"]
    assert (source.load(0).targets["seg"] == 3).all()


def test_a_split_without_pictures_is_an_error(root, tasks):
    with pytest.raises(DataError, match=r"no pictures for val: nothing matches .*images/val/\*\.png"):
        FolderSource(data_of(root), "val", tasks)


def test_an_unreadable_picture_is_named(root, tasks):
    (root / "images/train/b.png").write_bytes(b"\x89PNG\r\n\x1a\nbroken")
    with pytest.raises(DataError, match=r"images/train/b\.png: not a readable picture"):
        FolderSource(data_of(root), "train", tasks).load(1)


def test_a_wrong_label_is_named_with_its_values(root, tasks):
    save(root / "seg/train/b.png", np.full((64, 80), 41, np.uint8))
    with pytest.raises(DataError, match=r"seg/train/b\.png holds class id 41; 9 classes are declared"):
        FolderSource(data_of(root), "train", tasks).load(1)


def test_labels_may_have_another_size_than_the_picture(root, tasks):
    save(root / "seg/train/b.png", np.full((16, 20), 5, np.uint8))
    assert (FolderSource(data_of(root), "train", tasks).load(1).targets["seg"] == 5).all()


def test_edges_are_derived_at_the_size_of_the_network(root):
    tasks = make_tasks(
        outline={"type": "edges", "derive": ["seg"]},
        seg={**DECLARED["seg"], "target": TARGETS["seg"], "ignore_index": 99},
    )
    halves = np.zeros((64, 80), np.uint8)
    halves[:, 40:] = 1
    save(root / "seg/train/a.png", halves)
    source = FolderSource(data_of(root), "train", tasks)
    (rows, columns) = np.nonzero(source.load(0).targets["outline"][0])
    assert set(columns) == {19} and len(rows) == SIZE[0]  # one pixel wide, the last of the left half
    assert (source.load(1).targets["outline"] == -1).all()


def test_open_split_reads_the_declared_source(root, tasks):
    tasks_file = TasksFile.model_validate(
        {"name": "n", "data": data_of(root).model_dump(), "tasks": {"seg": {**DECLARED["seg"]}}}
    )
    assert open_split(tasks_file, tasks, "train").ids == ["a", "b"]
