"""Masks: the gradient goes straight through the threshold, storage takes one bit."""

import pytest
import torch
from torch import nn

from perceptkit.baselines.adaptation.piggyback import Mask, packed, unpacked
from tests.baselines.adaptation.conftest import begun


def test_masked_weight_and_gradient_by_hand():
    weight = torch.tensor([2.0, 3.0, -4.0])
    mask = Mask(weight, threshold=5e-3)
    mask.mask.data.copy_(torch.tensor([0.1, -0.009, -5e-3]))  # the last is not above the threshold
    used = mask(weight)
    assert used.tolist() == [2.0, 0.0, 0.0]
    (used * torch.tensor([1.0, 10.0, 100.0])).sum().backward()
    assert mask.mask.grad.tolist() == [2.0, 30.0, -400.0]  # W dL/dW', used or not


def test_all_weights_are_used_at_first():
    for threshold in (5e-3, 1e-2, 0.5):
        assert Mask(torch.ones(3), threshold).is_used().all()
    assert Mask(torch.ones(3), 5e-3).start == 1e-2


@pytest.mark.parametrize("number", [1, 7, 8, 9, 27])
def test_bits(number):
    used = torch.rand(number, generator=torch.Generator().manual_seed(number)) < 0.5
    stored = packed(used)
    assert stored.dtype == torch.uint8 and stored.numel() == -(-number // 8)
    assert torch.equal(unpacked(stored, used.shape), used.float())
    assert packed(torch.tensor([True, False, True])).tolist() == [0b10100000]


@pytest.mark.parametrize("name", ["resnet18", "vit_tiny_patch16_224"])
def test_one_bit_per_weight(name):
    strategy, net, _ = begun("piggyback", name)
    weights = sum(m.weight.numel() for m in net.modules() if isinstance(m, nn.Conv2d | nn.Linear))
    weights -= net.heads["task_new"].predict.weight.numel()
    assert strategy.stored_bits(net) == weights  # of 32 a weight
    stored = [v for key, v in strategy.pack(net).items() if key.startswith("backbone")]
    assert {v.dtype for v in stored} == {torch.uint8}
    assert weights <= 8 * sum(v.numel() for v in stored) < weights + 8 * len(stored)
