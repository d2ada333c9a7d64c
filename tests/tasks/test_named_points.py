"""Named keypoints: loss, decoding, metric, quality, the constant predictor."""

import math

import pytest
import torch
from torch import nn

from perceptkit.tasks.heatmaps import log_gaussians, to_cells
from perceptkit.tasks.named_points import (
    SIGMA,
    PointMetric,
    cells_of,
    head_bias,
    is_visible,
    locate,
    mean_points,
    point_loss,
    point_quality,
    visibility_logit,
)


def perfect(target_BN3: torch.Tensor, size_hw: tuple[int, int] = (16, 16)) -> torch.Tensor:
    """The output of a network that knows the answer."""
    heat = log_gaussians(to_cells(target_BN3[..., :2]), size_hw, SIGMA).exp().double()
    visible = target_BN3[..., 2] == 2
    heat = heat * visible[..., None, None]
    sight = torch.where(visible, 9.0, -9.0)[..., None, None].expand_as(heat)
    return torch.cat((torch.logit(heat, eps=1e-12), sight), dim=1).float()


@pytest.fixture
def target(rng) -> torch.Tensor:
    xy = 6 + 52 * torch.rand(4, 3, 2, generator=rng)
    v = torch.tensor([[2, 2, 1], [2, 1, 0], [0, 0, 0], [2, 2, 2]])
    return torch.cat((xy, v[..., None]), dim=-1) * (v > 0)[..., None]


def test_visible_means_labelled_so_and_inside():
    rows = [[5, 5, 2], [5, 5, 1], [5, 5, 0], [-0.5, 63.5, 2], [-0.6, 5, 2], [5, 63.6, 2]]
    assert is_visible(torch.tensor([rows]), (16, 16))[0].tolist() == [True, False, False, True, False, False]


def test_loss_by_hand():
    # one cell, one name: the heat of a point on the cell's centre is 1
    output = torch.tensor([2.0, -1.0]).view(1, 2, 1, 1)
    visible = point_loss(output, torch.tensor([[[1.5, 1.5, 2.0]]]))
    assert visible.item() == pytest.approx(math.log(1 + math.exp(-2)) + math.log(1 + math.exp(1)))
    hidden = point_loss(output, torch.tensor([[[1.5, 1.5, 1.0]]]))
    assert hidden.item() == pytest.approx(math.log(1 + math.exp(2)) + math.log(1 + math.exp(-1)))


def test_visibility_is_read_where_the_heat_is():
    output = torch.zeros(1, 2, 1, 2)
    output[0, 0, 0], output[0, 1, 0] = torch.tensor([30.0, 0.0]), torch.tensor([3.0, -5.0])
    assert visibility_logit(output).item() == pytest.approx(3.0)


def test_decoding_finds_perfect_points(target):
    visible = target[..., 2] == 2
    error = (locate(perfect(target)) - target[..., :2]).norm(dim=-1)[visible]
    assert error.max() < 0.1
    assert torch.equal(visibility_logit(perfect(target)) > 0, visible)


def test_unlabelled_points_change_nothing(target, rng):
    output = torch.randn(4, 6, 16, 16, generator=rng, requires_grad=True)
    loss = point_loss(output, target)
    loss.backward()
    assert (output.grad[2] == 0).all() and (output.grad[1, 2] == 0).all() and (output.grad[1, 5] == 0).all()
    garbage = target.clone()
    garbage[..., :2][target[..., 2] == 0] = 17.0
    assert torch.equal(point_loss(output, garbage), loss)
    metrics = [PointMetric(3.0), PointMetric(3.0)]
    for metric, labels in zip(metrics, (target, garbage), strict=True):
        metric.update(output.detach(), labels)
    assert metrics[0].compute() == metrics[1].compute()


def test_no_labels_give_a_zero_loss_and_nan_metrics():
    output = torch.randn(2, 4, 8, 8, requires_grad=True)
    loss = point_loss(output, torch.zeros(2, 2, 3))
    loss.backward()
    assert loss == 0 and (output.grad == 0).all()
    metric = PointMetric(None)
    metric.update(output.detach(), torch.zeros(2, 2, 3))
    assert all(value.isnan() for value in metric.compute().values())
    assert point_quality(output.detach(), torch.zeros(2, 2, 3), 3.0).isnan().all()


