"""The compact network equals the gated supernet, and holds what the plan keeps and nothing else."""

import pytest
import torch
from torch import nn

from perceptkit.compact.network import CompactNets, Leaf, Node, _last_use, compact, compile_plan, in_order
from perceptkit.errors import PlanError
from perceptkit.model import cost
from perceptkit.model.plan import Plan
from perceptkit.model.trie import trie
from perceptkit.model.trunk import Step
from tests.compact.conftest import block_names, network, plan_of

BACKBONES = ["test_resnet", "tf_efficientnet_lite0", "test_vit", "test_convnext"]
PLANS = ["all", "none", "first", "mixed"]


def count(module):
    return sum(p.numel() for p in module.parameters())


@pytest.mark.parametrize("keep", PLANS)
@pytest.mark.parametrize("name", BACKBONES)
def test_equals_the_supernet(name, keep, image):
    net = network(name)
    plan = plan_of(net, keep)
    with torch.no_grad():
        expected, got = net(image, plan), compact(net, plan)(image)
    assert list(got) == list(net.tasks)
    for task in expected:
        assert torch.equal(got[task], expected[task])


@pytest.mark.parametrize("name", BACKBONES)
def test_plans_differ_in_what_they_compute(name, image):
    """Else equality above would show nothing."""
    net = network(name)
    with torch.no_grad():
        made = [compact(net, plan_of(net, keep))(image) for keep in PLANS]
    outputs = [torch.cat([value.flatten() for value in heads.values()]) for heads in made]
    for i, one in enumerate(outputs):
        for other in outputs[i + 1 :]:
            assert (one - other).abs().max() > 1e-3


@pytest.mark.parametrize("keep", PLANS)
@pytest.mark.parametrize("name", BACKBONES)
def test_parameters_are_the_union(name, keep):
    net = network(name)
    plan = plan_of(net, keep)
    assert count(compact(net, plan)) == cost.params(net, plan)


def test_blocks_that_no_task_keeps_are_gone():
    net = network()
    plan = plan_of(net, lambda k, b: b == 0 and k == 2)
    small = compact(net, plan)
    names = {name.removeprefix("net.backbone.") for name, _ in small.named_parameters()}
    of_layer2 = {name for name in names if name.startswith("layer2")}
    assert any(name.startswith("layer1.0.") for name in names)
    # a stage transition leaves its projection behind, under its old name
    assert of_layer2 and all(name.startswith("layer2.0.downsample.") for name in of_layer2)
    layer2 = net.backbone.layer2[0]
    assert count(small.net.backbone.layer2) == count(layer2.downsample) < count(layer2)


def test_the_supernet_is_not_changed(image):
    net = network()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    small = compact(net, plan_of(net, "none"))
    for parameter in small.parameters():
        parameter.data.zero_()
    after = net.state_dict()
    assert after.keys() == before.keys()
    assert all(torch.equal(after[name], before[name]) for name in before)


def test_a_single_task(image):
    net = network(chosen=("depth",))
    plan = plan_of(net, lambda k, b: b % 2 == 0)
    small = compact(net, plan)
    with torch.no_grad():
        assert torch.equal(small(image)["depth"], net(image, plan)["depth"])
    assert count(small) == cost.params(net, plan) < count(net)


def test_only_a_global_task_has_no_neck(image):
    net = network(chosen=("room",))
    plan = plan_of(net, "all")
    small = compact(net, plan)
    assert small(image)["room"].shape == (2, 3) and small.net.neck is None
    assert count(small) == cost.params(net, plan)


def test_separate_nets(image):
    nets = network(method="single", chosen=("seg", "room"))
    plan = plan_of(nets, "first")
    small = compact(nets, plan)
    assert isinstance(small, CompactNets)
    with torch.no_grad():
        expected, got = nets(image, plan), small(image)
    for task in ("seg", "room"):
        assert torch.equal(got[task], expected[task])
    own = [cost.params(net, plan.only([task])) for task, net in nets.by_task().items()]
    assert count(small) == sum(own)


