"""Scores: straight through the threshold, pushed down by the penalty."""

import pytest
import torch

from perceptkit.baselines.adaptation.taps import Delta, score_penalty
from perceptkit.model import parametrized
from tests.baselines.adaptation.conftest import answer, begun, domain, images


def made(score, weight=(2.0, 3.0), delta=(10.0, 20.0)):
    function = Delta(torch.tensor(weight), threshold=0.1)
    function.delta.data.copy_(torch.tensor(delta))
    function.score.data.fill_(score)
    return function


@pytest.mark.parametrize(("score", "used"), [(0.15, 1), (0.1, 1), (0.099, 0), (-1.0, 0)])
def test_weight_and_gradients_by_hand(score, used):
    function = made(score)
    weight = function(torch.tensor([2.0, 3.0]))
    assert weight.tolist() == [2.0 + 10 * used, 3.0 + 20 * used]
    (weight * torch.tensor([1.0, 5.0])).sum().backward()
    assert function.score.grad.item() == 1 * 10 + 5 * 20  # used or not
    assert function.delta.grad.tolist() == [1.0 * used, 5.0 * used]


def test_penalty_by_hand():
    scores = [torch.tensor(s, requires_grad=True) for s in (0.2, -0.4)]
    loss = score_penalty(scores)
    assert loss.item() == pytest.approx(0.3)
    loss.backward()
    assert [s.grad.item() for s in scores] == [0.5, -0.5]


def test_penalty_sets_in_after_the_warm_up():
    strategy, net, _ = begun("taps", sparsity=2.0, warmup=0.1)
    assert strategy.penalty(net, 0.09, images(), {}) is None
    assert strategy.penalty(net, 0.1, images(), {}).item() == pytest.approx(2 * 0.15)


def test_layers_that_are_not_tuned_are_the_base_s_and_not_stored():
    strategy, net, plan = begun("taps")
    functions = dict(parametrized.learned_through(net.backbone, Delta))
    for name, function in functions.items():
        torch.nn.init.normal_(function.delta, std=0.01)
        function.score.data.fill_(0.5 if name in ("conv1", "layer4.0.conv2") else 0.0)
    assert strategy.tuned_layers(net) == ["conv1", "layer4.0.conv2"]
    stored = [key for key in strategy.pack(net) if key.endswith(".delta")]
    assert len(stored) == 2
    other, fresh, _ = begun("taps")
    other.unpack(fresh, strategy.pack(net))
    assert other.tuned_layers(fresh) == ["conv1", "layer4.0.conv2"]
    assert torch.equal(answer(fresh, plan), answer(net, plan))
    strategy.fold(net)
    base = domain().backbone
    assert torch.equal(net.backbone.layer1[0].conv1.weight, base.layer1[0].conv1.weight)
    assert not torch.equal(net.backbone.conv1.weight, base.conv1.weight)


def test_every_convolution_and_linear_layer_has_a_score():
    _, net, _ = begun("taps", "vit_tiny_patch16_224")
    names = [name for name, _ in parametrized.learned_through(net.backbone, Delta)]
    assert names[0] == "patch_embed.proj" and len(names) == 1 + 2 * 4
