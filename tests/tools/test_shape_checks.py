"""tools/shape_checks.py on runs that are only written down, every number by hand."""

import copy
import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "tools"))  # scripts, not a package

import shape_checks as checks
from shape_checks import Record, Step

from tests.report.fake_run import make_run

SPECS = {
    "tasks_file": {"name": "scenes"},
    "recipe": {
        "backbone": {"name": "resnet18"},
        "sharing": {"method": "adashare", "sparsity": 0.1, "sharing": 0.1, "formulation": "paper"},
        "stages": [{"name": "warmup"}, {"name": "search"}, {"name": "retrain", "start": "scratch"}],
        "budget": None,
        "seed": 0,
    },
}


def record(
    score=0.5, keeps=("111", "110"), seed=0, method="adashare", stages=None, steps=(), val=None, **sharing
):
    specs = copy.deepcopy(SPECS)
    specs["recipe"]["seed"] = seed
    specs["recipe"]["sharing"] |= {"method": method, **sharing}
    if stages is not None:
        specs["recipe"]["stages"] = [stage for stage in specs["recipe"]["stages"] if stage["name"] in stages]
    keeps_KL = np.array([[mark == "1" for mark in row] for row in keeps])
    return Record(f"{method}-s{seed}", method, seed, specs, score, keeps_KL, tuple(steps), val)


def step(opened, *rows):
    return Step(opened, np.array(rows))


def test_warmup_first():
    runs = [record(0.6), record(0.5, seed=1), record(0.4, stages=("search", "retrain"))]
    verdict = checks.warmup_first(runs)
    assert verdict.measured == "0.550 with, 0.400 without (2 and 1 runs)" and verdict.holds is True
    assert checks.warmup_first([*runs[:2], record(0.7, stages=("search", "retrain"))]).holds is False


def test_the_policy_decides():
    searched = [step(1, [0.5, 0.9]), step(2, [0.5, 0.5]), step(2, [0.05, 0.95])]
    verdict = checks.policy_decides([record(steps=searched)])
    # the first epoch has one block open; -(0.05 log2 0.05 + 0.95 log2 0.95) = 0.286
    assert verdict.measured == "1.00 to 0.29 bits, 100% decided (1 runs)" and verdict.holds is True
    assert checks.policy_decides([record(steps=[*searched[:2], step(2, [0.3, 0.95])])]).holds is False
    assert checks.policy_decides([record(steps=searched[:2])]).holds is None


def test_skips_rise_with_sparsity():
    runs = [
        record(keeps=("111", "111"), sparsity=0.0),
        record(keeps=("111", "110"), sparsity=0.01),
        record(keeps=("111", "010"), sparsity=0.01, seed=1),
        record(keeps=("100", "100"), sparsity=1.0),
    ]
    verdict = checks.skips_rise_with_sparsity(runs)
    assert verdict.measured == "0.000 at 0, 0.250 at 0.01, 0.667 at 1" and verdict.holds is True
    runs[-1] = record(keeps=("111", "111"), sparsity=1.0)
    assert checks.skips_rise_with_sparsity(runs).holds is False
    assert checks.skips_rise_with_sparsity(runs[:1]).holds is None


def test_policies_come_near_with_sharing():
    far, near = step(2, [0.9, 0.1], [0.1, 0.5]), step(2, [0.9, 0.4], [0.8, 0.5])
    runs = [record(steps=[far], sharing=0.0), record(steps=[near], sharing=0.1)]
    verdict = checks.policies_near_with_sharing(runs)
    assert verdict.measured == "0.600 at 0, 0.100 at 0.1" and verdict.holds is True
    assert checks.policies_near_with_sharing([record(steps=[far], sharing=0.1), record(steps=[near], sharing=0.0)]).holds is False  # fmt: skip  # noqa: E501


def test_the_paper_shares_a_longer_prefix():
    runs = [record(keeps=("110", "111")), record(keeps=("110", "011"), formulation="reference_code")]
    verdict = checks.paper_shares_a_longer_prefix(runs)
    assert verdict.measured == "2.0 and 0.0 blocks" and verdict.holds is True
    assert checks.paper_shares_a_longer_prefix(runs[:1]).holds is None


def test_learned_beats_random():
    learned = record(0.5, keeps=("110", "111"))
    like = record(0.4, keeps=("101", "111"), method="random")
    other = record(0.9, keeps=("100", "111"), method="random")  # skips more
    verdict = checks.learned_beats_random([learned, like, other])
    assert verdict.measured == "0.500 and 0.400 (1 pairs)" and verdict.holds is True
    assert (
        checks.learned_beats_random([learned, record(0.6, keeps=("101", "111"), method="random")]).holds
        is False
    )
    assert checks.learned_beats_random([learned, other]).holds is None


def test_the_curriculum_holds_closed_blocks():
    verdict = checks.curriculum_holds_closed_blocks(
        [record(steps=[step(1, [0.503, 0.9]), step(2, [0.2, 0.9])])]
    )
    assert verdict.measured == "at most 0.0030 from 0.5 (1 epochs)" and verdict.holds is True
    assert checks.curriculum_holds_closed_blocks([record(steps=[step(1, [0.6, 0.9])])]).holds is False
    assert checks.curriculum_holds_closed_blocks([record(steps=[step(2, [0.6, 0.9])])]).holds is None


def test_retraining_beats_the_search():
    verdict = checks.retraining_beats_the_search([record(val={"search": 0.3, "retrain": 0.5})])
    assert verdict.measured == "0.500 and 0.300 on val (1 runs)" and verdict.holds is True
    assert checks.retraining_beats_the_search([record(val={"search": 0.5, "retrain": 0.3})]).holds is False
    assert checks.retraining_beats_the_search([record(val={"search": 0.3})]).holds is None


def test_runs_with_a_budget_are_no_evidence_on_the_regularisers():
    runs = [record(keeps=("111", "111"), sparsity=0.0), record(keeps=("100", "100"), sparsity=1.0)]
    runs[1].specs["recipe"]["budget"] = {"macs": 0.8}
    assert checks.skips_rise_with_sparsity(runs).holds is None


@pytest.mark.parametrize("check", checks.CHECKS)
def test_what_is_missing_is_told(check):
    verdict = check([record(method="hard", keeps=("111", "111"))])
    assert verdict.holds is None and verdict.measured.startswith("missing: ")


def test_from_run_folders(tmp_path, capsys):
    folders = [make_run(tmp_path / "learned"), make_run(tmp_path / "hard", "hard")]
    make_run(tmp_path / "open", upto="search")
    (tmp_path / "none").mkdir()
    assert checks.main([str(tmp_path / name) for name in ("learned", "hard", "open", "none")]) in (0, 1)
    told = capsys.readouterr()
    lines = told.out.splitlines()
    assert len(lines) == 2 + len(checks.CHECKS) and lines[0] == "| | expected | measured | holds |"
    assert "| 8 |" in lines[9] and lines[9].endswith(("| yes |", "| no |"))
    assert "open: not finished; left out" in told.err and "is not a run folder" in told.err
    assert checks.record_of(checks.read_run(folders[1])).skip_rate == 0
