"""BlockDrop: a router looks at each image once and says which blocks that image needs.

Wu, Nagarajan, Kumar, Rennie, Davis, Grauman, Feris. *BlockDrop: Dynamic Inference Paths in Residual
Networks.* CVPR 2018. https://arxiv.org/abs/1711.08393

All blocks of an image are chosen at once, before any of them runs: a bandit, not a sequence.

    s        = sigmoid(logits)                                    the router's keep probabilities
    s'       = alpha s + (1 - alpha) (1 - s)                      bounded, so that every choice is still tried
    pi(u)    = prod_r s'_r^u_r (1 - s'_r)^(1 - u_r)               a choice u of keep (1) or skip (0)
    R(u)     = 1 - usage(u)^2 where the answer is right, else -gamma
    u~       = [s >= 0.5]                                         the greedy choice, of the unbounded s
    A        = R(u) - R(u~)                                       self-critical advantage, one number per image
    loss     = mean over images of  -A sum_r m_r log pi_r(u_r) - beta sum_r m_r H(s'_r)

m is the curriculum: only the last blocks are free at first, the others are kept. The second train stage
tunes router and network together: the same loss with beta = 0, weighted against the task losses. The
formulas are those of the authors' code, not checked against the PDF.

Several tasks, and dense ones: an answer is right that is nearly as good as the full model's on the same
image (`right_by_quality`); rewards are averaged over the tasks that the image has labels of. `right` is a
float, 1 or 0, and NaN where there is no label. A task's usage is relative to the routed blocks that its own
row of the plan keeps (`usage_by_task`),

    usage_t(u) = sum_{r: t keeps r} c_r u_r / sum_{r: t keeps r} c_r

so that gamma means the same to a task of few blocks as to one of many.

`straight_through_keep` and `cost_penalty` are the alternative without reinforcement: a hard keep with a soft
gradient, the network's own loss, and the reward's cost term made differentiable, as in AdaMML (Panda et al.,
ICCV 2021, https://arxiv.org/abs/2105.05165; formula read in IBM/AdaMML).

`mutual_information` pays for choices that differ between pictures, if the recipe has a weight for it
(`routing.diversity`): the router's loss is less by weight x I, with either estimator. It parts pictures that the router
tells apart already; where all have the same s its gradient is 0.

Differs from the authors' code (Tushar-N/blockdrop ec52b36). `parity=True` gives the code's side of:
* the entropy bonus there is -s' log s', one term of two: its optimum is s' = 1/e, so it pushes towards skipping;
* it is summed over all blocks: those that the curriculum still forces on drift to skip before they are free;
* the joint stage sums the policy loss over the batch and averages the task loss, so that their ratio is the
  batch size; here both are means, and the ratio is a weight that the caller states;
* the joint stage runs the network in train mode, in the greedy pass too, and every block on the whole batch: rewards
  are of batch statistics, and running ones move twice a step, by pictures that skip the block as well. Here both
  choices are judged in eval mode, and norms move, if at all, in the pass that trains, by the pictures that run the
  block (train/routing.py).
The same in both: `usage` counts the blocks that are forced on (pass `open_R` to leave them out), the
bounded probabilities are in force in both stages, the curriculum in the first alone (all blocks are free in the joint
one), and a skipped block leaves its shortcut without the activation that would follow the addition, also where it is
a projection that may be negative (model/blocks.py). Left out: a value net that no loss uses, and the advantage of
two choices that are alike, which batch statistics leave there in the joint stage.

Shapes: B images, R routed blocks (whose choice is the router's; index 0 next to the image), K tasks, N classes.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from perceptkit.policies.sampling import straight_through

ALPHA = 0.8
"""Bounds the keep probabilities to [0.2, 0.8] while the router learns (the authors' code)."""

BETA = 0.1
"""Weight of the entropy bonus in the first train stage (the authors' code)."""


def bounded_keep_prob(logits_BR: Tensor, alpha: float = ALPHA) -> Tensor:
    """s': the keep probability used for sampling and log-probability, in [1 - alpha, alpha], float32.

    Args:
        logits_BR: the router's scores; sigmoid gives s.
        alpha: in (0.5, 1]; 1 bounds nothing. The gradient through s' is 2 alpha - 1 of that through s.
    """
    s_BR = logits_BR.float().sigmoid()
    return alpha * s_BR + (1 - alpha) * (1 - s_BR)


def greedy_keep(logits_BR: Tensor, open_R: Tensor | None = None) -> Tensor:
    """u~ = [s >= 0.5] as bool (B, R), read off the logits' sign; blocks that are not open are kept."""
    return _force_closed(logits_BR >= 0, open_R)


def sample_keep(
    logits_BR: Tensor, uniform_BR: Tensor, open_R: Tensor | None = None, alpha: float = ALPHA
) -> Tensor:
    """u ~ pi as bool (B, R), from numbers drawn uniformly from [0, 1); blocks that are not open are kept."""
    keep_BR = uniform_BR.to(logits_BR.device) < bounded_keep_prob(logits_BR.detach(), alpha)
    return _force_closed(keep_BR, open_R)


def log_prob(
    logits_BR: Tensor, keep_BR: Tensor, open_R: Tensor | None = None, alpha: float = ALPHA
) -> Tensor:
    """sum_r m_r log pi_r(u_r), shape (B,): of the choices in the blocks that are open."""
    # 1 - s'(z) = s'(-z), so the probability of either choice is s' of a signed logit
    chosen_BR = bounded_keep_prob(torch.where(keep_BR, logits_BR, -logits_BR), alpha)
    return _open_sum(_log(chosen_BR), open_R)


def entropy(
    logits_BR: Tensor, open_R: Tensor | None = None, alpha: float = ALPHA, parity: bool = False
) -> Tensor:
    """sum_r m_r H(s'_r) in nats, shape (B,); with `parity` sum_r -s'_r log s'_r over all blocks."""
    keep_BR = bounded_keep_prob(logits_BR, alpha)
    if parity:
        return -(keep_BR * _log(keep_BR)).sum(-1)
    skip_BR = bounded_keep_prob(-logits_BR, alpha)
    return _open_sum(-(keep_BR * _log(keep_BR) + skip_BR * _log(skip_BR)), open_R)


def mutual_information(logits_BR: Tensor, open_R: Tensor | None = None) -> Tensor:
    """sum_r m_r [H(mean_B s_r) - mean_B H(s_r)] in nats, a scalar: how much the choices say of the picture.

    0 (to 1.5e-5 a block) where every picture has the same s, log 2 for a block that is surely kept for half of them and
    surely skipped for the others; H is the entropy of the unbounded s. Regularised information maximisation (Krause,
    Perona, Gomes, NeurIPS 2010) maximises it, here one block at a time. It is not in BlockDrop.

    Args:
        logits_BR: of a whole batch, that of all processes, with a gradient.
        open_R: counts only these blocks; all by default.
    """
    z_BR = logits_BR.float()
    s_BR = z_BR.sigmoid()
    of_each_BR = F.softplus(z_BR) - s_BR * z_BR  # H(s), finite for any logit
    mean_R = s_BR.mean(0).clamp(1e-6, 1 - 1e-6)
    of_mean_R = -(mean_R * mean_R.log() + (1 - mean_R) * (1 - mean_R).log())
    return _open_sum(of_mean_R - of_each_BR.mean(0), open_R)


def open_routed(epoch: int, speed: float, num_routed: int) -> int:
    """How many routed blocks, counted from the last, are free in `epoch` (from 0); one more every `speed` epochs."""
    return min(num_routed, int(epoch / speed) + 1)


def open_mask(open_count: int, num_routed: int) -> Tensor:
    """m as bool (R,): the last `open_count` blocks are free."""
    return torch.arange(num_routed) >= num_routed - open_count


def usage(keep_BR: Tensor, cost_R: Tensor, open_R: Tensor | None = None) -> Tensor:
    """c.u / sum(c), shape (B,), in [0, 1]: the part of the routed blocks' cost that each image pays.

    Args:
        keep_BR: bool, or a float keep that passes its gradient on.
        cost_R: cost by block, above 0 and in any unit: ones, MACs, measured ms.
        open_R: counts only these blocks; all by default, also those that the curriculum forces on.
    """
    cost_R = cost_R.to(keep_BR.device, torch.float32)
    if open_R is not None:
        cost_R = cost_R * open_R.to(keep_BR.device)
    return (keep_BR * cost_R).sum(-1) / cost_R.sum()


def usage_by_task(keep_BR: Tensor, cost_R: Tensor, kept_KR: Tensor) -> Tensor:
    """usage_t, shape (B, K), in [0, 1]: of each task's own routed blocks; 0 for a task that keeps none of them.

    Where all tasks keep all routed blocks, every column is `usage`.

    Args:
        keep_BR, cost_R: as for `usage`.
        kept_KR: bool, which of the routed blocks each task's row of the plan keeps.
    """
    columns = [
        usage(keep_BR, cost_R, kept_R)
        if kept_R.any()
        else torch.zeros_like(keep_BR[:, 0], dtype=torch.float32)
        for kept_R in kept_KR.bool()
    ]
    return torch.stack(columns, -1)


def right_by_quality(quality_BK: Tensor, full_quality_BK: Tensor, tolerance: Tensor | float) -> Tensor:
    """Dense tasks: 1 where quality >= (1 - tolerance) x the full model's on the same image, else 0.

    Args:
        quality_BK: per-image quality in [0, 1], 1 is perfect; NaN (no label) stays NaN.
        full_quality_BK: the same images with every block kept.
        tolerance: the part of the quality that may be lost, one for all or by task (K,).
    """
    right_BK = (quality_BK >= full_quality_BK * (1 - tolerance)).float()
    return right_BK.masked_fill(quality_BK.isnan() | full_quality_BK.isnan(), torch.nan)


def reward(usage_B: Tensor, right_B: Tensor, gamma: Tensor | float) -> Tensor:
    """R = 1 - usage^2 where right, else -gamma; NaN where `right` is. Of any shapes that broadcast.

    For several tasks: `task_mean(reward(usage_BK, right_BK, gamma_K), weight_K)`.
    """
    right_B = right_B.float()
    return right_B * (1 - usage_B.square()) - (1 - right_B) * gamma


def task_mean(value_BK: Tensor, weight_K: Tensor) -> Tensor:
    """Weighted mean over the tasks that are not NaN, shape (B,); 0 for an image without any."""
    known_BK = ~value_BK.isnan()
    weight_BK = weight_K.to(value_BK) * known_BK
    total_B = weight_BK.sum(-1)
    return (value_BK.masked_fill(~known_BK, 0) * weight_BK).sum(-1) / torch.where(total_B > 0, total_B, 1)


def has_label(right_BK: Tensor) -> Tensor:
    """Whether any task of the image has a label, bool (B,)."""
    return ~right_BK.isnan().all(-1)


def advantage(reward_B: Tensor, greedy_reward_B: Tensor, keep_BR: Tensor, greedy_BR: Tensor) -> Tensor:
    """A = R(u) - R(u~), shape (B,); exactly 0 where both choose alike, whatever dropout or BatchNorm did."""
    same_B = (keep_BR == greedy_BR).all(-1)
    return (reward_B - greedy_reward_B).masked_fill(same_B, 0).detach()


def image_loss(
    logits_BR: Tensor,
    keep_BR: Tensor,
    advantage_B: Tensor,
    open_R: Tensor | None = None,
    alpha: float = ALPHA,
    beta: float = BETA,
    parity: bool = False,
) -> Tensor:
    """-A sum_r m_r log pi_r(u_r) - beta sum_r m_r H(s'_r) of each image, shape (B,).

    Args:
        logits_BR: the router's scores, with a gradient.
        keep_BR: the choice that was sampled from them, bool.
        advantage_B: `advantage` of that choice.
        open_R: the curriculum's mask, bool; all blocks are free by default.
        alpha: as the sample was drawn with.
        beta: weight of the entropy bonus; 0 in the joint stage.
        parity: the authors' entropy, see above.
    """
    bonus_B = entropy(logits_BR, open_R, alpha, parity)
    return -advantage_B * log_prob(logits_BR, keep_BR, open_R, alpha) - beta * bonus_B


def policy_loss(
    loss_B: Tensor, labelled_B: Tensor | None = None, joint: bool = False, parity: bool = False
) -> Tensor:
    """`image_loss` over the images that have a label: their mean; with `parity` in the `joint` stage their sum.

    Images without any label contribute nothing, neither entropy nor to the count. Where several processes
    train one model, reduce with `tasks.base.masked_mean` instead: it counts the images of all of them.
    """
    labelled_B = torch.ones_like(loss_B, dtype=torch.bool) if labelled_B is None else labelled_B
    total = torch.where(labelled_B, loss_B, 0).sum()
    return total if joint and parity else total / labelled_B.sum().clamp(min=1)


def tolerated_drop(gamma: float, usage: float, accuracy: float, num_routed: int) -> float:
    """The loss of accuracy at which skipping one more block just pays off; a fraction (0.01 is one point).

    The expected reward at usage u and accuracy p is p (1 - u^2) - (1 - p) gamma. One block less, of R, adds
    2 u p / R to it and, if accuracy falls by dp, takes away dp (1 - u^2 + gamma), both to first order:

        dp_tol = (2 u p / R) / (1 - u^2 + gamma)
    """
    return 2 * usage * accuracy / num_routed / (1 - usage**2 + gamma)


def gamma_for_drop(drop: float, usage: float, accuracy: float, num_routed: int) -> float:
    """`tolerated_drop` solved for gamma: 2 u p / (R dp_tol) - (1 - u^2); negative where no penalty is needed.

    Raises ValueError for a drop that is not above 0: no finite gamma forbids every loss.
    """
    if drop <= 0:
        raise ValueError(f"a tolerated drop of {drop:g} has no gamma: it must be above 0 (0.01 is one point)")
    return 2 * usage * accuracy / (num_routed * drop) - (1 - usage**2)


def gamma_for_max_drop(max_drop: float, usage: float, accuracy: float, num_routed: int) -> float:
    """gamma, at least 0, for a total tolerated loss of accuracy.

    At usage u, R (1 - u) of the R blocks are skipped. Spread evenly over them, a total loss of D allows each

        dp_tol = D / max(1, R (1 - u))

    (at least one block bears it all), and `gamma_for_drop` gives the gamma at which the last of them just pays
    off. Below 0 wrong answers would be paid for; there 0 is returned, which tolerates less than was allowed.

    Args:
        max_drop: D, a fraction (0.01 is one point), above 0.
        usage: u, where the policy is expected or wanted to end, in (0, 1].
        accuracy: p, the part of the images that is right with every block kept (dense tasks: 1).
        num_routed: R.

    Raises ValueError for a `max_drop` that is not above 0.
    """
    per_block = max_drop / max(1.0, num_routed * (1 - usage))
    return max(0.0, gamma_for_drop(per_block, usage, accuracy, num_routed))


def straight_through_keep(
    logits_BR: Tensor, noise_BR: Tensor, tau: float, open_R: Tensor | None = None
) -> Tensor:
    """A Gumbel sample per image: exactly 0 or 1 as float (B, R), with the gradient of the relaxed keep.

    The unbounded s is sampled: a hard sample explores by itself. Blocks that are not open are 1, without gradient.

    Args:
        logits_BR: log-odds of keep.
        noise_BR: of `sampling.logistic_noise`.
        tau: temperature of the relaxation, above 0.
    """
    keep_BR = straight_through(logits_BR, noise_BR, tau)
    return keep_BR if open_R is None else torch.where(open_R.to(keep_BR.device), keep_BR, 1.0)


def cost_penalty(usage_BK: Tensor, right_BK: Tensor, weight_K: Tensor) -> Tensor:
    """mean over images of right x usage^2, over the tasks as `task_mean`: paid only once an answer is right.

    AdaMML adds gamma x the part that is wrong; a count has no gradient, so it is left out here and the task
    losses alone defend accuracy. The cost weights are those of `usage`.

    Args:
        usage_BK: `usage_by_task` of a float keep, with a gradient.
        right_BK: in [0, 1]; NaN (no label) is left out of the mean, and an image without any pays nothing.
        weight_K: of the tasks.
    """
    right_BK = right_BK.float().detach()
    # a product with NaN would have a gradient that is NaN, even where it is left out
    paid_BK = right_BK.nan_to_num(0) * usage_BK.square()
    return task_mean(torch.where(right_BK.isnan(), right_BK, paid_BK), weight_K).mean()


def _force_closed(keep_BR: Tensor, open_R: Tensor | None) -> Tensor:
    return keep_BR if open_R is None else keep_BR | ~open_R.to(keep_BR.device)


def _open_sum(value_BR: Tensor, open_R: Tensor | None) -> Tensor:
    return (value_BR if open_R is None else value_BR * open_R.to(value_BR.device)).sum(-1)


def _log(p: Tensor) -> Tensor:
    """log p, finite where p has underflowed to 0 (possible only with alpha = 1)."""
    return p.clamp(min=torch.finfo(p.dtype).tiny).log()
