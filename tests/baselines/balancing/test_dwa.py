"""Dynamic weight average, by hand."""

import math

import pytest
import torch

from perceptkit.baselines.balancing.dwa import Dwa

ALL = torch.tensor([True, True])


def epoch(balance, *batches, labelled=ALL):
    for losses in batches:
        balance.total(torch.tensor(losses), labelled)
    balance.end_epoch()


def test_weights_of_the_third_epoch_by_hand():
    balance = Dwa(torch.ones(2), temperature=2.0)
    epoch(balance, [4.0, 1.0], [2.0, 1.0])
    assert balance.shown_K().tolist() == [1, 1]
    epoch(balance, [1.0, 1.0], [2.0, 0.0])
    # epoch means 3, 1 and then 1.5, 0.5: both fell to a half
    assert balance.shown_K().tolist() == pytest.approx([1, 1])
    epoch(balance, [1.5, 0.25])
    a, b = math.exp(1.0 / 2), math.exp(0.5 / 2)  # the first did not fall, the second to a half
    assert balance.shown_K().tolist() == pytest.approx([2 * a / (a + b), 2 * b / (a + b)])
    assert balance.total(torch.tensor([1.0, 0.0]), ALL).item() == pytest.approx(2 * a / (a + b))


def test_batches_without_a_label_do_not_count():
    seen, gap = Dwa(torch.ones(2), 2.0), Dwa(torch.ones(2), 2.0)
    for losses in ([4.0, 1.0], [2.0, 0.8], [1.0, 0.7]):
        epoch(seen, losses)
        gap.total(torch.tensor([0.0, 0.0]), torch.tensor([False, False]))
        epoch(gap, losses)
    assert torch.equal(seen.shown_K(), gap.shown_K()) and seen.shown_K()[0] != 1


def test_an_epoch_without_any_label_leaves_the_weights_alone():
    balance = Dwa(torch.ones(2), 2.0)
    for _ in range(3):
        epoch(balance, [1.0, 0.0], labelled=torch.tensor([True, False]))
    assert balance.shown_K().tolist() == [1, 1]


def test_an_epoch_without_a_label_does_not_count():
    seen, gap = Dwa(torch.ones(2), 2.0), Dwa(torch.ones(2), 2.0)
    for balance in (seen, gap):
        epoch(balance, [4.0, 1.0])
        epoch(balance, [2.0, 1.0])
    epoch(gap, [3.0, 0.0], labelled=torch.tensor([False, True]))
    assert gap.mean_2K[:, 0].tolist() == seen.mean_2K[:, 0].tolist() == [4, 2]
    assert gap.mean_2K[:, 1].tolist() == [1, 0]


def test_state_is_whole():
    one, other = Dwa(torch.ones(2), 2.0), Dwa(torch.ones(2), 2.0)
    epoch(one, [4.0, 1.0])
    one.total(torch.tensor([3.0, 1.0]), ALL)
    other.load_state_dict(one.state_dict())
    for balance in (one, other):
        epoch(balance, [1.0, 1.0])
    assert torch.equal(one.shown_K(), other.shown_K()) and one.shown_K()[0] != 1
