"""Kendall et al.: the formula, and where it rests."""

import math

import pytest
import torch

from perceptkit.baselines.balancing.uncertainty import Uncertainty

ALL = torch.tensor([True, True])


def test_by_hand():
    balance = Uncertainty(torch.tensor([1.0, 2.0]), torch.tensor([True, False]))
    with torch.no_grad():
        for s, value in zip(balance.log_variances, (math.log(4), math.log(0.5)), strict=True):
            s.fill_(value)
    # 1/2 * 1/4 * 3 + log(4)/2,  2 * 2 * 5 + log(0.5)/2
    expected = 0.375 + math.log(4) / 2 + 20 + math.log(0.5) / 2
    assert balance.total(torch.tensor([3.0, 5.0]), ALL).item() == pytest.approx(expected)


def test_the_variance_comes_to_rest_at_the_loss():
    balance = Uncertainty(torch.ones(2), torch.tensor([True, False]))
    optimizer = torch.optim.Adam(balance.parameters(), lr=0.05)
    for _ in range(600):
        optimizer.zero_grad()
        balance.total(torch.tensor([3.0, 0.25]), ALL).backward()
        optimizer.step()
    variance_K = torch.stack([s.detach().exp() for s in balance.log_variances])
    torch.testing.assert_close(variance_K, torch.tensor([3.0, 0.5]), rtol=1e-2, atol=0)


def test_a_task_without_a_label_learns_nothing():
    balance = Uncertainty(torch.ones(2), torch.tensor([True, False]))
    total = balance.total(torch.tensor([3.0, 0.0]), torch.tensor([True, False]))
    total.backward()
    assert total.item() == pytest.approx(1.5) and balance.log_variances[1].grad is None


def test_momentum_does_not_move_a_task_without_a_label():
    balance = Uncertainty(torch.ones(2), torch.tensor([True, False]))
    optimizer = torch.optim.AdamW(balance.parameters(), lr=0.05)
    for labelled in (ALL, torch.tensor([True, False])):
        before = [s.item() for s in balance.log_variances]
        optimizer.zero_grad()
        balance.total(torch.tensor([3.0, 0.25]), labelled).backward()
        optimizer.step()
        moved = [s.item() != b for s, b in zip(balance.log_variances, before, strict=True)]
        assert moved == labelled.tolist()
