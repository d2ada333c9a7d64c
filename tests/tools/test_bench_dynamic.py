"""tools/bench_dynamic.py: what passes and what does not, hosts that cannot be compared, arguments."""

import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[2] / "tools"))  # scripts, not a package

import bench_dynamic

from perceptkit.compact.build import write_artifact
from perceptkit.compact.route_cost import RouteCost
from perceptkit.errors import SpecError
from perceptkit.runtime.timing import Spread
from tests.compact.conftest import manifest_of, network, plan_of


@pytest.mark.parametrize(
    ("saving", "macs", "fraction", "held"),
    [(0.45, 0.5, 0.9, True), (0.4, 0.5, 0.8, False), (-0.1, 1.05, None, False), (0.1, 1.0, None, False)],
)
def test_a_slower_file_does_not_pass(saving, macs, fraction, held):
    """-0.1 of -0.05 would be twice what is required."""
    row = bench_dynamic.judged(Spread(saving, saving, saving), macs, is_held=True)
    assert row["fraction"] == (None if fraction is None else pytest.approx(fraction)) and row["held"] is held
    printed = bench_dynamic.in_words(row)
    assert printed.endswith("yes" if held else "NO") and ("no saving" in printed) == (macs >= 1)
    free = bench_dynamic.judged(Spread(saving, saving, saving), macs, is_held=False)
    assert free["held"] is None and "at least" not in bench_dynamic.in_words(free)


def test_predicted_by_hand():
    """Of 10 + 20 + 30 MACs, the router 6: all of one picture and the first block of another."""
    cost = RouteCost(always=10, added_R=(20, 30), router=6)
    keep = torch.tensor([[True, True], [True, False]])
    assert bench_dynamic.predicted(cost, keep) == pytest.approx((10 + 35 + 6) / 60)


@torch.no_grad()
def test_the_host_must_be_the_same_but_for_skipping(tmp_path):
    chosen = ("seg", "depth", "room")
    net = network(chosen=chosen)
    plan = plan_of(net, "all")
    whole = manifest_of(net, plan)
    write_artifact(tmp_path / "host", net, whole)
    less = replace(whole, plan=plan_of(net, "none"), host=plan)  # its router skipped all that can be
    host, macs = bench_dynamic.everything_of(whole, tmp_path / "host")
    assert list(host.net.tasks) == list(chosen) and macs == whole.size["macs"]
    assert bench_dynamic.everything_of(less, None)[1] == macs
    with pytest.raises(SpecError, match="has other tasks, or takes pictures of another size"):
        bench_dynamic.everything_of(replace(whole, size_HW=(96, 96)), tmp_path / "host")
    with pytest.raises(SpecError, match="has other tasks"):
        bench_dynamic.everything_of(whole.only(["seg"]), tmp_path / "host")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--host", "x"], "are for an --artifact"),
        (["resnet"], "is none of cifar"),
        (["--ways", "mask"], "invalid"),
    ],
)
def test_refused(arguments, message, capsys):
    with pytest.raises(SystemExit):
        bench_dynamic.main(arguments)
    assert message in capsys.readouterr().err
