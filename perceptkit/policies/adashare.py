"""AdaShare: learn which blocks each task keeps, skips and shares.

Sun, Panda, Feris, Saenko. *AdaShare: Learning What To Share For Efficient Deep Multi-Task Learning.*
NeurIPS 2020. https://arxiv.org/abs/1911.12423

Block l of task k is executed with probability a_{l,k}, the softmax of two logits. One Gumbel-softmax
sample per task and batch mixes the block with its shortcut while the policy is learned (soft, as in every
setting of the authors' code, or straight-through). Two regularisers act on the blocks that the curriculum
has opened. In `formulation: paper`:

    L_sparsity = sum_{k<=K} sum_{l<=L} log a_{l,k}
    L_sharing  = sum_{k1,k2<=K} sum_{l<=L} (L - l)/L * |a_{l,k1} - a_{l,k2}|

The objective of a policy step is sum_k lambda_k L_k + lambda_sp L_sparsity + lambda_sh L_sharing;
a weight step leaves the regularisers out. Both formulas, their signs, the index base and the pair
counting are as recalled by their readers and not checked against the PDF.

In `formulation: reference_code` they are those of the authors' code (sunxm2357/AdaShare 0615a47), z the logit of
keeping a block, l = 1 next to the image:

    L_sparsity = sum_{k<=K} mean_{l open} -log(1 - a_{l,k})
    L_sharing  = sum_{k1<k2} sum_{l<=L} l/L * |z_{l,k1} - z_{l,k2}|

so the *top* blocks are pulled together, by the gap of raw logits (the logit of skipping is ignored, and adding a
constant to both logits of a task changes the loss), each pair counts once, and blocks that the curriculum has not
opened are pulled together too. d L_sparsity / d(z_keep - z_skip) is a / n with n open blocks (strongest where a block
is surely kept) and 1 - a in the paper's (strongest where it is nearly given up): one lambda does not fit both.

Differs in both formulations:
* the code stores KEEP at index 0; here `SKIP, KEEP = 0, 1`;
* its temperature has no floor and leaves the range in which any gradient survives; here it falls
  geometrically to a stated floor;
* all its logits start equal; here tasks start a little apart, since the gap of equal ones has no gradient;
* it pulls the logits to zero (Adam with L2 5e-4: `policy_weight_decay`, 0 by default here);
* log a falls without bound, so every task could end with no block at all; here a logit stops being
  pushed once its keep probability is below `MIN_KEEP` (the code's sparsity loss has a bound: it is never below 0);
* by default the plan is the most probable choice of each entry; `samples` draws it, as paper and code do;
* blocks that are skipped do not run, in the retraining either, so they do not move their running statistics.

Differs in `formulation: paper` alone:
* a soft sample runs all blocks for all tasks. Policy steps move no running statistics, and those that weight steps
  leave are not used: before the decided plan is judged on val, and before the retraining that starts from the search,
  norms take their statistics anew from the blocks that this plan runs (train/plan_statistics.py). The code, and
  `formulation: reference_code`, move them in soft steps of both kinds, also those of blocks that a task skips, and
  judge with them.

Shapes: K tasks, L blocks (index 0 next to the image), 2 = (SKIP, KEEP).
"""

import math
from collections.abc import Sequence
from itertools import combinations
from typing import Literal

import torch
from torch import Tensor, nn

from perceptkit.model.plan import KEEP, SKIP, Plan
from perceptkit.policies.sampling import logistic_noise, relaxed_keep, straight_through

Formulation = Literal["paper", "reference_code"]

MIN_KEEP = 0.02
"""Below this probability the sparsity loss is flat: the decision is made, and more push would only
keep the task loss from ever reversing it (the paper's sum of logs has no lower bound)."""


def keep_prob(logits_KL2: Tensor) -> Tensor:
    """a_{l,k}: the probability that task k executes block l, shape (K, L), float32."""
    return logits_KL2.float().softmax(dim=-1)[..., KEEP]


def sparsity_loss(logits_KL2: Tensor, min_keep: float = MIN_KEEP) -> Tensor:
    """L_sparsity, the sum of log keep-probabilities, each bounded below by log `min_keep` (0: the paper's)."""
    log_keep_KL = logits_KL2.float().log_softmax(dim=-1)[..., KEEP]
    return (log_keep_KL.clamp(min=math.log(min_keep)) if min_keep else log_keep_KL).sum()


def sharing_loss(logits_KL2: Tensor, first_block: int = 0, num_blocks: int | None = None) -> Tensor:
    """L_sharing; sums ordered task pairs, so each pair counts twice, as in the paper.

    Args:
        logits_KL2: logits of some consecutive blocks.
        first_block: index in the network of the first block given (0 next to the image).
        num_blocks: L, blocks in the whole network; all that were given by default.
    """
    a_KL = keep_prob(logits_KL2)
    total = num_blocks if num_blocks is not None else a_KL.shape[1]
    index_L = torch.arange(1, a_KL.shape[1] + 1, device=a_KL.device) + first_block
    depth_weight_L = 1 - index_L / total
    gap_KKL = (a_KL[:, None] - a_KL[None, :]).abs()
    return (depth_weight_L * gap_KKL).sum()


