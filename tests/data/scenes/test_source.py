"""Splits of scenes: disjoint, cached, and in the form every task takes."""

import numpy as np
import pytest

from perceptkit.data.scenes import source as module
from perceptkit.data.scenes.source import CHUNK, FIRST_INDEX, SceneSource
from perceptkit.errors import DataError
from perceptkit.spec.tasks_file import TasksFile
from perceptkit.tasks.table import build_tasks

ALL = {
    kind: {"type": kind}
    for kind in ("segmentation", "depth", "normals", "keypoints", "edges", "classification")
}


def tasks_file(count=3, tasks=ALL, **data):
    counts = {"train": count, "val": count, "test": count}
    scenes = {"source": "scenes", "size": [32, 48], "count": counts, **data}
    return TasksFile.model_validate({"name": "t", "data": scenes, "tasks": tasks})


def open_source(tmp_path, split="train", **data):
    file = tasks_file(**data)
    return SceneSource(file.data, split, build_tasks(file), tmp_path)


def test_targets_have_the_form_of_missing_ones(tmp_path):
    file = tasks_file()
    tasks = build_tasks(file)
    sample = SceneSource(file.data, "train", tasks, tmp_path).load(1)
    assert sample.image.shape == (32, 48, 3) and sample.image.dtype == np.uint8
    for name, task in tasks.items():
        missing = task.missing((32, 48))
        assert sample.targets[name].shape == missing.shape, name
        assert sample.targets[name].dtype == missing.dtype, name


def test_splits_share_no_scene(tmp_path):
    assert len(set(FIRST_INDEX.values())) == 3
    gaps = np.diff(sorted(FIRST_INDEX.values()))
    assert gaps.min() > 10**8
    pictures = {split: open_source(tmp_path, split).load(0).image.tobytes() for split in FIRST_INDEX}
    assert len(set(pictures.values())) == 3


def test_rendered_once(tmp_path, monkeypatch):
    first = open_source(tmp_path, count=CHUNK + 1)
    assert len(list(first.folder.iterdir())) == 2

    def refuse(*_, **__):
        raise AssertionError("rendered again")

    monkeypatch.setattr(module, "render_chunks", refuse)
    again = open_source(tmp_path, count=CHUNK + 1)
    assert np.array_equal(first.load(CHUNK).image, again.load(CHUNK).image)
    with pytest.raises(AssertionError, match="rendered again"):
        open_source(tmp_path, count=CHUNK + 1, style="thermal")


def test_damaged_chunks_are_rendered_again(tmp_path):
    whole = open_source(tmp_path).load(2).image
    (file,) = open_source(tmp_path).folder.iterdir()
    file.write_bytes(file.read_bytes()[:1000])
    assert np.array_equal(open_source(tmp_path).load(2).image, whole)


def test_more_scenes_do_not_change_the_first(tmp_path):
    few = open_source(tmp_path / "few", count=2).load(1)
    many = open_source(tmp_path / "many", count=40).load(1)
    assert np.array_equal(few.image, many.image)


def test_depth_beyond_max_is_invalid(tmp_path):
    whole = open_source(tmp_path, tasks={"depth": {"type": "depth"}}).load(0).targets["depth"]
    middle = float(np.median(whole))
    cut = open_source(tmp_path, tasks={"depth": {"type": "depth", "max": middle}}).load(0).targets["depth"]
    assert np.array_equal(cut, np.where(whole > middle, 0, whole)) and (cut == 0).any()


def test_cache_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="PERCEPTKIT_CACHE"):
        open_source(tmp_path / "file")
