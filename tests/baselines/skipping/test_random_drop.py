"""One draw deletes the same blocks for all images, down to the cost asked for."""

import pytest
import torch

from perceptkit.baselines.skipping.random_drop import random_drop

COST = torch.tensor([7.0, 9.4, 9.4, 9.4, 9.4, 3.0, 9.4, 9.4, 9.4, 1.0])


def test_all_images_miss_the_same_blocks():
    keep = random_drop(6, torch.ones(8), 5 / 8, torch.Generator().manual_seed(0))
    assert keep.shape == (6, 8) and (keep == keep[0]).all() and keep[0].sum() == 5


@pytest.mark.parametrize("usage", [0.0, 0.1, 0.5, 0.65, 0.97, 1.0])
def test_cost_is_within_half_a_block(usage):
    generator = torch.Generator().manual_seed(0)
    for _ in range(20):
        (keep_R,) = random_drop(1, COST, usage, generator)
        assert abs((COST * keep_R).sum() / COST.sum() - usage) <= 0.5 * 9.4 / COST.sum() + 1e-6


def test_draws_differ_and_reach_every_block():
    generator = torch.Generator().manual_seed(0)
    kept = torch.cat([random_drop(1, torch.ones(8), 0.5, generator) for _ in range(200)])
    assert (kept.sum(1) == 4).all()
    assert all(70 < count < 130 for count in kept.sum(0).tolist())  # 100 each, sd 7


def test_usage_is_a_fraction():
    with pytest.raises(ValueError, match=r"in \[0, 1\], not -1"):
        random_drop(5, COST, -1, torch.Generator())
