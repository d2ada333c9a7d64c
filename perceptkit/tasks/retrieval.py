"""How well pictures of the same id find each other: recall@k and MAP@R.

Musgrave, Belongie, Lim. *A Metric Learning Reality Check.* ECCV 2020. https://arxiv.org/abs/2003.08505

Every picture is a query and searches all others by cosine similarity. R is the number of others of its id.

    recall@k   share of queries with one of their id among the k nearest
    MAP@R      mean over queries of 1/R sum_{i<=R} P(i),    P(i) = precision at i where the i-th is right, else 0

(section 3.2 of the paper; its precision at 1 is recall@1.) A picture whose id no other has, R = 0, is no query, but is
searched as all others are; a picture without an id is left out altogether.

Pictures that are exactly equally near come in no order: both metrics are the expectation over all orders of them
(McSherry, Najork. *Computing Information Retrieval Performance Measures Efficiently in the Presence of Tied Scores.*
ECIR 2008, for MAP@R). Without this, the embedding that is the same for all pictures would score whatever their order
on disk makes of it. With it, its recall@1 is the chance to draw one's own id: the mean of R / (N - 1).

Shapes: N pictures, Q queries of a chunk, D dimensions, K places in a ranking, nearest first.
"""

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat

RECALLS = (1, 5)
CHUNK = 1024
"""Queries that are ranked at once: a table of CHUNK x N similarities is what it takes."""


def retrieval(vector_ND: Tensor, id_N: Tensor) -> dict[str, Tensor]:
    """`recall@1`, `recall@5` and `map@r`, each in [0, 1]; NaN where no two pictures have the same id.

    Args:
        vector_ND: of length 1.
        id_N: int64, none of them missing.
    """
    names = [*(f"recall@{k}" for k in RECALLS), "map@r"]
    _, of_N, count = torch.unique(id_N, return_inverse=True, return_counts=True)
    others_N = count[of_N] - 1
    queries = torch.nonzero(others_N > 0)[:, 0]
    if not len(queries):
        return {name: torch.tensor(torch.nan, device=id_N.device) for name in names}
    places = min(max(*RECALLS, int(others_N.max())), len(id_N) - 1)
    total = torch.zeros(len(names), dtype=torch.float64, device=id_N.device)
    for chunk in queries.split(CHUNK):
        similarity_QN = vector_ND[chunk] @ vector_ND.T
        same_QN = id_N[chunk, None] == id_N
        itself = torch.arange(len(chunk), device=chunk.device), chunk
        similarity_QN[itself], same_QN[itself] = -torch.inf, False
        found = [recall_at(similarity_QN, same_QN, min(k, places)) for k in RECALLS]
        found.append(map_at_r(similarity_QN, same_QN, places))
        total += torch.stack([of_Q.double().sum() for of_Q in found])
    return dict(zip(names, (total / len(queries)).float().unbind(), strict=True))


def recall_at(similarity_QN: Tensor, same_QN: Tensor, k: int) -> Tensor:
    """(Q,) the chance that one of the k nearest is of the same id.

    With a pictures nearer than the k-th and t as near as it, p of them right, k - a of the t are drawn:
    1 - prod_{j < k-a} (t - p - j) / (t - j); 1 where one of the nearer ones is right.
    """
    kth_Q1 = similarity_QN.topk(k, dim=1).values[:, -1:]
    nearer_QN, tied_QN = similarity_QN > kth_Q1, similarity_QN == kth_Q1
    drawn_Q = k - nearer_QN.sum(1)
    t_Q, p_Q = tied_QN.sum(1).double(), (tied_QN & same_QN).sum(1).double()
    missed_Q = (~(nearer_QN & same_QN).any(1)).double()
    for j in range(k):
        missed_Q = torch.where(j < drawn_Q, missed_Q * (t_Q - p_Q - j).clamp(min=0) / (t_Q - j), missed_Q)
    return 1 - missed_Q


