"""AdaShare's equations by hand, the bounds on its samples, and the smallest evidence that it learns."""

import math

import pytest
import torch
from torch import Tensor

from perceptkit.model.plan import KEEP, SKIP, Plan
from perceptkit.policies.adashare import (
    MIN_KEEP,
    AdaSharePolicy,
    keep_prob,
    open_blocks,
    reference_sharing_loss,
    reference_sparsity_loss,
    sharing_loss,
    sparsity_loss,
    temperature,
)
from perceptkit.policies.sampling import logistic_noise


def logits(*keep_rows: list[float]) -> Tensor:
    """Logits whose softmax gives exactly these keep probabilities, float64."""
    a_KL = torch.tensor(keep_rows, dtype=torch.float64)
    return torch.stack([(1 - a_KL).log(), a_KL.log()], dim=-1)


TWO_TASKS = logits(
    [0.9, 0.2],  # task 1 keeps block 1, skips block 2
    [0.5, 0.6],  # task 2 is undecided
)


def policy(keep_rows: Tensor, tasks: str = "ab", **more: str) -> AdaSharePolicy:
    made = AdaSharePolicy(list(tasks), [f"block{i}" for i in range(keep_rows.shape[1])], **more)
    with torch.no_grad():
        made.policy_logits_KL2.copy_(keep_rows)
    return made


def test_keep_is_index_one():
    assert KEEP == 1
    assert keep_prob(torch.tensor([[[0.0, 9.0]]])).item() > 0.99


def test_sparsity_by_hand():
    assert sparsity_loss(TWO_TASKS).item() == pytest.approx(math.log(0.9 * 0.2 * 0.5 * 0.6))


def test_sharing_by_hand():
    # two ordered pairs x ( (2-1)/2 * |.9-.5|  +  (2-2)/2 * |.2-.6| ) = 2 x 0.2
    assert sharing_loss(TWO_TASKS).item() == pytest.approx(0.4)


def test_sharing_of_the_top_blocks_keeps_their_place_in_the_network():
    # block 2 of 4: (4-2)/4 * |.9-.5| ; block 3 of 4: (4-3)/4 * |.2-.6| ; twice
    assert sharing_loss(TWO_TASKS, first_block=1, num_blocks=4).item() == pytest.approx(2 * (0.2 + 0.1))


def test_sparsity_stops_pushing_once_decided():
    z = logits([MIN_KEEP / 2, 0.5]).float().requires_grad_()
    sparsity_loss(z).backward()
    assert z.grad[0, 0].abs().sum() == 0 and z.grad[0, 1, KEEP] > 0
    assert sparsity_loss(logits([1e-4]), min_keep=0.0).item() == pytest.approx(math.log(1e-4), rel=1e-5)


THREE_BY_TWO = torch.tensor(
    # (SKIP, KEEP) by block, for three tasks
    [[[0.0, 2.0], [1.0, 1.0]], [[0.0, -1.0], [3.0, 0.5]], [[5.0, 0.0], [0.0, 4.0]]],
    dtype=torch.float64,
)


def test_reference_sparsity_by_hand():
    # task 1: (-log .1 - log .8) / 2 = (2.302585 + 0.223144) / 2 = 1.262864
    # task 2: (-log .5 - log .4) / 2 = (0.693147 + 0.916291) / 2 = 0.804719
    assert reference_sparsity_loss(TWO_TASKS).item() == pytest.approx(2.067583, abs=1e-6)


def test_reference_sparsity_is_a_mean_over_open_blocks():
    made = policy(TWO_TASKS, formulation="reference_code")
    sparsity, _ = made.regularisers(open_count=1)
    assert sparsity.item() == pytest.approx(-math.log(0.8) - math.log(0.4))  # 0.223144 + 0.916291
    twice = torch.cat([TWO_TASKS, TWO_TASKS], dim=1)
    assert reference_sparsity_loss(twice).item() == pytest.approx(reference_sparsity_loss(TWO_TASKS).item())


def test_reference_sharing_by_hand():
    # keep logits: task 1 (2, 1), task 2 (-1, .5), task 3 (0, 4); weights 1/2 and 2/2, every pair once
    # 1-2: .5 * 3 + 1 * .5 = 2.0;  1-3: .5 * 2 + 1 * 3 = 4.0;  2-3: .5 * 1 + 1 * 3.5 = 4.0
    assert reference_sharing_loss(THREE_BY_TWO).item() == pytest.approx(10.0)


def test_reference_sharing_reads_raw_keep_logits():
    skips = THREE_BY_TWO.clone()
    skips[..., SKIP] += 7
    assert reference_sharing_loss(skips).item() == pytest.approx(10.0)  # the logit of skipping is ignored
    shifted = THREE_BY_TWO.clone()
    shifted[0] += 1  # the same probabilities; 1-2: .5 * 4 + 1.5 = 3.5;  1-3: .5 * 3 + 2 = 3.5;  2-3: 4
    assert sharing_loss(shifted).item() == pytest.approx(sharing_loss(THREE_BY_TWO).item())
    assert reference_sharing_loss(shifted).item() == pytest.approx(11.0)


