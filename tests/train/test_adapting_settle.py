"""`spottune_global` fixes its k blocks before the stage ends; the weights go on, the router does not."""

import pytest
import torch
import yaml

from perceptkit.spec.load import load_both
from perceptkit.train import session
from perceptkit.train.adapting import adapt_step, validate_adapted
from perceptkit.train.loop import begin_stage

TASKS = {
    "version": 1,
    "name": "small",
    "data": {"source": "scenes", "size": [32, 32], "count": {"train": 8, "val": 4, "test": 4}},
    "tasks": {"room": {"type": "classification"}},
}


@pytest.fixture
def training(tmp_path):
    (tmp_path / "tasks.yaml").write_text(yaml.safe_dump(TASKS))
    changes = ["backbone={name: test_resnet, weights: none}", "loader={batch: 4, workers: 0}"]
    changes += ["adaptation={method: spottune_global, k: 2, settle: 0.25}", "stages.adapt.epochs=1"]
    tasks, recipe = load_both(tmp_path / "tasks.yaml", "adapt", changes)
    specs = session.Specs(tasks.spec, recipe.spec, "", "")
    made = session.prepare(specs, tmp_path / "run", resume=False, quiet=True)
    begin_stage(made, made.recipe.stages[0])
    return made


def copy_of(module):
    return {name: value.clone() for name, value in module.state_dict().items()}


def moved(module, before):
    return any(not torch.equal(value, before[name]) for name, value in module.state_dict().items())


def test_the_choice_is_fixed_in_the_last_part_and_the_router_stands_still(training):
    batch = next(iter(training.loader(training.train, range(8), train=True)))
    routing, training.best_score = training.routing, 0.9
    before = copy_of(routing.router)
    told = adapt_step(training, batch, 0.01, 0.74)
    assert routing.settled is None and moved(routing.router, before) and "penalty" in told
    before, weights = copy_of(routing.router), copy_of(training.supernet)
    told = adapt_step(training, batch, 0.01, 0.75)
    assert sum(routing.settled) == 2 and training.best_score == float("-inf")
    assert told["tuned"] == pytest.approx(2 / len(routing.settled)) and "penalty" not in told
    assert not moved(routing.router, before) and moved(training.supernet, weights)
    fixed, training.best_score = routing.settled, 0.5
    adapt_step(training, batch, 0.01, 0.9)
    assert routing.settled == fixed and training.best_score == 0.5  # once
    keep_BR = routing.keep(batch.image_BCHW)
    assert keep_BR.tolist() == [list(fixed)] * 4
    validate_adapted(training, training.loader(training.val, range(4), train=False))
    assert not moved(routing.router, before)


def test_a_checkpoint_holds_what_was_settled(training):
    routing = training.routing
    routing.settled = (True,) * len(routing.cost_R)
    state = routing.state()
    routing.settled = None
    routing.load(state)
    assert routing.settled == (True,) * len(routing.cost_R)
    routing.load({name: value for name, value in state.items() if name != "settled"})
    assert routing.settled is None
