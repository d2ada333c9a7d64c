"""SpotTune's formulas by hand, and what learns in a network with two copies of its blocks."""

import math
from dataclasses import replace

import pytest
import torch

from perceptkit.errors import SpecError
from perceptkit.model.copies import choose_copy
from perceptkit.model.strategy import learned_names, set_train_mode
from perceptkit.policies.spottune import SpotTune, agreed, agreement_penalty, tuned_samples
from tests.baselines.adaptation.conftest import PLAIN_VIT, adaptation, all_keep, domain, images

KINDS = ("full_copy", "parallel_adapter", "lora", "bn")


@pytest.fixture
def image():
    return images(2)


def begun(method="spottune", **keys):
    net = domain()
    strategy = SpotTune(adaptation(method, **keys))
    plan = strategy.plan(net, all_keep(net))
    strategy.begin(net, plan)
    return net, plan, strategy


def test_samples_are_hard_and_have_the_relaxed_gradient():
    logits = torch.tensor([[0.3, -2.0]], requires_grad=True)
    noise, tau = torch.tensor([[0.5, 0.1]]), 5.0
    w = tuned_samples(logits, noise, tau)
    assert w.tolist() == [[1.0, 0.0]]
    w.sum().backward()
    for r, z in enumerate((0.8, -1.9)):
        soft = 1 / (1 + math.exp(-z / tau))
        assert logits.grad[0, r].item() == pytest.approx(soft * (1 - soft) / tau, rel=1e-5)


def test_agreement_by_hand():
    tuned_BR = torch.tensor([[1.0, 1.0, 0.0], [1.0, 0.0, 0.0]])  # shares 1, 1/2, 0
    got = agreement_penalty(tuned_BR, k=1, count_weight=2.0, agree_weight=3.0)
    assert got.item() == pytest.approx(2 * (1.5 - 1) ** 2 + 3 * math.log(2), abs=1e-3)


def test_more_blocks_than_there_are_means_all_blocks():
    tuned = torch.ones(4, 2)
    assert agreement_penalty(tuned, 99, 1.0, 0.0) == agreement_penalty(tuned, 2, 1.0, 0.0) == 0


def test_agreement_pulls_a_share_to_the_nearer_end():
    for share, sign in ((0.8, -1), (0.2, 1)):
        tuned = torch.full((4, 1), share, requires_grad=True)
        agreement_penalty(tuned, k=1, count_weight=0.0, agree_weight=1.0).backward()
        assert (tuned.grad.sign() == sign).all()  # descent moves against the gradient


def test_k_blocks_are_agreed_on():
    assert agreed(torch.tensor([0.9, 0.1, 0.5, 0.5]), 2).tolist() == [True, False, False, True]
    assert agreed(torch.tensor([0.9, 0.1]), 5).tolist() == [True, True]


def test_every_kept_block_has_a_copy_in_memory_of_its_own():
    net, plan, _ = begun()
    assert plan.dual == plan.blocks
    memory = {}
    for kind in ("base", "tuned"):
        of_kind = [
            p for block in plan.dual for p in net.backbone.get_submodule(f"{block}.{kind}").parameters()
        ]
        memory[kind] = {p.untyped_storage().data_ptr() for p in of_kind}
    assert not memory["base"] & memory["tuned"]


@pytest.mark.parametrize("method", ["spottune", "spottune_global"])
def test_a_network_with_nothing_to_choose_about_is_refused(method):
    net = domain("test_resnet")
    kept = all_keep(net)
    nothing = replace(kept, table=tuple(("skip",) * len(row) for row in kept.table))
    with pytest.raises(
        SpecError, match=f"{method} gives blocks a second copy, and none can have one: .* use taps"
    ):
        SpotTune(adaptation(method)).plan(net, nothing)


