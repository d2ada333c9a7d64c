"""Old answers are kept: the old heads read the network that learns."""

import pytest
import torch

from perceptkit.baselines.adaptation.lwf import as_normalised_for
from perceptkit.baselines.adaptation.table import build_strategy
from perceptkit.errors import SpecError
from perceptkit.model.strategy import Origin
from perceptkit.model.supernet import Supernet
from tests.baselines.adaptation.conftest import adaptation, all_keep, begun, domain, images, train
from tests.model import conftest as dense


def test_old_heads_answer_as_the_base_at_step_0():
    strategy, net, plan = begun("lwf")
    asked = strategy.asked(plan)
    assert asked.tasks == ("new", "base/old") and list(net.tasks) == ["new"]
    with torch.no_grad():
        outputs = net(images(), asked, asked.tasks)
        old = strategy.origin.net(images(), strategy.origin.plan)["old"]
        assert torch.equal(outputs["base/old"], old)
        assert list(net(images(), plan)) == ["new"]  # nobody else is asked
        probability = (old / 2).softmax(1)
        entropy = -(probability * probability.log()).sum(1).mean()
        penalty = strategy.penalty(net, 0.0, images(), outputs)
        torch.testing.assert_close(penalty, entropy)


def test_the_penalty_teaches_trunk_and_old_heads_and_leaves_the_base_alone():
    strategy, net, plan = begun("lwf", weight=3.0)
    before = {key: value.clone() for key, value in strategy.origin.net.state_dict().items()}
    train(strategy, net, plan, lr=0.1)
    assert all(torch.equal(v, before[k]) for k, v in strategy.origin.net.state_dict().items())
    asked = strategy.asked(plan)
    outputs = net(images(), asked, asked.tasks)
    net.zero_grad()
    strategy.penalty(net, 0.0, images(), outputs).backward()
    assert net.backbone.conv1.weight.grad.any()
    assert net.heads["task_base/old"].predict.weight.grad.any()
    assert net.heads["task_new"].predict.weight.grad is None


def test_blocks_that_a_router_chose_for_the_base_run_for_all():
    strategy, _, plan = begun("lwf")
    routed = strategy.origin.plan.with_routed([0, 3])
    strategy.origin = Origin(net=strategy.origin.net, plan=routed)
    assert strategy.asked(plan).row("base/old") == plan.row("new")
    assert not strategy.asked(plan).routed()


def test_the_base_sees_the_picture_as_it_expects_it():
    base, net, rgb = domain(), domain(), torch.rand(1, 3, 4, 4)
    net.mean, net.std = (0.1, 0.2, 0.3), (0.5, 1.0, 2.0)

    def normalised(for_net):
        return (rgb - torch.tensor(for_net.mean).view(1, 3, 1, 1)) / torch.tensor(for_net.std).view(
            1, 3, 1, 1
        )

    torch.testing.assert_close(as_normalised_for(base, net, normalised(net)), normalised(base))
    assert as_normalised_for(base, base, rgb) is rgb


def test_a_trunk_is_run_once_for_old_and_new_tasks():
    strategy, net, plan = begun("lwf")
    runs = []
    net.backbone.conv1.register_forward_hook(lambda *_: runs.append(1))
    asked = strategy.asked(plan)
    net(images(), asked, asked.tasks)
    assert len(runs) == 1


def test_dense_old_tasks_bring_their_neck_and_take_it_away_again():
    base, net = dense.make_net("resnet10t"), domain()
    net = Supernet(dense.make_net("resnet10t").backbone, net.tasks, 16, dense.SIZE, net.mean, net.std)
    plan = all_keep(net)
    strategy = build_strategy(adaptation("lwf"), Origin(net=base, plan=all_keep(base)))
    strategy.begin(net.eval(), plan)
    asked, image = strategy.asked(plan), torch.randn(2, 3, *dense.SIZE)
    outputs = net(image, asked, asked.tasks)
    old = base(image, strategy.origin.plan)
    assert all(torch.equal(outputs[f"base/{name}"], old[name]) for name in old)
    assert strategy.penalty(net, 0.0, image, outputs).item() > 0
    assert not any(key.startswith("neck") or "base/" in key for key in strategy.pack(net))
    strategy.fold(net)
    assert net.neck is None and list(net.heads) == ["task_new"]


def test_a_dense_domain_s_neck_starts_as_the_base_s_and_stays():
    base, net = dense.make_net("resnet10t"), dense.make_net("resnet10t")
    for parameter in net.neck.parameters():
        torch.nn.init.zeros_(parameter)
    strategy = build_strategy(adaptation("lwf"), Origin(net=base, plan=all_keep(base)))
    strategy.begin(net, all_keep(net))
    assert all(
        torch.equal(value, net.neck.state_dict()[key]) for key, value in base.neck.state_dict().items()
    )
    assert any(key.startswith("neck") for key in strategy.pack(net))
    strategy.fold(net)
    assert net.neck is not None and len(net.heads) == len(net.tasks)


def test_necks_of_another_width_are_refused():
    base = dense.make_net("resnet10t")
    net = Supernet(
        dense.make_net("resnet10t").backbone, dense.make_tasks(), 8, dense.SIZE, base.mean, base.std
    )
    strategy = build_strategy(adaptation("lwf"), Origin(net=base, plan=all_keep(base)))
    with pytest.raises(SpecError, match="set heads.channels to what the base's recipe has"):
        strategy.begin(net, all_keep(net))


def test_a_base_without_heads_is_refused():
    net = domain()
    with pytest.raises(SpecError, match="the base has none: start from a run"):
        build_strategy(adaptation("lwf"), Origin()).begin(net, all_keep(net))
