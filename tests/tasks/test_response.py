"""Maps of a detector's responses: what they hold, the loss and the metric by hand, and unlabelled pixels."""

import numpy as np
import pytest
import torch
from PIL import Image

from perceptkit.data.geometry import Geometry, move_target
from perceptkit.errors import DataError
from perceptkit.spec.load import load_tasks
from perceptkit.spec.problems import SpecProblems
from perceptkit.spec.tasks_file import ResponseSpec
from perceptkit.tasks.response import UNLABELLED, Response

TASK = Response("kp", ResponseSpec(type="response"), [])


def as_map(*values):
    return torch.tensor(values, dtype=torch.float32).view(1, 1, 1, -1)


def test_pictures_and_arrays(tmp_path):
    Image.fromarray(np.array([[0, 51, 255]], np.uint8)).save(tmp_path / "a.png")
    assert TASK.read(tmp_path / "a.png", "a")[0, 0] == pytest.approx([-1, -0.6, 1])
    Image.fromarray(np.array([[0, 65535]], np.uint16)).save(tmp_path / "b.png")
    assert TASK.read(tmp_path / "b.png", "b")[0, 0].tolist() == [-1, 1]
    np.save(tmp_path / "c.npy", np.array([[0.5, np.nan]], np.float32))
    assert TASK.read(tmp_path / "c.npy", "c")[0, 0].tolist() == [0, UNLABELLED]
    np.save(tmp_path / "d.npy", np.array([[0.5, 3.0]]))
    with pytest.raises(DataError, match="d.npy holds 3; expected numbers from 0 to 1"):
        TASK.read(tmp_path / "d.npy", "d")


def test_loss_and_metric_by_hand():
    output, target = as_map(0.5, 0.0, 9.0), as_map(1.0, -1.0, UNLABELLED)
    assert TASK.loss(output, target) == pytest.approx((0.5 + 1) / 2)
    metric = TASK.metric()
    metric.update(output, target)
    metric.update(as_map(0.0), as_map(0.0))
    assert metric.compute()["l1"] == pytest.approx(1.5 / 3)
    assert TASK.quality(output, target).tolist() == pytest.approx([1 - 0.75 / 2])


def test_a_picture_without_label_is_ignored():
    missing = torch.from_numpy(TASK.missing((1, 3)))[None]
    assert not TASK.is_labelled(missing).any() and TASK.quality(as_map(1, 2, 3), missing).isnan().all()
    output = as_map(1, 2, 3).requires_grad_()
    loss = TASK.loss(output, missing)
    loss.backward()
    assert loss == 0 and (output.grad == 0).all()
    metric = TASK.metric()
    metric.update(output.detach(), missing)
    assert metric.compute()["l1"].isnan()


def test_what_turning_leaves_empty_is_unlabelled():
    target = np.ones((1, 5, 5), np.float32)
    turned = move_target(target, TASK, Geometry(angle_deg=45), (5, 5))
    assert turned[0, 2, 2] == 1 and turned[0, 0, 0] == UNLABELLED


def test_the_built_in_scenes_have_none(tmp_path):
    (tmp_path / "t.yaml").write_text(
        "name: t\ndata: {source: scenes}\ntasks: {kp: {type: response}, seg: {type: segmentation}}\n"
    )
    with pytest.raises(SpecProblems, match="contradicts 'source: scenes': the renderer has no detector"):
        load_tasks(tmp_path / "t.yaml")


def test_the_best_constant_is_the_median():
    targets = [as_map(-1.0, -0.5, UNLABELLED), as_map(-0.5, 1.0, 1.0)]
    assert TASK.constant_output(targets, (2, 3)).flatten().tolist() == pytest.approx([-0.5] * 6)
    assert TASK.constant_output([], (1, 1)).item() == 0


def test_decoded_and_drawn():
    prediction = TASK.decode(as_map(-3.0, 0.0, 3.0), (1, 3), (1, 3))
    assert prediction.values["values"].tolist() == [[-1, 0, 1]]
    drawn = TASK.draw(np.full((1, 3, 3), 100, np.uint8), prediction)
    assert drawn[0].tolist() == [[40, 40, 40], [148, 130, 40], [255, 220, 40]]
    assert TASK.as_prediction(as_map(UNLABELLED)[0], (1, 1)).values["values"].tolist() == [[-1]]
