"""BN adaptation: each domain has its own norms; convolutions and linear layers are fixed.

Bilen, Vedaldi. *Universal representations: The missing link between faces, text, planktons, and cat breeds.* 2017.
https://arxiv.org/abs/1701.07275

    y_c = gamma_c (u_c - mean_c) / sqrt(var_c + eps) + beta_c      one gamma, beta, mean and var per domain

Where there is no BatchNorm: the scale and shift of the norms, and all biases, as in Ben Zaken, Ravfogel, Goldberg.
*BitFit.* ACL 2022. https://arxiv.org/abs/2106.10199

A domain stores the norms: two parameters and two statistics per channel, 0.13 % of a ResNet-26. There is nothing to
fold: the network has the base's structure.
"""

from perceptkit.model.layers import learn_norms_only
from perceptkit.model.plan import Plan
from perceptkit.model.strategy import Strategy
from perceptkit.model.supernet import Supernet


class Bn(Strategy):
    """See the module's docstring."""

    def begin(self, net: Supernet, plan: Plan) -> None:
        learn_norms_only(net.backbone)
