"""What every strategy keeps to: nothing fixed moves, the base at step 0, exact folding, exact storage."""

import copy

import pytest
import torch

from perceptkit.baselines.adaptation.table import STRATEGIES
from perceptkit.model.strategy import learned_names
from tests.baselines.adaptation.conftest import (
    PLAIN_VIT,
    WITH_BATCHNORM,
    answer,
    begun,
    disturb,
    domain,
    train,
)

LOOKS_AT_NO_PICTURE = [method for method in STRATEGIES if not method.startswith("spottune")]
EFFICIENTNET = "tf_efficientnet_lite0"
CASES = [
    pytest.param(method, name, marks=pytest.mark.slow if name == EFFICIENTNET else ())
    for method in LOOKS_AT_NO_PICTURE
    for name in (*WITH_BATCHNORM, PLAIN_VIT)
    if name != PLAIN_VIT or not method.endswith("_adapter")
]
ONE_NET = [(method, WITH_BATCHNORM[0]) for method in LOOKS_AT_NO_PICTURE]
each = pytest.mark.parametrize(("method", "name"), CASES)
each_once = pytest.mark.parametrize(("method", "name"), ONE_NET)


@each
def test_step_0_is_the_base(method, name):
    _, net, plan = begun(method, name)
    assert torch.equal(answer(net, plan), answer(domain(name), plan)) == (method != "scratch")


@each
def test_exactly_what_learns_moves(method, name):
    strategy, net, plan = begun(method, name)
    disturb(net)  # nothing has a gradient of 0 because its partner is 0
    before = {key: value.clone() for key, value in net.state_dict().items()}
    train(strategy, net, plan)
    moved = {key for key, value in net.state_dict().items() if not torch.equal(value, before[key])}
    learned = set(learned_names(net))
    # a shift that a later norm takes away again has no gradient but rounding
    assert moved <= learned and len(moved) >= 0.95 * len(learned)


@each
def test_folding_is_exact(method, name):
    strategy, net, plan = begun(method, name)
    train(strategy, net, plan)
    disturb(net)
    expected, plain = answer(net, plan), domain(name)
    strategy.fold(net)
    error = (answer(net, plan) - expected).abs().max() / expected.abs().max()
    assert error < 1e-5
    assert [*net.state_dict()] == [*plain.state_dict()]
    assert [type(m) for m in net.modules()] == [type(m) for m in plain.modules()]


@each
def test_a_domain_is_restored_from_what_it_stores(method, name):
    strategy, net, plan = begun(method, name)
    train(strategy, net, plan, steps=1)
    disturb(net)
    stored = strategy.pack(net)
    other, fresh, _ = begun(method, name)
    other.unpack(fresh, stored)
    assert torch.equal(answer(fresh, plan), answer(net, plan))
    other.fold(fresh)
    strategy.fold(net)
    assert torch.equal(answer(fresh, plan), answer(net, plan))


@each_once
def test_a_training_state_is_taken_up_again(method, name):
    strategy, net, plan = begun(method, name)
    train(strategy, net, plan)
    other, resumed, _ = begun(method, name)
    resumed.load_state_dict(net.state_dict())
    for each_strategy, each_net in ((strategy, net), (other, resumed)):
        train(each_strategy, each_net, plan, steps=1)
    assert torch.equal(answer(resumed, plan), answer(net, plan))


@each_once
def test_folding_a_copy_leaves_the_network_as_it_is(method, name):
    strategy, net, plan = begun(method, name)
    train(strategy, net, plan, steps=1)
    expected = answer(net, plan)
    strategy.fold(copy.deepcopy(net))
    assert torch.equal(answer(net, plan), expected)
    train(strategy, net, plan, steps=1)
    assert not torch.equal(answer(net, plan), expected)
