"""TAPS: which layers are tuned is learned, the same for all pictures.

Wallingford, Li, Achille, Ravichandran, Fowlkes, Bhotika, Soatto. *Task Adaptive Parameter Sharing for Multi-Task
Learning.* CVPR 2022. https://arxiv.org/abs/2203.16708

    w_l = W_l + 1[s_l >= tau] dW_l         straight through the threshold to the score s_l
    L   = L_task + (lambda / L) sum_l |s_l|

Fixed: W_l, of every convolution and linear layer of the trunk, as in the paper: each of the L layers has a score,
whether a block can be skipped or not. Learned: dW_l, which starts at 0, s_l, which starts at 0.15, and the norms (and,
where none is a BatchNorm, the biases), so that a domain whose layers are all fixed is BN adaptation. A domain
stores its norms, all scores, and dW_l of the layers that are tuned. Folds exactly: w_l is the weight.

Differs from the paper: the penalty sets in after the first part of the stage (`warmup`: two of 30 epochs in the
unofficial code): a score would fall before its dW_l has learned anything.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from perceptkit.model import parametrized
from perceptkit.model.layers import learn_norms_only, weighted_layers
from perceptkit.model.plan import Plan
from perceptkit.model.strategy import Strategy
from perceptkit.model.supernet import Supernet
from perceptkit.spec import adaptation as specs

START = 0.15


class Delta(nn.Module):
    """A change of the weight that is used where the score says so."""

    def __init__(self, weight: Tensor, threshold: float) -> None:
        super().__init__()
        self.threshold = threshold
        self.delta = nn.Parameter(torch.zeros_like(weight))
        self.score = nn.Parameter(torch.tensor(START))

    def forward(self, weight: Tensor) -> Tensor:
        # s - s is 0 exactly, with a gradient of 1
        used = (self.score.detach() >= self.threshold).to(weight) + (self.score - self.score.detach())
        return weight + used * self.delta

    def is_tuned(self) -> bool:
        """Whether the change is used."""
        return float(self.score.detach()) >= self.threshold


def score_penalty(scores: Sequence[Tensor]) -> Tensor:
    """(1 / L) sum_l |s_l|."""
    return torch.stack(list(scores)).abs().mean()


class Taps(Strategy):
    """See the module's docstring."""

    def __init__(self, spec: specs.Taps) -> None:
        super().__init__(spec)
        self.sparsity, self.threshold, self.warmup = spec.sparsity, spec.threshold, spec.warmup

    def begin(self, net: Supernet, plan: Plan) -> None:
        learn_norms_only(net.backbone)
        for layer in weighted_layers(net.backbone).values():
            parametrized.learn_through(layer, Delta(layer.weight, self.threshold))

    def penalty(
        self, net: Supernet, progress: float, image_BCHW: Tensor, outputs: Mapping[str, Tensor]
    ) -> Tensor | None:
        if progress < self.warmup:
            return None
        scores = [delta.score for _, delta in parametrized.learned_through(net.backbone, Delta)]
        return self.sparsity * score_penalty(scores)

    def tuned_layers(self, net: Supernet) -> list[str]:
        """Names in the trunk of the layers that are tuned, from the image on."""
        return [name for name, delta in parametrized.learned_through(net.backbone, Delta) if delta.is_tuned()]

    def fold(self, net: Supernet) -> None:
        parametrized.fold(net.backbone)

    def pack(self, net: Supernet) -> dict[str, Tensor]:
        """Without the changes of layers that are not tuned."""
        stored = super().pack(net)
        for name, delta in parametrized.learned_through(net, Delta):
            if not delta.is_tuned():
                del stored[f"{name}.parametrizations.weight.0.delta"]
        return stored
