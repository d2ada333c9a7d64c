"""A sweep of budgets: one warm-up, a run for each, a curve; what is finished is not trained again."""

import json

import pytest

import perceptkit as pk
from perceptkit.cli import main
from perceptkit.errors import SpecError
from tests.train.test_budgeting import SHORT


def test_what_is_no_sweep_is_refused(small_run, tmp_path, capsys):
    tasks, recipe = small_run
    out = tmp_path / "sweep"
    for budgets, message in (
        ([0.9, -1.0], "numbers above 0"),
        ([0.9, 0.9], "the same budget is given twice"),
        ([0.9, 0.05], "budget.macs 0.05 cannot be met"),
    ):
        with pytest.raises(SpecError, match=message):
            pk.sweep_budgets(tasks, budgets, recipe, out, SHORT)
    with pytest.raises(SpecError, match="nothing to resume"):
        pk.sweep_budgets(tasks, [0.9], recipe, out, SHORT, resume=True)
    assert not out.exists()
    assert main(["train", "--resume", "--out", str(out), "--budget-sweep", "0.9"]) == 2
    assert "--budget-sweep wants the tasks file" in capsys.readouterr().err
    assert main(["train", str(tasks), "--dry-run", "--budget-sweep", "0.9"]) == 2
    assert "drop --budget-sweep" in capsys.readouterr().err


@pytest.mark.slow
def test_runs_are_what_they_would_be_alone(small_run, tmp_path, capsys):
    tasks, recipe = map(str, small_run)
    out, alone = tmp_path / "sweep", tmp_path / "alone"
    command = ["train", tasks, "--recipe", recipe, "--out", str(out), "--set", *SHORT]
    assert main([*command, "--budget-sweep", "0.8", "1.0"]) == 0
    printed = capsys.readouterr().out
    assert "| budget: macs" in printed and str(out / "sweep.png") in printed
    pk.train(tasks, recipe, alone, overrides=[*SHORT, "budget={macs: 1.0}"], quiet=True)
    for name in ("artifact/model.safetensors", "policy.json", "budget.json"):
        assert (out / "macs_1" / name).read_bytes() == (alone / name).read_bytes(), name
    curve = json.loads((out / "sweep.json").read_text())
    assert [point["budget"] for point in curve["points"]] == [0.8, 1.0]
    assert (out / "sweep.png").read_bytes().startswith(b"\x89PNG")

    before = (out / "macs_0.8/results.json").stat().st_mtime_ns
    assert main([*command, "--budget-sweep", "0.8", "1.0", "0.9", "--resume"]) == 0
    assert (out / "macs_0.8/results.json").stat().st_mtime_ns == before
    curve = json.loads((out / "sweep.json").read_text())
    assert [point["budget"] for point in curve["points"]] == [0.8, 0.9, 1.0]
