"""ODS-F and OIS-F: pairing, counts, speed."""

import time

import numpy as np
import pytest
from scipy import ndimage

from perceptkit.tasks.edge_matching import edge_counts, f_measure, matched

ON, OFF = 10.0, -10.0


def column(x: int, size: tuple[int, int] = (10, 12)) -> np.ndarray:
    mask = np.zeros(size, dtype=bool)
    mask[:, x] = True
    return mask


def test_a_shifted_line_counts_within_the_tolerance():
    predicted = np.stack([column(5), column(6), column(7), column(4) & (np.arange(10) < 3)[:, None]])
    assert matched(predicted, column(5), 1.5).tolist() == [10, 10, 0, 3]
    assert matched(predicted, column(5), 2.0).tolist() == [10, 10, 10, 3]
    assert matched(predicted, column(5), 0.5).tolist() == [10, 0, 0, 0]


def test_each_pixel_is_used_once():
    thick = column(4) | column(5) | column(6)
    assert matched(thick[None], column(5), 1.5).tolist() == [10]
    assert matched(column(5)[None], thick, 1.5).tolist() == [10]


def test_the_pairing_is_the_largest_one():
    # predictions at 1 and 2, truth at 0 and 1; a greedy 1-1 pairing would leave 2 and 0 alone (2 apart)
    predicted, true = np.zeros((1, 1, 4), dtype=bool), np.zeros((1, 4), dtype=bool)
    predicted[0, 0, [1, 2]] = True
    true[0, [0, 1]] = True
    assert matched(predicted, true, 1.0).tolist() == [2]


def test_no_edges_pair_with_nothing():
    empty = np.zeros((10, 12), dtype=bool)
    assert matched(empty[None], column(3), 1.5).tolist() == [0]
    assert matched(column(3)[None], empty, 1.5).tolist() == [0]


def test_f_by_hand():
    # precision 3/4, recall 3/5: F = 2 * 3 / (4 + 5)
    assert f_measure(np.array(3), np.array(4), np.array(5)) == pytest.approx(2 / 3)
    assert f_measure(np.array(0), np.array(0), np.array(0)) == 1.0


def test_perfect_prediction_of_thick_labels_is_perfect():
    noise = ndimage.gaussian_filter(np.random.default_rng(0).normal(size=(3, 40, 40)), (0, 4, 4)) > 0
    thick = noise ^ ndimage.binary_dilation(noise, np.ones((1, 3, 3)))
    pairs, predicted, true = edge_counts(np.where(thick, ON, OFF), thick.astype(float), 1.5)
    assert (f_measure(pairs, predicted, true[:, None]) == 1).all()


def test_a_blurred_prediction_is_thinned():
    distance = np.abs(np.arange(12) - 5.0)
    blurred = np.tile(3 - distance, (10, 1))  # five pixels are above the threshold of 0
    pairs, predicted, true = edge_counts(blurred[None], column(5)[None].astype(float), 1.5, np.array([0.0]))
    assert (pairs, predicted, true) == (10, 10, 10)


def test_a_predicted_region_is_punished():
    region = np.full((1, 30, 30), ON)
    target = column(15, (30, 30))[None].astype(float)
    pairs, predicted, true = edge_counts(region, target, 1.5, np.array([0.0]))
    assert f_measure(pairs, predicted, true[:, None])[0, 0] < 0.15


def test_ignored_pixels_are_neither_predicted_nor_true():
    target = column(5).astype(float)
    target[:, 8:] = -1
    logits = np.where(column(5) | column(10), ON, OFF)
    pairs, predicted, true = edge_counts(logits[None], target[None], 1.5, np.array([0.0]))
    assert (pairs, predicted, true) == (10, 10, 10)


@pytest.mark.parametrize("seed", range(3))
def test_pairs_never_exceed_either_side_and_grow_with_tolerance(seed):
    rng = np.random.default_rng(seed)
    logits, target = rng.normal(size=(2, 24, 24)) * 3, (rng.random((2, 24, 24)) < 0.1).astype(float)
    previous = 0
    for tolerance in (0.5, 1.0, 1.5, 3.0):
        pairs, predicted, true = edge_counts(logits, target, tolerance)
        assert (pairs <= predicted).all() and (pairs <= true[:, None]).all()
        assert pairs.sum() >= previous
        previous = pairs.sum()


def test_mirrored_maps_have_the_same_counts_of_pairs():
    rng = np.random.default_rng(3)
    predicted, true = rng.random((4, 20, 20)) < 0.2, rng.random((20, 20)) < 0.2
    assert np.array_equal(matched(predicted, true, 1.5), matched(predicted[..., ::-1], true[:, ::-1], 1.5))


def test_speed():
    rng = np.random.default_rng(0)
    shapes = ndimage.gaussian_filter(rng.normal(size=(100, 64, 64)), (0, 4, 4)) > 0
    edges = shapes ^ ndimage.binary_dilation(shapes, np.ones((1, 3, 3)))
    logits = ndimage.gaussian_filter(edges * 9.0 - 4, (0, 1, 1)) + rng.normal(size=edges.shape)
    start = time.perf_counter()
    edge_counts(logits.astype(np.float32), edges.astype(np.float32), 1.5)
    # 0.4 s were measured; twelve times that still means 300 pictures in 15 s on a busy machine
    assert time.perf_counter() - start < 5
