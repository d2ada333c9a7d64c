"""A budget in a whole run: met, refused where it cannot be, and resumed with the same bits."""

import json
import re
import signal
import subprocess
import sys

import pytest
import torch

import perceptkit as pk
from perceptkit.errors import SpecError
from perceptkit.model import cost
from perceptkit.model.plan import Plan
from perceptkit.policies.budget import Multiplier, dense_cost, run_prices
from perceptkit.spec.budget import BudgetSpec
from perceptkit.train import budgeting, loop
from perceptkit.train.budgeting import Budget, mean_qualities, relative_drop, timed_prices
from perceptkit.train.evaluate import Evaluation
from tests.model.conftest import SIZE, make_net, some_plan
from tests.train.test_ranks import CLOSE, ROUTED_DRIVER
from tests.train.test_resume import assert_same_tensors, drive, rows, state

SHORT = [
    "data.count.train=16",
    "stages.warmup.epochs=1",
    "stages.search.epochs=2",
    "stages.search.curriculum=none",
    "stages.retrain.epochs=1",
]


def train(files, out, budget, *changes):
    return pk.train(*files, out, overrides=[*SHORT, f"budget={budget}", *changes], quiet=True)


def read(run, name="budget.json"):
    return json.loads((run.path / name).read_text())


@pytest.mark.slow
def test_the_plan_of_a_run_costs_what_was_asked_for(small_run, tmp_path):
    run = train(small_run, tmp_path / "run", "{macs: 0.9}")
    found, counted = read(run), run.cost["rows"]
    assert found["kind"] == "macs" and found["is_within"] and abs(found["cost"] - 0.9) < 0.018
    assert counted["compact"]["macs"] / counted["hard_shared"]["macs"] == pytest.approx(found["cost"])
    searched = [row for row in rows(run.path) if row["kind"] == "policy"]
    assert searched[-1]["plan_cost"] == pytest.approx(found["cost"])
    assert searched[-1]["multiplier"] == found["multiplier"] != searched[0]["multiplier"]
    assert all(0.5 < row["expected_cost"] <= row["expected_cost_independent"] for row in searched)
    assert "budget: macs 0.9; the plan costs" in (run.path / "log.txt").read_text()


@pytest.mark.slow
def test_a_run_loses_no_more_than_it_may(small_run, tmp_path):
    run = train(small_run, tmp_path / "run", "{max_drop: 5%}")
    found = read(run)
    chosen = next(row for row in found["tried"] if row["cost"] == found["cost"])
    assert chosen["drop"] <= 0.05 and found["cost"] <= 1
    assert all(row["drop"] > 0.05 for row in found["tried"] if row["cost"] < found["cost"])


@pytest.mark.slow
def test_a_search_that_comes_last_ships_a_plan_within_the_budget(small_run, tmp_path):
    """The curriculum opens one block after the other: only the last epoch can meet it."""
    stages = "stages=[{name: search, epochs: 4, speed: 1, policy_fraction: 0.5, policy_lr: 0.3}]"
    out = tmp_path / "run"
    run = pk.train(
        *small_run, out, overrides=["data.count.train=16", stages, "budget={params: 0.3}"], quiet=True
    )
    counted = run.cost["rows"]
    assert counted["compact"]["params"] <= 1.02 * 0.3 * counted["hard_shared"]["params"]


@pytest.mark.slow
def test_what_is_said_of_a_plan_is_of_the_one_that_is_shipped(small_run, tmp_path, monkeypatch):
    """The best epoch on val is not the last one, and its plan is another."""
    validate, decide = loop.validate, loop.decide

    def falling(training, stage, plan):
        validate(training, stage, plan)
        return -float(training.position.epoch)

    def nothing_at_first(training, open_count):
        plan = decide(training, open_count)
        nothing = Plan.from_keep(plan.tasks, plan.blocks, [[False] * len(plan.blocks) for _ in plan.tasks])
        return plan if training.position.epoch else nothing

    monkeypatch.setattr(loop, "validate", falling)
    monkeypatch.setattr(loop, "decide", nothing_at_first)
    stages = "stages=[{name: search, epochs: 2, curriculum: none, policy_fraction: 0.5}]"
    changes = ["data.count.train=16", stages, "budget={macs: 0.9}"]
    run = pk.train(*small_run, tmp_path / "run", overrides=changes, quiet=True)
    found, counted = read(run), run.cost["rows"]
    assert counted["compact"]["macs"] / counted["hard_shared"]["macs"] == pytest.approx(found["cost"])
    assert found["cost"] < 0.7 and not found["is_within"]
    assert found["search_ended_with"] == pytest.approx(0.9, rel=0.02)
    assert f"costs {found['cost']:.3f} of a hard-shared pass" in (run.path / "log.txt").read_text()


