"""Non-maximum suppression and thinning."""

import numpy as np
import pytest
from scipy import ndimage

from perceptkit.tasks.edge_maps import ridges, thin


def blobs(seed: int) -> np.ndarray:
    noise = np.random.default_rng(seed).normal(size=(40, 50))
    return ndimage.gaussian_filter(noise, 2) > 0.03


@pytest.mark.parametrize("width", [1, 2, 3, 5, 6])
def test_a_thick_line_becomes_one_pixel_wide(width):
    mask = np.zeros((20, 30), dtype=bool)
    mask[7 : 7 + width, :] = True
    on = thin(mask)
    assert (on[:, 5:-5].sum(axis=0) == 1).all()
    assert abs(np.nonzero(on[:, 15])[0][0] - (7 + (width - 1) / 2)) <= 0.5


def test_a_region_stays_thick():
    assert thin(np.ones((30, 30), dtype=bool)).sum() > 20 * 20


def test_a_diagonal_staircase_becomes_a_diagonal():
    mask = np.eye(12, dtype=bool) | np.eye(12, k=1, dtype=bool)
    assert thin(mask).sum() <= 13


@pytest.mark.parametrize("seed", range(5))
def test_thinning_keeps_what_is_connected(seed):
    mask, eight = blobs(seed), np.ones((3, 3))
    on = thin(mask, steps=100)
    assert not (on & ~mask).any()
    assert ndimage.label(on, eight)[1] == ndimage.label(mask, eight)[1]
    # holes survive: the background has as many 4-connected parts
    padded, padded_on = np.pad(mask, 1), np.pad(on, 1)
    assert ndimage.label(~padded_on)[1] == ndimage.label(~padded)[1]
    assert np.array_equal(thin(on, steps=100), on)


def test_a_stack_is_thinned_map_by_map():
    stack = np.stack([blobs(0), blobs(1)])
    assert np.array_equal(thin(stack)[1], thin(stack[1]))


def test_thin_leaves_its_input_alone():
    mask = blobs(0)
    before = mask.copy()
    thin(mask)
    assert np.array_equal(mask, before)


@pytest.mark.parametrize("angle", [0.0, 0.4, 0.8, 1.2, 1.57, 2.2])
def test_ridges_follow_a_blurred_line(angle):
    y, x = np.mgrid[:31, :31] - 15.0
    distance = np.abs(x * np.sin(angle) - y * np.cos(angle))
    logits = (5 - distance**2).astype(np.float32)
    keep = ridges(logits) & (logits > 0)
    assert distance[keep].max() <= 1.0
    assert 25 <= keep.sum() <= 65


def test_flat_maps_are_left_to_thinning():
    assert ridges(np.zeros((8, 9), dtype=np.float32)).all()


def test_ridges_survive_saturated_and_extreme_logits():
    logits = np.full((9, 9), -1e4, dtype=np.float32)
    logits[4] = 1e4
    assert (ridges(logits)[4]).all() and not ridges(logits)[3].any()
