"""Stochastic depth: all tasks share all blocks, and in every training step some are dropped at random.

Huang, Sun, Liu, Sedra, Weinberger. *Deep Networks with Stochastic Depth.* ECCV 2016. https://arxiv.org/abs/1603.09382.
Block l of L survives a step with probability p_l, which falls linearly with depth:

    b_l ~ Bernoulli(p_l)        p_l = 1 - l / L * (1 - p_L)        l = 1..L

One draw per step holds for all pictures and, since the tasks share everything, for all tasks. A dropped block does not
run: only its shortcut S does, and its norms see nothing of the step.

Differs: the paper scales a block's branch by p_l in the test. Here a block that survives is scaled by 1 / p_l while
training, which is the same in expectation, so that the tested and emitted network keeps all blocks as they are:

    y = S(x) + b_l / p_l * (block(x) - S(x))        E[y] = block(x)

AdaShare's code draws for every task by itself (one pass per task); p_L is 0.5 there as here.

Shapes: L blocks (index 0 next to the image).
"""

import torch
from torch import Tensor

from perceptkit.model.gates import Keep

SURVIVAL = 0.5
"""p_L, where the recipe does not say."""


def survival(num_blocks: int, last: float) -> Tensor:
    """p_l of every block, shape (L,); `last` is p_L."""
    depth_L = torch.arange(1, num_blocks + 1, dtype=torch.float64) / num_blocks
    return 1 - depth_L * (1 - last)


def draw(survival_L: Tensor, generator: torch.Generator, device: torch.device) -> list[Keep]:
    """A row of the keep table for one training step: False, or how much a block that survives counts.

    The scale has the shape (1,), one for all pictures: tasks that are given the same tensor stay together.
    """
    survives_L = torch.rand(len(survival_L), generator=generator, dtype=torch.float64) < survival_L
    scales = [torch.tensor([1 / p], dtype=torch.float32, device=device) for p in survival_L.tolist()]
    return [
        False if not survives else True if p == 1 else scale
        for survives, p, scale in zip(survives_L.tolist(), survival_L.tolist(), scales, strict=True)
    ]
