"""Nothing of the base is left."""

import pytest
import torch

from perceptkit.baselines.adaptation.table import build_strategy
from perceptkit.model.strategy import Origin, learned_names
from tests.baselines.adaptation.conftest import adaptation, all_keep, begun, domain, origin

OF_THE_BASE = 7.0


@pytest.mark.parametrize("name", ["resnet18", "convnext_atto", "vit_tiny_patch16_224"])
def test_no_parameter_and_no_statistic_keeps_the_base_s_value(name):
    """Layer scale, positions and class token included."""
    net = domain(name)
    with torch.no_grad():
        for value in net.backbone.state_dict().values():
            value.fill_(OF_THE_BASE)
    build_strategy(adaptation("scratch"), origin(name)).begin(net, all_keep(net))
    assert [key for key, value in net.backbone.state_dict().items() if (value == OF_THE_BASE).any()] == []


def test_everything_learns():
    _, net, _ = begun("scratch")
    assert set(learned_names(net)) == set(net.state_dict())


def test_needs_to_know_how_to_make_a_trunk():
    net = domain()
    with pytest.raises(ValueError, match="an Origin with `fresh`"):
        build_strategy(adaptation("scratch"), Origin()).begin(net, all_keep(net))
