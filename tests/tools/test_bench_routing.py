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
from perceptkit.runtime.timing import Spread
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
    assert sum(told["results"][1]["auto_took"].values()) == 1
    printed = capsys.readouterr().out
    assert "MACs predict a saving of" in printed and "mask" not in [
        line.split()[0] for line in printed.splitlines() if line
    ]


def found_of(saving, predicted, batch=32, executor="auto"):
    row = {"saving": {"q1": saving, "median": saving, "q3": saving}, "speedup": 1.0}
    row["achieved"] = bench_routing.achieved(Spread(saving, saving, saving), predicted)
    found = {
        "batch": batch,
        "policies": 3,
        "kept_fraction": 0.5,
        "predicted_saving": predicted,
        "router_macs": 0.02,
    }
    found |= {"full_ms": {"median": 1.0}, "auto_took": {"segments": 3, "gather": 1}}
    return found | {"executors": {executor: row, "router": row}, "host_ms": {"median": 1.0}, **row}


@pytest.mark.parametrize(
    ("saving", "predicted", "held"),
    [(0.43, 0.5, True), (0.42, 0.5, False), (-0.1, -0.05, False), (0.1, 0.0, False)],
)
def test_a_slower_model_does_not_pass(saving, predicted, held, capsys):
    """-0.1 of -0.05 would be twice what is required."""
    assert bench_routing.report("net", found_of(saving, predicted), "wall") is held
    assert bench_routing.report("net", found_of(saving, predicted, 1, "branch"), "wall") is held
    assert bench_routing.report_host(Path("run"), [found_of(saving, predicted)], "wall") is held
    printed = capsys.readouterr().out
    assert printed.count("MACs predict no saving") == (0 if predicted > 0 else 3)
    assert "took segments 3, gather 1" in printed and printed.count(": yes" if held else ": NO") == 3


def test_the_time_of_a_mask_does_not_count(capsys):
    found = found_of(0.5, 0.5) | {"auto_took": {"codebook": 9, "mask": 1}}
    assert not bench_routing.report("net", found, "wall")
    assert not bench_routing.report_host(Path("run"), [found], "wall")
    assert bench_routing.report(
        "net", found | found_of(0.5, 0.5, 1, "branch"), "wall"
    )  # branch is one executor


def test_single_executors_and_the_static_network_stand_beside_the_host(capsys):
    found, less = found_of(0.4, 0.5), found_of(0.45, 0.45)
    others = {"segments": found_of(0.3, 0.5), bench_routing.STATIC: less}
    assert bench_routing.report_host(
        Path("run"), [found | {"achieved": less["achieved"], "others": others}], "wall"
    )
    *_, segments, static, held = capsys.readouterr().out.splitlines()
    assert segments.split()[-2:] == ["0.60", "segments"] and "1.00  most frequent policy, static" in static
    assert static.endswith("(MACs predict 0.450)") and held.endswith("yes")


@torch.inference_mode()
def test_an_executor_that_computes_something_else_is_not_timed(monkeypatch):
    model, size_HW = bench_routing.build(bench_routing.NETWORKS["cifar"])
    image, table = torch.randn(2, 3, *size_HW), bench_routing.draw(2, len(model.plan.routed()), 0.5, 2, 0)
    forward = bench_routing.SkippingForward(model, executor="gather")
    bench_routing.check_outputs(model, forward, image, table)
    monkeypatch.setattr(bench_routing.executors, "gather", lambda model, image, table: model.network(image))
    with pytest.raises(SystemExit, match="gather computes something else"):
        bench_routing.check_outputs(model, forward, image, table)


def test_the_reference_is_no_result(capsys):
    with pytest.raises(SystemExit):
        bench_routing.main(["cifar", "--executors", "mask"])
    assert "invalid choice: 'mask'" in capsys.readouterr().err


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
