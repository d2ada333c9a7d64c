"""Two skipped projections become one that computes the same, where that makes fewer MACs or parameters."""

from functools import lru_cache

import pytest
import torch
from torch import nn

from perceptkit.compact.build import compact_and_fold
from perceptkit.compact.merge import affine, compose, merge_projections
from perceptkit.compact.network import compact
from perceptkit.compact.verify import parity, probe_images
from perceptkit.model import cost
from perceptkit.model.build import build_supernet
from perceptkit.model.fold import fold_batchnorm
from perceptkit.model.plan import Plan
from perceptkit.spec.recipe import BackboneSpec
from tests.compact.conftest import HEADS, SIZE, network, plan_of
from tests.data.conftest import make_tasks


def count(module):
    return sum(p.numel() for p in module.parameters())


@lru_cache
def dilated():
    """A ResNet whose last three stages have one stride: the neck reads only the last of them."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        args = {"output_stride": 8, "channels": [16, 24, 32, 48]}
        spec = BackboneSpec(name="resnet18", weights="none", args=args)
        tasks = {name: task for name, task in make_tasks().items() if name in ("seg", "depth", "room")}
        net = build_supernet(spec, HEADS, tasks, SIZE)
        for module in net.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.normal_(0, 0.1)
                module.running_var.uniform_(0.5, 1.5)
                module.bias.data.normal_(0, 0.1)
    return net.eval()


@pytest.mark.parametrize("size", [16, 17, 18, 19])
def test_strides_compose(size):
    """Every size rounds alike: pixel j of the second is pixel j * s1 * s2 of the first one's input."""
    torch.manual_seed(0)
    pair = nn.Conv2d(3, 5, 1, stride=2), nn.Conv2d(5, 4, 1, stride=3, bias=False)
    merged = compose(*map(affine, pair))
    image = torch.randn(2, 3, size, size + 3)
    torch.testing.assert_close(merged(image), pair[1](pair[0](image)), rtol=1e-5, atol=1e-6)
    assert merged[-1].stride == (6, 6)


@pytest.mark.parametrize("size", [16, 17, 19])
def test_pools_stay_in_front(size):
    pool = dict(kernel_size=2, stride=2, ceil_mode=True, count_include_pad=False)
    torch.manual_seed(0)
    first = nn.Sequential(nn.AvgPool2d(**pool), nn.Conv2d(3, 5, 1), nn.Identity())
    second = nn.Sequential(nn.AvgPool2d(**pool), nn.Conv2d(5, 4, 1), nn.Identity())
    merged, image = compose(affine(first), affine(second)), torch.randn(2, 3, size, size)
    assert [type(layer) for layer in merged] == [nn.AvgPool2d, nn.AvgPool2d, nn.Conv2d]
    torch.testing.assert_close(merged(image), second(first(image)), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    "projection",
    [
        nn.Conv2d(4, 4, 3),
        nn.Conv2d(4, 4, 1, groups=2),
        nn.Sequential(nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4)),
        nn.Sequential(nn.Conv2d(4, 4, 1), nn.ReLU()),
        nn.Sequential(nn.MaxPool2d(2), nn.Conv2d(4, 4, 1)),
        nn.Sequential(nn.AvgPool2d(3, padding=1), nn.Conv2d(4, 4, 1)),  # zeros count at the border
        nn.Sequential(nn.Identity()),
    ],
)
def test_what_is_not_affine_is_left_alone(projection):
    assert affine(projection) is None


