"""Folding gives a plain layer back, and leaves copies alone."""

import copy

import torch
from torch import nn

from perceptkit.baselines.adaptation import parametrized


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


def test_the_fixed_weight_does_not_learn():
    layer = nn.Linear(2, 3)
    parametrized.learn_through(layer, Twice())
    assert not layer.parametrizations.weight.original.requires_grad
