"""Which steps of the trunk learn."""

import pytest

from perceptkit.baselines.adaptation.table import build_strategy
from perceptkit.model.plan import Plan
from perceptkit.model.strategy import set_train_mode
from tests.baselines.adaptation.conftest import adaptation, begun, domain


def learning(net):
    """First two parts of the names of what learns in the trunk."""
    return sorted({".".join(n.split(".")[:2]) for n, p in net.backbone.named_parameters() if p.requires_grad})


@pytest.mark.parametrize(("k", "blocks"), [(1, ["layer4.1"]), (3, ["layer3.1", "layer4.0", "layer4.1"])])
def test_the_last_blocks_learn(k, blocks):
    _, net, _ = begun("last_k", k=k)
    assert learning(net) == blocks
    set_train_mode(net)
    assert not net.backbone.layer1[0].bn1.training and net.backbone.layer4[1].bn1.training


def test_the_last_norm_of_a_vit_learns_too():
    _, net, _ = begun("last_k", "vit_tiny_patch16_224", k=1)
    assert learning(net) == ["blocks.1", "norm.bias", "norm.weight"]


def test_blocks_that_no_task_keeps_do_not_count():
    net = domain()
    keep = [True] * 8
    keep[7] = keep[6] = False  # layer4.1, and layer4.0, whose shortcut still runs
    plan = Plan.from_keep(["new"], [block.name for block in net.blocks], [keep])
    build_strategy(adaptation("last_k", k=1)).begin(net, plan)
    assert learning(net) == ["layer3.1", "layer4.0"]
    in_layer4 = {n for n, p in net.backbone.layer4.named_parameters() if p.requires_grad}
    assert {name.split(".")[1] for name in in_layer4} == {"downsample"}


def test_more_blocks_than_there_are_means_all_blocks():
    _, net, _ = begun("last_k", k=100)
    assert learning(net)[0] == "layer1.0" and len(learning(net)) == 8
    assert not net.backbone.conv1.weight.requires_grad
