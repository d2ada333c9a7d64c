"""BlockDrop's equations by hand, the released checkpoints' arithmetic, and bandits small enough to enumerate."""

import itertools
import math

import pytest
import torch
from torch import Tensor

from perceptkit.policies import blockdrop as bd
from perceptkit.policies.sampling import logistic_noise

T = torch.tensor
NAN = math.nan


def logits(*keep_rows: list[float]) -> Tensor:
    """Logits whose sigmoid gives these keep probabilities."""
    return T(keep_rows).logit()


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


# probabilities, samples, log-probability


def test_bounded_probability_by_hand():
    # .8 s + .2 (1 - s)
    s_BR = bd.bounded_keep_prob(logits([0.0, 0.25, 0.5, 1.0]), alpha=0.8)
    assert s_BR[0].tolist() == pytest.approx([0.2, 0.35, 0.5, 0.8])


def test_gradient_through_the_bound_is_scaled():
    z = T([0.7, -1.2], requires_grad=True)
    (bounded,) = torch.autograd.grad(bd.bounded_keep_prob(z, 0.8).sum(), z)
    (unbounded,) = torch.autograd.grad(z.sigmoid().sum(), z)
    assert (bounded / unbounded).tolist() == pytest.approx([0.6, 0.6])


def test_greedy_is_of_the_unbounded_probability_and_a_tie_keeps():
    z = T([[1e-3, -1e-3, 0.0]])
    assert bd.greedy_keep(z).tolist() == [[True, False, True]]
    assert bd.greedy_keep(z, T([False, False, True])).tolist() == [[True, True, True]]


def test_log_probability_by_hand():
    # s = (.9, .25): s' = (.74, .35). Keep the first, skip the second: log .74 + log .65
    z, keep = logits([0.9, 0.25]), T([[True, False]])
    assert bd.log_prob(z, keep).item() == pytest.approx(math.log(0.74) + math.log(0.65))
    assert bd.log_prob(z, ~keep).item() == pytest.approx(math.log(0.26) + math.log(0.35))
    # the curriculum has only opened the last block
    assert bd.log_prob(z, keep, bd.open_mask(1, 2)).item() == pytest.approx(math.log(0.65))


def test_probabilities_of_all_choices_sum_to_one():
    choices = T(list(itertools.product([True, False], repeat=3)))
    z = T([[0.3, -2.0, 9.0]]).expand(8, -1)
    for alpha in (0.6, 0.8, 1.0):
        assert bd.log_prob(z, choices, alpha=alpha).exp().sum().item() == pytest.approx(1)


def test_extreme_logits_are_finite():
    for alpha in (0.8, 1.0):
        z = T([[1e4, -1e4, 1e4, -1e4]], requires_grad=True)
        keep = T([[True, True, False, False]])
        bd.image_loss(z, keep, T([1.0]), alpha=alpha).sum().backward()
        assert torch.isfinite(z.grad).all()


def test_sampling_frequency_matches_the_bounded_probability():
    n = 4000
    z = logits([1.0, 0.25, 0.5]).expand(n, -1)
    frequency = bd.sample_keep(z, torch.rand(z.shape, generator=seeded())).float().mean(0)
    for f, p in zip(frequency.tolist(), (0.8, 0.35, 0.5), strict=True):
        assert abs(f - p) < 4 * math.sqrt(p * (1 - p) / n)


def test_same_seed_same_sample():
    z = torch.zeros(5, 7)
    assert torch.equal(
        bd.sample_keep(z, torch.rand(z.shape, generator=seeded(3))),
        bd.sample_keep(z, torch.rand(z.shape, generator=seeded(3))),
    )
    assert not torch.equal(
        bd.sample_keep(z, torch.rand(z.shape, generator=seeded(3))),
        bd.sample_keep(z, torch.rand(z.shape, generator=seeded(4))),
    )


# curriculum


def test_curriculum_opens_one_block_per_epoch_from_the_last():
    assert [bd.open_routed(e, 1.0, 3) for e in range(5)] == [1, 2, 3, 3, 3]
    assert [bd.open_routed(e, 2.0, 3) for e in range(5)] == [1, 1, 2, 2, 3]
    assert bd.open_mask(2, 5).tolist() == [False, False, False, True, True]


