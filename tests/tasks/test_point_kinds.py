"""Kinds of point: rendering, loss, detection, AP, the constant predictor."""

import math

import pytest
import torch

from perceptkit.tasks.point_files import MAX_POINTS
from perceptkit.tasks.point_kinds import (
    KindMetric,
    detect,
    kind_loss,
    kind_quality,
    labelled,
    location_histogram,
    render,
)


def points(*rows: tuple[float, float, int]) -> torch.Tensor:
    target = torch.tensor([0.0, 0.0, -1.0]).repeat(MAX_POINTS, 1)
    for i, row in enumerate(rows):
        target[i] = torch.tensor(row)
    return target[None]


UNLABELLED = torch.full((1, MAX_POINTS, 3), torch.nan)


def perfect(target: torch.Tensor, num_kinds: int = 2, size_hw: tuple[int, int] = (16, 16)) -> torch.Tensor:
    return torch.logit(render(target, num_kinds, size_hw)[0].double(), eps=1e-9).float()


def test_render_by_hand():
    heat, positive = render(points((9.5, 5.5, 1)), 2, (3, 4))
    # pixel (9.5, 5.5) is the centre of cell (column 2, row 1)
    assert heat[0, 1, 1, 2] == 1 and heat[0, 1, 1, 1] == pytest.approx(math.exp(-1 / (2 * 0.36)))
    assert positive.nonzero().tolist() == [[0, 1, 1, 2]]
    assert (heat[0, 0] == 0).all()


def test_render_leaves_out_padding_and_points_outside():
    heat, positive = render(points((-0.6, 3, 0), (3, 12.1, 0), (16.0, 3, 1)), 2, (3, 4))
    assert (heat == 0).all() and not positive.any()


def test_overlapping_points_take_the_larger_heat():
    one, _ = render(points((9.5, 5.5, 0)), 1, (4, 4))
    two, positive = render(points((9.5, 5.5, 0), (10.5, 5.5, 0)), 1, (4, 4))
    assert (two >= one).all() and two.max() == 1 and positive.sum() == 1


def test_loss_by_hand():
    # one cell, centre at 1.5: positive with p = 1/2
    assert kind_loss(torch.zeros(1, 1, 1, 1), points((1.5, 1.5, 0))).item() == pytest.approx(math.log(2) / 4)
    # no point: the cell is a negative with y = 0, and the divisor stays 1
    assert kind_loss(torch.zeros(1, 1, 1, 1), points()).item() == pytest.approx(math.log(2) / 4)


def test_missing_differs_from_no_points():
    target = torch.cat((UNLABELLED, points()))
    assert labelled(target).tolist() == [False, True]
    output = torch.zeros(2, 2, 8, 8, requires_grad=True)
    loss = kind_loss(output, target)
    loss.backward()
    assert loss > 0 and (output.grad[0] == 0).all() and (output.grad[1] != 0).all()
    assert torch.equal(loss, kind_loss(output[1:], target[1:]))


def test_nothing_labelled():
    output = torch.zeros(1, 2, 8, 8, requires_grad=True)
    loss = kind_loss(output, UNLABELLED)
    loss.backward()
    assert loss == 0 and (output.grad == 0).all()
    metric = KindMetric(2, None)
    metric.update(output.detach(), UNLABELLED)
    assert metric.compute()["ap"].isnan()
    assert kind_quality(output.detach(), UNLABELLED, 3.0).isnan().all()


def test_extreme_logits_are_finite():
    for logit in (1e4, -1e4):
        output = torch.full((1, 2, 8, 8), logit, requires_grad=True)
        loss = kind_loss(output, points((5, 5, 0)))
        loss.backward()
        assert loss.isfinite() and output.grad.isfinite().all()


def test_detection_is_sub_pixel(rng):
    xy = 6 + 52 * torch.rand(1, 2, generator=rng)
    found, score = detect(perfect(points((*xy[0].tolist(), 0))))
    assert (found[0, 0, 0] - xy[0]).norm() < 0.1
    assert score[0, 0, 0] > 0.4 and score[0, 0, 1:].max() < 1e-6


def test_perfect_output_has_ap_one():
    target = torch.cat((points((8, 8, 0), (40, 20, 0), (30, 50, 1)), points((20, 20, 1)), points()))
    metric = KindMetric(2, 2.0)
    metric.update(perfect(target), target)
    assert metric.compute()["ap"].item() == pytest.approx(1.0)
    assert metric.compute()["f1"].item() == pytest.approx(1.0)
    assert kind_quality(perfect(target), target, 2.0).tolist() == pytest.approx([1.0, 1.0, 1.0], abs=1e-6)


def test_ap_over_pictures_and_kinds_by_hand():
    truth = torch.cat((points((9.5, 9.5, 0), (41.5, 41.5, 1)), points((21.5, 21.5, 0))))
    output = torch.full((2, 2, 16, 16), -20.0)
    output[0, 0, 2, 2] = 2.0  # kind 0: right
    output[0, 0, 12, 12] = 1.0  # kind 0: false
    output[1, 0, 5, 5] = 0.0  # kind 0: right
    output[0, 1, 3, 3] = 1.0  # kind 1: false
    metric = KindMetric(2, 2.0)
    metric.update(output, truth)
    # kind 0: right, false, right of 2: 1/2 * 1 + 1/2 * 2/3 = 5/6, best F1 4/5; kind 1: nothing found
    assert metric.compute()["ap"].item() == pytest.approx(5 / 12)
    assert metric.compute()["f1"].item() == pytest.approx(2 / 5)


def test_a_kind_without_true_points_is_left_out():
    truth = points((9.5, 9.5, 0))
    output = perfect(truth)
    output[0, 1, 3, 3] = 5.0
    metric = KindMetric(2, 2.0)
    metric.update(output, truth)
    assert metric.compute()["ap"].item() == pytest.approx(1.0)


def test_batches_add_up(rng):
    target = torch.cat([points((9, 9, 0), (40, 41, 1)), points((20, 30, 0)), points((50, 13, 1))])
    output = torch.randn(3, 2, 16, 16, generator=rng)
    whole, parts = KindMetric(2, None), KindMetric(2, None)
    whole.update(output, target)
    parts.update(output[:1], target[:1])
    parts.update(output[1:], target[1:])
    assert whole.compute() == parts.compute()


def test_quality_of_a_picture_without_points_is_one_minus_the_top_score():
    output = torch.full((1, 1, 8, 8), -20.0)
    output[0, 0, 4, 4] = 0.0
    assert kind_quality(output, points(), 3.0).item() == pytest.approx(0.5)


def test_the_histogram_is_the_mean_heat():
    batches = [torch.cat((points((9.5, 9.5, 0)), UNLABELLED)), points((9.5, 9.5, 0), (30, 30, 1))]
    logit = location_histogram(batches, 2, (16, 16))
    assert logit.shape == (1, 2, 16, 16)
    assert logit[0, 0, 2, 2].sigmoid().item() == pytest.approx(1.0, abs=1e-5)
    heat, _ = render(points((30, 30, 1)), 2, (16, 16))
    assert torch.allclose(logit[0, 1].sigmoid(), heat[0, 1] / 2, atol=1e-5)
