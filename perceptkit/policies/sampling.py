"""Differentiable samples of keep-or-skip choices, shared by the policies.

Gumbel-softmax: Jang et al. 2017 (https://arxiv.org/abs/1611.01144), Maddison et al. 2017
(https://arxiv.org/abs/1611.00712). For two classes the softmax of two Gumbel-perturbed logits is the
sigmoid of their difference, and the difference of two Gumbel variables is logistic:

    keep = sigmoid((z_KEEP - z_SKIP + log(u) - log(1 - u)) / tau),   u ~ Uniform(0, 1)

All arithmetic is float32 whatever autocast says: fp16 gives NaN at small tau.

Shapes: 2 = (SKIP, KEEP); any leading dimensions.
"""

import torch
from torch import Tensor

from perceptkit.model.plan import KEEP, SKIP


def logistic_noise(shape: torch.Size, generator: torch.Generator) -> Tensor:
    """The difference of two standard Gumbel variables, drawn on the CPU so that every device sees the same."""
    u = torch.rand(shape, generator=generator, dtype=torch.float64).clamp(1e-9, 1 - 1e-9)
    return (u.log() - (1 - u).log()).float()


def straight_through(logits: Tensor, noise: Tensor, tau: float) -> Tensor:
    """A Gumbel sample of yes or no: exactly 0 or 1 as float, with the gradient of the relaxed one.

    Args:
        logits: log-odds of yes.
        noise: `logistic_noise` of the same shape.
        tau: temperature of the relaxation, above 0.
    """
    soft = relaxed_keep(torch.stack([torch.zeros_like(logits), logits], dim=-1), noise, tau)
    # 1 - soft is exact for soft in [0.5, 1], so adding soft back gives 1 to the bit
    return ((soft >= 0.5).float() - soft).detach() + soft


def relaxed_keep(logits_2: Tensor, noise: Tensor, tau: float) -> Tensor:
    """A soft keep in [0, 1] with a gradient to the logits; shape of `logits_2` without its last dimension.

    Args:
        logits_2: unnormalised scores, (..., 2).
        noise: `logistic_noise` of shape (...,); zeros give the noise-free relaxation.
        tau: temperature, above 0; the sample becomes hard as it falls.
    """
    scores_2 = logits_2.float()
    return torch.sigmoid((scores_2[..., KEEP] - scores_2[..., SKIP] + noise.to(scores_2.device)) / tau)
