"""What a compact model promises, on several families and random plans.

* Its outputs are those of the gated supernet.
* Its parameters are the union of `cost.params`, except that
  - folding BatchNorm turns a norm's 2 C parameters into the convolution's C biases,
  - a merged projection replaces those that nobody calls any more (tests/compact/test_merge.py),
  - fused heads change nothing.
* Its MACs, counted by hooks, are those of `cost.macs`; merging makes them fewer, the rest changes nothing.
* The model of one task costs that task's path.
"""

import math
from dataclasses import replace
from functools import lru_cache

import pytest
import torch
from torch import nn

from perceptkit.compact import build
from perceptkit.compact.build import compact_and_fold
from perceptkit.compact.network import compact
from perceptkit.compact.verify import parity, probe_images, refuse_mismatch
from perceptkit.errors import ExportError
from perceptkit.model import cost
from perceptkit.model.conv_bn import conv_bn_pairs
from perceptkit.model.plan import Plan
from tests.compact.conftest import SIZE, block_names, manifest_of, network

BACKBONES = [
    "test_resnet",
    "test_vit",
    "test_convnext",
    "tf_efficientnet_lite0",
    "regnety_002",
]


def random_plan(net, seed):
    """About 60 % kept; the last task skips everything."""
    generator = torch.Generator().manual_seed(seed)
    keep = torch.rand(len(net.tasks), len(net.blocks), generator=generator) < 0.6
    keep[-1] = False
    return Plan.from_keep(list(net.tasks), block_names(net), keep.tolist())


@lru_cache
def measured(name):
    return cost.measure(network(name), SIZE)


def count(module):
    return sum(p.numel() for p in module.parameters())


