"""tools/bench.py: quartiles and pairs by hand, equal networks only, a tiny run with its JSON."""

import json
import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[2] / "tools"))  # scripts, not a package

import bench
from plain_nets import UntouchedNet, fold

from perceptkit.compact.build import compact_and_fold
from perceptkit.model.plan import Plan


@pytest.mark.parametrize(
    "backbone",
    [
        "resnet18",
        pytest.param("tf_efficientnet_lite0", marks=pytest.mark.slow),
        pytest.param("vit_tiny_patch16_224", marks=pytest.mark.slow),
    ],
)
def test_networks_by_hand_compute_the_same(backbone):
    setup = bench.Setup(backbone, size=64, batch=1, rounds=1, warmup=0, clock="wall")
    net = bench.make_supernet(setup)
    plan, skipped = bench.published(net)
    image = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = net(image, plan)
        bench.same(expected, bench.make_plain(setup, net, skipped)(image))
        bench.same(expected, fold(bench.make_plain(setup, net, skipped))(image))
        bench.same(expected, compact_and_fold(net, plan, (64, 64))(image))
        everything = net(image, Plan.all_keep(plan.tasks, plan.blocks))
        bench.same(everything, bench.make_plain(setup, net, kind=UntouchedNet)(image))
        with pytest.raises(AssertionError):
            bench.same(expected, everything)


def test_published_policy():
    setup = bench.Setup("resnet34", size=32, batch=1, rounds=1, warmup=0, clock="wall")
    plan, skipped = bench.published(bench.make_supernet(setup))
    assert skipped == {"seg": {6}, "normals": {9, 10, 11}, "depth": {5, 10, 11}}
    assert sum(row.count("skip") for row in plan.table) == 7


@pytest.mark.slow
def test_a_tiny_run(tmp_path, capsys):
    out = tmp_path / "found.json"
    threads = torch.get_num_threads()
    arguments = ["gating", "search-step", "--size", "32", "--batch", "2", "--rounds", "2"]
    code = bench.main([*arguments, "--warmup", "0", "--clock", "cpu", "--out", str(out)])
    torch.set_num_threads(threads)
    told = json.loads(out.read_text())
    assert [found["benchmark"] for found in told["results"]] == ["gating", "search-step"]
    assert {"commit", "torch", "device", "threads", "date"} <= told["meta"].keys()
    ratios = [ratio for found in told["results"] for ratio in found["ratios"]]
    assert all(ratio["q1"] <= ratio["median"] <= ratio["q3"] for ratio in ratios)
    assert code == int(any(ratio["median"] < ratio["at_least"] for ratio in ratios))
    printed = capsys.readouterr().out
    assert "gated over untouched, training" in printed and "1 thread(s), cpu time" in printed