@pytest.mark.parametrize("outside", ["tuned", "fixed"])
@pytest.mark.parametrize("frozen_bn", ["adapt", "freeze"])
@pytest.mark.parametrize("kind", KINDS)
def test_what_learns(kind, frozen_bn, outside, image):
    net, plan, _ = begun(tuned=kind, frozen_bn=frozen_bn, outside=outside)
    before = {name: value.clone() for name, value in net.state_dict().items()}
    half = torch.tensor([[1.0], [0.0]]).expand(-1, len(plan.dual))
    optimizer = torch.optim.SGD([p for p in net.parameters() if p.requires_grad], lr=0.1)
    set_train_mode(net)
    for _ in range(2):  # a low-rank update moves only one of its factors in the first step
        optimizer.zero_grad()
        net(image[:2], plan, keep_BR=half)["new"].square().sum().backward()
        optimizer.step()
    moved = {name for name, value in net.state_dict().items() if not torch.equal(value, before[name])}
    assert moved <= set(learned_names(net))
    convs = {name for name in moved if name.startswith("backbone.") and before[name].ndim > 1}
    stem = {name for name in convs if name.startswith("backbone.conv1.")}
    assert bool(stem) == (outside == "tuned" and kind != "bn")
    in_blocks = convs - stem
    if kind == "full_copy":
        assert in_blocks and all(".tuned." in name for name in in_blocks)
    elif kind == "bn":
        assert not convs
    else:
        assert in_blocks and all(".tuned." in name for name in in_blocks)
        assert all("parametrizations" in name and "original" not in name for name in convs)
    norms_of_base = {name for name in moved if ".base." in name}
    assert bool(norms_of_base) == (frozen_bn == "adapt")
    assert not any("conv" in name for name in norms_of_base)


@pytest.mark.parametrize(("kind", "outside", "learns"), [
    ("full_copy", "tuned", True), ("full_copy", "fixed", False), ("bn", "tuned", False),
])  # fmt: skip
def test_patches_and_positions_are_outside_of_blocks(kind, outside, learns):
    net = domain(PLAIN_VIT)
    strategy = SpotTune(adaptation("spottune", tuned=kind, outside=outside))
    plan = strategy.plan(net, all_keep(net))
    strategy.begin(net, plan)
    names = set(learned_names(net))
    for name in ("backbone.patch_embed.proj.weight", "backbone.pos_embed", "backbone.cls_token"):
        assert name in net.state_dict() and (name in names) == learns
    assert "backbone.norm.weight" in names  # the norms always do


@torch.no_grad()
@pytest.mark.parametrize("kind", KINDS)
def test_at_first_both_copies_are_the_base_and_folding_changes_nothing(kind, image):
    net, plan, strategy = begun(tuned=kind)
    net.eval()
    expected = domain()(image, all_keep(domain()))["new"]
    for value in (False, True):
        keep_BR = torch.full((len(image), len(plan.dual)), value)
        torch.testing.assert_close(net(image, plan, keep_BR=keep_BR)["new"], expected, rtol=0, atol=1e-6)
    generator = torch.Generator().manual_seed(0)
    for name, parameter in net.named_parameters():
        if parameter.requires_grad and name.startswith("backbone."):
            parameter += 0.1 * torch.randn(parameter.shape, generator=generator)
    keep_BR = torch.rand(len(image), len(plan.dual), generator=generator) < 0.5
    before = net(image, plan, keep_BR=keep_BR)["new"]
    assert not torch.allclose(before, expected)
    strategy.fold(net)
    torch.testing.assert_close(net(image, plan, keep_BR=keep_BR)["new"], before)
    assert not any("parametrizations" in name for name in net.state_dict())


@torch.no_grad()
@pytest.mark.parametrize("kind", KINDS)
def test_a_domain_is_put_together_again(kind, image):
    net, plan, strategy = begun(tuned=kind)
    generator = torch.Generator().manual_seed(0)
    for parameter in net.parameters():
        if parameter.requires_grad:
            parameter += 0.1 * torch.randn(parameter.shape, generator=generator)
    tuned, base, *still = plan.dual
    choose_copy(net, tuned, True)
    choose_copy(net, base, False)
    plan = replace(plan, dual=tuple(still))
    packed = strategy.pack(net)
    net.eval()
    keep_BR = torch.rand(len(image), len(still), generator=generator) < 0.5
    expected = net(image, plan, keep_BR=keep_BR)["new"]
    again = domain()
    strategy.restore(again, plan, [tuned])
    strategy.unpack(again, packed)
    again.eval()
    assert torch.equal(again(image, plan, keep_BR=keep_BR)["new"], expected)


def test_a_router_of_one_s_own_starts_undecided_too():
    assert adaptation("spottune", router={"name": "conv3"}).router.keep == 0.5