def test_metrics_by_hand():
    truth = torch.tensor([[[21.5, 21.5, 2.0], [41.5, 41.5, 2.0], [30.0, 30.0, 1.0]]])
    moved = truth.clone()
    moved[0, 0, 0] += 4  # 4 px beside
    moved[0, 2, 2] = 2  # said to be visible
    metric = PointMetric(radius=3.0)
    metric.update(perfect(moved), truth)
    result = metric.compute()
    assert result["mean_px"].item() == pytest.approx(2.0, abs=0.01)
    assert result["pck"].item() == 0.5
    assert result["visibility_acc"].item() == pytest.approx(2 / 3)


def test_quality_by_hand():
    truth = torch.tensor([[[21.5, 21.5, 2.0], [30.0, 30.0, 1.0]], [[21.5, 21.5, 2.0], [0.0, 0.0, 0.0]]])
    moved = truth.clone()
    moved[1, 0, 1] -= 3
    quality = point_quality(perfect(moved), truth, radius=3.0)
    # picture 1: right in all; picture 2: one radius beside the point is worth a half
    assert quality.tolist() == pytest.approx([1.0, 0.5], abs=0.01)


def test_extreme_logits_are_finite():
    for logit in (1e4, -1e4):
        output = torch.full((1, 2, 8, 8), logit, requires_grad=True)
        loss = point_loss(output, torch.tensor([[[9.0, 9.0, 2.0]]]))
        loss.backward()
        assert loss.isfinite() and output.grad.isfinite().all()
        assert locate(output).isfinite().all()


def test_the_mean_point_decodes_to_the_mean(target):
    constant = mean_points([target[:2], target[2:]], 3, (16, 16))
    assert constant.shape == (1, 6, 16, 16)
    visible = target[..., 2] == 2
    for n in range(3):
        expected = target[visible[:, n], n, :2].mean(0)
        assert torch.allclose(locate(constant)[0, n], expected, atol=0.01)
    # visible in 3 of 3, 2 of 3 and 1 of 2 labelled pictures
    assert visibility_logit(constant)[0].sigmoid().tolist() == pytest.approx([1, 2 / 3, 1 / 2], abs=1e-4)


def test_a_point_never_seen_has_the_middle_as_its_mean():
    constant = mean_points([torch.zeros(2, 1, 3)], 1, (8, 16))
    assert locate(constant)[0, 0].tolist() == pytest.approx([31.5, 15.5], abs=0.01)


def test_heat_map_size_is_rounded_up():
    assert cells_of((64, 96)) == (16, 24)
    assert cells_of((65, 98)) == (17, 25)


def test_mirrored_output_decodes_to_mirrored_points(rng):
    output = torch.randn(2, 4, 8, 10, generator=rng)
    x, y = locate(output).unbind(-1)
    mirrored_x, mirrored_y = locate(output.flip(-1)).unbind(-1)
    assert torch.allclose(mirrored_x, 39 - x, atol=1e-4) and torch.allclose(mirrored_y, y, atol=1e-4)


def squares(count: int, rng: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """Noise with a red and, in two of three pictures, a green square; points are their centres."""
    image = 0.3 * torch.randn(count, 3, 32, 32, generator=rng)
    corner = torch.randint(2, 25, (count, 2, 2), generator=rng)
    target = torch.cat((corner + 2.0, torch.full((count, 2, 1), 2.0)), dim=-1)
    target[::3, 1, 2] = 1
    for i in range(count):
        for n in range(2):
            if target[i, n, 2] == 2:
                x, y = corner[i, n].tolist()
                image[i, n, y : y + 5, x : x + 5] += 2
    return image, target


def test_learns_the_obvious(rng):
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 16, 3, 2, 1), nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 32, 3, 2, 1)]
    layers += [nn.BatchNorm2d(32), nn.ReLU(), nn.Conv2d(32, 32, 3, 1, 1), nn.ReLU(), nn.Conv2d(32, 4, 1)]
    net = nn.Sequential(*layers)
    net[-1].bias = nn.Parameter(head_bias(2))
    image, target = squares(320, rng)
    optimizer = torch.optim.Adam(net.parameters(), lr=5e-3)
    for step in range(120):
        rows = torch.arange(32) + 32 * (step % 8)
        optimizer.zero_grad()
        point_loss(net(image[rows]), target[rows]).backward()
        optimizer.step()
    net.eval()
    metric, constant = PointMetric(None), PointMetric(None)
    with torch.no_grad():
        metric.update(net(image[256:]), target[256:])
    constant.update(mean_points([target[:256]], 2, (8, 8)).expand(64, -1, -1, -1), target[256:])
    learned = metric.compute()
    assert learned["mean_px"] < 1.0 and learned["visibility_acc"] > 0.95
    assert learned["mean_px"] < 0.2 * constant.compute()["mean_px"]