def test_closed_blocks_are_kept_and_have_no_gradient():
    open_R = bd.open_mask(1, 3)
    z = T([[-9.0, -9.0, -9.0]], requires_grad=True)
    keep = bd.sample_keep(z, torch.rand(z.shape, generator=seeded()), open_R)
    assert keep[:, :2].all() and bd.greedy_keep(z, open_R).tolist() == [[True, True, False]]
    bd.policy_loss(bd.image_loss(z, keep, T([0.7]), open_R)).backward()
    assert z.grad[0, :2].tolist() == [0, 0] and z.grad[0, 2] != 0


def test_parity_moves_closed_blocks_by_entropy_alone():
    z = T([[2.0, 2.0]], requires_grad=True)
    bd.image_loss(z, T([[True, True]]), T([0.0]), bd.open_mask(1, 2), parity=True).sum().backward()
    assert (z.grad > 0).all()  # descent lowers both logits: a closed block drifts to skip


# usage and reward


def test_usage_by_hand():
    keep = T([[True, True, False, False], [False, False, False, True], [True] * 4])
    assert bd.usage(keep, torch.ones(4)).tolist() == [0.5, 0.25, 1.0]
    assert bd.usage(keep, T([1, 2, 3, 4])).tolist() == pytest.approx([0.3, 0.4, 1.0])
    # only the last two are free
    assert bd.usage(keep, T([1, 2, 3, 4]), bd.open_mask(2, 4)).tolist() == pytest.approx([0, 4 / 7, 1.0])


def test_usage_in_macs_stays_float32_under_autocast():
    with torch.autocast("cpu", dtype=torch.bfloat16):
        u = bd.usage(T([[True, False, True]]), T([4.37e8, 3.6e8, 5.39e8]))
    assert u.dtype == torch.float32 and u.item() == pytest.approx((4.37 + 5.39) / (4.37 + 3.6 + 5.39))


@pytest.mark.parametrize(
    ("kept", "right", "expected"),
    [
        (0, 1, 1.0),
        (1, 1, 15 / 16),
        (2, 1, 0.75),
        (3, 1, 7 / 16),
        (4, 1, 0.0),
        (0, 0, -5.0),
        (2, 0, -5.0),
        (4, 0, -5.0),
    ],
)
def test_reward_table(kept, right, expected):
    keep = T([[True] * kept + [False] * (4 - kept)])
    assert bd.reward(bd.usage(keep, torch.ones(4)), T([right]), gamma=5.0).item() == pytest.approx(expected)


def test_a_dense_answer_is_right_that_is_nearly_as_good_as_the_full_models():
    full = T([[0.8], [0.8], [0.5], [NAN]])
    quality = T([[0.77], [0.75], [0.9], [NAN]])
    right = bd.right_by_quality(quality, full, tolerance=0.05)  # 0.76 is enough for the first two
    assert right[:3, 0].tolist() == [1, 0, 1] and right[3].isnan()
    by_task = bd.right_by_quality(T([[0.9, 0.9]]), T([[1.0, 1.0]]), T([0.2, 0.05]))
    assert by_task.tolist() == [[1, 0]]


def test_usage_by_task_is_of_the_blocks_that_its_row_keeps():
    keep, cost_R = T([[True, False, True], [False, True, True], [False, False, False]]), T([1.0, 3.0, 4.0])
    kept_KR = T([[True, True, True], [True, True, False], [False, False, True], [False, False, False]])
    used = bd.usage_by_task(keep, cost_R, kept_KR)
    assert used.tolist() == [[5 / 8, 1 / 4, 1, 0], [7 / 8, 3 / 4, 1, 0], [0, 0, 0, 0]]
    with_gradient = keep.float().requires_grad_()
    (slope,) = torch.autograd.grad(
        bd.usage_by_task(with_gradient, cost_R, kept_KR)[:, 1].sum(), with_gradient
    )
    assert slope[0].tolist() == [1 / 4, 3 / 4, 0]


def test_usage_of_tasks_that_keep_the_same_blocks_is_that_of_all():
    keep = torch.rand(50, 33, generator=seeded()) < 0.5
    cost_R = torch.rand(33, generator=seeded(1)) * 1e8 + 1
    used = bd.usage_by_task(keep, cost_R, torch.ones(3, 33, dtype=torch.bool))
    assert all(torch.equal(column, bd.usage(keep, cost_R)) for column in used.T)


