"""What all methods with a trunk per task have in common."""

import pytest
import torch

from perceptkit.baselines.sharing.columns import channel_axes, own_share
from perceptkit.errors import SpecError
from perceptkit.model import cost
from perceptkit.model.blocks import num_params
from perceptkit.spec.recipe import OptimSpec
from perceptkit.train.optim import parameter_groups
from tests.baselines.sharing.conftest import (
    CHOSEN,
    SIZE,
    all_kept,
    answer,
    make,
    noise,
    refuse_another_compact_model,
)

SOFT = ("cross_stitch", "nddr", "sluice")


def test_shares_at_the_start_by_hand():
    torch.testing.assert_close(
        own_share(3), torch.tensor([[0.9, 0.05, 0.05], [0.05, 0.9, 0.05], [0.05, 0.05, 0.9]])
    )
    assert own_share(1).tolist() == [[1.0]]


@pytest.mark.slow
@pytest.mark.parametrize("method", SOFT)
@pytest.mark.parametrize("name", ["test_resnet", "test_vit", "test_convnext", "swin_tiny_patch4_window7_224"])
def test_any_trunk(method, name):
    net = make(method, name, chosen=("seg", "room"))
    outputs = answer(net, noise(1))
    assert set(outputs) == {"seg", "room"} and all(out.isfinite().all() for out in outputs.values())
    assert len(net.ends) >= 2


@pytest.mark.parametrize(
    "name, axis", [("test_resnet", 1), ("test_vit", -1), ("swin_tiny_patch4_window7_224", -1)]
)
def test_channels_are_found(name, axis):
    net = make("hard", name, chosen=("seg",))
    assert set(channel_axes(net, [len(net.steps) - 1])) == {axis}


@pytest.mark.parametrize("method", SOFT)
def test_cost_is_that_of_the_nets_and_the_units(method):
    net = make(method)
    rows = cost.table(net, all_kept(net), SIZE)["rows"]
    nets = sum(num_params(column) for column in net.columns())
    assert rows["compact"]["params"] == nets + num_params(net.units) == num_params(net)
    assert rows["single_task_nets"]["params"] == nets
    assert rows["compact"]["macs"] >= rows["single_task_nets"]["macs"]
    assert rows["hard_shared"]["backbone_macs"] * 3 == rows["single_task_nets"]["backbone_macs"]


@pytest.mark.parametrize("method", SOFT)
def test_the_compact_model(method):
    refuse_another_compact_model(make(method))


@pytest.mark.parametrize("method", SOFT)
def test_one_task_reads_all_columns(method):
    net = make(method)
    part = net.only(["seg"])
    assert torch.equal(answer(part, noise())["seg"], answer(net, noise())["seg"])
    with torch.no_grad():
        for parameter in net.columns()[2].backbone.parameters():
            parameter.mul_(0.5)
    assert not torch.equal(answer(part, noise())["seg"], answer(net, noise())["seg"])


@pytest.mark.parametrize("method", SOFT)
def test_every_weight_learns_from_every_task(method):
    net = make(method).train()
    net(noise(), all_kept(net))["room"].square().sum().backward()
    for column in net.columns():
        assert next(column.backbone.parameters()).grad.abs().sum() > 0
    assert all(p.grad is not None for p in net.units[0].parameters()) or method == "nddr"


def test_one_task_alone_is_its_own_net():
    net = make("cross_stitch", chosen=("seg",))
    expected = answer(net.columns()[0], noise())["seg"]
    torch.testing.assert_close(answer(net, noise())["seg"], expected)


def test_units_have_a_learning_rate_of_their_own_and_mixtures_no_decay():
    spec = OptimSpec(weight_decay=0.1)
    for method, decayed in (("cross_stitch", set()), ("sluice", {4}), ("nddr", {4})):
        net = make(method, unit_lr_scale=10)
        units = {id(p) for p in net.units.parameters()}
        groups = [g for g in parameter_groups(net, spec) if g["lr_scale"] == 10]
        assert {id(p) for group in groups for p in group["params"]} == units
        assert {p.ndim for group in groups if group["weight_decay"] for p in group["params"]} == decayed


def test_per_task_files_are_refused(tmp_path):
    from perceptkit.compact.per_task import refuse_columns
    from perceptkit.compact.whole import WholeNet
    from perceptkit.errors import ExportError

    class Told:
        method = "nddr"

    with pytest.raises(
        ExportError, match="sharing.method nddr the trunk of every task reads those of the others"
    ):
        refuse_columns(WholeNet(make("nddr")), Told())
    assert CHOSEN == WholeNet(make("mtan")).tasks


def test_odd_channels_have_no_halves():
    from perceptkit.baselines.sharing.sluice import SluiceUnit

    with pytest.raises(SpecError, match="halves the channels of every stage, and one has 7"):
        SluiceUnit(2, 7, 1)
