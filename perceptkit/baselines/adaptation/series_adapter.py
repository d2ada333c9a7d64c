"""Series residual adapters: after every spatial convolution a 1x1 convolution with a norm, added to its input.

Rebuffi, Bilen, Vedaldi. *Learning multiple visual domains with residual adapters.* NIPS 2017.
https://arxiv.org/abs/1705.08045; in the form of *Efficient parametrization of multi-domain deep neural networks.* CVPR
2018. https://arxiv.org/abs/1803.10082

    y = u + A BN(u),   u = W * x

Fixed: all convolutions and linear layers. Learned, and stored by a domain: A, which starts at 0, the norm inside the
adapter, and the trunk's norms: 12 % of a ResNet-26. A has the groups of its convolution.

These adapters must be there while the base is trained: put behind the convolutions of an off-the-shelf network they do
worse than training from scratch (CIFAR-100 70.7 % to 75.2 %, the authors' figures); `parallel_adapter` does not
need it.

Folds exactly, in eval mode, where BN(u) = s u + t:

    W' = (I + A diag(s)) W        b' = (I + A diag(s)) b + A t

b' goes where the base has a place for it: a bias, or the running mean of the BatchNorm that reads y and nothing else.
Networks with convolutions that have neither (pre-activation ResNets) are refused.
"""

import torch
from torch import Tensor, nn

from perceptkit.errors import SpecError
from perceptkit.model.conv_bn import NORMS, conv_bn_pairs
from perceptkit.model.layers import adapted_convs, learn_norms_only
from perceptkit.model.plan import Plan
from perceptkit.model.strategy import Strategy
from perceptkit.model.supernet import Supernet


class Adapted(nn.Module):
    """A convolution and its adapter, in the convolution's place."""

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__()
        self.conv = conv
        channels, like = conv.out_channels, conv.weight
        self.norm = nn.BatchNorm2d(channels).to(like)
        self.adapter = nn.Conv2d(channels, channels, 1, groups=conv.groups, bias=False).to(like)
        nn.init.zeros_(self.adapter.weight)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        u_BCHW: Tensor = self.conv(x_BCHW)
        return u_BCHW + self.adapter(self.norm(u_BCHW))

    @torch.no_grad()
    def folded(self) -> tuple[nn.Conv2d, Tensor]:
        """The convolution with weight W', and b'. In float64: the result is rounded once."""
        conv, norm = self.conv, self.norm
        assert norm.running_mean is not None and norm.running_var is not None
        scale_C = norm.weight.double() / (norm.running_var.double() + norm.eps).sqrt()
        shift_C = norm.bias.double() - norm.running_mean.double() * scale_C
        groups, size = conv.groups, conv.out_channels // conv.groups
        adapter = self.adapter.weight.double().reshape(groups, size, size)
        identity = torch.eye(size, device=adapter.device, dtype=adapter.dtype)
        total = identity + adapter * scale_C.reshape(groups, 1, size)
        weight = total @ conv.weight.double().reshape(groups, size, -1)
        bias_C = (adapter @ shift_C.reshape(groups, size, 1)).flatten()
        if conv.bias is not None:
            bias_C += (total @ conv.bias.double().reshape(groups, size, 1)).flatten()
        conv.weight.copy_(weight.view_as(conv.weight))
        return conv, bias_C.to(conv.weight)


class SeriesAdapter(Strategy):
    """See the module's docstring."""

    def begin(self, net: Supernet, plan: Plan) -> None:
        convs = adapted_convs(net.backbone, self.method)
        norms = norms_behind(net)
        homeless = [name for name, conv in convs.items() if conv.bias is None and name not in norms]
        if homeless:
            raise SpecError(
                f"adaptation.method {self.method} cannot be folded into {type(net.backbone).__name__}: no norm follows "
                f"on {', '.join(homeless[:3])}{' ...' if len(homeless) > 3 else ''}; use parallel_adapter"
            )
        learn_norms_only(net.backbone)
        for name, conv in convs.items():
            net.backbone.set_submodule(name, Adapted(conv))

    @torch.no_grad()
    def fold(self, net: Supernet) -> None:
        biases: dict[str, Tensor] = {}
        for name, module in list(net.backbone.named_modules()):
            if isinstance(module, Adapted):
                conv, biases[name] = module.folded()
                net.backbone.set_submodule(name, conv)
        norms = norms_behind(net)
        for name, bias_C in biases.items():
            plain = net.backbone.get_submodule(name)
            assert isinstance(plain, nn.Conv2d)
            if plain.bias is not None:
                plain.bias.copy_(bias_C)
            else:
                norm = net.backbone.get_submodule(norms[name])
                assert isinstance(norm, NORMS) and norm.running_mean is not None
                norm.running_mean -= bias_C


def norms_behind(net: Supernet) -> dict[str, str]:
    """By the name of a convolution of the trunk, the BatchNorm that reads its output, where nothing else does."""
    whole, was_training = _Whole(net), net.training
    image_BCHW = torch.zeros(1, 3, *net.size_HW).to(next(net.parameters()))
    net.eval()
    pairs = conv_bn_pairs(whole, image_BCHW)
    net.train(was_training)
    before = "net.backbone."
    return {conv[len(before) :]: norm[len(before) :] for conv, norm in pairs if conv.startswith(before)}


class _Whole(nn.Module):
    """The network with all blocks, as a function of the image."""

    def __init__(self, net: Supernet) -> None:
        super().__init__()
        self.net = net
        self.plan = Plan.all_keep(list(net.tasks), [block.name for block in net.blocks])

    def forward(self, image_BCHW: Tensor) -> dict[str, Tensor]:
        outputs: dict[str, Tensor] = self.net(image_BCHW, self.plan)
        return outputs
