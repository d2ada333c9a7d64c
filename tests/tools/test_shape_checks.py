"""tools/shape_checks.py on runs that are only written down, every number by hand."""

import copy
import subprocess
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


def test_without_regularisers_next_to_nothing_is_skipped():
    rising = [record(keeps=("111", "111"), sparsity=0.0), record(keeps=("100", "100"), sparsity=1.0)]
    free = record(keeps=("111", "111"), sparsity=0.0, sharing=0.0)
    much = record(keeps=("111", "101"), sparsity=0.0, sharing=0.0, seed=1)
    verdict = checks.skips_rise_with_sparsity([*rising, free])
    assert verdict.measured == "0.000 at 0, 0.667 at 1; 0.000 with both lambdas 0 (1 runs)"
    assert verdict.holds is True
    verdict = checks.skips_rise_with_sparsity([*rising, free, much])  # 1 of 12 choices
    assert verdict.measured.endswith("0.083 with both lambdas 0 (2 runs)") and verdict.holds is False
    assert checks.skips_rise_with_sparsity([free]).holds is None
    verdict = checks.skips_rise_with_sparsity([much])
    assert verdict.measured.startswith("0.167 with both lambdas 0") and verdict.holds is False


def test_policies_come_near_with_sharing():
    far, near = step(2, [0.9, 0.1], [0.1, 0.5]), step(2, [0.9, 0.4], [0.8, 0.5])
    runs = [record(steps=[far], sharing=0.0), record(steps=[near], sharing=0.1)]
    verdict = checks.policies_near_with_sharing(runs)
    # rows 111 and 110: two plans
    left = "at the largest the gap is 0.100, and all tasks have one plan in 0 of 1 runs"
    assert verdict.measured == f"0.600 at 0, 0.100 at 0.1; {left}" and verdict.holds is True
    runs[1] = record(steps=[near], sharing=0.1, keeps=("110", "110"))
    assert checks.policies_near_with_sharing(runs).measured.endswith("one plan in 1 of 1 runs")
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
    assert "0.500 and 0.400 (1 pairs, random policies: 1)" in verdict.measured and verdict.holds is None
    assert "sharing.skips_of" in checks.learned_beats_random([learned, other]).measured


def test_random_plans_are_compared_where_they_were_retrained_alike():
    learned = record(0.5, keeps=("110", "111"))
    stages = ("retrain",)  # a random plan needs no search

    def random(**changed):
        made = record(0.4, keeps=("101", "111"), method="random", stages=stages, seed=3)
        made.specs["recipe"] |= changed
        return made

    assert "1 pairs" in checks.learned_beats_random([learned, random()]).measured
    for changed in (
        {"stages": [{"name": "retrain", "start": "scratch", "epochs": 1}]},
        {"optim": {"lr": 1.0}},
        {"backbone": {"name": "resnet34"}},
        {"sharing": {"method": "random", "batchnorm": "per_task"}},
    ):
        verdict = checks.learned_beats_random([learned, random(**changed)])
        assert verdict.holds is None and "the same retraining" in verdict.measured, changed


def test_five_random_policies_are_enough():
    learned = record(0.5, keeps=("1110", "1110"))
    rows = [("1101", "1110"), ("1011", "1110"), ("0111", "1110"), ("1110", "1101"), ("1110", "1011")]
    runs = [record(0.4, keeps=keeps, method="random", seed=i) for i, keeps in enumerate(rows)]
    verdict = checks.learned_beats_random([learned, *runs])
    assert verdict.measured == "0.500 and 0.400 (5 pairs, random policies: 5)" and verdict.holds is True
    better = [record(0.6, keeps=keeps, method="random", seed=i) for i, keeps in enumerate(rows)]
    assert checks.learned_beats_random([learned, *better]).holds is False
    again = record(0.4, keeps=rows[0], method="random", seed=9)  # of a plan that was there
    verdict = checks.learned_beats_random([learned, *runs[:4], again])
    assert verdict.measured.endswith("(5 pairs, random policies: 4)") and verdict.holds is None


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
    assert checks.retraining_beats_the_search([record(val={"search": 0.5, "retrain": 0.505})]).holds is False
    assert checks.retraining_beats_the_search([record(val={"search": 0.3})]).holds is None


def test_runs_with_a_budget_are_no_evidence_on_the_regularisers():
    runs = [record(keeps=("111", "111"), sparsity=0.0), record(keeps=("100", "100"), sparsity=1.0)]
    runs[1].specs["recipe"]["budget"] = {"macs": 0.8}
    assert checks.skips_rise_with_sparsity(runs).holds is None


JUNIT = """<testsuites><testsuite>
<testcase name="test_the_search_finds_the_planted_plan[0-none]"/>
<testcase name="test_the_search_finds_the_planted_plan[1-none]">{}</testcase>
<testcase name="test_the_search_finds_the_planted_plan[2-top_down]"/>
</testsuite></testsuites>"""


@pytest.mark.parametrize(
    ("inside", "measured", "holds"),
    [
        ("", "the planted plan is found in 3 of 3 searches (3 seeds)", True),
        ("<failure/>", "the planted plan is found in 2 of 3 searches (3 seeds)", False),
        (None, "the planted plan is found in 0 of 0 searches (0 seeds)", False),  # pytest did not come to it
    ],
)
def test_planted_structure_takes_a_result(monkeypatch, capsys, inside, measured, holds):
    def run(command, **how):
        assert command[1:3] == ["-m", "pytest"] and checks.PLANTED in command
        assert (how["cwd"] / checks.PLANTED).is_file()
        if inside is not None:
            Path(command[-1].removeprefix("--junitxml=")).write_text(JUNIT.format(inside))

    monkeypatch.setattr(subprocess, "run", run)
    assert checks.main(["--planted"]) == (0 if holds else 1)
    assert f"| {measured} | {'yes' if holds else 'no'} |" in capsys.readouterr().out.splitlines()[-1]


def test_something_to_check_is_asked_for(capsys):
    with pytest.raises(SystemExit):
        checks.main([])
    assert "give run folders, or --planted" in capsys.readouterr().err


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
