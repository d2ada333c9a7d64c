"""The rules skip what they say, and cost what they are asked to."""

import pytest
import torch

from perceptkit.baselines.skipping.heuristics import dist_k, first_k, most_frequent, random_k
from perceptkit.policies.blockdrop import usage as usage_B

EQUAL = torch.ones(15)
UNEQUAL = torch.tensor([7.0, 9.4, 9.4, 9.4, 9.4, 3.0, 9.4, 9.4, 9.4, 1.0])


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def mean_usage(keep_NR: torch.Tensor, cost_R: torch.Tensor) -> float:
    return usage_B(keep_NR, cost_R).double().mean().item()


@pytest.mark.parametrize("usage", [0.0, 0.03, 1 / 3, 0.46, 0.65, 0.9999, 1.0])
def test_first_k_has_the_cost_asked_for(usage):
    for cost_R in (EQUAL, UNEQUAL):
        keep = first_k(500, cost_R, usage, seeded())
        half_a_block = 0.5 * (cost_R.max() / cost_R.sum()).item() / 500
        assert mean_usage(keep, cost_R) == pytest.approx(usage, abs=half_a_block + 1e-6)


@pytest.mark.parametrize("usage", [0.0, 0.03, 1 / 3, 0.46, 0.65, 0.9999, 1.0])
def test_random_k_has_the_cost_asked_for(usage):
    keep = random_k(500, EQUAL, usage, seeded())
    assert mean_usage(keep, EQUAL) == pytest.approx(usage, abs=0.5 / 15 / 500 + 1e-6)
    # unequal costs: two incomplete groups of less than R of the N images
    assert mean_usage(random_k(4000, UNEQUAL, usage, seeded()), UNEQUAL) == pytest.approx(usage, abs=1e-3)


def test_first_k_keeps_a_prefix_of_two_lengths():
    keep = first_k(40, EQUAL, 5.25 / 15, seeded())
    assert sorted(keep.sum(1).tolist()) == [5] * 30 + [6] * 10
    assert (keep[:, :-1] >= keep[:, 1:]).all()
    lengths = keep.sum(1).tolist()
    assert lengths not in (sorted(lengths), sorted(lengths)[::-1])  # images of both kinds are mixed


def test_random_k_keeps_every_block_equally_often_and_every_set():
    keep = random_k(6000, torch.ones(4), 0.5, seeded())
    assert (keep.sum(1) == 2).all() and (keep.sum(0) == 3000).all()
    sets, counts = torch.unique(keep, dim=0, return_counts=True)
    assert len(sets) == 6 and counts.min() > 850 and counts.max() < 1150  # 1000 each


def test_random_k_mixes_two_numbers_of_blocks():
    keep = random_k(40, EQUAL, 5.25 / 15, seeded())
    assert sorted(keep.sum(1).tolist()) == [5] * 30 + [6] * 10


def test_dist_k_has_the_routers_rates_and_so_its_cost():
    rate_R = torch.tensor([1.0, 0.9, 0.5, 0.0, 0.123, 0.7, 1.0, 0.2, 0.25, 0.6])
    keep = dist_k(1000, rate_R, seeded())
    assert keep.double().mean(0).tolist() == pytest.approx(rate_R.tolist())
    routers = ((rate_R * UNEQUAL).sum() / UNEQUAL.sum()).item()
    assert mean_usage(keep, UNEQUAL) == pytest.approx(routers, abs=1e-6)
    both = (keep[:, 2] & keep[:, 5]).double().mean().item()
    assert both == pytest.approx(0.5 * 0.7, abs=0.06)  # blocks do not look at each other


def test_most_frequent_is_one_policy_for_all():
    keep = most_frequent(3, torch.tensor([True, False, True]))
    assert keep.tolist() == [[True, False, True]] * 3 and keep.dtype == torch.bool


def test_same_seed_same_choices():
    for rule, given in ((first_k, (EQUAL, 0.35)), (random_k, (EQUAL, 0.35)), (dist_k, (torch.rand(15),))):
        assert torch.equal(rule(50, *given, seeded(1)), rule(50, *given, seeded(1)))
        assert not torch.equal(rule(50, *given, seeded(1)), rule(50, *given, seeded(2)))


@pytest.mark.parametrize("rule", [first_k, random_k])
def test_usage_is_a_fraction(rule):
    with pytest.raises(ValueError, match=r"in \[0, 1\], not 65"):
        rule(5, EQUAL, 65, seeded())


def test_dist_k_in_small_batches_keeps_what_is_rare():
    generator = seeded()
    kept = torch.stack([dist_k(16, torch.tensor([0.02, 0.5, 1.0]), generator).sum(0) for _ in range(2000)])
    assert (kept[:, 1] == 8).all() and (kept[:, 2] == 16).all()
    assert kept[:, 0].double().mean() / 16 == pytest.approx(0.02, abs=0.004) and kept[:, 0].max() == 1
