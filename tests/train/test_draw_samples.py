"""A plan decided by sampling: what is judged, retrained, chosen and reported."""

import json
import math

import pytest
import torch

import perceptkit as pk
from perceptkit.model.plan import KEEP, SKIP, Plan
from perceptkit.spec.load import load_recipe, load_tasks
from perceptkit.train import draw_samples as drawing
from perceptkit.train import session
from perceptkit.train.budgeting import conclude_budget, ship_budget
from perceptkit.train.draw_samples import draw_samples, spread_of, validation_loss
from perceptkit.train.loop import begin_stage
from perceptkit.train.losses import task_losses, weighted_sum
from perceptkit.train.plan_statistics import statistics_of
from perceptkit.train.samples import distinct


@pytest.fixture
def prepare(sampled_run, tmp_path):
    """Makes a run whose search is over: one block of one task is undecided, all others are kept."""

    def made(*changes):
        tasks, recipe = sampled_run
        loaded, how = load_tasks(str(tasks), []), load_recipe(str(recipe), list(changes))
        specs = session.Specs(loaded.spec, how.spec, loaded.text, how.text)
        training = session.prepare(specs, tmp_path / "run", resume=False, quiet=True)
        training.position.stage = 1
        with torch.no_grad():
            training.policy.policy_logits_KL2[..., KEEP] = 60.0
            training.policy.policy_logits_KL2[..., SKIP] = 0.0
            training.policy.policy_logits_KL2[0, -1] = 0.0
        return training

    return made


def draw(training):
    draw_samples(training, training.recipe.stages[1], len(training.policy.blocks))
    return training.samples


def test_each_distinct_plan_is_retrained(prepare):
    training = prepare("stages.search.samples=8")
    before = training.progress.total
    samples = draw(training)
    assert len(samples.plans) == 2 and samples.drawn == 8 and samples.queue == [0, 1]
    assert training.progress.total == before + 12  # 2 epochs of 6 steps more
    assert (training.run / "checkpoints/searched.pt").is_file()


def test_a_budget_leaves_draws_that_meet_it_as_they_are(prepare):
    """One task is unsure of every block; what it costs beyond hard sharing is within a wide limit."""
    training = prepare("stages.search.samples=8", "stages.search.curriculum=none", "budget={macs: 6.0}")
    with torch.no_grad():
        training.policy.policy_logits_KL2[0, :, KEEP] = 1.0
        training.policy.policy_logits_KL2[0, :, SKIP] = 0.0
    training.plan = conclude_budget(training, 4)
    before = training.generator.get_state()
    drawn = distinct([training.policy.sample(4, training.generator) for _ in range(8)])
    training.generator.set_state(before)
    samples = draw(training)
    assert (samples.plans, samples.counts) == drawn and len(samples.plans) > 3
    other = next(plan for plan in samples.plans if plan != training.plan)

    file, log = training.run / "budget.json", training.run / "log.txt"
    concluded = file.read_bytes()
    ship_budget(training, training.plan)
    assert file.read_bytes() == concluded and "shipped" not in log.read_text()
    for _ in range(2):  # a run that was killed after it comes here again
        ship_budget(training, other)
        found, before = json.loads(file.read_text()), json.loads(concluded)
        assert found["cost"] == training.budget.cost(other) / training.budget.unit > before["cost"] == 1
        assert found["search_ended_with"] == before["cost"] and found["is_within"]
        skipped = sum(not keep for task in other.tasks for keep in other.row(task))
        assert found["given_up"] == pytest.approx(skipped * 1.0)
        assert {**found, "cost": 1, "given_up": 0} == {**before, "search_ended_with": 1}
    assert log.read_text().count("the plan that is shipped, the best on val, costs") == 1


def test_the_best_by_validation_loss_is_retrained_alone(prepare):
    training = prepare(
        "stages.search.samples=8", "stages.search.retrain=best", "stages.retrain.start=scratch"
    )
    before = training.progress.total
    samples = draw(training)
    assert len(samples.plans) == 2
    assert samples.queue == [min((0, 1), key=lambda i: samples.val_losses[i])]
    assert training.progress.total == before
    assert not (training.run / "checkpoints/searched.pt").exists()  # nobody starts from there


def test_samples_begin_with_the_same_weights_and_their_own_plan(prepare):
    training = prepare("stages.search.samples=8")
    samples = draw(training)
    searched = {key: value.clone() for key, value in training.supernet.state_dict().items()}
    for number in (0, 1):
        for parameter in training.supernet.parameters():
            torch.nn.init.normal_(parameter)
        training.position.stage, training.position.sample = 2, number
        begin_stage(training, training.recipe.stages[2])
        assert training.plan == samples.plans[number]
        assert all(torch.equal(value, searched[k]) for k, value in training.supernet.state_dict().items())


def test_samples_of_a_soft_search_are_judged_and_begin_with_their_own_statistics(prepare, monkeypatch):
    training = prepare("stages.search.samples=8", "stages.search.gumbel=soft", "sharing.formulation=paper")
    mean, judged = training.supernet.backbone.get_submodule("layer2.0.downsample.2").running_mean, []
    untrained = mean.clone()
    monkeypatch.setattr(drawing, "validation_loss", lambda *_: judged.append(mean.clone()) or 1.0)
    draw(training)
    assert torch.equal(mean, untrained) and len(judged) == 2
    assert not any(torch.equal(own, untrained) for own in judged)
    training.position.stage, training.position.sample = 2, 1
    begin_stage(training, training.recipe.stages[2])
    begun = mean.clone()
    assert not torch.equal(begun, untrained)
    with statistics_of(training, training.plan):
        assert torch.equal(mean, begun)


