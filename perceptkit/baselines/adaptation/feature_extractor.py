"""Feature extractor: the trunk is fixed, norms and their statistics included; neck and heads are trained.

Donahue et al. *DeCAF: A Deep Convolutional Activation Feature for Generic Visual Recognition.* ICML 2014.
https://arxiv.org/abs/1310.1531

    y = head(trunk(x)),   trunk fixed

A domain stores nothing of the trunk; there is nothing to fold.
"""

from perceptkit.model.plan import Plan
from perceptkit.model.strategy import Strategy, freeze
from perceptkit.model.supernet import Supernet


class FeatureExtractor(Strategy):
    """See the module's docstring."""

    def begin(self, net: Supernet, plan: Plan) -> None:
        freeze(net.backbone)
