"""Single-task nets by hand: gradients that do not mix, and T trunks to pay."""

import pytest
import torch

from perceptkit.baselines.sharing.single import SingleTaskNets
from perceptkit.model import cost
from perceptkit.train.losses import weighted_sum
from tests.baselines.sharing.conftest import all_kept
from tests.baselines.sharing.one_weight import GRADIENTS, MAP, SIZE, losses_of, make_net


def make_nets() -> SingleTaskNets:
    return SingleTaskNets({"a": make_net("a"), "b": make_net("b")})


def trunk_gradients(nets):
    grads = {name: net.backbone.block.conv.weight.grad for name, net in nets.by_task().items()}
    return {name: None if grad is None else grad.item() for name, grad in grads.items()}


def test_each_trunk_has_the_gradient_of_its_own_task():
    nets = make_nets()
    weighted_sum(losses_of(nets), nets.tasks).backward()
    assert trunk_gradients(nets) == pytest.approx({"a": 2 * GRADIENTS["a"], "b": GRADIENTS["b"]})


def test_a_tasks_loss_reaches_no_other_net():
    nets = make_nets()
    losses_of(nets)["a"].backward()
    assert trunk_gradients(nets) == {"a": pytest.approx(GRADIENTS["a"]), "b": None}
    assert all(parameter.grad is None for parameter in nets.by_task()["b"].parameters())


def test_nothing_is_shared_and_a_step_of_one_leaves_the_other():
    nets = make_nets()
    first, second = (set(map(id, net.parameters())) for net in nets.by_task().values())
    assert not first & second
    before = losses_of(nets)["b"].item()
    losses_of(nets)["a"].backward()
    torch.optim.SGD(nets.parameters(), lr=1.0).step()
    after = losses_of(nets)
    assert after["b"].item() == before and after["a"].item() < losses_of(make_nets())["a"].item()


def test_every_trunk_is_paid():
    nets = make_nets()
    rows = cost.table(nets, all_kept(nets), SIZE)["rows"]
    # two trunks of 1 weight and 64 MACs, two heads of 2 weights and 2 biases
    alone = {"params": 2 * (1 + 2 + 2), "macs": 2 * (MAP + 2), "backbone_macs": 2 * MAP}
    assert rows["compact"] == rows["single_task_nets"] == alone
    assert rows["hard_shared"] == {"params": 1 + 2 * (2 + 2), "macs": MAP + 2 * 2, "backbone_macs": MAP}
