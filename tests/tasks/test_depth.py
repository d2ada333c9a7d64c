"""Depth: loss, metrics and quality by hand; every way to store a label."""

import math

import numpy as np
import pytest
import torch
from PIL import Image

from perceptkit.errors import DataError
from perceptkit.spec.tasks_file import DepthSpec
from perceptkit.tasks.depth import MIN_DEPTH, Depth, DepthMetric, depth_loss, to_depth


def make(**keys) -> Depth:
    return Depth("depth", DepthSpec(type="depth", **keys), [])


def row(*values: float) -> torch.Tensor:
    return torch.tensor([[[values]]])


def measure(output: torch.Tensor, target: torch.Tensor, log: bool = False) -> dict[str, float]:
    metric = DepthMetric(log)
    metric.update(output, target)
    return {name: value.item() for name, value in metric.compute().items()}


def test_loss_by_hand():
    assert depth_loss(row(1.0, 5.0, 9.0), row(2.0, 2.0, 0.0), log=False).item() == pytest.approx((1 + 3) / 2)


def test_log_loss_by_hand():
    output = row(0.0, math.log(8), 3.0)
    assert depth_loss(output, row(2.0, 2.0, 0.0), log=True).item() == pytest.approx(
        (math.log(2) + math.log(4)) / 2
    )


def test_log_loss_has_a_finite_gradient_at_invalid_pixels():
    output = row(0.5, 0.5).requires_grad_()
    depth_loss(output, row(2.0, 0.0), log=True).backward()
    assert output.grad is not None
    assert output.grad.flatten().tolist() == [-1.0, 0.0]


def test_metrics_by_hand():
    # errors 1, 2, 4 on labels 2, 4, 10; ratios 1.5, 1.5, 1.4 against 1.25, 1.5625, 1.953
    found = measure(row(3.0, 6.0, 14.0, 99.0), row(2.0, 4.0, 10.0, 0.0))
    assert found["abs_rel"] == pytest.approx((0.5 + 0.5 + 0.4) / 3)
    assert found["abs_err"] == pytest.approx(7 / 3)
    assert found["rmse"] == pytest.approx(math.sqrt((1 + 4 + 16) / 3))
    assert [found[f"delta{n}"] for n in (1, 2, 3)] == [0, 1, 1]


def test_the_ratio_counts_both_ways():
    found = measure(row(1.0, 1.0, 1.0), row(1.2, 1.5, 1.9))
    assert [found[f"delta{n}"] for n in (1, 2, 3)] == pytest.approx([1 / 3, 2 / 3, 1])


def test_a_perfect_prediction_is_perfect():
    assert list(measure(row(0.5, 7.0, 80.0), row(0.5, 7.0, 0.0)).values()) == [0, 0, 0, 1, 1, 1]


def test_log_metrics_are_in_units():
    found = measure(row(math.log(3)), row(2.0), log=True)
    assert found["abs_err"] == pytest.approx(1) and found["abs_rel"] == pytest.approx(0.5)


def test_negative_predictions_are_clamped():
    found = measure(row(-5.0), row(2.0))
    assert found["abs_err"] == pytest.approx(2 - MIN_DEPTH)
    assert found["delta3"] == 0
    assert make().decode(row(-5.0), (1, 1), (1, 1)).values["values"].item() == pytest.approx(MIN_DEPTH)


def test_pixels_are_pooled_not_images():
    metric = DepthMetric(False)
    metric.update(row(2.0, 2.0, 2.0), row(1.0, 1.0, 1.0))
    metric.update(row(1.0, 1.0, 1.0), row(1.0, 0.0, 0.0))
    assert metric.compute()["abs_rel"].item() == pytest.approx(3 / 4)


def test_wild_outputs_stay_finite():
    assert to_depth(row(500.0, -500.0), log=True).isfinite().all()
    assert all(math.isfinite(v) for v in measure(row(500.0, -500.0), row(1.0, 1.0), log=True).values())


def test_quality_is_delta1_of_each_image():
    output = torch.cat([row(1.0, 1.2, 2.0, 9.0), row(1.0, 1.0, 1.0, 1.0)])
    target = torch.cat([row(1.0, 1.0, 1.0, 0.0), row(0.0, 0.0, 0.0, 0.0)])
    quality = make().quality(output, target)
    assert quality[0].item() == pytest.approx(2 / 3)
    assert quality[1].isnan()


