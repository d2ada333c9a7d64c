"""tools/bench_routing.py: decisions with the rate asked for, MACs that fall with them, a tiny run with its JSON."""

import json
import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[2] / "tools"))  # scripts, not a package

import bench_routing

from perceptkit.compact.build import write_artifact
from perceptkit.errors import SpecError
from tests.compact.conftest import manifest_of, network, plan_of


def test_decisions_have_the_rate_and_the_number_of_policies():
    table = bench_routing.draw(32, 16, keep=0.75, policies=4, seed=0)
    assert len(table) == 32 and len(set(table)) == 4
    assert {sum(policy) for policy in table} == {12}
    assert bench_routing.draw(32, 16, 0.75, 4, seed=0) == table != bench_routing.draw(32, 16, 0.75, 4, seed=1)


@torch.no_grad()
def test_macs_predict_the_saving():
    model, size_HW = bench_routing.build(bench_routing.NETWORKS["cifar"])
    macs = bench_routing.Macs(model, size_HW)
    count = len(model.plan.routed())
    assert macs.saving(((True,) * count,)) == pytest.approx(-macs.router / macs.full)
    none = macs.saving(((False,) * count,))
    assert 0.9 < none < 1  # the first convolution and the router are left
    half = macs.saving(((True,) * count, (False,) * count))
    assert half == pytest.approx((none - macs.router / macs.full) / 2)


@pytest.mark.slow
def test_a_tiny_run(tmp_path, capsys):
    out = tmp_path / "found.json"
    threads = torch.get_num_threads()
    arguments = [
        "cifar",
        "--batch",
        "1",
        "2",
        "--rounds",
        "2",
        "--draws",
        "1",
        "--clock",
        "cpu",
        "--out",
        str(out),
    ]
    code = bench_routing.main(arguments)
    torch.set_num_threads(threads)
    told = json.loads(out.read_text())
    assert [found["batch"] for found in told["results"]] == [1, 2]
    assert "branch" in told["results"][0]["executors"] and "branch" not in told["results"][1]["executors"]
    assert code == int(
        told["results"][0]["executors"]["branch"]["achieved"]["median"] < bench_routing.REQUIRED
    )
    assert "MACs predict a saving of" in capsys.readouterr().out


def test_an_artifact_without_a_router_is_refused(tmp_path):
    net = network()
    write_artifact(tmp_path / "artifact", net, manifest_of(net, plan_of(net, "all")))
    with pytest.raises(SpecError, match="has no router"):
        bench_routing.open_artifact(tmp_path / "artifact")


@pytest.mark.parametrize("arguments", [[], ["--host", "x"]])
def test_nothing_to_measure(arguments, capsys):
    with pytest.raises(SystemExit):
        bench_routing.main(arguments)
    assert "rtifact" in capsys.readouterr().err
