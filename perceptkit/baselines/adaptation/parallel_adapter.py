"""Parallel residual adapters: a 1x1 convolution beside every spatial convolution, added to it.

Rebuffi, Bilen, Vedaldi. *Efficient parametrization of multi-domain deep neural networks.* CVPR 2018.
https://arxiv.org/abs/1803.10082

    y = W * x + A * x  =  W' * x        W' = W with A added to the centre tap

The right-hand side is how it is computed, in training too: one convolution, of W'. Stride and padding play no part
where a kernel of k has a padding of (k - 1) / 2; where a timm model pads otherwise (TensorFlow's "same"), the adapter
reads the pixel under the kernel's centre. A has the groups of its convolution: for a depthwise one it is a scale per
channel.

Fixed: all convolutions and linear layers. Learned, and stored by a domain: A, which starts at 0 (the authors' code
starts it at random, so that step 0 is not the base), and the norms: 11 % of a ResNet-26. Folds exactly: W' is
the weight. Kernels of 1x1 get no adapter, which would be a weight of the same size; kernels of even size
have no centre tap, and cut patches or halve a map in the networks that have them.
"""

from perceptkit.model import parametrized
from perceptkit.model.layers import adapted_convs, learn_norms_only
from perceptkit.model.plan import Plan
from perceptkit.model.strategy import Strategy
from perceptkit.model.supernet import Supernet
from perceptkit.model.updates import CentreTap


class ParallelAdapter(Strategy):
    """See the module's docstring."""

    def begin(self, net: Supernet, plan: Plan) -> None:
        convs = adapted_convs(net.backbone, self.method)
        learn_norms_only(net.backbone)
        for conv in convs.values():
            parametrized.learn_through(conv, CentreTap(conv.weight))

    def fold(self, net: Supernet) -> None:
        parametrized.fold(net.backbone)