@pytest.mark.parametrize("log", [False, True])
def test_constant_is_the_mean_depth(log):
    output = make(log=log).constant_output([row(1.0, 0.0), row(3.0, 5.0)], (2, 3))
    assert output.shape == (1, 1, 2, 3)
    assert to_depth(output, log).unique().tolist() == pytest.approx([3.0])


@pytest.mark.parametrize("log", [False, True])
def test_constant_without_labels_is_finite(log):
    assert make(log=log).constant_output([row(0.0)], (2, 2)).isfinite().all()


def test_read_kitti_png(tmp_path):
    Image.fromarray(np.array([[0, 256, 65535]], np.uint16)).save(tmp_path / "a.png")
    target = make(scale=256).read(tmp_path / "a.png", "a")
    assert target.shape == (1, 1, 3) and target.dtype == np.float32
    assert target.flatten().tolist() == [0, 1, 65535 / 256]


def test_read_8_bit_png(tmp_path):
    Image.fromarray(np.array([[0, 10, 250]], np.uint8)).save(tmp_path / "a.png")
    assert make(scale=100).read(tmp_path / "a.png", "a").flatten().tolist() == pytest.approx([0, 0.1, 2.5])


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_read_floats(tmp_path, dtype):
    np.save(tmp_path / "a.npy", np.array([[0, 1.5, np.nan, np.inf, 12]], dtype))
    assert make(max=10).read(tmp_path / "a.npy", "a").flatten().tolist() == [0, 1.5, 0, 0, 0]


def test_max_is_in_units_and_belongs_to_the_range(tmp_path):
    np.save(tmp_path / "a.npy", np.array([[9999, 10000, 10001]]))
    read = make(scale=1000, max=10).read(tmp_path / "a.npy", "a").flatten()
    assert (read > 0).tolist() == [True, True, False]


def test_too_large_for_float32_is_invalid(tmp_path):
    np.save(tmp_path / "a.npy", np.array([[1e300, 1.0]]))
    assert make().read(tmp_path / "a.npy", "a").flatten().tolist() == [0, 1]


def test_negative_depth_is_refused(tmp_path):
    np.save(tmp_path / "a.npy", np.array([[1.0, -2.5]]))
    with pytest.raises(DataError, match=r"a\.npy holds negative depth \(-2\.5\); 0 means invalid"):
        make().read(tmp_path / "a.npy", "a")


def test_metres_only_where_the_unit_is_metres():
    in_m = make().decode(torch.ones(1, 1, 4, 4), (6, 5), (4, 4))
    assert in_m.metres.shape == (6, 5) and in_m.metres.dtype == np.float32 and in_m.unit == "m"
    in_cm = make(unit="cm").decode(torch.ones(1, 1, 4, 4), (6, 5), (4, 4))
    assert in_cm.unit == "cm" and "metres" not in in_cm.values
    with pytest.raises(AttributeError, match="depth predictions have values, unit; no 'metres'"):
        _ = in_cm.metres


def test_units_of_the_metrics():
    info = make(unit="mm").metric_info
    assert (info["rmse"].unit, info["abs_rel"].unit) == ("mm", "")


def test_draw_near_is_red_far_is_blue_invalid_is_dark():
    image = np.full((1, 3, 3), 200, np.uint8)
    task = make()
    drawn = task.draw(image, task.as_prediction(torch.tensor([[[1.1, 15.0, 0.0]]]), (1, 3)))
    near, far, invalid = drawn[0]
    assert near.argmax() == 0 and far.argmax() == 2 and invalid.tolist() == [50, 50, 50]


def test_clamped_pixels_do_not_take_all_the_colours():
    image = np.zeros((1, 4, 3), np.uint8)
    task = make()
    clamped, *others = task.draw(image, task.decode(row(-1.0, 2.0, 4.0, 8.0), (1, 4), (1, 4)))[0].astype(int)
    assert clamped.argmax() == 0
    assert min(np.abs(a - b).sum() for a, b in zip(others, others[1:], strict=False)) > 60


def test_draw_of_one_depth_and_of_none():
    image = np.full((2, 2, 3), 200, np.uint8)
    task = make()
    assert task.draw(image, task.as_prediction(torch.full((1, 2, 2), 4.0), (2, 2))).shape == (2, 2, 3)
    assert (task.draw(image, task.as_prediction(torch.zeros(1, 2, 2), (2, 2))) == 50).all()
