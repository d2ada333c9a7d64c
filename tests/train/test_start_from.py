"""A run that begins with the weights and the plan of another one."""

import json

import pytest
import torch
import yaml

import perceptkit as pk
from perceptkit.errors import SpecError
from perceptkit.model.plan import Plan
from perceptkit.spec.load import load_recipe, load_tasks
from perceptkit.train import session
from perceptkit.train.loop import begin_stage
from perceptkit.train.start_from import start_as_base, transferred
from tests.baselines.adaptation.conftest import all_keep, base, classes


def prepared(tasks, recipe, out):
    loaded, how = load_tasks(tasks), load_recipe(recipe)
    return session.prepare(session.Specs(loaded.spec, how.spec, "", ""), out, resume=False, quiet=True)


@pytest.fixture
def begun(routed_run, tmp_path):
    """A run that looks finished: the weights of its first stage, changed, and a plan that skips a block for a task."""
    tasks, routed = routed_run
    recipe = yaml.safe_load(routed.read_text())
    del recipe["routing"]
    first = tmp_path / "first.yaml"
    first.write_text(yaml.safe_dump(recipe | {"stages": [{"name": "warmup", "epochs": 1}], "seed": 8}))
    training = prepared(tasks, first, tmp_path / "first")
    with torch.no_grad():
        for value in training.supernet.parameters():
            value.add_(0.01)
    rows = [["keep"] * len(training.plan.blocks) for _ in training.tasks]
    rows[0][1] = "skip"
    training.plan = Plan(training.plan.tasks, training.plan.blocks, tuple(map(tuple, rows)))
    training.save_best(0.5, training.plan)
    (tmp_path / "first/results.json").write_text("{}")
    second = yaml.safe_load(routed.read_text())
    second["stages"] = second["stages"][1:]
    return tasks, training, second | {"start_from": "first"}


def write(tmp_path, recipe):
    path = tmp_path / "second.yaml"
    path.write_text(yaml.safe_dump(recipe))
    return path


def test_weights_and_plan_are_those_of_the_other_run(begun, tmp_path):
    tasks, first, recipe = begun
    second = prepared(tasks, write(tmp_path, recipe), tmp_path / "second")
    assert second.plan == first.plan
    theirs = first.supernet.state_dict()
    for name, value in second.supernet.state_dict().items():
        assert torch.equal(value, theirs[name]), name
    begin_stage(second, second.recipe.stages[0])
    # the block that one task skips is routed for the others only
    assert second.plan.table[0][1] == "skip" and {row[1] for row in second.plan.table[1:]} == {"route"}
    told = yaml.safe_load((tmp_path / "second/resolved.yaml").read_text())
    assert told["recipe"]["start_from"] == str(tmp_path / "first")


@pytest.mark.parametrize(("start", "same"), [("search", True), ("scratch", False)])
def test_retrain_first(begun, tmp_path, start, same):
    tasks, first, recipe = begun
    recipe["stages"] = [{"name": "retrain", "epochs": 1, "start": start}, *recipe["stages"]]
    second = prepared(tasks, write(tmp_path, recipe), tmp_path / "second")
    begin_stage(second, second.recipe.stages[0])
    pairs = zip(second.supernet.parameters(), first.supernet.parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs) is same and second.plan == first.plan


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"heads": {"channels": 24}}, "heads.channels: 16 -> 24"),
        ({"backbone": {"name": "resnet18", "weights": "none"}}, "backbone.name: 'test_resnet' -> 'resnet18'"),
        ({"start_from": "second"}, "no results.json"),
        ({"stages": [{"name": "warmup", "epochs": 1}, {"name": "route", "epochs": 1}]}, "drop the stage"),
    ],
)
def test_what_does_not_fit_is_refused(begun, tmp_path, change, message):
    tasks, _, recipe = begun
    with pytest.raises(SpecError, match=message):
        prepared(tasks, write(tmp_path, recipe | change), tmp_path / "second")
    assert not (tmp_path / "second").exists()


def test_other_tasks_and_other_routers_are_refused(begun, tmp_path):
    tasks, first, recipe = begun
    text = tasks.read_text()
    tasks.write_text(
        text.replace("  room:    {type: classification}\n", "").replace(
            "  room: {type: classification}\n", ""
        )
    )
    with pytest.raises(SpecError, match="has the tasks seg, depth, .*room; here they are"):
        prepared(tasks, write(tmp_path, recipe), tmp_path / "second")
    tasks.write_text(text)
    (tmp_path / "first/checkpoints/best.pt").unlink()
    with pytest.raises(SpecError, match="best.pt does not exist"):
        prepared(tasks, write(tmp_path, recipe), tmp_path / "second")


@pytest.mark.parametrize("names", [["old0", "old1", "old2", "old3", "old4"], ["a", "b", "c", "d", "e"]])
def test_a_head_is_taken_over_for_the_same_classes_only(names):
    trained, net = base(), base()
    task = net.tasks["old"]
    net.tasks = {"old": type(task)("old", task.spec.model_copy(update={"classes": names}), names)}
    with torch.no_grad():
        for value in net.parameters():
            value.add_(1)
    start_as_base(trained, all_keep(trained), net)
    same = names == classes("old", 5)["old"].labels
    assert transferred(trained, net) == (("old",) if same else ())
    theirs = trained.state_dict()
    for name, value in net.named_parameters():
        assert torch.equal(value, theirs[name]) == (same or name.startswith("backbone.")), name


@pytest.mark.slow
def test_routing_for_two_budgets_from_one_run(begun, tmp_path):
    tasks, _, recipe = begun
    path = write(tmp_path, recipe)
    for gamma in (0.5, 5):
        out = tmp_path / f"gamma{gamma}"
        run = pk.train(
            tasks, path, out, overrides=[f"routing.gamma={gamma}", "routing.compare_epochs=0"], quiet=True
        )
        assert json.loads((out / "routing.json").read_text())["gamma"] == gamma
        assert run.results["method"] == "hard"
    with pytest.raises(SpecError, match="has a router"):
        pk.train(tasks, path, tmp_path / "third", overrides=[f"start_from={tmp_path}/gamma5"])