def test_reward_of_several_tasks_by_hand():
    # usage .5 -> .75 where right; gammas 1 and 3; weights 2 and 1
    right = T([[1.0, 1.0], [1.0, 0.0], [NAN, 0.0], [NAN, NAN]])
    reward_BK = bd.reward(T([[0.5]] * 4), right, gamma=T([1.0, 3.0]))
    reward_B = bd.task_mean(reward_BK, T([2.0, 1.0]))
    assert reward_B.tolist() == pytest.approx([0.75, (2 * 0.75 - 3) / 3, -3, 0])
    assert bd.has_label(right).tolist() == [True, True, True, False]


def test_an_image_without_a_label_contributes_nothing():
    z = torch.randn(3, 4, generator=seeded(), requires_grad=True)
    keep = bd.sample_keep(z, torch.rand(z.shape, generator=seeded(1)))
    labelled = T([True, False, True])
    with_it = bd.policy_loss(bd.image_loss(z, keep, T([0.5, 0.0, -1.0])), labelled)
    without = bd.policy_loss(bd.image_loss(z[[0, 2]], keep[[0, 2]], T([0.5, -1.0])))
    assert with_it.item() == pytest.approx(without.item())
    (grad,) = torch.autograd.grad(with_it, z)
    assert grad[1].abs().sum() == 0
    assert (
        bd.policy_loss(bd.image_loss(z, keep, torch.zeros(3)), torch.zeros(3, dtype=torch.bool)).item() == 0
    )


# advantage, entropy, loss


def test_advantage_is_zero_where_both_choose_alike():
    keep, greedy = T([[True, False], [True, True]]), T([[True, False], [True, False]])
    # the first image's rewards differ by what dropout did, not by the choice
    assert bd.advantage(T([0.75, 0.0]), T([-1.0, 0.75]), keep, greedy).tolist() == [0, -0.75]


def test_greedy_sample_gives_exactly_no_gradient():
    z = torch.randn(6, 5, generator=seeded(), requires_grad=True)
    greedy = bd.greedy_keep(z)
    reward = torch.randn(6, generator=seeded(1))
    loss_B = bd.image_loss(z, greedy, bd.advantage(reward + 1, reward, greedy, greedy), beta=0.0)
    bd.policy_loss(loss_B).backward()
    assert torch.equal(z.grad, torch.zeros_like(z))


def test_image_loss_by_hand():
    # s' = (.74, .35), keep then skip, A = -1.25, beta = .1
    z, keep = logits([0.9, 0.25]), T([[True, False]])
    log_pi = math.log(0.74) + math.log(0.65)
    h = [-p * math.log(p) for p in (0.74, 0.26, 0.35, 0.65)]
    assert bd.image_loss(z, keep, T([-1.25])).item() == pytest.approx(1.25 * log_pi - 0.1 * sum(h))
    parity = bd.image_loss(z, keep, T([-1.25]), parity=True)
    assert parity.item() == pytest.approx(1.25 * log_pi - 0.1 * (h[0] + h[2]))


def test_policy_loss_is_a_mean_and_with_parity_a_sum_in_the_joint_stage():
    loss_B = T([1.0, 2.0, 6.0])
    assert bd.policy_loss(loss_B) == bd.policy_loss(loss_B, joint=True) == 3
    assert bd.policy_loss(loss_B, parity=True) == 3
    assert bd.policy_loss(loss_B, joint=True, parity=True) == 9


def entropy_slope(s: float, parity: bool) -> float:
    z = logits([s]).requires_grad_()
    (grad,) = torch.autograd.grad(bd.entropy(z, parity=parity).sum(), z)
    return grad.item()


def test_entropy_is_best_undecided_and_parity_prefers_to_skip():
    # parity: -p log p is best at p = 1/e, and p = .6 s + .2 gives s = (1/e - .2)/.6
    best = (1 / math.e - 0.2) / 0.6
    assert best == pytest.approx(0.28, abs=5e-4)
    assert entropy_slope(best, parity=True) == pytest.approx(0, abs=1e-7)
    assert entropy_slope(best - 0.05, parity=True) > 0 > entropy_slope(best + 0.05, parity=True)
    assert entropy_slope(0.5, parity=False) == pytest.approx(0, abs=1e-7)
    assert entropy_slope(0.45, parity=False) > 0 > entropy_slope(0.55, parity=False)
    assert bd.entropy(logits([0.5, 0.5])).item() == pytest.approx(2 * math.log(2))


