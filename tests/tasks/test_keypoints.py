"""Keypoints as a task: modes, labels, flips, decoding to the user's pixels, drawing."""

import json

import numpy as np
import pytest
import torch

from perceptkit.spec.scene_labels import SCENE_FLIP_PAIRS, SCENE_KEYPOINTS
from perceptkit.spec.tasks_file import KeypointsSpec
from perceptkit.tasks.keypoints import Keypoints

NAMES, KINDS = ["left", "nose", "right"], ["floor", "ceiling"]


def make(target: str | None = None, **fields: object) -> Keypoints:
    spec = KeypointsSpec(type="keypoints", target=target, **fields)
    return Keypoints("kp", spec, spec.kinds or spec.names or list(SCENE_KEYPOINTS))


@pytest.fixture
def named() -> Keypoints:
    return make(names=NAMES, flip_pairs=[("left", "right")])


@pytest.fixture
def kinds() -> Keypoints:
    return make(kinds=KINDS)


def test_modes(named, kinds):
    assert (named.primary, kinds.primary) == ("mean_px", "ap")
    assert not named.metric_info["mean_px"].higher_is_better and kinds.metric_info["ap"].higher_is_better
    assert (named.labels, kinds.labels) == (NAMES, KINDS)
    assert (named.out_channels, kinds.out_channels) == (6, 2)


def test_head_starts_with_nearly_no_points(named, kinds):
    feature = torch.zeros(2, 8, 5, 6)
    for task in (named, kinds):
        output = task.head(8)(feature)
        assert output.shape == (2, task.out_channels, 5, 6)
        assert output[:, : len(task.labels)].sigmoid().max() < 0.2


def test_flip_index_swaps_pairs(named, kinds):
    assert named.flip_index == [2, 1, 0]
    assert kinds.flip_index == [0, 1]
    scenes = make()
    for left, right in SCENE_FLIP_PAIRS:
        assert scenes.flip_index[scenes.labels.index(left)] == scenes.labels.index(right)
    assert sorted(scenes.flip_index) == list(range(len(SCENE_KEYPOINTS)))
    # mirroring twice changes nothing
    assert [scenes.flip_index[i] for i in scenes.flip_index] == list(range(len(SCENE_KEYPOINTS)))


def test_read_one_file_per_picture(tmp_path):
    task = make(target="kp/{split}/{id}.json", names=NAMES)
    (tmp_path / "7.json").write_text(json.dumps({"nose": [3, 4, 1]}))
    assert task.read(tmp_path / "7.json", "7").tolist() == [[0, 0, 0], [3, 4, 1], [0, 0, 0]]


def test_read_one_file_per_split(tmp_path):
    task = make(target="{split}/keypoints.json", kinds=KINDS)
    (tmp_path / "keypoints.json").write_text(json.dumps({"00000": [[3.5, 4, 1]], "00001": []}))
    assert task.read(tmp_path / "keypoints.json", "00000")[0].tolist() == [3.5, 4, 1]
    assert (task.read(tmp_path / "keypoints.json", "00001")[:, 2] == -1).all()
    assert task.read(tmp_path / "keypoints.json", "00002") is None


@pytest.mark.parametrize("fields", [{"names": NAMES}, {"kinds": KINDS}])
def test_missing_targets_have_the_shape_of_read_ones_and_no_effect(fields, tmp_path):
    task = make(**fields)
    (tmp_path / "7.json").write_text("{}" if "names" in fields else "[]")
    missing = task.missing((32, 32))
    assert missing.shape == task.read(tmp_path / "7.json", "7").shape and missing.dtype == np.float32
    target = torch.from_numpy(missing)[None]
    assert task.is_labelled(target).tolist() == [False]
    output = torch.randn(1, task.out_channels, 8, 8, requires_grad=True)
    assert task.loss(output, target) == 0
    assert task.quality(output.detach(), target).isnan().all()


def test_named_points_come_back_in_the_size_of_the_picture(named):
    # heat at the centre of cell (5, 2): pixel (21.5, 9.5) of the input; the picture is twice as large
    output = torch.full((1, 6, 8, 16), -9.0)
    output[0, :3, 2, 5] = 9.0
    output[0, 3:5] = 9.0
    points = named.decode(output, (64, 128), (32, 64)).points
    assert list(points) == NAMES
    x, y, score = points["left"]
    assert (x, y) == pytest.approx((22 * 2 - 0.5, 10 * 2 - 0.5))
    assert score > 0.99 and points["right"][2] < 0.01


def test_kinds_come_back_strongest_first(kinds):
    output = torch.full((1, 2, 8, 8), -9.0)
    output[0, 0, 2, 2], output[0, 1, 5, 6], output[0, 1, 1, 6] = 0.0, 3.0, -4.0
    points = kinds.decode(output, (32, 32), (32, 32)).points
    assert [kind for _, _, kind, _ in points] == ["ceiling", "floor"]
    assert points[0][:2] == pytest.approx((6 * 4 + 1.5, 5 * 4 + 1.5))
    assert points[0][3] > points[1][3] == pytest.approx(0.5)


def test_labels_decode_like_predictions(named, kinds):
    target = torch.tensor([[3.0, 4.0, 2.0], [5.0, 6.0, 1.0], [0.0, 0.0, 0.0]])
    assert named.as_prediction(target, (32, 32)).points == {"left": (3.0, 4.0, 1.0), "nose": (5.0, 6.0, 0.0)}
    listed = torch.tensor([[3.0, 4.0, 1.0], [0.0, 0.0, -1.0]])
    assert kinds.as_prediction(listed, (32, 32)).points == [(3.0, 4.0, "ceiling", 1.0)]
    missing = torch.from_numpy(kinds.missing((32, 32)))
    assert kinds.as_prediction(missing, (32, 32)).points == []


@pytest.mark.parametrize("size", [(40, 60), (200, 240)])
def test_draw_marks_visible_points_only(named, kinds, size):
    image = np.full((*size, 3), 128, dtype=np.uint8)
    target = torch.tensor([[30.0, 20.0, 2.0], [10.0, 20.0, 1.0], [0.0, 0.0, 0.0]])
    picture = named.draw(image, named.as_prediction(target, size))
    assert picture.shape == image.shape and picture.dtype == np.uint8
    assert (picture[20, 30] != 128).any() and (picture[20, 10] == 128).all()
    assert (image == 128).all()
    weak = kinds.decode(torch.full((1, 2, 10, 15), -9.0), size, (40, 60))
    assert (kinds.draw(image, weak) == image).all()


@pytest.mark.parametrize("fields", [{"names": NAMES}, {"kinds": KINDS}])
def test_the_whole_slice_fits_together(fields, rng):
    task = make(**fields)
    xy = 32 * torch.rand(4, 3, 2, generator=rng)
    last = torch.full((4, 3, 1), 2.0) if "names" in fields else torch.randint(0, 2, (4, 3, 1), generator=rng)
    target = torch.cat((xy, last.float()), dim=-1)
    constant = task.constant_output([target], (32, 32))
    output = constant.expand(4, -1, -1, -1)
    assert task.loss(output, target).isfinite()
    quality = task.quality(output, target)
    assert ((quality >= 0) & (quality <= 1)).all()
    metric = task.metric()
    metric.update(output, target)
    result = metric.compute()
    assert set(result) == set(task.metric_info) and task.primary in result
