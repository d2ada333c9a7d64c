"""Separate timm nets: run by timm alone, equal to the supernets that keep all blocks, refused where they are not."""

import copy

import pytest
import torch
from torch import nn

from perceptkit.compact import build
from perceptkit.compact.verify import probe_images
from perceptkit.errors import ExportError, SpecError
from perceptkit.model import cost
from perceptkit.model.plan import Plan
from perceptkit.runtime import bare_nets as module
from perceptkit.runtime.bare_nets import BareNet, bare_nets
from perceptkit.runtime.variants import GATED_NETS, TITLES, open_variant
from tests.compact.conftest import SIZE, block_names, manifest_of, network, plan_of

CHOSEN = ("seg", "points", "room")


def nets(name="test_resnet"):
    """A copy, to be changed freely."""
    return copy.deepcopy(network(name, "single", CHOSEN))


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [
        "test_resnet",
        "test_vit",
        "test_convnext",
        "cifar10_resnet8",
        *(
            pytest.param(n, marks=pytest.mark.slow)
            for n in ("tf_efficientnet_lite0", "regnety_002", "pvt_v2_b0", "edgenext_xx_small")
        ),
    ],
)
def test_outputs_are_those_of_the_supernets_that_keep_all(name):
    gated = nets(name)
    bare, reason = bare_nets(gated.by_task())
    assert reason == "" and [net.task for net in bare.nets] == list(gated.tasks)
    image = torch.randn(2, 3, *SIZE, generator=torch.Generator().manual_seed(5))
    everything = Plan.all_keep(list(gated.tasks), block_names(gated))
    with torch.no_grad():
        expected, got = gated(image, everything), bare(image)
    assert list(got) == list(expected)
    for task, value in expected.items():
        assert (got[task] - value).abs().max() <= 1e-5 * value.abs().max(), task
    assert bare.state_dict().keys() and sum(p.numel() for p in bare.parameters()) == sum(
        p.numel() for p in gated.parameters()
    )
    one = torch.zeros(1, 3, *SIZE)
    assert cost.measured_macs(lambda: bare(one)) == cost.measured_macs(lambda: gated(one, everything))


def test_the_trunk_is_run_by_timm_s_own_methods_and_by_nothing_of_the_supernet(monkeypatch):
    gated = nets()
    bare, _ = bare_nets(gated.by_task())
    called = []
    for net in bare.nets:
        for method in ("forward_intermediates", "forward_features"):
            real = getattr(net.trunk, method)
            monkeypatch.setattr(
                net.trunk,
                method,
                lambda *a, real=real, said=(net.task, method), **k: (called.append(said), real(*a, **k))[1],
            )

    def forbidden(*arguments):
        raise AssertionError("run step by step")

    monkeypatch.setattr("perceptkit.model.supernet.run_part", forbidden)
    monkeypatch.setattr(module, "run_part", forbidden)
    bare(torch.zeros(1, 3, *SIZE))
    first = [next(said for said in called if said[0] == task) for task in gated.tasks]
    assert first == [
        (task, "forward_intermediates" if made.dense else "forward_features")
        for task, made in gated.tasks.items()
    ]


def test_the_neck_reads_the_last_map_of_each_stride():
    (net, *_) = nets().by_task().values()
    assert BareNet(net).taken["indices"] == [1, 2, 3, 4]  # 0 is the stem, at stride 2
    (net, *_) = nets("test_vit").by_task().values()
    assert BareNet(net).taken["norm"]  # a ViT's last step is its norm


def test_other_features_are_refused(monkeypatch):
    (net, *_) = nets().by_task().values()
    real = net.backbone.forward_intermediates
    monkeypatch.setattr(net.backbone, "forward_intermediates", lambda *a, **k: [2 * y for y in real(*a, **k)])
    with pytest.raises(SpecError, match="does not give the features that the neck reads"):
        BareNet(net)


def test_a_head_that_computes_something_else_is_refused(monkeypatch):
    net = nets().by_task()["room"]
    real = net.backbone.forward_features
    monkeypatch.setattr(net.backbone, "forward_features", lambda image: 1.01 * real(image))
    with pytest.raises(ExportError, match="the bare timm net does not reproduce .*room"):
        BareNet(net)


@pytest.mark.parametrize("name", ["test_resnet", pytest.param("decathlon_resnet26", marks=pytest.mark.slow)])
def test_the_row_says_what_was_timed(tmp_path, name):
    """decathlon_resnet26 has no forward_intermediates."""
    net = network(name, chosen=CHOSEN)
    build.write_artifact(tmp_path, net, manifest_of(net, plan_of(net, "mixed"), name))
    variant = open_variant("single_nets", tmp_path)
    if name == "test_resnet":
        assert variant.title == TITLES["single_nets"] and "timm" in variant.title and variant.note == ""
    else:
        assert variant.title == GATED_NETS and variant.note.startswith("not bare timm nets: timm's forward_")
    one = torch.zeros(1, 3, *SIZE)
    assert cost.measured_macs(lambda: variant.forward(one)) == variant.macs
    assert list(variant.forward(probe_images(SIZE)[1])) == list(net.tasks)


def test_supernets_stand_in_and_are_called_so(tmp_path, monkeypatch):
    net = network(chosen=CHOSEN)
    build.write_artifact(tmp_path, net, manifest_of(net, plan_of(net, "mixed")))
    monkeypatch.setattr("perceptkit.runtime.variants.bare_nets", lambda nets: (None, "it has none"))
    variant = open_variant("single_nets", tmp_path)
    assert (variant.title, variant.note) == (GATED_NETS, "not bare timm nets: it has none")
    one = torch.zeros(1, 3, *SIZE)
    assert cost.measured_macs(lambda: variant.forward(one)) == variant.macs


def test_a_trunk_without_timm_s_methods_is_no_bare_net(monkeypatch):
    made = nets().by_task()
    net = made["room"]
    monkeypatch.setattr(type(net.backbone), "forward_features", property(lambda self: nn.Module().missing))
    bare, reason = bare_nets({"room": net})
    assert bare is None and reason
