"""Scratch: random weights, all of them trained; nothing is transferred.

The lower bound that every transfer is compared with, as in Rebuffi, Bilen, Vedaldi. *Learning multiple visual domains
with residual adapters.* NIPS 2017. https://arxiv.org/abs/1705.08045

    w = random

Nothing is fixed, everything learns; a domain stores all weights; there is nothing to fold.

The random weights are those of a trunk made anew (`Origin.fresh`). Modules cannot be asked to reset themselves: timm
initialises a model from outside, and bare parameters (positions, class token, layer scale) belong to no layer
that could.
"""

from perceptkit.model.plan import Plan
from perceptkit.model.strategy import Strategy
from perceptkit.model.supernet import Supernet


class Scratch(Strategy):
    """See the module's docstring."""

    def begin(self, net: Supernet, plan: Plan) -> None:
        if self.origin.fresh is None:
            raise ValueError("scratch needs an Origin with `fresh`")
        random = self.origin.fresh().state_dict()
        # the trunk has no classifier, and nothing that only a classifier reads
        net.backbone.load_state_dict({name: random[name] for name in net.backbone.state_dict()})