def reference_sparsity_loss(logits_KL2: Tensor) -> Tensor:
    """The released code's L_sparsity: cross-entropy towards skipping, mean over the blocks given, sum over tasks.

    Args:
        logits_KL2: logits of the open blocks.
    """
    log_skip_KL = logits_KL2.float().log_softmax(dim=-1)[..., SKIP]
    return -log_skip_KL.mean(dim=1).sum()


def reference_sharing_loss(logits_KL2: Tensor) -> Tensor:
    """The released code's L_sharing: L1 distance of raw keep logits, weighted l/L, a sum over unordered pairs.

    Args:
        logits_KL2: logits of all blocks of the network, open or not.
    """
    z_KL = logits_KL2.float()[..., KEEP]
    num_tasks, num_blocks = z_KL.shape
    weight_L = torch.arange(1, num_blocks + 1, device=z_KL.device) / num_blocks
    gaps = [(z_KL[i] - z_KL[j]).abs() for i, j in combinations(range(num_tasks), 2)]
    return (weight_L * torch.stack(gaps)).sum() if gaps else z_KL.sum() * 0


def temperature(progress: float, start: float, floor: float) -> float:
    """tau after `progress` in [0, 1] of the search: geometric from `start` to `floor`."""
    return start * (floor / start) ** min(max(progress, 0.0), 1.0)


def open_blocks(epoch: float, speed: float, num_blocks: int) -> int:
    """Top-down curriculum: how many blocks, counted from the top, are under policy control after so many epochs."""
    return min(num_blocks, int(epoch / speed + 1e-9) + 1)  # 0.6 / 0.2 is a little below 3


class AdaSharePolicy(nn.Module):
    """Owns the policy logits of all tasks.

    Args:
        tasks: names, in the order of the rows.
        blocks: names, next to the image first.
        seed: the initial gap between tasks; equal logits would give |a_i - a_j| no gradient at all.
        formulation: of the regularisers.
    """

    def __init__(
        self, tasks: Sequence[str], blocks: Sequence[str], seed: int = 0, formulation: Formulation = "paper"
    ) -> None:
        super().__init__()
        self.formulation = formulation
        self.tasks, self.blocks = tuple(tasks), tuple(blocks)
        generator = torch.Generator().manual_seed(seed)
        noise = 1e-3 * torch.randn(len(self.tasks), len(self.blocks), 2, generator=generator)
        self.policy_logits_KL2 = nn.Parameter(noise)

    def relax(
        self, tau: float, open_count: int, generator: torch.Generator, hard: bool = False
    ) -> dict[str, list[bool | Tensor]]:
        """One sample per task for one batch: True below the curriculum, keeps with a gradient in the open blocks.

        They are soft, or with `hard` 0 or 1 with the gradient of the soft ones (straight-through). The same noise
        gives the same side of 0.5 either way.
        """
        noise_KL = logistic_noise(self.policy_logits_KL2.shape[:2], generator)
        if hard:
            z_KL2 = self.policy_logits_KL2.float()
            keep_KL = straight_through(z_KL2[..., KEEP] - z_KL2[..., SKIP], noise_KL.to(z_KL2.device), tau)
        else:
            keep_KL = relaxed_keep(self.policy_logits_KL2, noise_KL, tau)
        closed = len(self.blocks) - open_count
        return {
            task: [True] * closed + list(keep_KL[k, closed:].unbind()) for k, task in enumerate(self.tasks)
        }

    def regularisers(self, open_count: int) -> tuple[Tensor, Tensor]:
        """(L_sparsity, L_sharing). Closed blocks are forced to keep and must not drift: they are left out, except
        from the reference code's L_sharing, which knows no curriculum."""
        closed = len(self.blocks) - open_count
        open_KL2 = self.policy_logits_KL2[:, closed:]
        if self.formulation == "reference_code":
            return reference_sparsity_loss(open_KL2), reference_sharing_loss(self.policy_logits_KL2)
        return sparsity_loss(open_KL2), sharing_loss(open_KL2, closed, len(self.blocks))

    def decide(self, open_count: int | None = None) -> Plan:
        """The most probable choice of every entry; ties and blocks never opened are kept."""
        return self._plan(keep_prob(self.policy_logits_KL2) >= 0.5, open_count)

    def sample(self, open_count: int, generator: torch.Generator) -> Plan:
        """Each entry drawn by its own probability; blocks never opened are kept."""
        u_KL = torch.rand(self.policy_logits_KL2.shape[:2], generator=generator, dtype=torch.float64)
        return self._plan(u_KL < keep_prob(self.policy_logits_KL2).cpu(), open_count)

    def _plan(self, keep_KL: Tensor, open_count: int | None) -> Plan:
        keep_KL = keep_KL.cpu()
        closed = len(self.blocks) - (len(self.blocks) if open_count is None else open_count)
        keep_KL[:, :closed] = True
        return Plan.from_keep(self.tasks, self.blocks, keep_KL.tolist())