def test_entropy_slopes_by_hand():
    # at s = .9: p' = .74, dp'/dz = .6 x .9 x .1; one term: -(log p' + 1); two terms: log((1 - p')/p')
    assert entropy_slope(0.9, parity=True) == pytest.approx(-(math.log(0.74) + 1) * 0.054, rel=1e-5)
    assert entropy_slope(0.9, parity=False) == pytest.approx(math.log(0.26 / 0.74) * 0.054, rel=1e-5)


# mutual information of picture and choice


@pytest.mark.parametrize(
    ("keep", "nats"),
    [
        ([0.3, 0.3], 0.0),  # alike for both pictures
        ([0.0, 1.0], math.log(2)),  # one bit; logits without end
        ([0.25, 0.75], 0.1308),  # H(1/2) - H(1/4) = .6931 - .5623
        ([0.2, 0.2, 0.8, 0.4], 0.1295),  # H(.4) - (3 H(.2) + H(.4)) / 4 = .6730 - (1.5012 + .6730) / 4
    ],
)
def test_mutual_information_by_hand(keep, nats):
    z_BR = logits(keep).clamp(-200, 200).T
    assert bd.mutual_information(z_BR).item() == pytest.approx(nats, abs=1e-4)
    assert bd.mutual_information(torch.cat([z_BR, z_BR], 1)).item() == pytest.approx(2 * nats, abs=2e-4)


def test_mutual_information_is_of_the_open_blocks():
    z_BR = logits([0.1, 0.25, 0.5], [0.9, 0.75, 0.5])
    assert bd.mutual_information(z_BR, T([False, True, True])).item() == pytest.approx(0.1308, abs=1e-4)


def test_mutual_information_parts_the_pictures_where_they_differ():
    # dI/dz_i = s_i (1 - s_i) (z_i - logit(mean s)) / B
    z_BR = logits([0.2], [0.4], [0.6]).requires_grad_()
    (grad_BR,) = torch.autograd.grad(bd.mutual_information(z_BR), z_BR)
    by_hand = [s * (1 - s) * math.log(s / (1 - s) * 0.6 / 0.4) / 3 for s in (0.2, 0.4, 0.6)]
    assert grad_BR[:, 0].tolist() == pytest.approx(by_hand, abs=1e-6)
    assert by_hand[1] == pytest.approx(0, abs=1e-9)
    far_BR = T([[-300.0], [300.0]]).requires_grad_()
    (far_grad_BR,) = torch.autograd.grad(bd.mutual_information(far_BR), far_BR)
    assert far_grad_BR.isfinite().all()


# gamma


@pytest.mark.parametrize(
    ("accuracy", "mean_reward", "kept", "num_routed", "gamma", "digits"),
    [
        (0.754, 0.222, 20.10, 54, 1.74, 2),  # curriculum, ResNet-110, CIFAR-10
        (0.746, -0.370, 29.79, 33, 2.00, 2),  # curriculum, ResNet-101, ImageNet
        (0.936, 0.195, 16.93, 54, 10.1, 1),  # fine-tuned, ResNet-110, CIFAR-10
        (0.764, -0.846, 24.77, 33, 5.00, 2),  # fine-tuned, ResNet-101, ImageNet
    ],
)
def test_released_checkpoints_imply_their_gamma(accuracy, mean_reward, kept, num_routed, gamma, digits):
    """Accuracy, mean reward and blocks stand in the files' names; (A (1 - (S/K)^2) - R) / (1 - A) is gamma."""
    u = kept / num_routed
    implied = (accuracy * (1 - u**2) - mean_reward) / (1 - accuracy)
    assert round(implied, digits) == gamma
    # a mean over images is the reward of a `right` between 0 and 1
    assert bd.reward(T([u]), T([accuracy]), implied).item() == pytest.approx(mean_reward, abs=1e-6)


