"""Predicted times, from made-up costs and a made-up clock."""

import pytest
import torch

from perceptkit.runtime.skip_cost import CostModel, Curve, NodeCost
from tests.runtime.test_executors import routed

STEM = NodeCost(None, Curve({1: 2.0}), row_bytes=1)


def linear(launch, each, up_to=64):
    return Curve({1: launch + each, up_to: launch + each * up_to})


def block(route, launch, each):
    return NodeCost(route, linear(launch, each), row_bytes=1)


def test_between_measured_batches_time_is_linear_and_never_falls():
    curve = Curve({8: 3.0, 1: 2.0, 4: 1.0})  # 4 was measured faster than 1: noise
    assert [curve(n) for n in (0, 1, 2, 4)] == [0, 2, 2, 2]
    assert curve(6) == pytest.approx(2.5) and curve(16) == pytest.approx(6)


def test_one_picture_by_hand():
    costs = CostModel([STEM, block(0, 1, 1), block(1, 1, 3)], Curve({1: 5.0}))
    assert costs.predict(((True, False),))["branch"] == pytest.approx(2 + 2 + 5)
    assert costs.predict(((False, True),))["branch"] == pytest.approx(2 + 4 + 5)
    assert costs.predict(((False, True),))["mask"] == pytest.approx(2 + 2 + 4 + 5)


def test_four_pictures_by_hand():
    costs = CostModel([block(0, 1, 1), block(1, 1, 1)], Curve({1: 1.0, 4: 4.0}), launch=0.5, per_byte=0.25)
    table = ((True, True), (True, False), (False, True), (True, True))
    found = costs.predict(table)
    # each block keeps 3 of 4: gathering launches two copies of 3 bytes
    assert found["gather"] == pytest.approx(4 + 2 * (1 + 3) + 2 * 2 * (0.5 + 0.25 * 3))
    # three policies with 2, 1 and 1 pictures; nothing has bytes: sorting pictures and joining outputs are launches
    assert found["group"] == pytest.approx((2 + 3 + 3) + (1 + 2) + (1 + 2) + 2 * 0.5)
    # block 0 has one run of 3, block 1 runs of 2 and 1: computing the gap would cost as much as the second launch
    assert found["segments"] == pytest.approx(4 + (1 + 3) + (1 + 2) + (1 + 1) + 3 * 0.5 + 2 * 0.75 + 2 * 0.5)
    assert "branch" not in found


def test_the_choice_follows_the_costs():
    names = ["mask", "gather", "segments", "group"]
    distinct = tuple(tuple(r != i % 4 for r in range(4)) for i in range(16))
    two = tuple((i % 2 == 0,) * 4 for i in range(16))

    def choose(table, start, each, **copies):
        nodes = [block(r, start, each) for r in range(4)]
        return CostModel(nodes, linear(0.0, 0.01), **copies).choose(table, names)

    assert choose(distinct, 1000, 0.001, launch=1.0) == "mask"  # computing is free, launching is not
    assert choose(two, 1, 1, launch=0.1, per_byte=0.5) == "group"  # copying costs as much as computing
    assert choose(distinct, 0.1, 10) in ("gather", "segments")


def test_a_static_network_that_was_timed_is_not_summed():
    costs = CostModel([STEM, block(0, 1, 1)], Curve({1: 5.0}), static={(True,): Curve({1: 3.0})})
    found = costs.predict(((True,),))
    assert found["codebook"] == 3 and found["group"] == pytest.approx(2 + 2 + 5)
    assert costs.predict(((False,),))["codebook"] == pytest.approx(7)


def test_merging_uses_the_nodes_own_costs():
    costs = CostModel([block(0, 0, 1), block(1, 9, 1)], Curve({1: 0.0}))
    assert costs.runs(0, True, [(0, 1), (2, 3)]) == [(0, 1), (2, 3)]
    assert costs.runs(1, True, [(0, 1), (2, 3)]) == [(0, 3)]


@torch.inference_mode()
def test_measuring_times_every_node_at_every_batch():
    model = routed("cifar10_resnet20", keep="all", chosen=("room",))
    now = [0.0]

    def clock():  # every look at it takes a second
        now[0] += 1
        return now[0]

    everything = (True,) * len(model.plan.routed())
    costs = CostModel.measure(model, (32, 32), (1, 3), 1, {everything: model.network}, clock)
    assert len(costs.nodes) == len(model.network.nodes)
    for cost, node in zip(costs.nodes, model.network.nodes, strict=True):
        assert cost.route == node.route and cost.joins == bool(node.otherwise)
        assert cost.kept.counts == [1, 3] and cost.kept.seconds == [1, 1]
        assert cost.row_bytes > 0
    assert costs.static[everything](3) == 1 and costs.launch == 1 and costs.per_byte == 0
    assert costs.image_bytes == 3 * 32 * 32 * 4 and costs.output_bytes > 0
    assert costs.heads(1) > 0


@pytest.mark.parametrize(("seconds", "runs"), [(1e-6, 10), (1.0, 2)])
@torch.inference_mode()
def test_runs_that_take_no_time_are_repeated(seconds, runs):
    model, calls, now = routed("cifar10_resnet20", keep="all", chosen=("room",)), [], [0.0]

    def clock():
        now[0] += seconds
        return now[0]

    def network(image_BCHW):
        calls.append(len(image_BCHW))
        return model.network(image_BCHW)

    everything = (True,) * len(model.plan.routed())
    CostModel.measure(model, (32, 32), (1, 3), 2, {everything: network}, clock)
    assert calls == [1] * runs + [3] * runs
