"""One task out of a compact model: the same numbers from its own path alone."""

import json
from dataclasses import replace

import pytest
import torch

from perceptkit.compact import build
from perceptkit.compact.build import compact_and_fold
from perceptkit.compact.export import export_network
from perceptkit.compact.per_task import single_task
from perceptkit.errors import ExportError
from perceptkit.model import cost
from perceptkit.model.blocks import num_params
from perceptkit.model.cost import measured_macs
from tests.compact.conftest import SIZE, compacted, manifest_of, network, plan_of


@pytest.mark.parametrize("task", ["seg", "points", "room"])
def test_same_numbers_with_less(task):
    whole, manifest = compacted()
    small, narrow = single_task(whole, manifest, task)
    image = torch.randn(2, 3, *SIZE)
    with torch.no_grad():
        got, expected = small(image), whole(image)
    assert list(got) == [task] and torch.allclose(got[task], expected[task], atol=1e-5)
    assert num_params(small) < num_params(whole)
    assert list(narrow.tasks) == list(narrow.plan.tasks) == [task] and narrow.name == f"tiny_{task}"


def test_the_cost_is_that_of_the_path():
    whole, manifest = compacted()
    small, narrow = single_task(whole, manifest, "room")
    macs = measured_macs(lambda: small(torch.zeros(1, 3, *SIZE)))
    assert narrow.written == narrow.size == {"params": num_params(small), "macs": macs}
    assert macs == manifest.cost["per_task_macs"]["room"] == narrow.cost["rows"]["compact"]["macs"]
    assert narrow.cost["per_task_macs"] == {"room": macs}
    rows, net = narrow.cost["rows"], network(chosen=("room",))
    assert (
        rows["single_task_nets"] == rows["hard_shared"]
        and rows["compact"]["macs"] < rows["hard_shared"]["macs"]
    )
    assert rows["hard_shared"] == cost.table(net, plan_of(net, "none"), SIZE)["rows"]["hard_shared"]
    assert not any("neck" in name for name in small.state_dict())


def test_a_net_of_its_own_is_taken_as_it_is():
    nets = network(method="single", chosen=("seg", "room"))
    plan = plan_of(nets, "all")
    whole, manifest = compact_and_fold(nets, plan, SIZE), manifest_of(nets, plan, method="single")
    small, _ = single_task(whole, manifest, "room")
    image = torch.randn(1, 3, *SIZE)
    assert torch.equal(small(image)["room"], whole(image)["room"])


def test_as_an_artifact(tmp_path):
    small, narrow = single_task(*compacted(), "seg")
    path = export_network(small, narrow, tmp_path / "artifact_seg", "artifact")
    again, read = build.read(path)
    assert list(read.tasks) == ["seg"] and read.metrics == {
        "seg": {"type": "segmentation", "metrics": {"miou": 0.25}}
    }
    image = torch.randn(1, 3, *SIZE)
    assert torch.equal(again(image)["seg"], small(image)["seg"])
    assert list(json.loads((path / "labels.json").read_text())) == ["seg"]


def test_a_network_of_another_plan():
    whole, manifest = compacted()
    net = network(chosen=("seg", "room"))
    with pytest.raises(ExportError, match="cannot be taken out: it is arranged in another way"):
        single_task(compact_and_fold(net, plan_of(net, "none"), SIZE), manifest, "seg")
    other = replace(manifest, plan=plan_of(network(), lambda k, b: (k + b) % 3 == 0))
    with pytest.raises(ExportError, match="cannot be taken out"):
        single_task(whole, other, "seg")


@pytest.mark.slow
@pytest.mark.parametrize("optimize", ["latency", "size", "none"])
@pytest.mark.parametrize("keep", ["mixed", "none", "first"])
def test_every_task_of_every_arrangement_is_an_artifact_of_its_own(tmp_path, optimize, keep):
    """Fused heads are taken apart again, and projections merged that only the other tasks kept apart."""
    net = network()
    plan = plan_of(net, keep)
    whole = compact_and_fold(net, plan, SIZE, optimize)
    manifest = replace(manifest_of(net, plan), optimize=optimize)
    image = torch.randn(1, 3, *SIZE)
    for task in manifest.tasks:
        small, narrow = single_task(whole, manifest, task)
        again, _ = build.read(export_network(small, narrow, tmp_path / task, "artifact"))
        with torch.no_grad():
            assert torch.allclose(again(image)[task], whole(image)[task], atol=1e-5), task
