"""Folding gives a plain layer back, and leaves copies alone."""

import copy

import pytest
import torch
from torch import nn

from perceptkit.baselines.adaptation.dan import Controller
from perceptkit.baselines.adaptation.piggyback import Mask
from perceptkit.baselines.adaptation.taps import Delta
from perceptkit.model import parametrized
from perceptkit.model.updates import CentreTap

WEIGHT = torch.randn(4, 2, 3, 3, generator=torch.Generator().manual_seed(0))


class Twice(nn.Module):
    def forward(self, weight):
        return 2 * weight


def test_a_folded_layer_is_what_it_was():
    layer = nn.Linear(2, 3)
    keys, weight = [*layer.state_dict()], layer.weight.detach().clone()
    parametrized.learn_through(layer, Twice())
    twin = copy.deepcopy(layer)
    parametrized.fold(layer)
    assert type(layer) is nn.Linear and [*layer.state_dict()] == keys
    assert torch.equal(layer.weight, 2 * weight) and layer.weight.requires_grad
    assert torch.equal(twin.weight, 2 * weight) and [name for name, _ in twin.named_parameters()] != keys
    assert [name for name, _ in parametrized.learned_through(nn.Sequential(twin), Twice)] == ["0"]


@pytest.mark.parametrize(
    "function",
    [CentreTap(WEIGHT), Controller(WEIGHT, 2), Mask(WEIGHT, 5e-3), Delta(WEIGHT, 0.1)],
    ids=lambda function: type(function).__name__,
)
def test_zeros_are_the_base_so_that_weight_decay_pulls_there(function):
    assert not any(p.any() for p in function.parameters() if p.ndim > 1)  # what the optimiser lets decay
    assert torch.equal(function(WEIGHT), WEIGHT)


def test_the_fixed_weight_does_not_learn():
    layer = nn.Linear(2, 3)
    parametrized.learn_through(layer, Twice())
    assert not layer.parametrizations.weight.original.requires_grad
