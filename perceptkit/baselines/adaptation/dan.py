"""DAN, controller networks: new filters that are linear combinations of the fixed ones.

Rosenfeld, Tsotsos. *Incremental Learning Through Deep Adaptation.* TPAMI 2018. https://arxiv.org/abs/1705.04228

    F' = D F        F: the C_out filters of a layer, flattened, one per row;  D = I + control: C_out x C_out

In a grouped convolution the filters of a group are combined among themselves (D is block-diagonal): filters of
different groups read different channels.

Fixed: F, of every convolution and linear layer. Learned, and stored by a domain: D, which starts as the identity (the
authors also fit it to a fine-tuned network), biases and norms. D has 1/9 of a square 3x3 convolution's weights and 2/9
where the channels double; for 1x1 convolutions and linear layers it is as large as F or larger: this method
is for networks of 3x3 convolutions. Folds exactly: F' is the weight.
"""

import torch
from torch import Tensor, nn

from perceptkit.model import parametrized
from perceptkit.model.layers import learn_biases, learn_norms_only, weighted_layers
from perceptkit.model.plan import Plan
from perceptkit.model.strategy import Strategy
from perceptkit.model.supernet import Supernet


class Controller(nn.Module):
    """Combines a weight's filters, group by group.

    Args:
        weight: (C_out, ...).
        groups: of the layer.
    """

    def __init__(self, weight: Tensor, groups: int) -> None:
        super().__init__()
        size = len(weight) // groups
        self.control = nn.Parameter(torch.zeros(groups, size, size))

    def forward(self, weight: Tensor) -> Tensor:
        groups, size, _ = self.control.shape
        combination = torch.eye(size, device=weight.device, dtype=weight.dtype) + self.control
        return (combination @ weight.reshape(groups, size, -1)).reshape(weight.shape)


class Dan(Strategy):
    """See the module's docstring."""

    def begin(self, net: Supernet, plan: Plan) -> None:
        learn_norms_only(net.backbone)
        learn_biases(net.backbone)
        for layer in weighted_layers(net.backbone).values():
            groups = layer.groups if isinstance(layer, nn.Conv2d) else 1
            parametrized.learn_through(layer, Controller(layer.weight, groups))

    def fold(self, net: Supernet) -> None:
        parametrized.fold(net.backbone)