def test_a_global_task_that_skips_all_runs_one_projection():
    """No neck reads the stages in between. 32 -> 48 -> 192 -> 96 becomes 32 -> 96."""
    net = network(chosen=("room",))
    plan = plan_of(net, "none")
    before = compact_and_fold(net, plan, SIZE, "none")
    for optimize in ("latency", "size"):
        small = compact_and_fold(net, plan, SIZE, optimize)
        assert [node.module for node in small.nodes if "downsample" in node.module] == []
        assert small.nodes[-1].module == "merged.1"  # of 48 -> 96, itself merged
        a, b, c, d = (net.backbone.get_submodule(f"layer{i}.0") for i in (1, 2, 3, 4))
        widths = [layer.downsample[1].out_channels for layer in (b, c, d)]
        first = b.downsample[1].in_channels
        old = sum(i * o + o for i, o in zip([first, *widths[:2]], widths, strict=True))
        assert count(before) - count(small) == old - (first * widths[2] + widths[2])
        assert cost.measured_macs(lambda s=small: s(torch.zeros(1, 3, *SIZE))) < cost.measured_macs(
            lambda: before(torch.zeros(1, 3, *SIZE))
        )
        found = parity(lambda image: net(image, plan), small, probe_images(SIZE))
        assert found["room"]["max_abs"] < 1e-5 < found["room"]["scale"]


def test_features_of_the_neck_are_never_merged_away():
    net = network()
    assert not compact_and_fold(net, plan_of(net, "none"), SIZE, "latency").has_merged()


def test_dense_tasks_of_a_dilated_trunk():
    net = dilated()
    plan = plan_of(net, "none")
    small = compact_and_fold(net, plan, SIZE, "latency")
    # layer2's output is no feature of the neck, layer4's is: one projection for all three
    assert [node.module for node in small.nodes][-1] == "merged.1"
    found = parity(lambda image: net(image, plan), small, probe_images(SIZE))
    assert all(row["max_abs"] <= 1e-5 * row["scale"] for row in found.values())


def test_what_another_branch_reads_is_not_merged():
    """room skips layer3, seg and depth keep it: both read layer2's projection."""
    net = dilated()
    names = [block.name for block in net.blocks]
    index = {name: i for i, name in enumerate(names)}
    keep = {task: [False] * len(names) for task in net.tasks}
    keep["seg"][index["layer3.0"]] = keep["depth"][index["layer3.0"]] = True
    plan = Plan.from_keep(list(keep), names, list(keep.values()))
    small = compact_and_fold(net, plan, SIZE, "latency")
    called = [node.module for node in small.nodes]
    assert called.count("layer2.0.downsample") == 1  # shared by both branches
    assert [name for name in called if name.startswith("merged")] == ["merged.0"]  # room: layer3 and layer4
    assert hasattr(small.net.backbone.layer3[0], "conv1")  # kept by the others
    found = parity(lambda image: net(image, plan), small, probe_images(SIZE))
    assert all(row["max_abs"] <= 1e-5 * row["scale"] for row in found.values())


def test_size_merges_only_where_fewer_parameters_are_stored():
    """seg keeps layer3 and layer4, so their projections stay; a merged one for room would come on top."""
    net = dilated()
    names = [block.name for block in net.blocks]
    keep = {
        task: [task == "seg" and name in ("layer3.0", "layer4.0") for name in names] for task in net.tasks
    }
    keep["room"][0] = True  # another branch from the start
    plan = Plan.from_keep(list(keep), names, list(keep.values()))
    fast, small, plain = (compact_and_fold(net, plan, SIZE, o) for o in ("latency", "size", "none"))
    macs = [cost.measured_macs(lambda m=m: m(torch.zeros(1, 3, *SIZE))) for m in (fast, small, plain)]
    assert macs[0] < macs[1] == macs[2] and not small.has_merged()
    assert count(fast) > count(small) == count(plain)
    for made in (fast, small):
        found = parity(lambda image: net(image, plan), made, probe_images(SIZE))
        assert all(row["max_abs"] <= 1e-5 * row["scale"] for row in found.values())


def test_unfolded_projections_are_left_alone():
    net = network(chosen=("room",))
    small = compact(net, plan_of(net, "none"))
    assert merge_projections(small, "macs") == 0
    fold_batchnorm(small, probe_images(SIZE)[1])
    assert merge_projections(small, "macs") == 2
