"""Average precision of points found within a distance.

Everingham et al. *The PASCAL Visual Object Classes Challenge: A Retrospective.* IJCV 2015: detections take
true points greedily, strongest first, each point once; the area is that under the whole curve.

Shapes: M detections, N true points, 2 = (x, y).
"""

import numpy as np


def match(xy_M2: np.ndarray, true_N2: np.ndarray, radius: float) -> np.ndarray:
    """(M,) bool: which detections, strongest first, take a true point of their own within `radius` pixels.

    Each detection takes the nearest point that no stronger one has taken.
    """
    right = np.zeros(len(xy_M2), dtype=bool)
    distance = np.hypot(*(xy_M2[:, None] - true_N2[None]).transpose(2, 0, 1))
    for i in range(len(xy_M2) if len(true_N2) else 0):
        nearest = distance[i].argmin()
        if distance[i, nearest] <= radius:
            right[i] = True
            distance[:, nearest] = np.inf
    return right


def average_precision(score_M: np.ndarray, right_M: np.ndarray, num_true: int) -> tuple[float, float]:
    """Area under the precision-recall curve and the best F1 on it.

    The area is PASCAL's since 2010: all points, precision made non-increasing in recall. Detections of equal
    score enter together.
    """
    if len(score_M) == 0 or num_true == 0:
        return 0.0, 0.0
    order = np.argsort(-score_M, kind="stable")
    hits = right_M[order].cumsum()
    last_of_score = np.append(np.diff(score_M[order]) != 0, True)
    hits, count = hits[last_of_score], np.arange(1, len(score_M) + 1)[last_of_score]
    precision = np.maximum.accumulate((hits / count)[::-1])[::-1]
    recall = np.concatenate(([0.0], hits / num_true))
    return float((np.diff(recall) * precision).sum()), float((2 * hits / (count + num_true)).max())
