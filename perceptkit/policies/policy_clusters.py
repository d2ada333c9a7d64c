"""Many policies in a few groups: which of them are nearly the same.

Kaufman and Rousseeuw, *Finding Groups in Data*, Wiley 1990, chapter 2: the first phase, BUILD, of partitioning
around medoids. Centres are policies; one after the other, the policy becomes a centre that most lowers

    sum over images of the Hamming distance from the image's policy to its nearest centre

Differs from PAM: no centre is swapped afterwards, and a rare policy is no centre where there are very many. Nothing
is drawn: of equals the more frequent policy wins, so the groups are the same each time.

Shapes: U different policies (most frequent first), R routed blocks, M candidates for a centre, G groups.
"""

import torch
from torch import Tensor

MAX_CENTRES = 6
CANDIDATES = 500
"""Policies that may become a centre, the most frequent ones: the table of distances has this many columns."""


def distance(keep_UR: Tensor, other_MR: Tensor) -> Tensor:
    """(U, M) in how many blocks two policies differ, float64."""
    a_UR, b_RM = keep_UR.double(), other_MR.double().T
    return a_UR @ (1 - b_RM) + (1 - a_UR) @ b_RM


def policy_clusters(
    keep_UR: Tensor, count_U: Tensor, most: int = MAX_CENTRES
) -> tuple[tuple[int, ...], Tensor]:
    """Groups policies around at most `most` of them.

    Args:
        keep_UR: different policies, bool, the most frequent first.
        count_U: images of each.
        most: groups; fewer where there are no more policies.

    Returns:
        The rows of the centres, in the order in which they were chosen, and (U,) each policy's group.
    """
    distance_UM = distance(keep_UR, keep_UR[:CANDIDATES])
    # farther than any two policies can be: the first centre is then the one nearest to all images
    nearest_U = torch.full((len(keep_UR),), keep_UR.shape[1] + 1.0, dtype=torch.float64)
    centres: list[int] = []
    while len(centres) < most:
        lowered_M = (nearest_U[:, None] - distance_UM).clamp(min=0).mul(count_U[:, None]).sum(0)
        best = int(lowered_M.argmax())
        if not lowered_M[best]:  # every policy is a centre
            break
        centres.append(best)
        nearest_U = nearest_U.minimum(distance_UM[:, best])
    return tuple(centres), distance_UM[:, centres].argmin(1)