@pytest.mark.parametrize(
    ("num_routed", "gamma", "usage", "accuracy", "points", "digits"),
    [
        (54, 1, 1.0, 0.93, 3.4, 1),
        (54, 5, 0.5, 0.93, 0.30, 2),
        (54, 10, 0.5, 0.93, 0.16, 2),
        (33, 5, 1.0, 0.76, 0.92, 2),
        (33, 5, 0.75, 0.76, 0.64, 2),
        (33, 10, 0.75, 0.76, 0.33, 2),
    ],
)
def test_tolerated_drop_in_examples(num_routed, gamma, usage, accuracy, points, digits):
    """Points per block with the hosts' accuracies, 93 % (CIFAR-10) and 76 % (ImageNet)."""
    drop = bd.tolerated_drop(gamma, usage, accuracy, num_routed)
    assert round(100 * drop, digits) == points
    assert bd.gamma_for_drop(drop, usage, accuracy, num_routed) == pytest.approx(gamma)


def test_tolerated_drop_is_where_the_expected_reward_is_level():
    R, u, p, gamma = 1000, 0.6, 0.9, 4.0  # many blocks: the first order is all there is
    drop = bd.tolerated_drop(gamma, u, p, R)

    def expected(u: float, p: float) -> float:
        return p * (1 - u**2) - (1 - p) * gamma

    assert expected(u - 1 / R, p - drop) == pytest.approx(expected(u, p), abs=2e-6)
    assert expected(u - 1 / R, p - 0.9 * drop) > expected(u, p) > expected(u - 1 / R, p - 1.1 * drop)


def test_gamma_for_max_drop_by_hand():
    # 20 blocks at usage .5: 10 are skipped, 1 % in all is .1 % each: 2 x .5 x .9 / (20 x .001) - .75
    assert bd.gamma_for_max_drop(0.01, 0.5, 0.9, 20) == pytest.approx(44.25)
    # usage 1: one block bears it all: 2 x .9 / (20 x .01)
    assert bd.gamma_for_max_drop(0.01, 1.0, 0.9, 20) == pytest.approx(9.0)
    assert bd.gamma_for_max_drop(0.5, 0.9, 0.9, 20) == pytest.approx(2 * 0.81 / 5 - 0.19)
    assert bd.gamma_for_drop(0.9, 0.5, 0.9, 20) < 0 == bd.gamma_for_max_drop(9.0, 0.5, 0.9, 20)
    for drop in (0.0, -0.01):
        with pytest.raises(ValueError, match="above 0"):
            bd.gamma_for_max_drop(drop, 0.5, 0.9, 20)


# bandits


def all_choices(R: int) -> Tensor:
    return T(list(itertools.product([False, True], repeat=R)))


@pytest.mark.parametrize("open_count", [1, 2])
def test_policy_gradient_is_unbiased(open_count):
    """Two blocks: the sampled loss's gradient, averaged exactly over all choices, is that of the mean reward."""
    open_R = bd.open_mask(open_count, 2)
    z = T([[0.4, -0.9]], requires_grad=True)
    keep = all_choices(2)
    keep = keep[(keep | open_R).all(1)]  # closed blocks are on in every sample
    reward = T([0.3, -2.0, 0.9, 0.1])[: len(keep)]
    greedy = bd.greedy_keep(z, open_R)
    greedy_reward = reward[(keep == greedy).all(1)]
    z_rows = z.expand(len(keep), -1)
    pi = bd.log_prob(z_rows, keep, open_R).exp()
    assert pi.sum().item() == pytest.approx(1)

    loss_B = bd.image_loss(z_rows, keep, bd.advantage(reward, greedy_reward, keep, greedy), open_R, beta=0.0)
    (estimate,) = torch.autograd.grad((pi.detach() * loss_B).sum(), z, retain_graph=True)
    (exact,) = torch.autograd.grad(-(pi * reward).sum(), z)
    assert exact.abs().sum() > 0.01
    torch.testing.assert_close(estimate, exact, rtol=1e-5, atol=1e-7)


