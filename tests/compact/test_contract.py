"""What a compact model promises, on several families and random plans.

* Its outputs are those of the gated supernet.
* Its parameters are the union of `cost.params`, except that
  - folding BatchNorm turns a norm's 2 C parameters into the convolution's C biases,
  - a merged projection replaces those that nobody calls any more: how many, merged_sizes.py says by formula,
  - fused heads change nothing.
* Its MACs, counted by hooks, are those of `cost.macs`, less what the same formula says of merging.
* The model of one task costs that task's path.
"""

import copy
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
from tests.compact.merged_sizes import merged_sizes
from tests.compact.test_merge import dilated

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


@lru_cache
def arranged(name, seed, optimize):
    """The compact model of a random plan. Do not change it."""
    return compact_and_fold(network(name), random_plan(network(name), seed), SIZE, optimize)


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
    holds(network(name), random_plan(network(name), seed), measured(name))


def folding(bare):
    """Parameters that folding the norms of a compact model takes away."""
    pairs = [
        (bare.get_submodule(c), bare.get_submodule(n)) for c, n in conv_bn_pairs(bare, probe_images(SIZE)[1])
    ]
    return sum(2 * norm.num_features - (conv.bias is None) * norm.num_features for conv, norm in pairs)


def holds(net, plan, steps, merges=None):
    """Asserts the contract in all arrangements; `merges`: those in which projections must have been merged."""
    union, (macs, _) = cost.params(net, plan), cost.macs(net, plan, steps)
    bare, one = compact(net, plan), torch.zeros(1, 3, *SIZE)
    assert count(bare) == union
    folded_away = folding(bare)
    for optimize in ("none", "latency", "size"):
        small = compact_and_fold(net, plan, SIZE, optimize)
        refuse_mismatch(parity(lambda image: net(image, plan), small, probe_images(SIZE)), optimize)
        fewer_params, fewer_macs = merged_sizes(net, plan, SIZE, optimize)
        assert count(small) == union - folded_away - fewer_params
        assert macs_by_hooks(small, one) == macs - fewer_macs
        assert small.has_merged() == (fewer_macs > 0) and fewer_macs >= 0
        assert optimize != "size" or (fewer_params > 0) == small.has_merged()
        assert merges is None or small.has_merged() == (optimize in merges)
        assert (len(small.fused) > 0) <= (optimize != "none")


def kept_by(net, **blocks):
    """A plan in which each task keeps the blocks named, and no other."""
    names = block_names(net)
    rows = [[name in blocks.get(task, ()) for name in names] for task in net.tasks]
    return Plan.from_keep(list(net.tasks), names, rows)


@pytest.mark.slow
@pytest.mark.parametrize(
    "kept, merges",
    [
        ({}, {"latency", "size"}),
        ({"seg": ["layer3.0"], "depth": ["layer3.0"]}, {"latency"}),  # room parts from them after layer2
        ({"seg": ["layer3.0", "layer4.0"], "room": ["layer1.0"]}, {"latency"}),  # all projections are kept
        ({"seg": ["layer1.0"], "depth": ["layer1.1"]}, {"latency", "size"}),  # the same chain three times
        ({"seg": ["layer4.0"]}, {"latency", "size"}),  # all run layer2 and layer3 as one
        ({"seg": ["layer3.0", "layer4.0"], "room": ["layer2.0"]}, {"latency"}),  # one chain in two branches
    ],
    ids=lambda value: (
        "-".join(f"{t}:{'+'.join(b)}" for t, b in value.items()) if isinstance(value, dict) else ""
    ),
)
def test_contract_where_projections_are_merged(kept, merges):
    """A dilated trunk: of its last three stages the neck reads only the last, so dense tasks have chains too."""
    net = dilated()
    holds(net, kept_by(net, **kept), cost.measure(net, SIZE), merges)


def test_what_merging_saves_by_hand():
    """32 -> 48 -> 192 -> 96 channels at 8, 4 and 2 pixels a side become 32 -> 96 at 2."""
    net = network(chosen=("room",))
    plan = kept_by(net)
    transitions = [step for step in net.steps if step.projection is not None]
    assert [(step.channels, step.stride) for step in transitions] == [(48, 8), (192, 16), (96, 32)]
    old = (32 * 48 + 48) + (48 * 192 + 192) + (192 * 96 + 96)
    macs = 32 * 48 * 8**2 + 48 * 192 * 4**2 + 192 * 96 * 2**2 - 32 * 96 * 2**2
    for optimize in ("latency", "size"):
        assert merged_sizes(net, plan, SIZE, optimize) == (old - (32 * 96 + 96), macs)
    assert merged_sizes(net, plan, SIZE, "none") == (0, 0)
    holds(net, plan, cost.measure(net, SIZE), {"latency", "size"})


@lru_cache
def path_of(name, task):
    """(parameters, those that folding takes away, MACs) of one task's path alone, which no arrangement has changed."""
    net, one = network(name), torch.zeros(1, 3, *SIZE)
    plan = random_plan(net, 0)
    own = cost.macs(net, plan, measured(name), [task])[0]
    bare = compact(net, plan, [task])
    assert count(bare) == cost.params(net, plan, [task]) and macs_by_hooks(bare, one) == own
    refuse_another_path(net, plan, bare, task)
    return count(bare), folding(bare), own


def refuse_another_path(net, plan, small, task):
    assert list(small(torch.zeros(1, 3, *SIZE))) == [task]
    refuse_mismatch(parity(lambda x: net(x, plan, [task]), small, probe_images(SIZE)), task)


@pytest.mark.slow
@pytest.mark.parametrize("optimize", ["none", "latency", "size"])
@pytest.mark.parametrize("name", BACKBONES[:3])
def test_one_task_costs_its_own_path(name, optimize):
    net = network(name)
    plan, one = random_plan(net, 0), torch.zeros(1, 3, *SIZE)
    whole = arranged(name, 0, optimize)
    for task in ("seg", "edges", "room"):
        params, folded_away, own = path_of(name, task)
        fewer_params, fewer_macs = merged_sizes(net, plan, SIZE, optimize, [task])
        built, cut = compact_and_fold(net, plan, SIZE, optimize, [task]), whole.only([task])
        # `room` needs no neck and skips all: nothing reads what lies between its projections
        assert built.has_merged() == (name == "test_resnet" and task == "room" and optimize != "none")
        assert count(built) == params - folded_away - fewer_params
        assert macs_by_hooks(built, one) == own - fewer_macs and built.has_merged() == (fewer_macs > 0)
        # cut out of the whole it has what was merged there, where other tasks may have been in the way
        fewer_params, fewer_macs = merged_sizes(net, plan, SIZE, optimize, cut=task)
        assert macs_by_hooks(cut, one) == own - fewer_macs
        assert count(cut) == params - folded_away - fewer_params
        for small in (built, cut):
            refuse_another_path(net, plan, small, task)


def test_some_tasks_hold_nothing_of_the_others():
    net = network()
    plan = random_plan(net, 1)
    whole = compact_and_fold(net, plan, SIZE)  # not a shared one: it is asserted to stay as it was
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
    small = copy.deepcopy(arranged("test_resnet", 0, source))
    manifest = replace(manifest_of(net, plan), optimize=source)
    for wanted in ("latency", "size"):
        made, told = build.rearrange(small, manifest, wanted)
        expected = arranged("test_resnet", 0, wanted).state_dict()
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
