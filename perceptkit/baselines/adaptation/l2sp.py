"""L2-SP: fine-tuning with a pull towards the base's weights instead of towards zero.

Li, Grandvalet, Davoine. *Explicit Inductive Bias for Transfer Learning with Convolutional Networks.* ICML 2018.
https://arxiv.org/abs/1802.01483

    Omega(w) = alpha / 2 ||w_S - w_S^0||^2 + beta / 2 ||w_new||^2

w_S are the parameters of the trunk, those of its norms included, w_new those of neck and heads; w_S^0 is where w_S
started. This is in the loss; the optimiser's weight decay, which pulls to zero, is 0 unless the section says so.

Nothing is fixed, everything learns; a domain stores all weights; there is nothing to fold.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from perceptkit.model.plan import Plan
from perceptkit.model.strategy import Strategy
from perceptkit.model.supernet import Supernet
from perceptkit.spec import adaptation as specs

TRUNK = "backbone."


class L2sp(Strategy):
    """See the module's docstring."""

    def __init__(self, spec: specs.L2sp) -> None:
        super().__init__(spec)
        self.alpha, self.beta = spec.alpha, spec.beta
        self._start: dict[str, Tensor] = {}

    def begin(self, net: Supernet, plan: Plan) -> None:
        self._start = {
            name: parameter.detach().clone()
            for name, parameter in net.named_parameters()
            if name.startswith(TRUNK)
        }

    def penalty(
        self, net: Supernet, progress: float, image_BCHW: Tensor, outputs: Mapping[str, Tensor]
    ) -> Tensor | None:
        old, new = torch.zeros((), device=image_BCHW.device), torch.zeros((), device=image_BCHW.device)
        for name, parameter in net.named_parameters():
            if name in self._start:
                self._start[name] = self._start[name].to(parameter.device)  # the net moved after `begin`
                old = old + (parameter - self._start[name]).square().sum()
            else:
                new = new + parameter.square().sum()
        return self.alpha / 2 * old + self.beta / 2 * new
