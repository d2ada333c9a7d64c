"""Which parameters are a domain's own."""

import pytest
from torch import nn

from perceptkit.baselines.adaptation.table import build_strategy
from tests.baselines.adaptation.conftest import adaptation, begun
from tests.baselines.adaptation.resnet26 import Trunk, learned


def learning(net):
    return {name for name, p in net.backbone.named_parameters() if p.requires_grad}


def test_size_of_the_paper():
    net = Trunk()
    build_strategy(adaptation("bn")).begin(net, None)
    assert learned(net, without_norms=False) == 2 * 3872
    assert learned(net, without_norms=False) / 5.81e6 == pytest.approx(0.0013, abs=5e-5)


def test_batchnorms_and_nothing_else():
    _, net, _ = begun("bn")
    norms = [name for name, m in net.backbone.named_modules() if isinstance(m, nn.BatchNorm2d)]
    assert learning(net) == {f"{norm}.{part}" for norm in norms for part in ("weight", "bias")}


@pytest.mark.parametrize("name", ["convnext_atto", "vit_tiny_patch16_224"])
def test_without_batchnorm_norms_and_all_biases(name):
    _, net, _ = begun("bn", name)
    biases = {name for name, _ in net.backbone.named_parameters() if name.endswith("bias")}
    norms = [name for name, m in net.backbone.named_modules() if isinstance(m, nn.LayerNorm)]
    assert norms and learning(net) == biases | {f"{norm}.weight" for norm in norms}
