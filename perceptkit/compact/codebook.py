"""Caps the decisions that a router gives to P of them, so that P networks without choice serve all pictures.

A learned router gives few distinct policies (on ImageNet ten cover all pictures: Wu, Nagarajan et al. *BlockDrop*,
CVPR 2018, section 4.3), but any is possible. Each picture is served by the cheapest member of the codebook that is a
superset of what it wants: no block that it wanted is dropped, at the price of some that it did not want. All-ones is
always a member, so there is a superset for any picture.

With cost c(m) of a member m, wanted policies w_i and members M, greedy facility location picks, one after the other,
the candidate that lowers

    sum_i  min { c(m) : m in M, m >= w_i }

most. The saving over all-ones alone is monotone and submodular in M, so the pick of P members saves at least 1 - 1/e of
what the best P would: Nemhauser, Wolsey, Fisher. *An analysis of approximations for maximizing submodular set
functions.* 1978. Members of a best codebook are unions of wanted policies: those are the candidates.

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

    def assign(self, keep_NR: Tensor) -> Tensor:
        """For each row of decisions (N, R) bool the index (N,) of the cheapest member that keeps all it wants.

        Where no member does, which is possible only in a book made with `superset=False`: the most expensive one.
        """
        covers_NP = _covers(self.policies_PR, keep_NR)
        last = len(self.policies_PR) - 1
        # members are sorted by cost: the first that covers is the cheapest
        first_N = covers_NP.int().argmax(1)
        return first_N.where(covers_NP.any(1), torch.full_like(first_N, last))

    def extra_cost(self, keep_NR: Tensor) -> float:
        """Mean cost by picture of the blocks that run and were not wanted."""
        served_NR = self.policies_PR[self.assign(keep_NR)]
        return float(((served_NR & ~keep_NR).double() @ self.cost_R).mean())


def make_codebook(keep_NR: Tensor, cost_R: Tensor, num_policies: int, superset: bool = True) -> Codebook:
    """The codebook of at most `num_policies` for these pictures.

    Args:
        keep_NR: bool, what the router decided for each picture; at least one.
        cost_R: what each block costs where it runs, at least 0.
        num_policies: P; less are given where less are wanted.
        superset: False lets a book of one be the most frequent policy instead of all-ones: blocks are dropped then.

    Raises:
        SpecError: no pictures, or no policies.
    """
    if num_policies < 1:
        raise SpecError(f"--policies must be at least 1, not {num_policies}")
    if len(keep_NR) < 1:
        raise SpecError("a codebook needs pictures to collect policies on: --pictures must be at least 1")
    cost_R = cost_R.double()
    wanted_DR, count_D = torch.unique(keep_NR, dim=0, return_counts=True)  # sorted: ties are broken alike
    if num_policies == 1 and not superset:
        return Codebook(wanted_DR[count_D.argmax()][None], cost_R)
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


def _covers(members_PR: Tensor, keep_NR: Tensor) -> Tensor:
    """(N, P) bool: whether the member keeps every block that the picture wants."""
    return ~(keep_NR[:, None] & ~members_PR[None]).any(2)


def _sorted(policies_PR: Tensor, cost_R: Tensor) -> Codebook:
    order = torch.argsort(policies_PR.double() @ cost_R, stable=True)
    return Codebook(policies_PR[order], cost_R)
