"""SpotTune: by picture and block, the base's copy or a tuned one.

    y = (1 - w(x)) * base(x) + w(x) * tuned(x)             w in {0, 1}, decided for all blocks before the trunk runs

The router learns from the tasks' losses alone, through straight-through Gumbel samples; the most probable choice is
what runs afterwards. In `spottune_global` the pictures are made to agree: with v_l the share of pictures that run the
tuned copy of block l,

    L = L_tasks + lambda_1 (sum_l v_l - k)^2 + lambda_2 sum_l H(v_l),     H(v) = -v log v - (1 - v) log(1 - v)

Guo, Shi, Kumar, Grauman, Rosing, Feris: *SpotTune: Transfer Learning through Adaptive Fine-tuning.* CVPR 2019, sections
3 and 3.3. https://arxiv.org/abs/1811.08737

Where we differ: H has both terms, which pull v to 0 and to 1 alike; before the end the k blocks are fixed and the
weights learn a while longer (of the global variant no code was released); the released code draws noise in the test,
and for a while shared storage between the copies. `frozen_bn: adapt` and `outside: tuned` are the released code's: the
norms of the base's side learn too, and so does what is in no block, for all pictures alike. In its ResNets that is the
stem; in a backbone with stage transitions that cannot be skipped it is those too.

Shapes: B pictures, R blocks with two copies.
"""

from collections.abc import Iterable, Iterator
from dataclasses import replace

import torch
from torch import Tensor, nn

from perceptkit.errors import SpecError
from perceptkit.model import parametrized
from perceptkit.model.copies import add_copies, may_have_copies
from perceptkit.model.layers import adapted_convs, learn_norms_only, spatial_convs, weighted_layers
from perceptkit.model.plan import Plan
from perceptkit.model.strategy import Strategy, freeze
from perceptkit.model.supernet import Supernet
from perceptkit.model.trunk import TUNED
from perceptkit.model.updates import CentreTap, LowRank
from perceptkit.policies.sampling import straight_through
from perceptkit.spec.adaptation import Spottune, SpottuneGlobal


class SpotTune(Strategy):
    """Two copies of every block that tasks keep.

    Args:
        spec: of method `spottune` or `spottune_global`.
    """

    def __init__(self, spec: Spottune | SpottuneGlobal) -> None:
        super().__init__(spec)
        self.spec = spec

    def plan(self, net: Supernet, plan: Plan) -> Plan:
        """With two copies of every block that may have them. Raises SpecError where there is none to choose about."""
        dual = may_have_copies(net, plan)
        if not dual:
            raise SpecError(
                f"adaptation.method {self.method} gives blocks a second copy, and none can have one: the network has "
                "no block that can be skipped, or each that a task keeps is a stage transition that another one skips; "
                "use taps, bn or finetune"
            )
        return replace(plan, dual=dual)

    def begin(self, net: Supernet, plan: Plan) -> None:
        if self.spec.tuned == "parallel_adapter":
            adapted_convs(net.backbone, f"{self.method}, tuned: parallel_adapter,")
        if self.spec.frozen_bn == "adapt":
            learn_norms_only(net.backbone)
        else:
            freeze(net.backbone)
        if self.spec.outside == "tuned":
            for module in _outside(net):
                self.begin_tuned(module)
            for parameter in net.backbone.parameters(recurse=False):  # positions and class tokens
                parameter.requires_grad_(self.spec.tuned == "full_copy")
        add_copies(net, plan.dual)
        for block in plan.dual:
            self.begin_tuned(net.backbone.get_submodule(f"{block}.{TUNED}"))

    def begin_tuned(self, block: nn.Module) -> None:
        """What learns in a tuned copy, or outside of blocks, and what is added to it."""
        learn_norms_only(block)
        if self.spec.tuned == "full_copy":
            block.requires_grad_(True)
        elif self.spec.tuned == "parallel_adapter":
            for conv in spatial_convs(block).values():
                parametrized.learn_through(conv, CentreTap(conv.weight))
        elif self.spec.tuned == "lora":
            for layer in weighted_layers(block).values():
                parametrized.learn_through(layer, LowRank(layer.weight, self.spec.rank))

    def restore(self, net: Supernet, plan: Plan, tuned: Iterable[str]) -> None:
        """Brings a network with the base's weights to the structure of one whose choices are final.

        Args:
            net: with the domain's tasks.
            plan: its `dual` are the blocks that still have two copies.
            tuned: the blocks of which only the tuned copy is left.
        """
        self.begin(net, plan)
        for block in tuned:
            self.begin_tuned(net.backbone.get_submodule(block))

    def fold(self, net: Supernet) -> None:
        parametrized.fold(net.backbone)


def _outside(net: Supernet) -> Iterator[nn.Module]:
    """What is in no block: stem, stage transitions that cannot be skipped, final norm, embeddings."""
    in_steps = {step.name.split(".")[0] for step in net.steps}
    for step in net.steps:
        if step.block is None and step.name:
            yield net.backbone.get_submodule(step.name)
    for name, child in net.backbone.named_children():
        if name not in in_steps:
            yield child


def tuned_samples(logits_BR: Tensor, noise_BR: Tensor, tau: float) -> Tensor:
    """w: exactly 0 or 1 as float (B, R), 1 for the tuned copy, with the gradient of the relaxed choice.

    Args:
        logits_BR: log-odds of the tuned copy.
        noise_BR: of `sampling.logistic_noise`.
        tau: temperature, above 0.
    """
    return straight_through(logits_BR, noise_BR, tau)


def agreement_penalty(tuned_BR: Tensor, k: int, count_weight: float, agree_weight: float) -> Tensor:
    """What `spottune_global` adds to the losses.

    Args:
        tuned_BR: samples of a whole batch, that of all processes, with a gradient.
        k: blocks to be tuned; all, where there are fewer.
        count_weight, agree_weight: lambda_1 and lambda_2.
    """
    share_R = tuned_BR.mean(0)
    inside_R = share_R.clamp(1e-6, 1 - 1e-6)
    entropy_R = -(inside_R * inside_R.log() + (1 - inside_R) * (1 - inside_R).log())
    return count_weight * (share_R.sum() - min(k, len(share_R))) ** 2 + agree_weight * entropy_R.sum()


def agreed(share_R: Tensor, k: int) -> Tensor:
    """bool (R,): the k blocks with the largest shares; of equals, the later ones."""
    order = sorted(range(len(share_R)), key=lambda r: (share_R[r].item(), r), reverse=True)
    chosen = torch.zeros(len(share_R), dtype=torch.bool)
    chosen[order[:k]] = True
    return chosen