@pytest.mark.parametrize("keep", ["all", "first", "mixed"])
def test_blocks_run_as_often_as_the_trie_says(keep, image):
    net = network()
    plan = plan_of(net, keep)
    small, ran = compact(net, plan), []
    for name, kept in zip(block_names(net), plan.kept_by_any(), strict=True):
        if kept:
            small.net.backbone.get_submodule(name).register_forward_hook(lambda *_: ran.append(1))
    small(image)
    assert len(ran) == sum(node.kept for node in trie(plan)) > 0


def test_any_batch_and_eval_mode():
    small = compact(network(), plan_of(network(), "mixed"))
    assert not any(module.training for module in small.modules())
    assert small(torch.zeros(1, 3, 64, 64))["depth"].shape == (1, 1, 64, 64)
    assert small(torch.zeros(3, 3, 64, 64))["depth"].shape == (3, 1, 64, 64)


def test_a_plan_of_another_network_is_refused():
    net = network()
    with pytest.raises(PlanError, match="3 blocks are not the 4"):
        compact(net, Plan.all_keep(list(net.tasks), block_names(net)[:3]))
    with pytest.raises(PlanError, match="no row for room"):
        compact(net, Plan.all_keep([t for t in net.tasks if t != "room"], block_names(net)))


# a stem, an identity block, a plain step, a transition with its projection
CHAIN = [
    Step("stem", "plain"),
    Step("a", "identity", block=0),
    Step("plain", "plain"),
    Step("b", "shortcut", block=1, projection="b.down"),
]


def test_compiled_nodes_by_hand():
    plan = Plan.from_keep(("x", "y", "z"), ("a", "b"), [[True, True], [True, False], [False, False]])
    nodes, leaves = compile_plan(CHAIN, [1, 3], plan)
    assert nodes == [
        Node("stem", 0),
        Node("a", 1),
        Node("plain", 2),  # after a: x and y
        Node("plain", 1),  # z skipped a: its plain step hangs on the stem
        Node("b", 3),
        Node("b.down", 3),
        Node("b.down", 4),
    ]
    assert leaves == [Leaf(("x",), 5, (2, 5)), Leaf(("y",), 6, (2, 6)), Leaf(("z",), 7, (1, 7))]


def test_values_are_let_go_after_their_last_use():
    plan = Plan.from_keep(("x", "y", "z"), ("a", "b"), [[True, True], [True, False], [False, False]])
    # of the nodes above: the image after the stem, features once the heads of their last reader have run
    found = _last_use(*compile_plan(CHAIN, [1, 3], plan))
    assert {i: sorted(done) for i, done in found.items()} == {0: [0], 4: [5], 5: [2, 3, 6], 6: [1, 4, 7]}


def test_branches_run_one_after_the_other():
    plan = Plan.from_keep(("x", "y", "z"), ("a", "b"), [[True, True], [True, False], [False, False]])
    nodes, leaves = in_order(*compile_plan(CHAIN, [1, 3], plan))
    assert [node.module for node in nodes] == ["stem", "a", "plain", "b", "b.down", "plain", "b.down"]
    assert leaves == [Leaf(("x",), 4, (2, 4)), Leaf(("y",), 5, (2, 5)), Leaf(("z",), 7, (1, 7))]


def test_what_leads_nowhere_does_not_run():
    plan = Plan.from_keep(("x", "y", "z"), ("a", "b"), [[True, True], [True, False], [False, False]])
    nodes, leaves = compile_plan(CHAIN, [1, 3], plan)
    nodes, leaves = in_order(nodes, leaves[1:2])
    assert nodes == [Node("stem", 0), Node("a", 1), Node("plain", 2), Node("b.down", 3)]
    assert leaves == [Leaf(("y",), 4, (2, 4))]


def test_equal_plans_are_compiled_once():
    nodes, leaves = compile_plan(CHAIN, [3], Plan.all_keep(("x", "y"), ("a", "b")))
    assert [node.module for node in nodes] == ["stem", "a", "plain", "b"]
    assert leaves == [Leaf(("x", "y"), 4, (4,))]


def test_what_is_left_of_a_dropped_identity_block_is_nothing():
    small = compact(network(), plan_of(network(), "none"))
    assert isinstance(small.net.backbone.layer1[0], nn.Identity)
