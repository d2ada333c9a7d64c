"""A sweep of budgets: one warm-up, a run for each, a curve; what is finished is not trained again."""

import json

import pytest

import perceptkit as pk
from perceptkit.cli import main
from perceptkit.errors import SpecError
from perceptkit.spec.load import load_recipe, load_tasks
from perceptkit.train.session import Specs, make_fabric
from perceptkit.train.sweeping import out_of_reach
from tests.train.test_budgeting import SHORT


def test_what_is_no_sweep_is_refused(small_run, tmp_path, capsys):
    tasks, recipe = small_run
    out = tmp_path / "sweep"
    for budgets, message in (
        ([0.9, -1.0], "numbers above 0"),
        ([0.9, 0.9], "the same budget is given twice"),
        ([0.04, 0.05], "budget.macs 0.05 cannot be met"),  # the nearest of them to what can be
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


def test_norms_of_each_task_have_no_budget_to_sweep(small_run, tmp_path):
    tasks, recipe = small_run
    with pytest.raises(
        SpecError, match="per_task leaves no activation that tasks share, which a budget counts"
    ):
        pk.sweep_budgets(tasks, [0.9], recipe, tmp_path / "sweep", [*SHORT, "sharing.batchnorm=per_task"])
    assert not (tmp_path / "sweep").exists()


def test_what_no_plan_can_meet_is_no_reason_to_refuse_the_rest(small_run, tmp_path):
    told, declared = [], {}
    for budget in (0.9, 0.06, 0.05):
        loaded = [
            load_tasks(str(small_run[0]), []),
            load_recipe(str(small_run[1]), [f"budget={{macs: {budget}}}"]),
        ]
        declared[f"macs_{budget}"] = Specs(*(one.spec for one in loaded), *(one.text for one in loaded))
    fabric = make_fabric(declared["macs_0.9"].recipe)
    found = out_of_reach(declared, tmp_path, fabric, told.append)
    assert found.budgets == {"macs_0.05": 0.05, "macs_0.06": 0.06} and 0.06 < found.least < 0.9
    assert [line.split(" cannot")[0] for line in told] == ["budget.macs 0.05", "budget.macs 0.06"]
    assert all(f"{found.least:g} of a hard-shared pass" in line for line in told)
    assert all(line.endswith("the sweep goes on without it") for line in told)
    assert out_of_reach({"macs_0.9": declared["macs_0.9"]}, tmp_path, fabric, told.append) is None
    (tmp_path / "macs_0.05").mkdir()
    (tmp_path / "macs_0.05/resolved.yaml").touch()  # begun: it was judged then
    assert list(out_of_reach(declared, tmp_path, fabric, told.append).budgets) == ["macs_0.06"]
    with pytest.raises(SpecError, match="budget.macs 0.06 cannot be met"):
        out_of_reach({"macs_0.06": declared["macs_0.06"]}, tmp_path, fabric, told.append)


@pytest.mark.slow
def test_runs_are_what_they_would_be_alone(small_run, tmp_path, capsys):
    tasks, recipe = map(str, small_run)
    out, alone = tmp_path / "sweep", tmp_path / "alone"
    command = ["train", tasks, "--recipe", recipe, "--out", str(out), "--set", *SHORT]
    assert main([*command, "--budget-sweep", "0.05", "0.8", "1.0"]) == 0
    printed, warned = capsys.readouterr()
    assert "warning: budget.macs 0.05 cannot be met" in warned
    assert "0.05 cannot be reached (least 0." in printed and not (out / "macs_0.05").exists()
    assert "| budget: macs" in printed and str(out / "sweep.png") in printed
    pk.train(tasks, recipe, alone, overrides=[*SHORT, "budget={macs: 1.0}"], quiet=True)
    for name in ("artifact/model.safetensors", "policy.json", "budget.json"):
        assert (out / "macs_1" / name).read_bytes() == (alone / name).read_bytes(), name
    curve = json.loads((out / "sweep.json").read_text())
    assert [point["budget"] for point in curve["points"]] == [0.8, 1.0]
    assert curve["unreached"] == [0.05] and 0.05 < curve["least"] < 0.8
    assert (out / "sweep.png").read_bytes().startswith(b"\x89PNG")

    before = (out / "macs_0.8/results.json").stat().st_mtime_ns
    assert main([*command, "--budget-sweep", "0.8", "1.0", "0.9", "--resume"]) == 0
    assert (out / "macs_0.8/results.json").stat().st_mtime_ns == before
    curve = json.loads((out / "sweep.json").read_text())
    assert [point["budget"] for point in curve["points"]] == [0.8, 0.9, 1.0]
    assert curve["unreached"] == []