def test_a_bandit_of_three_blocks_learns_the_optimal_policy():
    """Two kinds of image: the first is right with block 0, the second with block 2; block 1 is good for nothing."""
    needed = T([0, 2])
    cost_R = torch.ones(3)
    z_IR = torch.nn.Parameter(torch.full((2, 3), 2.0))  # starts by keeping all
    optimiser = torch.optim.Adam([z_IR], lr=0.05)
    generator = seeded()

    def rewards(keep_BR: Tensor, image_B: Tensor) -> Tensor:
        right_B = keep_BR.gather(1, needed[image_B][:, None])[:, 0]
        return bd.reward(bd.usage(keep_BR, cost_R), right_B, gamma=1.0)

    for step in range(300):
        open_R = bd.open_mask(bd.open_routed(step, 50, 3), 3)
        image_B = torch.arange(32) % 2
        z_BR = z_IR[image_B]
        keep, greedy = (
            bd.sample_keep(z_BR, torch.rand(z_BR.shape, generator=generator), open_R),
            bd.greedy_keep(z_BR, open_R),
        )
        a_B = bd.advantage(rewards(keep, image_B), rewards(greedy, image_B), keep, greedy)
        optimiser.zero_grad()
        bd.policy_loss(bd.image_loss(z_BR, keep, a_B, open_R, beta=0.02)).backward()
        optimiser.step()

    learned = bd.greedy_keep(z_IR.detach())
    assert learned.tolist() == [[True, False, False], [False, False, True]]
    choices = all_choices(3)
    for image in range(2):
        best = rewards(choices, torch.full((8,), image)).argmax()
        assert torch.equal(learned[image], choices[best])


# the alternative with gradients


def test_straight_through_is_hard_forwards_and_soft_backwards():
    z = torch.randn(50, 6, generator=seeded(), requires_grad=True)
    keep = bd.straight_through_keep(z, logistic_noise(z.shape, seeded(1)), tau=1.0)
    assert set(keep.unique().tolist()) == {0.0, 1.0}
    bd.usage(keep, torch.ones(6)).mean().backward()
    assert (z.grad > 0).all()  # more logit, more usage, wherever the sample fell


def test_straight_through_frequency_is_the_unbounded_probability():
    n = 4000
    z = logits([0.95, 0.3]).expand(n, -1)
    frequency = bd.straight_through_keep(z, logistic_noise(z.shape, seeded()), tau=0.7).mean(0)
    for f, p in zip(frequency.tolist(), (0.95, 0.3), strict=True):
        assert abs(f - p) < 4 * math.sqrt(p * (1 - p) / n)


def test_straight_through_keeps_closed_blocks_without_gradient():
    z = torch.full((4, 3), -9.0, requires_grad=True)
    keep = bd.straight_through_keep(z, logistic_noise(z.shape, seeded()), 1.0, bd.open_mask(1, 3))
    assert keep[:, :2].eq(1).all() and keep[:, 2].eq(0).all()
    keep.sum().backward()
    assert z.grad[:, :2].abs().sum() == 0 and (z.grad[:, 2] > 0).all()


def test_cost_penalty_by_hand():
    # right images pay usage^2: (.25 + 0 + .5 x 1 + 0) / 4
    u = T([0.5, 0.8, 1.0, 0.3], requires_grad=True)
    penalty = bd.cost_penalty(u[:, None], T([[1.0], [0.0], [0.5], [NAN]]), T([3.0]))
    assert penalty.item() == pytest.approx(0.75 / 4)
    penalty.backward()
    assert u.grad.tolist() == pytest.approx([0.25, 0, 0.25, 0])  # right x 2 usage / 4


def test_cost_penalty_of_several_tasks_by_hand():
    # weights 3 and 1: (3 x 1 x .25 + 1 x .5 x 1) / 4; then the second task has no label: .64
    u = T([[0.5, 1.0], [0.8, 0.3]], requires_grad=True)
    penalty = bd.cost_penalty(u, T([[1.0, 0.5], [1.0, NAN]]), T([3.0, 1.0]))
    assert penalty.item() == pytest.approx((0.3125 + 0.64) / 2)
    penalty.backward()
    assert u.grad.flatten().tolist() == pytest.approx([3 * 0.5 / 4, 2 * 0.5 / 8, 1.6 / 2, 0])
    # where all tasks keep the same blocks: usage^2 x the mean of right
    used, right, weight = T([[0.5], [0.8]]).expand(2, 2), T([[1.0, 0.5], [NAN, 0.2]]), T([3.0, 1.0])
    alike = (bd.task_mean(right, weight) * used[:, 0].square()).mean()
    torch.testing.assert_close(bd.cost_penalty(used, right, weight), alike)