def test_reference_sharing_of_one_task_is_zero():
    assert reference_sharing_loss(THREE_BY_TWO[:1]).item() == 0


def test_reference_sharing_knows_no_curriculum():
    made = policy(THREE_BY_TWO, tasks="abc", formulation="reference_code")
    sparsity, sharing = made.regularisers(open_count=1)
    assert sharing.item() == pytest.approx(10.0)
    sparsity.backward(retain_graph=True)
    assert made.policy_logits_KL2.grad[:, 0].abs().sum() == 0
    sharing.backward()
    # d/dz of the first block's keep logit: +-1/2 by pair; task 1 lies above both others, task 2 below both
    assert made.policy_logits_KL2.grad[:, 0, KEEP].tolist() == [1.0, -1.0, 0.0]


def test_the_two_sparsity_losses_push_where_the_other_does_not():
    """By the gap d = z_keep - z_skip: 1 - a as the paper prints it, a / n in the code."""
    a = [0.9, 0.2]
    for loss, expected in (
        (lambda z: sparsity_loss(z, 0.0), [1 - p for p in a]),  # 0.1, 0.8
        (reference_sparsity_loss, [p / 2 for p in a]),  # 0.45, 0.1
    ):
        z = logits(a).requires_grad_()
        loss(z).backward()
        assert z.grad[0, :, KEEP].tolist() == pytest.approx(expected, abs=1e-6)
        assert z.grad[0, :, SKIP].tolist() == pytest.approx([-e for e in expected], abs=1e-6)


def test_the_two_sharing_losses_weigh_opposite_ends():
    gap_below, gap_on_top = logits([0.9, 0.5], [0.5, 0.5]), logits([0.5, 0.9], [0.5, 0.5])
    assert sharing_loss(gap_below) > sharing_loss(gap_on_top) == 0
    assert reference_sharing_loss(gap_on_top) > reference_sharing_loss(gap_below) > 0


def test_gradients():
    z = torch.randn(3, 4, 2, dtype=torch.float64, requires_grad=True)
    total = sparsity_loss(z, 0.0) + sharing_loss(z)
    (grad,) = torch.autograd.grad(total, z)
    step = 1e-3 * torch.randn_like(z)
    with torch.no_grad():
        up = sparsity_loss(z + step, 0.0) + sharing_loss(z + step)
        down = sparsity_loss(z - step, 0.0) + sharing_loss(z - step)
    assert ((up - down) / 2).item() == pytest.approx((grad * step).sum().item(), rel=2e-2, abs=1e-5)


def test_extreme_logits_are_finite():
    z = torch.tensor([[[1e4, -1e4], [-1e4, 1e4]], [[-1e4, 1e4], [1e4, -1e4]]], requires_grad=True)
    (sparsity_loss(z) + sharing_loss(z) + reference_sparsity_loss(z) + reference_sharing_loss(z)).backward()
    assert torch.isfinite(z.grad).all()


def test_task_order_does_not_matter():
    z = torch.randn(3, 5, 2)
    assert sharing_loss(z).item() == pytest.approx(sharing_loss(z[[2, 0, 1]]).item())
    assert sparsity_loss(z).item() == pytest.approx(sparsity_loss(z[[2, 0, 1]]).item())


def test_temperature_falls_to_its_floor_and_stays():
    assert temperature(0.0, 5.0, 0.3) == 5.0
    assert temperature(0.5, 5.0, 0.3) == pytest.approx(math.sqrt(1.5))
    assert temperature(1.0, 5.0, 0.3) == pytest.approx(0.3)
    assert temperature(2.0, 5.0, 0.3) == pytest.approx(0.3)


def test_curriculum_opens_from_the_top():
    assert [open_blocks(e, 2.0, 3) for e in range(7)] == [1, 1, 2, 2, 3, 3, 3]
    assert [open_blocks(e, 0.5, 4) for e in range(3)] == [1, 3, 4]
    rows = policy(TWO_TASKS).relax(1.0, 1, torch.Generator().manual_seed(0))
    assert rows["a"][0] is True and isinstance(rows["a"][1], Tensor)


def test_closed_blocks_have_no_gradient_and_are_kept():
    made = policy(logits([0.1, 0.1], [0.1, 0.1]))
    sparsity, sharing = made.regularisers(open_count=1)
    (sparsity + sharing).backward()
    assert made.policy_logits_KL2.grad[:, 0].abs().sum() == 0
    assert made.decide(open_count=1).table == (("keep", "skip"), ("keep", "skip"))


def test_sampling_frequency_matches_probability():
    made = policy(logits([0.8], [0.3]))
    generator = torch.Generator().manual_seed(0)
    n = 4000
    kept = torch.tensor([[made.relax(0.1, 1, generator)[t][0] > 0.5 for t in "ab"] for _ in range(n)])
    for frequency, p in zip(kept.float().mean(0).tolist(), (0.8, 0.3), strict=True):
        assert abs(frequency - p) < 4 * math.sqrt(p * (1 - p) / n)


