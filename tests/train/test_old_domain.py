"""The look back at the base's tasks is fair to heads that learned while the trunk did."""

import torch

from perceptkit.train.old_domain import answering_as_base, learned_heads
from tests.baselines.adaptation.conftest import begun, images, train


def test_heads_of_lwf_that_learned_answer_for_the_old_tasks():
    strategy, net, plan = begun("lwf")
    train(strategy, net, plan, lr=0.1)
    asked = strategy.asked(plan)
    with torch.no_grad():
        expected = net(images(), asked, asked.tasks)["base/old"]
        learned = learned_heads(net)
        strategy.fold(net)
        base, old_plan = strategy.origin.net, strategy.origin.plan
        got = answering_as_base(net, base, learned).eval()(images(), old_plan)
        assert list(got) == ["old"] and torch.equal(got["old"], expected)
        with_base = answering_as_base(net, base, learned_heads(net)).eval()(images(), old_plan)
        assert not torch.equal(with_base["old"], expected)


def test_other_methods_have_none():
    _, net, _ = begun("bn")
    learned = learned_heads(net)
    assert not learned.by_task and learned.neck is None