def macs_by_hooks(module, image):
    """Multiply-accumulates of convolutions, linear layers and attention, from the shapes that modules saw."""
    total = []

    def conv(m, args, output):
        total.append(output[0].numel() * m.in_channels // m.groups * math.prod(m.kernel_size))

    def transposed(m, args, output):
        total.append(args[0][0].numel() * m.out_channels // m.groups * math.prod(m.kernel_size))

    def linear(m, args, output):
        total.append(output[0].numel() * m.in_features)

    def attention(m, args, output):
        total.append(2 * args[0].shape[1] ** 2 * m.num_heads * m.head_dim)

    kinds = {nn.Conv2d: conv, nn.ConvTranspose2d: transposed, nn.Linear: linear}
    hooks = []
    for m in module.modules():
        hook = next((hook for kind, hook in kinds.items() if isinstance(m, kind)), None)
        if type(m).__name__ == "Attention":
            hook = attention
        if hook:
            hooks.append(m.register_forward_hook(hook))
    with torch.no_grad():
        module(image)
    for hook in hooks:
        hook.remove()
    return sum(total)


@pytest.mark.parametrize(
    "name, seed",
    [
        *(
            pytest.param(n, i % 2, marks=[] if n.startswith("test_") else pytest.mark.slow)
            for i, n in enumerate(BACKBONES)
        ),
        ("test_resnet", 1),
    ],
)
def test_contract(name, seed):
    net = network(name)
    plan = random_plan(net, seed)
    union, (macs, _) = cost.params(net, plan), cost.macs(net, plan, measured(name))
    bare = compact(net, plan)
    assert count(bare) == union
    pairs = [
        (bare.get_submodule(c), bare.get_submodule(n)) for c, n in conv_bn_pairs(bare, probe_images(SIZE)[1])
    ]
    folding = sum(2 * norm.num_features - (conv.bias is None) * norm.num_features for conv, norm in pairs)
    one = torch.zeros(1, 3, *SIZE)
    for optimize in ("none", "latency", "size"):
        small = compact_and_fold(net, plan, SIZE, optimize)
        refuse_mismatch(parity(lambda image: net(image, plan), small, probe_images(SIZE)), optimize)
        if small.has_merged():  # `room` needs no neck: nothing reads what lies between two of its projections
            assert optimize != "none" and net.blocks[-1].kind == "shortcut" or name == "regnety_002"
            assert macs_by_hooks(small, one) < macs
            assert optimize == "latency" or count(small) < union - folding
            continue
        assert count(small) == union - folding
        assert macs_by_hooks(small, one) == macs
        assert (len(small.fused) > 0) <= (optimize != "none")


@pytest.mark.parametrize("optimize", ["none", "latency", "size"])
@pytest.mark.parametrize("name", BACKBONES[:3])
def test_one_task_costs_its_own_path(name, optimize):
    net = network(name)
    plan, one = random_plan(net, 0), torch.zeros(1, 3, *SIZE)
    whole = compact_and_fold(net, plan, SIZE, optimize)
    for task in ("seg", "edges", "room"):
        own = cost.macs(net, plan, measured(name), [task])[0]
        bare = compact(net, plan, [task])
        assert count(bare) == cost.params(net, plan, [task]) and macs_by_hooks(bare, one) == own
        built, cut = compact_and_fold(net, plan, SIZE, optimize, [task]), whole.only([task])
        # `room` needs no neck and skips all: nothing reads what lies between its projections
        assert built.has_merged() == (name == "test_resnet" and task == "room" and optimize != "none")
        for small in (built, cut):
            assert (
                (macs_by_hooks(small, one) < own) if small.has_merged() else macs_by_hooks(small, one) == own
            )
        assert count(built) <= count(cut)
        for small in (bare, built, cut):
            assert list(small(one)) == [task]
            refuse_mismatch(parity(lambda x, t=task: net(x, plan, [t]), small, probe_images(SIZE)), task)


def test_some_tasks_hold_nothing_of_the_others():
    net = network()
    plan = random_plan(net, 1)
    whole = compact_and_fold(net, plan, SIZE)
    some = whole.only(["seg", "room"])
    built = compact_and_fold(net, plan, SIZE, tasks=["seg", "room"])
    assert some.state_dict().keys() == built.state_dict().keys()
    names = " ".join(some.state_dict())
    assert not any(f"task_{task}" in names for task in net.tasks if task not in ("seg", "room"))
    assert whole.only(["room"]).net.neck is None
    got, expected = some(probe_images(SIZE)[1]), whole(probe_images(SIZE)[1])
    assert all((got[task] - expected[task]).abs().max() < 1e-5 for task in ("seg", "room"))
    assert len(whole.net.tasks) == 7 and whole.net.neck is not None  # the whole is as it was


@pytest.mark.parametrize("optimize", ["latency", "size"])
def test_written_and_read_in_its_own_arrangement(optimize, tmp_path):
    net = network(chosen=("room",))
    plan = Plan.from_keep(["room"], block_names(net), [[False] * len(net.blocks)])
    manifest = replace(manifest_of(net, plan), optimize=optimize, metrics={})
    build.write_artifact(tmp_path, net, manifest)
    again, read = build.read(tmp_path)
    assert read.optimize == optimize and again.has_merged()
    expected = compact_and_fold(net, plan, SIZE, optimize)
    assert [node.module for node in again.nodes] == [node.module for node in expected.nodes]
    image = probe_images(SIZE)[1]
    assert torch.equal(again(image)["room"], expected(image)["room"])


def test_artifacts_of_before_are_read_as_they_were_written():
    net = network()
    told = manifest_of(net, random_plan(net, 0)).to_dict()
    assert told["optimize"] == "latency"
    del told["optimize"]
    old = type(manifest_of(net, random_plan(net, 0))).from_dict(told)
    assert old.optimize == "none" and not build.empty_network(old).fused


@pytest.mark.parametrize("source", ["none", "latency", "size"])
def test_rearranged(source):
    net = network()
    plan = random_plan(net, 0)
    small = compact_and_fold(net, plan, SIZE, source)
    manifest = replace(manifest_of(net, plan), optimize=source)
    for wanted in ("latency", "size"):
        made, told = build.rearrange(small, manifest, wanted)
        expected = compact_and_fold(net, plan, SIZE, wanted).state_dict()
        assert told.optimize == wanted and made.state_dict().keys() == expected.keys()
        assert all(torch.equal(value, expected[name]) for name, value in made.state_dict().items())


def test_merged_projections_cannot_be_parted():
    net = network(chosen=("room",))
    plan = Plan.from_keep(["room"], block_names(net), [[False] * len(net.blocks)])
    manifest = replace(manifest_of(net, plan), optimize="latency")
    small = compact_and_fold(net, plan, SIZE, "latency")
    made, _ = build.rearrange(small, manifest, "size")  # it merges the same ones
    assert made.has_merged()
    with pytest.raises(
        ExportError, match="arranged for latency, and projections that none needs were merged"
    ):
        build.rearrange(small, manifest, "none")
