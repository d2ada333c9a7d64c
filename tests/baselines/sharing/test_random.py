"""A random plan has the number of skips that was asked for, anywhere, and is the one that is trained."""

import json

import pytest
import torch

from perceptkit import api
from perceptkit.baselines.sharing.random import random_plan, random_plan_like
from perceptkit.errors import SpecError
from perceptkit.model.plan import Plan
from tests.baselines.sharing.conftest import run_to_the_end

TASKS, BLOCKS = ("a", "b"), ("x", "y", "z")


def drawn(seed, skips=2):
    return random_plan(TASKS, BLOCKS, skips, torch.Generator().manual_seed(seed))


def skipped(plan):
    return sum(choice == "skip" for row in plan.table for choice in row)


@pytest.mark.parametrize("skips", range(6))
def test_the_number_is_met(skips):
    assert skipped(drawn(0, skips)) == skips


def test_every_pair_is_reached_alike():
    """600 draws of 2 of 6 pairs: each is skipped 200 times, sd 11.5."""
    counts = torch.zeros(2, 3)
    for seed in range(600):
        counts += 1 - torch.tensor([drawn(seed).row(task) for task in TASKS]).float()
    assert counts.sum() == 1200 and ((counts - 200).abs() < 4 * 11.6).all()


def test_the_same_seed_draws_the_same():
    assert drawn(3) == drawn(3) and len({drawn(seed).table for seed in range(20)}) > 5


def test_as_many_per_task_as_in_another_plan():
    like = Plan.from_keep(TASKS, BLOCKS, [[True, False, False], [True, True, True]])
    tables = set()
    for seed in range(20):
        plan = random_plan_like(like, ("p", "q", "r"), torch.Generator().manual_seed(seed))
        assert [sum(plan.row(task)) for task in TASKS] == [1, 3] and plan.blocks == ("p", "q", "r")
        tables.add(plan.table)
    assert len(tables) == 3


def test_refusals():
    with pytest.raises(SpecError, match=r"skips: 6 would skip everything: 2 tasks with 3 blocks each are 6"):
        drawn(0, 6)
    with pytest.raises(SpecError, match="its policy has 3 blocks, this backbone has 2"):
        random_plan_like(Plan.all_keep(TASKS, BLOCKS), BLOCKS[:2], torch.Generator())


@pytest.mark.slow
def test_a_run_and_one_that_counts_in_it(small_run, tmp_path):
    run = run_to_the_end(small_run, tmp_path / "run", "random", "skips: 7")
    plan = Plan.from_json((run.path / "policy.json").read_text())
    assert skipped(plan) == 7 and skipped(api.load(run.path).manifest.plan) == 7
    assert run.cost["rows"]["compact"]["macs"] != run.cost["rows"]["hard_shared"]["macs"]

    stages = [
        "stages=[{name: warmup, epochs: 1}, {name: retrain, epochs: 1}]",
        "data.count.train=8",
        "seed=5",
    ]
    like = ["sharing={method: random, skips_of: %s}" % run.path, *stages]  # noqa: UP031  # braces
    other = api.train(*small_run, tmp_path / "other", overrides=like, quiet=True)
    again = Plan.from_json((other.path / "policy.json").read_text())
    assert [sum(again.row(task)) for task in plan.tasks] == [sum(plan.row(task)) for task in plan.tasks]
    assert again.table != plan.table
    rows = [json.loads(line) for line in (other.path / "metrics.jsonl").read_text().splitlines()]
    assert {row["stage"] for row in rows} == {"warmup", "retrain"}
    page = api.report(other.path, [run.path]).read_text(encoding="utf-8")
    assert "random plan" in page


def test_too_many_skips_are_refused_before_anything_is_written(small_run, tmp_path):
    changes = ["sharing={method: random, skips: 24}", "stages=[{name: retrain, epochs: 1}]"]
    with pytest.raises(SpecError, match=r"sharing.skips: 24 would skip everything"):
        api.train(*small_run, tmp_path / "run", overrides=changes, quiet=True)
    assert not (tmp_path / "run").exists()
