"""Average precision of points, by hand."""

import numpy as np
import pytest

from perceptkit.tasks.average_precision import average_precision, match


def test_ap_by_hand():
    # right, wrong, right of 3 true points: precision 1, 1/2, 2/3 at recall 1/3, 1/3, 2/3
    # non-increasing precision: 1, 2/3, 2/3  ->  AP = 1/3 * 1 + 1/3 * 2/3 = 5/9; best F1 = 2 * 2 / (3 + 3)
    ap, f1 = average_precision(np.array([0.9, 0.8, 0.7]), np.array([True, False, True]), 3)
    assert ap == pytest.approx(5 / 9)
    assert f1 == pytest.approx(2 / 3)


def test_order_of_detections_does_not_matter():
    score, right = np.array([0.2, 0.9, 0.5, 0.7]), np.array([True, True, False, True])
    shuffled = [2, 0, 3, 1]
    assert average_precision(score, right, 4) == average_precision(score[shuffled], right[shuffled], 4)


def test_equal_scores_enter_together():
    score = np.array([0.5, 0.5])
    assert average_precision(score, np.array([True, False]), 1) == average_precision(
        score, np.array([False, True]), 1
    )
    assert average_precision(score, np.array([False, True]), 1)[0] == pytest.approx(0.5)


def test_perfect_and_empty():
    assert average_precision(np.array([0.9, 0.8]), np.array([True, True]), 2) == (1.0, 1.0)
    assert average_precision(np.zeros(0), np.zeros(0, dtype=bool), 2) == (0.0, 0.0)
    assert average_precision(np.array([0.9]), np.array([False]), 2) == (0.0, 0.0)


def test_each_point_is_taken_once():
    detections = np.array([[0.0, 0.0], [1.0, 0.0], [9.0, 9.0]])
    assert match(detections, np.array([[0.5, 0.0]]), 2.0).tolist() == [True, False, False]
    assert match(detections, np.array([[0.5, 0.0], [0.0, 1.5]]), 2.0).tolist() == [True, True, False]


def test_radius_is_included_and_no_points_match_nothing():
    assert match(np.array([[0.0, 3.0]]), np.array([[0.0, 0.0]]), 3.0).tolist() == [True]
    assert match(np.array([[0.0, 3.0]]), np.array([[0.0, 0.0]]), 2.9).tolist() == [False]
    assert match(np.zeros((2, 2)), np.zeros((0, 2)), 3.0).tolist() == [False, False]
    assert match(np.zeros((0, 2)), np.zeros((2, 2)), 3.0).tolist() == []