def test_what_no_plan_can_meet_is_refused_with_what_one_can(small_run, tmp_path):
    out = tmp_path / "run"
    with pytest.raises(
        SpecError, match=r"budget.macs 0.05 cannot be met: .* is (0\.\d+) of a hard"
    ) as caught:
        train(small_run, out, "{macs: 0.05}")
    smallest = re.findall(r" is (0\.\d+) of", str(caught.value))[0]
    with pytest.raises(SpecError, match=rf"opens 2 of 4 blocks .* more epochs .* it is {smallest}"):
        train(small_run, out, f"{{macs: {smallest}}}", "stages.search.curriculum=top_down")
    with pytest.raises(SpecError, match="budget.device: 'gpu' is not there"):
        train(small_run, out, "{latency_ms: 5, device: gpu}")
    with pytest.raises(
        SpecError, match="budget.latency_ms 1e-06 cannot be met: .* ms, the smallest possible"
    ):
        train(small_run, out, "{latency_ms: 1e-06}")
    assert not out.exists()


def test_a_rehearsal_opens_all_blocks(small_run):
    pk.train(*small_run, overrides=["budget={macs: 0.7}", "stages.search.epochs=4"], dry_run=True, quiet=True)


def budget_of(net, **spec):
    prices = run_prices(net, cost.measure(net, SIZE))
    return Budget(BudgetSpec(**spec), prices, last_closed=0)


def test_limits_and_units():
    net = make_net("resnet10t")
    dense = cost.macs(
        net, Plan.all_keep(list(net.tasks), [b.name for b in net.blocks]), cost.measure(net, SIZE)
    )
    budget = budget_of(net, macs=0.7)
    assert budget.unit == dense[0] and budget.limit == pytest.approx(0.7 * dense[0])
    assert budget_of(net, max_drop=0.01).limit == dense[0]
    assert budget_of(net, latency_ms=12.0).limit == 12.0
    plan = some_plan(net)
    assert budget.cost(plan) == cost.macs(net, plan, cost.measure(net, SIZE))[0]


def test_a_checkpoint_holds_the_multiplier_and_measured_times(tmp_path):
    net = make_net("resnet10t")
    first, second = budget_of(net, latency_ms=3.0), budget_of(net, latency_ms=3.0)
    first.prices, first.multiplier = first.prices.times(2.0), Multiplier(1.5, 0.3)
    torch.save(first.state(), tmp_path / "state.pt")
    second.load(torch.load(tmp_path / "state.pt", weights_only=True))
    assert second == first


def test_times_of_the_parts_add_up_to_a_pass(monkeypatch):
    ticks = iter(range(1000, 9000, 7))
    monkeypatch.setattr(budgeting.cost, "measured_nanoseconds", lambda call, rounds: next(ticks))
    net = make_net("resnet10t")
    prices = timed_prices(net, torch.device("cpu"))
    last = next(ticks) - 7  # the pass was measured last
    assert dense_cost(prices) == pytest.approx(1e-6 * last)
    assert all(kept > 0 for kept in prices.kept_L)


def test_drop_by_hand():
    full_K, quality_K = torch.tensor([0.5, 0.8, 0.0]), torch.tensor([0.4, 0.88, 0.3])
    # (0.2 - 0.1) / 2; a task without any quality has none to lose
    assert relative_drop(quality_K, full_K) == pytest.approx(0.05)
    assert relative_drop(quality_K, torch.zeros(3)) == 0


def test_mean_qualities_leave_out_what_has_no_label():
    nan = float("nan")
    found = Evaluation({}, 0.0, torch.tensor([[0.5, nan], [1.0, nan], [nan, nan]]))
    assert mean_qualities(found, torch.device("cpu")).tolist() == [0.75, 0.0]


@pytest.mark.slow
def test_killed_in_the_search_and_resumed_bit_for_bit(small_run, tmp_path):
    tasks, recipe = small_run
    recipe.write_text(recipe.read_text().replace("stages:", "budget: {macs: 0.9}\nstages:"))
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert drive((tasks, recipe), whole) == 0
    for step in (17, 29):  # in policy turns of the first and the last epoch of the search
        assert drive((tasks, recipe), killed, step, 0.0) == -signal.SIGKILL
    assert drive((tasks, recipe), killed) == 0
    assert_same_tensors(state(whole, "last.pt"), state(killed, "last.pt"))
    for name in ("policy.json", "budget.json", "artifact/model.safetensors"):
        assert (whole / name).read_bytes() == (killed / name).read_bytes(), name


@pytest.mark.slow
def test_two_ranks_keep_the_budget_as_one(small_run, tmp_path):
    driver = tmp_path / "driver.py"
    driver.write_text(ROUTED_DRIVER, encoding="utf-8")
    one, two = tmp_path / "one", tmp_path / "two"
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    for launch, run, batch in (([], one, 4), (torchrun, two, 2)):
        changes = [*SHORT, "budget={macs: 0.9}", f"loader.batch={batch}"]
        arguments = [sys.executable, *launch, str(driver), *map(str, small_run), str(run), *changes]
        subprocess.run(arguments, check=True, timeout=300)
    ours, theirs = ([row for row in rows(run) if row["kind"] == "policy"] for run in (one, two))
    for key in ("multiplier", "expected_cost", "plan_cost"):
        values = [[row[key] for row in found] for found in (ours, theirs)]
        assert values[1] == pytest.approx(values[0], rel=CLOSE), key
    assert (one / "policy.json").read_bytes() == (two / "policy.json").read_bytes()
