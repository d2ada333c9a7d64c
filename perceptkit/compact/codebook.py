"""Caps the decisions that a router gives to P of them, so that P networks without choice serve all pictures.

A learned router gives few distinct policies (on ImageNet ten cover all pictures: Wu, Nagarajan et al. *BlockDrop*,
CVPR 2018, section 4.3), but any is possible. There are two ways to serve w, the policy of a picture, by a member m of
the codebook M. With c_r the cost of block r, c(m) = sum_r c_r m_r, and n_w pictures that want w:

superset    The cheapest member that has all that is wanted: no block is dropped, some run that were not wanted.
            All-ones is a member, so there is a superset for any picture. Greedy facility location picks, one
            after the other, the union of wanted policies that lowers

                sum_w  n_w min { c(m) : m in M, m >= w }

            most. The saving over all-ones alone is monotone and submodular in M, so P members save at least 1 - 1/e of
            what the best P would: Nemhauser, Wolsey, Fisher. *An analysis of approximations for maximizing submodular
            set functions.* 1978. A best codebook consists of unions of wanted policies. A book of one is the union of
            all: with all-ones, no picture would skip anything. What later pictures want beyond it is dropped.

nearest     The member with the least cost of flips

                d(w, m) = sum_r  c_r |w_r - m_r|

            so blocks that are wanted may be dropped; what that does to the metrics is to be measured. Members are
            wanted policies, P medoids: greedily the one that lowers sum_w n_w min { d(w, m) : m in M } most, then a
            member is exchanged for the policy that lowers it most, until none does (PAM: Kaufman, Rousseeuw.
            *Clustering by means of medoids.* 1987).

Shapes: N pictures, R routed blocks, P members, D distinct policies, M candidates.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from perceptkit.errors import SpecError

MOST_CANDIDATES = 1024
"""Unions of wanted policies are added up to this many: with many distinct policies, their unions are countless."""


@dataclass(frozen=True)
class Codebook:
    """P policies, cheapest first, and what each routed block costs."""

    policies_PR: Tensor
    """bool."""
    cost_R: Tensor
    """float64; any unit, MACs for example."""
    nearest: bool = False
    """Which member serves: the nearest one, or the cheapest that keeps all that is wanted."""

    @property
    def may_drop(self) -> bool:
        """Whether there are policies that lose a block they keep."""
        return self.nearest or not bool(self.policies_PR.all(1).any())

    def assign(self, keep_NR: Tensor) -> Tensor:
        """For each row of decisions (N, R) bool the index (N,) of the member that serves it.

        Of members that are equally near the one that drops least. Where none keeps all that is wanted, which is
        possible only in a book of one: that one.
        """
        if self.nearest:
            flips_NP = _flips(keep_NR, self.policies_PR, self.cost_R)
            dropped_NP = (keep_NR.double() * self.cost_R) @ (~self.policies_PR).double().T
            least_N1 = flips_NP.min(1, keepdim=True).values
            return dropped_NP.where(flips_NP <= least_N1 * (1 + 1e-9), torch.inf).argmin(1)
        covers_NP = _covers(self.policies_PR, keep_NR)
        last = len(self.policies_PR) - 1
        # members are sorted by cost: the first that covers is the cheapest
        first_N = covers_NP.int().argmax(1)
        return first_N.where(covers_NP.any(1), torch.full_like(first_N, last))

    def extra_cost(self, keep_NR: Tensor) -> float:
        """Mean cost by picture of the blocks that run and were not wanted."""
        served_NR = self.policies_PR[self.assign(keep_NR)]
        return float(((served_NR & ~keep_NR).double() @ self.cost_R).mean())

    def dropped_cost(self, keep_NR: Tensor) -> float:
        """Mean cost by picture of the blocks that were wanted and do not run."""
        served_NR = self.policies_PR[self.assign(keep_NR)]
        return float(((keep_NR & ~served_NR).double() @ self.cost_R).mean())


def make_codebook(keep_NR: Tensor, cost_R: Tensor, num_policies: int, nearest: bool = False) -> Codebook:
    """The codebook of at most `num_policies` for these pictures.

    Args:
        keep_NR: bool, what the router decided for each picture; at least one.
        cost_R: what each block costs where it runs, at least 0.
        num_policies: P; less are given where less are wanted.
        nearest: whether blocks that are wanted may be dropped.

    Raises:
        SpecError: no pictures, or no policies.
    """
    if num_policies < 1:
        raise SpecError(f"--policies must be at least 1, not {num_policies}")
    if len(keep_NR) < 1:
        raise SpecError("a codebook needs pictures to collect policies on: --pictures must be at least 1")
    cost_R = cost_R.double()
    wanted_DR, count_D = torch.unique(keep_NR, dim=0, return_counts=True)  # sorted: ties are broken alike
    if nearest:
        medoids = _medoids(_flips(wanted_DR, wanted_DR, cost_R), count_D.double(), num_policies)
        return _sorted(wanted_DR[medoids], cost_R, nearest=True)
    if num_policies == 1:
        return Codebook(wanted_DR.any(0)[None], cost_R)
    all_ones = torch.ones_like(wanted_DR[:1])
    exact_DR = torch.unique(torch.cat([wanted_DR, all_ones]), dim=0)
    if len(exact_DR) <= num_policies:
        return _sorted(exact_DR, cost_R)
    candidates_MR = _unions(wanted_DR)
    cost_M = candidates_MR.double() @ cost_R
    covers_DM = _covers(candidates_MR, wanted_DR)
    served_D = torch.full((len(wanted_DR),), float(cost_R.sum()), dtype=torch.float64)
    members = [all_ones[0]]
    while len(members) < num_policies:
        saved_DM = (served_D[:, None] - cost_M).clamp(min=0) * covers_DM
        gain_M = count_D.double() @ saved_DM
        best = int(gain_M.argmax())
        if gain_M[best] <= 0:
            break
        members.append(candidates_MR[best])
        served_D -= saved_DM[:, best]
    return _sorted(torch.stack(members), cost_R)


def _unions(wanted_DR: Tensor) -> Tensor:
    """The policies and unions of them, all where they are few; in the order of their bits."""
    found_MR = wanted_DR
    while len(found_MR) < MOST_CANDIDATES:
        joined = (found_MR[:, None] | wanted_DR[None]).flatten(0, 1)
        grown = torch.unique(torch.cat([found_MR, joined[: 64 * MOST_CANDIDATES]]), dim=0)
        if len(grown) == len(found_MR):
            return found_MR
        if len(grown) > MOST_CANDIDATES:
            break
        found_MR = grown
    return found_MR


def _medoids(flips_DD: Tensor, count_D: Tensor, most: int) -> list[int]:
    """The indices of at most so many members, by `nearest` of the module's docstring."""
    members: list[int] = []
    nearest_D = torch.full_like(count_D, torch.inf)
    while len(members) < min(most, len(count_D)):
        total_D = count_D @ flips_DD.minimum(nearest_D[:, None])
        members.append(int(total_D.argmin()))
        if total_D[members[-1]] >= count_D @ nearest_D:  # the rest costs nothing, and flips nothing
            return members[:-1]
        nearest_D = nearest_D.minimum(flips_DD[:, members[-1]])
    total = float(count_D @ nearest_D)
    while total > 0 and members:
        found = []
        for place in range(len(members)):
            others = members[:place] + members[place + 1 :]
            rest_D = flips_DD[:, others].min(1).values if others else torch.full_like(count_D, torch.inf)
            total_D = count_D @ flips_DD.minimum(rest_D[:, None])
            found.append((float(total_D.min()), place, int(total_D.argmin())))
        best, place, index = min(found)
        if best >= total * (1 - 1e-9):  # rounding is no gain
            break
        members[place], total = index, best
    return members


def _flips(keep_NR: Tensor, members_PR: Tensor, cost_R: Tensor) -> Tensor:
    """(N, P): the cost of the blocks that differ."""
    keep_NR, members_PR = keep_NR.double(), members_PR.double()
    kept_N1, members_P = (keep_NR @ cost_R)[:, None], members_PR @ cost_R
    return (kept_N1 + members_P - 2 * (keep_NR * cost_R) @ members_PR.T).clamp(min=0)


def _covers(members_PR: Tensor, keep_NR: Tensor) -> Tensor:
    """(N, P) bool: whether the member keeps every block that the picture wants."""
    return ~(keep_NR[:, None] & ~members_PR[None]).any(2)


def _sorted(policies_PR: Tensor, cost_R: Tensor, nearest: bool = False) -> Codebook:
    order = torch.argsort(policies_PR.double() @ cost_R, stable=True)
    return Codebook(policies_PR[order], cost_R, nearest)
