"""Balanced losses in training: what is shared, what the log says and that norms are not moved twice."""

import pytest
import torch

from perceptkit.model.plan import Plan
from perceptkit.model.supernet import head_key
from perceptkit.spec.load import load_recipe, load_tasks
from perceptkit.train import session
from perceptkit.train.balancing import descend, shared_layer
from perceptkit.train.loop import begin_stage
from perceptkit.train.losses import labelled_tasks

METHODS = ("uniform", "uncertainty", "dwa", "gradnorm", "famo", "torchjd")


def begun(specs, run, method):
    tasks, recipe = specs
    loaded = load_tasks(str(tasks), [])
    how = load_recipe(str(recipe), [f"balance.method={method}"])
    made = session.prepare(session.Specs(loaded.spec, how.spec, loaded.text, how.text), run, False, True)
    begin_stage(made, made.recipe.stages[0])
    return made


@pytest.fixture
def training_of(small_run, tmp_path):
    return lambda method: begun(small_run, tmp_path / "run", method)


def step(training, batch):
    training.supernet.train()
    return descend(training, batch, lambda: training.supernet(batch.image_BCHW, training.plan), training.plan)


@pytest.mark.parametrize("method", METHODS)
def test_one_step(training_of, method):
    training = training_of(method)
    batch = next(iter(training.loader(training.train, range(4), train=True)))
    before = {name: p.detach().clone() for name, p in training.supernet.named_parameters()}
    norms = [m for m in training.supernet.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    seen = [int(norm.num_batches_tracked) for norm in norms]
    told = step(training, batch)
    moved = {name for name, p in training.supernet.named_parameters() if not torch.equal(p, before[name])}
    assert any(name.startswith("backbone.") for name in moved)
    assert all(any(name.startswith(f"heads.{head}") for name in moved) for head in training.supernet.heads)
    assert [int(norm.num_batches_tracked) - s for norm, s in zip(norms, seen, strict=True)] == [1] * len(
        norms
    )
    weights = {name for name in told if name.startswith("weight/")}
    assert weights == (
        {f"weight/{t}" for t in training.tasks} if method not in ("uniform", "torchjd") else set()
    )


def unlabel(training, batch, name):
    absent = torch.as_tensor(training.tasks[name].missing(training.supernet.size_HW))
    batch.targets[name] = absent.expand_as(batch.targets[name]).to(batch.targets[name].dtype)


@pytest.mark.parametrize("method", METHODS)
def test_what_is_unlabelled_in_the_whole_batch_has_no_say(training_of, method):
    training = training_of(method)
    batch = next(iter(training.loader(training.train, range(4), train=True)))
    step(training, batch)  # now there is momentum
    name = next(iter(training.tasks))
    unlabel(training, batch, name)
    assert labelled_tasks(batch, training.tasks) == {task: task != name for task in training.tasks}
    before = {n: p.detach().clone() for n, p in training.supernet.heads.named_parameters()}
    shown = training.balance.shown_K().detach().clone()
    told = step(training, batch)
    after = dict(training.supernet.heads.named_parameters())
    same = {n for n in after if torch.equal(after[n], before[n])}
    own = {n for n in after if n.startswith(head_key(name) + ".")}
    assert own and same == own
    assert f"loss/{name}" not in told and set(told) > {
        f"loss/{task}" for task in training.tasks if task != name
    }
    if method in ("uncertainty", "gradnorm"):
        assert (training.balance.shown_K() != shown).tolist() == [task != name for task in training.tasks]


@pytest.mark.parametrize("method", METHODS)
def test_a_batch_without_any_label_moves_nothing(training_of, method):
    training = training_of(method)
    batch = next(iter(training.loader(training.train, range(4), train=True)))
    step(training, batch)
    for name in training.tasks:
        unlabel(training, batch, name)
    held = [*training.weights(), *training.balance.parameters(), *training.balance.buffers()]
    before = [value.detach().clone() for value in held]
    assert step(training, batch) == {}
    for value, old in zip(held, before, strict=True):
        torch.testing.assert_close(value, old, rtol=0, atol=0, equal_nan=True)


def test_the_shared_layer_is_the_last_that_all_run(training_of):
    training = training_of("gradnorm")
    net, plan = training.supernet, training.plan
    names = {id(p): n for n, p in net.named_parameters()}
    (layer,) = shared_layer(net, plan)
    assert names[id(layer)].startswith(f"backbone.{net.blocks[-1].name}.")
    rows = [["keep"] * len(plan.blocks) for _ in plan.tasks]
    rows[0][-1] = "skip"
    (layer,) = shared_layer(net, Plan(plan.tasks, plan.blocks, tuple(map(tuple, rows))))
    assert names[id(layer)].startswith(f"backbone.{net.blocks[-2].name}.")
    (layer,) = shared_layer(net, Plan(plan.tasks, plan.blocks, tuple(("skip",) * len(r) for r in rows)))
    assert layer is next(p for p in net.backbone.parameters() if p.ndim > 1)
    relaxed = {task: [True, torch.tensor(0.3)] + [False] * (len(plan.blocks) - 2) for task in plan.tasks}
    (layer,) = shared_layer(net, relaxed)
    assert names[id(layer)].startswith(f"backbone.{net.blocks[1].name}.")