def map_at_r(similarity_QN: Tensor, same_QN: Tensor, places: int) -> Tensor:
    """(Q,) average precision at R.

    At place i, in a group of t equally near pictures that begins after a places, p of the t right and c before them:
    E[P(i)] = p/t (c + 1 + (i - a - 1) (p - 1)/(t - 1)) / i, i counted from 1.

    Args:
        similarity_QN: -inf for the query itself.
        same_QN: whether a picture has the query's id; False for itself.
        places: at least the largest R.
    """
    ranked_QK, index_QK = similarity_QN.topk(places, dim=1)
    right_QK = same_QN.gather(1, index_QK).double()
    begins_QK = torch.ones_like(ranked_QK, dtype=torch.bool)
    begins_QK[:, 1:] = ranked_QK[:, 1:] != ranked_QK[:, :-1]
    place_K = torch.arange(places, device=ranked_QK.device)
    start_QK = torch.where(begins_QK, place_K, 0).cummax(1).values
    group_QK = begins_QK.long().cumsum(1) - 1
    none_QK = torch.zeros_like(right_QK)
    t_QK = none_QK.scatter_add(1, group_QK, torch.ones_like(right_QK)).gather(1, group_QK)
    p_QK = none_QK.scatter_add(1, group_QK, right_QK).gather(1, group_QK)
    # the last group may go on behind the last place
    tied_QN = similarity_QN == ranked_QK[:, -1:]
    is_last_QK = group_QK == group_QK[:, -1:]
    t_QK = torch.where(is_last_QK, tied_QN.sum(1, keepdim=True).double(), t_QK)
    p_QK = torch.where(is_last_QK, (tied_QN & same_QN).sum(1, keepdim=True).double(), p_QK)
    before_QK = (right_QK.cumsum(1) - right_QK).gather(1, start_QK)
    in_group_QK = (place_K - start_QK) * (p_QK - 1) / (t_QK - 1).clamp(min=1)
    precision_QK = p_QK / t_QK * (before_QK + 1 + in_group_QK) / (place_K + 1)
    others_Q1 = same_QN.sum(1, keepdim=True)
    return torch.where(place_K < others_Q1, precision_QK, 0).sum(1) / others_Q1[:, 0]


class RetrievalMetric(Metric):
    """`retrieval` of all pictures with an id; keeps the vectors, as each searches all others."""

    full_state_update = False
    vector: list[Tensor]
    id: list[Tensor]

    def __init__(self) -> None:
        super().__init__()
        for name in ("vector", "id"):
            self.add_state(name, default=[], dist_reduce_fx="cat")

    def update(self, output: Tensor, target: Tensor) -> None:
        """Adds a batch: (B, D) vectors and (B,) ids, -1 for a picture without one."""
        # appended even when empty: a rank without labels takes part in the gathering
        self.vector.append(output.float()[target >= 0])
        self.id.append(target[target >= 0])

    def compute(self) -> dict[str, Tensor]:
        """In [0, 1]; NaN where no two pictures have the same id."""
        if isinstance(self.id, list) and not self.id:
            return retrieval(torch.zeros(0, 1), torch.zeros(0, dtype=torch.long))
        return retrieval(dim_zero_cat(self.vector), dim_zero_cat(self.id))


def in_order(similarity_BB: Tensor, id_B: Tensor) -> Tensor:
    """(B,) of all pairs of a picture of the same id and one of another, the share in which the former is nearer; a tie
    is half a pair. NaN where a picture has no id, or the batch has none of its id or none of another."""
    known_B = id_B >= 0
    same_BB = (id_B[:, None] == id_B) & known_B & known_B[:, None]
    same_BB.fill_diagonal_(False)
    other_BB = (id_B[:, None] != id_B) & known_B & known_B[:, None]
    rows = []
    for similarity_B, is_same_B, is_other_B in zip(similarity_BB, same_BB, other_BB, strict=True):
        gap = similarity_B[is_same_B][:, None] - similarity_B[is_other_B]
        rows.append(((gap > 0).double() + (gap == 0).double() / 2).mean())
    return torch.stack(rows).float()
