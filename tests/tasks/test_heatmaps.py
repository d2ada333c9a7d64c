"""Heat maps: pixel centres, rendering, sub-pixel decoding."""

import pytest
import torch

from perceptkit.tasks.heatmaps import log_gaussians, peaks, radius_px, refine, to_cells, to_pixels


def test_pixel_centres_by_hand():
    # cell 0 covers pixels 0..3, whose middle is 1.5; the left edge of the picture is the left edge of the map
    assert to_cells(torch.tensor(1.5)) == 0.0
    assert to_cells(torch.tensor(-0.5)) == -0.5
    assert to_pixels(torch.tensor(1.0)) == 5.5


def test_pixels_and_cells_are_inverse():
    x = torch.linspace(-3, 70, 50, dtype=torch.float64)
    assert torch.allclose(to_pixels(to_cells(x)), x)


def test_log_gaussian_by_hand():
    heat = log_gaussians(torch.tensor([[1.0, 0.0]]), (2, 3), sigma=0.5)
    # squared distances to column 1, row 0 over 2 * 0.25
    assert torch.equal(heat[0], -2 * torch.tensor([[1.0, 0.0, 1.0], [2.0, 1.0, 2.0]]))


@pytest.mark.parametrize("sigma", [0.5, 1.0, 2.0])
def test_refine_recovers_a_rendered_gaussian(sigma, rng):
    xy = 1 + torch.rand(200, 2, generator=rng) * torch.tensor([12.0, 6.0])
    heat = log_gaussians(xy, (9, 15), sigma)
    found = refine(heat, heat.flatten(1).argmax(1, keepdim=True))[:, 0]
    assert torch.allclose(found, xy, atol=1e-3)


def test_refine_keeps_the_cell_at_the_border_and_on_plateaus():
    corner = log_gaussians(torch.tensor([[-0.4, -0.4]]), (4, 4), 1.0)
    assert torch.equal(refine(corner, torch.tensor([[0]]))[0, 0], torch.tensor([0.0, 0.0]))
    assert torch.equal(refine(torch.zeros(1, 4, 5), torch.tensor([[7]]))[0, 0], torch.tensor([2.0, 1.0]))


def test_refine_never_leaves_the_cell(rng):
    heat = torch.randn(50, 8, 8, generator=rng) * 100
    cell = heat.flatten(1).argmax(1, keepdim=True)
    found = refine(heat, cell)[:, 0]
    centre = torch.cat((cell % 8, cell // 8), dim=1)
    assert ((found - centre).abs() <= 0.5).all()


def test_peaks_are_sorted_local_maxima():
    heat = torch.full((1, 1, 6, 6), -9.0)
    heat[0, 0, 1, 1], heat[0, 0, 1, 2], heat[0, 0, 4, 4] = -2.0, -3.0, -1.0
    xy, score = peaks(heat, 2)
    assert score[0, 0].tolist() == [-1.0, -2.0]
    assert xy[0, 0].round().tolist() == [[4.0, 4.0], [1.0, 1.0]]


def test_more_peaks_than_maxima_are_minus_infinity():
    heat = -torch.arange(16.0).view(1, 1, 4, 4)
    _, score = peaks(heat, 100)
    assert score.shape == (1, 1, 16)
    assert score[0, 0, 0] == 0 and torch.isinf(score[0, 0, 1:]).all()


def test_default_radius_is_five_percent_of_the_longer_side():
    assert radius_px(None, torch.zeros(1, 1, 24, 32)) == pytest.approx(0.05 * 128)
    assert radius_px(3.0, torch.zeros(1, 1, 24, 32)) == 3.0
