"""Edge pixels found within a distance: the counts behind ODS-F and OIS-F.

Martin, Fowlkes, Malik. *Learning to Detect Natural Image Boundaries Using Local Brightness, Color, and
Texture Cues.* PAMI 2004; the two summaries are from Arbelaez et al. *Contour Detection and Hierarchical
Image Segmentation.* PAMI 2011. A predicted edge pixel is right when it can be paired with a true one at most
`tolerance` pixels away, each pixel being used once:

    precision = pairs / predicted pixels     recall = pairs / true pixels     F = 2 P R / (P + R)

ODS takes the one threshold that is best for all pictures, OIS the best threshold of each picture and adds up
the counts found there.

Differs from the authors' benchmark (correspondPixels): the pairing is an exact maximum-cardinality matching,
where theirs minimises distance plus a price for outliers; maps are thinned by non-maximum suppression once
and then by at most THIN_STEPS layers per threshold, so that a predicted *region* is punished for its
thickness; thresholds are even in logits, because class-balanced training pushes probabilities to the ends of
[0, 1].

Shapes: B images, S thresholds, H W pixels.
"""

import numpy as np
from scipy.sparse import csr_matrix
from scipy.sparse.csgraph import maximum_bipartite_matching

from perceptkit.tasks.edge_maps import ridges, thin

THRESHOLD_LOGITS = np.arange(-3.0, 6.5, 0.5, dtype=np.float32)
"""Nineteen thresholds: probabilities 0.05 to 0.9975."""


def matched(predicted_SHW: np.ndarray, true_HW: np.ndarray, tolerance: float) -> np.ndarray:
    """(S,) size of the largest one-to-one pairing of each set of predicted pixels with the true ones.

    Args:
        predicted_SHW: bool masks.
        true_HW: bool mask.
        tolerance: Largest distance of a pair in pixels.
    """
    S, H, W = predicted_SHW.shape
    num_true = int(true_HW.sum())
    s, y, x = np.nonzero(predicted_SHW)
    if num_true == 0 or len(s) == 0:
        return np.zeros(S, dtype=np.int64)
    reach = int(tolerance)
    true_index = np.full((H + 2 * reach, W + 2 * reach), -1, dtype=np.int32)
    true_index[reach : reach + H, reach : reach + W][true_HW] = np.arange(num_true, dtype=np.int32)
    offsets = np.arange(-reach, reach + 1)
    dy, dx = (grid.ravel() for grid in np.meshgrid(offsets, offsets, indexing="ij"))
    near = np.hypot(dy, dx) <= tolerance
    # all thresholds form one graph without links between them, so that one call matches them all
    column = true_index[y[:, None] + reach + dy[near], x[:, None] + reach + dx[near]]
    linked = column >= 0
    column = (column + s[:, None] * num_true)[linked]
    row_start = np.concatenate(([0], linked.sum(axis=1).cumsum()))
    ones = np.ones(len(column), dtype=np.int8)
    graph = csr_matrix((ones, column, row_start), shape=(len(s), S * num_true))
    partner = maximum_bipartite_matching(graph, perm_type="column")
    return np.bincount(s[partner >= 0], minlength=S)


def edge_counts(
    logits_BHW: np.ndarray,
    target_BHW: np.ndarray,
    tolerance: float,
    thresholds_S: np.ndarray = THRESHOLD_LOGITS,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pairs (B, S), predicted pixels (B, S) and true pixels (B,) after thinning both sides.

    Args:
        logits_BHW: Edge logits.
        target_BHW: Edge maps in [0, 1]; 0.5 and above is an edge, negative is ignored.
        tolerance: Largest distance of a pair in pixels.
        thresholds_S: Logits from which on a pixel is predicted to be an edge.
    """
    true_BHW = thin(target_BHW >= 0.5)
    candidate_BHW = ridges(logits_BHW) & (target_BHW >= 0)
    pairs, predicted = [], []
    for logits_HW, candidate_HW, true_HW in zip(logits_BHW, candidate_BHW, true_BHW, strict=True):
        # one picture at a time: its thresholds fit into the cache together, those of a batch would not
        above_SHW = candidate_HW & (logits_HW >= thresholds_S[:, None, None])
        predicted_SHW = thin(above_SHW)
        pairs.append(matched(predicted_SHW, true_HW, tolerance))
        predicted.append(predicted_SHW.sum(axis=(1, 2)))
    return np.stack(pairs), np.stack(predicted), true_BHW.sum(axis=(1, 2))


def f_measure(pairs: np.ndarray, predicted: np.ndarray, true: np.ndarray) -> np.ndarray:
    """2 P R / (P + R) = 2 pairs / (predicted + true); 1 where nothing is predicted and nothing is there."""
    total = np.asarray(predicted) + np.asarray(true)
    return np.where(total > 0, 2 * np.asarray(pairs) / np.maximum(total, 1), 1.0)
