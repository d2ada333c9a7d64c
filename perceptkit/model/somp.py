"""SOMP: which filters of a layer say most of what all of them say, and how the others follow from them.

Tropp, Gilbert, Strauss. *Algorithms for Simultaneous Sparse Approximation. Part I: Greedy Pursuit.* Signal Processing
2006. Used for the thin initialisation of Lu et al., *Fully-adaptive Feature Sharing in Multi-Task Networks*, CVPR 2017,
https://arxiv.org/abs/1611.05377. Of the rows (filters) of W, d' are to be chosen such that

    min_{A, S: |S| = d'}  || W - A W_S ||_F

and simultaneous orthogonal matching pursuit does so greedily, from R = W and S = {}, d' times:

    i = argmax_{i not in S}  sum_j | <R_j, W_i / ||W_i||> |,    S <- S + {i}
    A = W W_S^+,    R = W - A W_S

All of it is computed from the products of rows, G = W W^T: <R_j, W_i> = (G - A G_S)_{ji} and A = G_{:S} G_{SS}^+. The
steps are as readers of the CVPR paper recall them, not checked against the PDF.

Shapes: d filters, m weights of each, S = d' chosen.
"""

import torch
from torch import Tensor


def somp(filters_dm: Tensor, count: int) -> tuple[list[int], Tensor]:
    """The rows chosen, in the order of their choice, and A, (d, count); both in double precision.

    >>> rows, A = somp(torch.tensor([[2.0, 0.0], [1.0, 0.0], [0.0, 1.0]]), 2)
    >>> rows, A.tolist()
    ([0, 2], [[1.0, 0.0], [0.5, 0.0], [0.0, 1.0]])

    Raises ValueError where there are not so many rows.
    """
    if not 0 < count <= len(filters_dm):
        raise ValueError(f"{count} of {len(filters_dm)} rows")
    gram_dd = filters_dm.double() @ filters_dm.double().T
    length_d = gram_dd.diagonal().clamp(min=0).sqrt()
    chosen: list[int] = []
    left_dd = gram_dd  # <R_j, W_i>
    a_dS = gram_dd.new_zeros(len(gram_dd), 0)
    for _ in range(count):
        score_d = left_dd.abs().sum(dim=0) / length_d.clamp(min=1e-30)
        score_d[length_d == 0] = 0
        score_d[chosen] = -1
        chosen.append(int(score_d.argmax()))
        a_dS = gram_dd[:, chosen] @ torch.linalg.pinv(gram_dd[chosen][:, chosen], hermitian=True)
        left_dd = gram_dd - a_dS @ gram_dd[chosen]
    return chosen, a_dS