def test_relaxed_becomes_hard_as_tau_falls():
    made = policy(logits([0.8, 0.4], [0.3, 0.5]))

    def softness(tau: float) -> float:
        rows = made.relax(tau, 2, torch.Generator().manual_seed(1))
        keep = torch.stack([k for row in rows.values() for k in row])
        return (keep * (1 - keep)).mean().item()

    assert softness(5.0) > softness(0.5) > softness(0.01)
    assert softness(0.01) < 1e-3


def test_same_seed_same_sample_on_every_rank():
    a = policy(TWO_TASKS).relax(1.0, 2, torch.Generator().manual_seed(3))
    b = policy(TWO_TASKS).relax(1.0, 2, torch.Generator().manual_seed(3))
    assert all(torch.equal(x, y) for t in "ab" for x, y in zip(a[t], b[t], strict=True))


def test_straight_through_is_hard_forwards_and_soft_backwards():
    made = policy(logits([0.8, 0.4], [0.3, 0.5]))
    grads, keeps = [], []
    for hard in (False, True):
        rows = made.relax(0.7, 2, torch.Generator().manual_seed(4), hard)
        keep = torch.stack([k for row in rows.values() for k in row])
        made.policy_logits_KL2.grad = None
        (keep * torch.tensor([1.0, -2.0, 3.0, 0.5])).sum().backward()
        grads.append(made.policy_logits_KL2.grad)
        keeps.append(keep.detach())
    assert torch.equal(keeps[1], (keeps[0] >= 0.5).float())
    assert not torch.equal(keeps[0], keeps[1]) and grads[0].abs().min() > 0
    torch.testing.assert_close(grads[0], grads[1])


def test_straight_through_by_hand():
    """One block, tau 2, the noise of the seed: keep is its side of 0.5, d keep / d z_keep = s (1 - s) / 2."""
    made = policy(logits([0.8]), tasks="a")
    noise = logistic_noise(torch.Size((1, 1)), torch.Generator().manual_seed(7)).item()
    s = 1 / (1 + math.exp(-(math.log(0.8 / 0.2) + noise) / 2))
    (keep,) = made.relax(2.0, 1, torch.Generator().manual_seed(7), hard=True)["a"]
    assert keep.item() == (1.0 if s >= 0.5 else 0.0)
    keep.backward()
    assert made.policy_logits_KL2.grad[0, 0].tolist() == pytest.approx([-s * (1 - s) / 2, s * (1 - s) / 2])


def test_sampled_plans_have_the_learned_probabilities():
    made = policy(logits([0.8, 0.05], [0.3, 0.5]))
    generator = torch.Generator().manual_seed(0)
    n = 2000
    plans = [made.sample(2, generator) for _ in range(n)]
    for k, row in enumerate(([0.8, 0.05], [0.3, 0.5])):
        for b, p in enumerate(row):
            frequency = sum(plan.table[k][b] == "keep" for plan in plans) / n
            assert abs(frequency - p) < 4 * math.sqrt(p * (1 - p) / n)


def test_a_sampled_plan_keeps_what_was_never_opened_and_follows_from_its_seed():
    made = policy(logits([1e-6, 0.5], [1e-6, 0.5]))

    def plans(seed: int) -> list[Plan]:
        generator = torch.Generator().manual_seed(seed)
        return [made.sample(1, generator) for _ in range(20)]

    assert all(row[0] == "keep" for plan in plans(1) for row in plan.table)
    assert plans(1) == plans(1) != plans(2)
    assert all(row[0] == "skip" for row in made.sample(2, torch.Generator()).table)


def test_decide_is_deterministic():
    made = policy(logits([0.9, 0.2], [0.5, 0.6]))
    assert made.decide() == made.decide()
    assert made.decide().table == (("keep", "skip"), ("keep", "keep"))


def test_learns_the_obvious():
    """Block 0 is noise for task a and the signal for task b: the policy drops it for a, keeps it for b."""
    made = AdaSharePolicy(["a", "b"], ["block"], seed=0)
    optimiser = torch.optim.Adam(made.parameters(), lr=0.05)
    generator = torch.Generator().manual_seed(0)
    for step in range(200):
        keep = made.relax(temperature(step / 200, 5.0, 0.3), 1, generator)
        x = torch.randn(64, generator=generator)
        noise = torch.randn(64, generator=generator)
        loss_a = (x + keep["a"][0] * noise - x).square().mean()
        loss_b = (x + keep["b"][0] * noise - (x + noise)).square().mean()
        optimiser.zero_grad()
        sparsity, sharing = made.regularisers(1)
        (loss_a + loss_b + 0.01 * sparsity + 0.01 * sharing).backward()
        optimiser.step()
    assert made.decide().table == (("skip",), ("keep",))
    a, b = keep_prob(made.policy_logits_KL2)[:, 0].tolist()
    assert a < 0.1 and b > 0.9
