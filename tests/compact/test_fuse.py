"""Heads of one leaf run as one and give what each gave alone."""

import pytest
import torch
from torch import nn

from perceptkit.compact.build import compact_and_fold
from perceptkit.compact.fuse import FusedHeads, fuse_heads
from perceptkit.compact.network import compact
from perceptkit.compact.verify import probe_images
from perceptkit.model import cost
from perceptkit.model.fold import fold_batchnorm
from perceptkit.tasks.heads import DenseHead
from tests.compact.conftest import SIZE, network, plan_of


def heads():
    torch.manual_seed(0)
    made = {
        "a": DenseHead(8, 3),
        "b": nn.Sequential(DenseHead(8, 4), nn.PixelShuffle(2)),
        "c": DenseHead(8, 1),
    }
    for head in made.values():
        dense = head if isinstance(head, DenseHead) else head[0]
        dense.norm, dense.conv.bias = nn.Identity(), nn.Parameter(torch.randn(8))
    return made


def count(module):
    return sum(p.numel() for p in module.parameters())


def test_same_outputs_parameters_and_macs():
    apart = heads()
    fused, image = FusedHeads(apart), torch.randn(2, 8, 6, 7)
    got = fused(image)
    assert list(got) == ["a", "b", "c"]
    for task, head in apart.items():
        torch.testing.assert_close(got[task], head(image), rtol=1e-5, atol=1e-6)
    assert count(fused) == sum(map(count, apart.values()))
    macs = sum(cost.measured_macs(lambda h=head: h(image)) for head in apart.values())
    assert cost.measured_macs(lambda: fused(image)) == macs
    assert fused.conv.out_channels == 24


@pytest.mark.parametrize("tasks", [("a",), ("c", "a"), ("b",)])
def test_some_of_them(tasks):
    fused, image = FusedHeads(heads()).eval(), torch.randn(2, 8, 6, 7)
    some, expected = fused.only(tasks), fused(image)
    got = some(image)
    assert set(got) == set(tasks) and not some.training
    for task in tasks:
        torch.testing.assert_close(got[task], expected[task], rtol=1e-5, atol=1e-6)
    assert count(some) == sum(count(head) for task, head in heads().items() if task in tasks)


def test_every_dense_head_of_a_leaf_is_fused():
    net = network()
    small = compact_and_fold(net, plan_of(net, "all"), SIZE)
    assert [tuple(fused.tasks) for fused in small.fused.values()] == [
        ("seg", "edges", "depth", "normals", "points", "kinds")
    ]
    assert list(small.net.heads) == ["task_room"]


def test_heads_of_different_leaves_are_not():
    net = network(chosen=("seg", "depth"))
    small = compact_and_fold(net, plan_of(net, "first"), SIZE)
    assert len(small.leaves) == 2 and not small.fused


def test_heads_whose_norms_are_there_are_not():
    net = network(chosen=("seg", "depth"))
    small = compact(net, plan_of(net, "all"))
    assert fuse_heads(small) == 0
    fold_batchnorm(small, probe_images(SIZE)[1])
    assert fuse_heads(small) == 2