@torch.no_grad()
def test_validation_loss_is_a_mean_over_pictures(prepare):
    """Batches of 3 and 1: the pictures weigh the same, not the batches."""
    training = prepare("loader.batch=3")
    plan = training.plan
    found = validation_loss(training, lambda image: training.supernet(image, plan))
    losses = []
    for batch in training.loader(training.val, range(len(training.val)), train=False):
        outputs = training.supernet(batch.image_BCHW, plan)
        losses.append(weighted_sum(task_losses(outputs, batch, training.tasks), training.tasks).item())
    assert len(losses) == 2
    assert found == pytest.approx((3 * losses[0] + losses[1]) / 4)


def row(count, loss, **metrics):
    numbers = {"kept_fraction": 0.5, "params": 10, "macs": 100, "val_loss": loss, "val_score": 0.1}
    return {"count": count, **numbers, "metrics": {"a": metrics} if metrics else None}


def test_mean_and_deviation_count_every_draw():
    found = spread_of([row(2, 1.0, miou=0.3), row(1, 4.0, miou=0.6)])
    # 1, 1, 4: mean 2, squares 1 + 1 + 4 = 6 over n - 1 = 2;  .3, .3, .6: mean .4, .01 + .01 + .04 = .06 over 2
    assert found["mean"]["val_loss"] == pytest.approx(2.0)
    assert found["std"]["val_loss"] == pytest.approx(math.sqrt(3))
    assert found["mean"]["metrics"]["a"]["miou"] == pytest.approx(0.4)
    assert found["std"]["metrics"]["a"]["miou"] == pytest.approx(math.sqrt(0.03))
    assert (found["mean"]["macs"], found["std"]["macs"]) == (100, 0)


def test_metrics_of_the_best_alone_have_no_spread():
    found = spread_of([row(1, 1.0, miou=0.3), row(1, 3.0)])
    assert found["mean"]["val_loss"] == 2 and "metrics" not in found["mean"] and "metrics" not in found["std"]
    alone = spread_of([row(1, 1.0, miou=0.3)])
    assert alone["mean"]["metrics"]["a"]["miou"] == 0.3 and math.isnan(alone["std"]["metrics"]["a"]["miou"])
    assert math.isnan(spread_of([row(1, math.nan)])["mean"]["val_loss"])


def results(run):
    return json.loads((run.path / "results.json").read_text())


@pytest.mark.slow
def test_each_from_end_to_end(sampled_run, tmp_path):
    run = pk.train(*sampled_run, tmp_path / "run", quiet=True)
    found = results(run)
    samples = found["samples"]
    rows, best = samples["rows"], samples["rows"][samples["chosen"]]
    assert samples["drawn"] == sum(line["count"] for line in rows) == 3 and len(rows) > 1
    assert best["val_score"] == max(line["val_score"] for line in rows)
    plan = Plan.from_json((run.path / "policy.json").read_text())
    assert best["choices"] == {task: list(line) for task, line in zip(plan.tasks, plan.table, strict=True)}
    assert best["metrics"] == {task: result["metrics"] for task, result in found["tasks"].items()}
    assert best["macs"] == json.loads((run.path / "cost.json").read_text())["rows"]["compact"]["macs"]
    counted = [line["metrics"]["seg"]["miou"] for line in rows for _ in range(line["count"])]
    assert samples["mean"]["metrics"]["seg"]["miou"] == pytest.approx(sum(counted) / 3)
    logged = [json.loads(line) for line in (run.path / "metrics.jsonl").read_text().splitlines()]
    retrained = [line["sample"] for line in logged if line["stage"] == "retrain" and line["kind"] == "val"]
    assert retrained == [i for i in range(len(rows)) for _ in range(2)]
    assert not any("sample" in line for line in logged if line["stage"] != "retrain")
    assert pk.load(run.path).manifest.plan == plan


@pytest.mark.slow
def test_best_goes_on_to_be_routed(sampled_run, tmp_path):
    tasks, recipe = sampled_run
    text = recipe.read_text().replace("samples: 3", "samples: 3, retrain: best")
    text = text.replace("  - {name: retrain, epochs: 2, start: search}", "  - {name: retrain, epochs: 1}")
    text = text.replace("optim:", "  - {name: route, epochs: 1}\noptim:") + "routing: {tolerance: 0.5}\n"
    recipe.write_text(text)
    found = results(pk.train(tasks, recipe, tmp_path / "run", quiet=True))
    rows, chosen = found["samples"]["rows"], found["samples"]["chosen"]
    assert chosen == min(range(len(rows)), key=lambda i: rows[i]["val_loss"])
    assert [i for i, line in enumerate(rows) if line["metrics"]] == [
        chosen
    ]  # of the plan before it was routed
    assert [i for i, line in enumerate(rows) if line["val_score"] is not None] == [chosen]
    assert "metrics" not in found["samples"]["mean"] and found["samples"]["mean"]["val_loss"] > 0


@pytest.mark.slow
def test_a_dry_run_draws_two(sampled_run, tmp_path):
    loaded, how = load_tasks(str(sampled_run[0]), []), load_recipe(str(sampled_run[1]), [])
    shrunk = session.shrink(session.Specs(loaded.spec, how.spec, loaded.text, how.text))
    assert [stage.samples for stage in shrunk.recipe.stages if stage.name == "search"] == [2]
    session.train(shrunk, tmp_path / "dry", quiet=True)
    assert json.loads((tmp_path / "dry/results.json").read_text())["samples"]["drawn"] == 2
