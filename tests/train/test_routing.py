"""BlockDrop's train stages: what they compute, what they change, what they leave behind."""

import copy
import json
import shutil
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

import perceptkit as pk
from perceptkit.errors import SpecError
from perceptkit.model import cost
from perceptkit.model.plan import Plan
from perceptkit.policies import blockdrop
from perceptkit.policies.policy_stats import policy_stats
from perceptkit.spec.load import load_recipe, load_tasks
from perceptkit.spec.recipe import FinetuneStage, RouteStage, RoutingSpec
from perceptkit.tasks.distillation import distillation, regresses
from perceptkit.train import checkpoint, loop, routing, routing_check, routing_host, rules, session
from perceptkit.train.loop import begin_stage
from perceptkit.train.progress import Progress
from perceptkit.train.routing_check import (
    _route_gamma,
    fold,
    fold_static,
    full_rightness,
    in_words,
    judge_full,
    on_val,
    quality_of_result,
    tried_on_val,
    validate_routing,
)
from perceptkit.train.routing_host import host_quality, keeps_host_quality, quality_drops
from perceptkit.train.rules import compare_rules, costs_of, equal_cost, tune
from perceptkit.train.run_log import RunLog
from perceptkit.train.training import Interrupted
from tests.train.conftest import ROUTED, TASKS


@pytest.fixture(scope="module")
def begun(tmp_path_factory):
    """What `training` is a copy of, and the state of torch's random numbers there: to build it takes long."""
    folder = tmp_path_factory.mktemp("routed")
    (folder / "tasks.yaml").write_text(TASKS, encoding="utf-8")
    (folder / "recipe.yaml").write_text(ROUTED, encoding="utf-8")
    loaded, how = load_tasks(str(folder / "tasks.yaml"), []), load_recipe(str(folder / "recipe.yaml"), [])
    specs = session.Specs(loaded.spec, how.spec, loaded.text, how.text)
    made = session.prepare(specs, folder / "run", resume=False, quiet=True)
    made.position.stage = 1
    begin_stage(made, made.recipe.stages[1])
    found = routing.current(made)
    found.open_count = len(found.cost_R)
    torch.nn.init.normal_(found.router.decide.weight)
    torch.nn.init.zeros_(found.router.decide.bias)
    made.optimizer = made.policy_optimizer = None  # fabric's cannot be copied
    return made, torch.get_rng_state()


@pytest.fixture
def training(begun, tmp_path):
    """At the begin of the stage `route`, with all blocks open and decisions that differ between pictures."""
    template, random_state = begun
    run, generator = tmp_path / "run", torch.Generator()
    generator.set_state(template.generator.get_state())
    replaced = {
        id(template.run): shutil.copytree(template.run, run),
        id(template.log): RunLog(run),
        id(template.progress): Progress(template.progress.total, quiet=True),
        id(template.generator): generator,
        id(template.fabric): template.fabric,
    }
    made = copy.deepcopy(template, replaced)
    made.begin_stage_optimizers(made.recipe.stages[1])
    torch.set_rng_state(random_state)
    return made


@pytest.fixture
def batch(training):
    return next(iter(training.loader(training.train, range(8), train=True)))


def change(training, **keys):
    """Other keys of the recipe's section `routing`."""
    spec = training.recipe.routing.model_copy(update=keys)
    training.recipe = training.recipe.model_copy(update={"routing": spec})


def tables(training, batch):
    found = routing.current(training)
    logits_BR = found.router.eval()(batch.image_BCHW)
    return [blockdrop.greedy_keep(logits_BR), torch.rand_like(logits_BR) < 0.5]


def test_every_kept_block_is_routed(training):
    assert set(training.plan.routed()) == set(range(len(training.plan.blocks)))
    assert (routing.current(training).cost_R > 1).all()  # usage: macs
    right, qualities = full_rightness(training)
    assert routing.current(training).full_right == pytest.approx(right)
    assert routing.current(training).full_quality == pytest.approx(qualities)
    assert list(qualities) == list(training.tasks)


def test_latency_is_what_a_block_adds_to_its_projection_on_the_clock(training, monkeypatch):
    net, stage = training.supernet, training.recipe.stages[1]
    spec = training.recipe.routing.model_copy(update={"usage": "latency"})
    batches = []
    first = net.backbone.get_submodule(net.blocks[0].name)
    handle = first.register_forward_hook(lambda module, args, output: batches.append(len(output)))
    clock = iter(range(10_000, 0, -7))  # each call is faster by 7 ns than the one before
    monkeypatch.setattr(cost, "measured_nanoseconds", lambda call: next(clock))
    took, by_hand = 10_000, []
    for step in net.steps:
        if step.block is not None:
            by_hand.append(took if step.projection is None else 7)  # the projection comes next
        took -= 7 if step.projection is None else 14
    assert {7} < set(by_hand)
    assert routing.block_costs(training, spec, stage).tolist() == by_hand
    assert (
        batches == [1, training.recipe.batch_of(stage)] and batches[1] > 1
    )  # the first one finds norms to fold
    clock = iter(range(10_000, 0, -7))
    one = spec.model_copy(update={"latency_batch": 1})
    assert routing.block_costs(training, one, stage).tolist() == by_hand
    assert batches[2:] == [1, 1]
    # on a clock that sees no difference a projection leaves nothing to add: 1 ns, as a reward divides by it
    monkeypatch.setattr(cost, "measured_nanoseconds", lambda call: 50)
    assert routing.block_costs(training, spec, stage).tolist() == [50 if c > 7 else 1 for c in by_hand]
    handle.remove()


def test_the_network_that_is_timed_has_the_norms_of_the_one_that_ships(training, monkeypatch):
    stage, timed = training.recipe.stages[1], []
    spec = training.recipe.routing.model_copy(update={"usage": "latency"})
    measure = cost.measure

    def watched(network, *args):
        timed.append([type(m).__name__ for m in network.modules()])
        return measure(network, *args)

    monkeypatch.setattr(cost, "measure", watched)
    before = {name: value.clone() for name, value in training.supernet.state_dict().items()}
    costs_R = routing.block_costs(training, spec, stage)
    assert "Conv2d" in timed[0] and not any("BatchNorm" in name for name in timed[0])
    assert (
        costs_R.min() >= 1 and costs_R.max() > 1000
    )  # nanoseconds: two convolutions take more than one microsecond
    after = training.supernet.state_dict()
    assert before.keys() == after.keys() and all(torch.equal(before[name], after[name]) for name in after)


@torch.no_grad()
@pytest.mark.parametrize("open_count", [1, 3, None])
def test_rightness_is_that_of_one_pass_per_picture_and_table(training, batch, open_count):
    found, plan, net = routing.current(training), training.plan, training.supernet.eval()
    found.open_count = open_count or len(found.cost_R)
    choices = [table | ~found.open_R for table in tables(training, batch)]
    right_VBK = routing.rightness(training, batch, choices)
    everything = plan.resolved([True] * len(found.cost_R))
    for v, table in enumerate(choices):
        for i in range(len(batch.ids)):
            image = batch.image_BCHW[i : i + 1]
            one, full = net(image, plan.resolved(table[i].tolist())), net(image, everything)
            for k, (name, task) in enumerate(training.tasks.items()):
                target = batch.targets[name][i : i + 1]
                if task.is_yes_or_no:
                    expected = task.is_right(one[name], target)
                else:
                    best, quality = task.quality(full[name], target), task.quality(one[name], target)
                    if abs(quality - 0.5 * best) < 1e-4:
                        continue  # rounding decides
                    expected = blockdrop.right_by_quality(quality, best, 0.5)
                torch.testing.assert_close(right_VBK[v, i, k : k + 1], expected, equal_nan=True)


@torch.no_grad()
def test_what_comes_before_the_first_open_block_runs_once_per_picture(training, batch):
    found, net = routing.current(training), training.supernet.eval()
    found.open_count = 2
    sizes: dict[str, list[int]] = {}
    hooks = [
        net.backbone.get_submodule(block.name).register_forward_hook(
            lambda module, args, output, name=block.name: sizes.setdefault(name, []).append(len(output))
        )
        for block in net.blocks
    ]
    ones = torch.ones(len(batch.ids), len(found.cost_R), dtype=torch.bool)
    without_last = ones.clone()
    without_last[:, -1] = False
    routing.rightness(training, batch, [ones, without_last, ones])
    for hook in hooks:
        hook.remove()
    count = len(batch.ids)
    *closed, first_open, last = [sizes[block.name] for block in net.blocks]
    assert all(rows == [count] for rows in closed)
    assert first_open == [2 * count]  # two ways to run each picture, though three tables ask
    assert last == [count]  # half of the rows skip it


def with_rows(training):
    """`seg` skips all blocks but the first two, `room` all; the other tasks keep all."""
    plan = training.plan
    count = {name: len(plan.blocks) for name in plan.tasks} | {"seg": 2, "room": 0}
    rows = [[b < count[name] for b in range(len(plan.blocks))] for name in plan.tasks]
    training.plan = Plan.from_keep(plan.tasks, plan.blocks, rows).with_routed(range(len(plan.blocks)))
    return [count[name] for name in training.tasks]


def test_a_reward_is_by_the_usage_of_the_blocks_that_the_task_itself_keeps(training):
    with_rows(training)
    found = routing.current(training)
    found.cost_R = torch.tensor([1.0, 3.0] + [2.0] * (len(found.cost_R) - 2))
    keep_BR = torch.ones(1, len(found.cost_R), dtype=torch.bool)
    keep_BR[0, [0, 2]] = False
    total = 2 * len(found.cost_R)
    used = {name: (total - 3) / total for name in training.tasks} | {"seg": 3 / 4, "room": 0.0}
    right = {name: float(name != "depth") for name in training.tasks}
    rewards = [1 - used[n] ** 2 if right[n] else -found.gamma for n in training.tasks]
    weights = [task.spec.weight for task in training.tasks.values()]
    by_hand = sum(w * r for w, r in zip(weights, rewards, strict=True)) / sum(weights)
    right_BK = torch.tensor([list(right.values())])
    assert routing.usage_of(training, keep_BR).tolist() == [pytest.approx(list(used.values()))]
    assert routing.reward_of(training, keep_BR, right_BK).item() == pytest.approx(by_hand)
    greedy = torch.zeros(1, len(found.cost_R))
    _, told = routing.policy_loss(training, greedy, keep_BR, keep_BR, right_BK.expand(2, 1, -1), joint=False)
    assert told["usage"].item() == pytest.approx((total - 3) / total)  # the log's is of all routed blocks


def test_tasks_that_keep_the_same_blocks_have_one_usage(training, batch):
    found = routing.current(training)
    keep_BR = tables(training, batch)[1]
    right_BK = torch.rand(len(batch.ids), len(training.tasks)).round()
    alike = blockdrop.reward(blockdrop.usage(keep_BR, found.cost_R)[:, None], right_BK, found.gamma)
    alike = blockdrop.task_mean(alike, routing.task_weights(training))
    assert torch.equal(routing.reward_of(training, keep_BR, right_BK), alike)


@pytest.mark.parametrize("differ", [False, True])
def test_the_gumbel_penalty_is_by_the_usage_of_each_tasks_own_blocks(training, batch, monkeypatch, differ):
    counts = with_rows(training) if differ else [len(training.plan.blocks)] * len(training.tasks)
    found = routing.current(training)
    quality_BK = torch.rand(len(batch.ids), len(training.tasks))
    keep_BR = tables(training, batch)[1].float()
    monkeypatch.setattr(routing.blockdrop, "straight_through_keep", lambda *args: keep_BR)
    monkeypatch.setattr(routing, "qualities", lambda *args: quality_BK)
    monkeypatch.setattr(routing, "weights_loss", lambda *args: 0.0)
    weights = routing.task_weights(training)
    by_hand = 0.0
    for count, weight, quality_B in zip(counts, weights.tolist(), quality_BK.T, strict=True):
        cost_R = found.cost_R[:count]
        used_B = (keep_BR[:, :count] * cost_R).sum(1) / cost_R.sum().clamp(min=1)
        by_hand += weight / weights.sum().item() * (quality_B * used_B.square()).mean().item() / found.gamma
    total, told = routing.gumbel_loss(training, batch, torch.zeros_like(keep_BR), 1.0)
    assert total.item() == pytest.approx(by_hand, rel=1e-5)
    assert told["usage"].item() == pytest.approx(blockdrop.usage(keep_BR, found.cost_R).mean().item())
    if not differ:
        right_B = blockdrop.task_mean(quality_BK, weights)
        before = (right_B * blockdrop.usage(keep_BR, found.cost_R).square()).mean() / found.gamma
        torch.testing.assert_close(total, before)


def states(training):
    copied = {k: v.clone() for k, v in training.supernet.state_dict().items()}
    return copied, {k: v.clone() for k, v in routing.current(training).router.state_dict().items()}


def changed(before, after):
    return {name for name, value in before.items() if not torch.equal(value, after[name])}


@pytest.mark.parametrize("estimator", ["reinforce", "gumbel"])
def test_route_changes_the_router_only(training, batch, estimator):
    change(training, estimator=estimator)
    net, router = states(training)
    stage = training.recipe.stages[1]
    for _ in range(3):
        losses = routing.route_step(training, stage, batch, 1e-2, 0.5)
    assert all(value == value for value in losses.values())
    after_net, after_router = states(training)
    assert not changed(net, after_net)
    assert "decide.weight" in changed(router, after_router)
    assert all(parameter.requires_grad for parameter in training.supernet.parameters())


@pytest.mark.parametrize("estimator", ["reinforce", "gumbel"])
def test_diversity_parts_the_pictures(training, batch, estimator):
    stage, found = training.recipe.stages[1], routing.current(training)
    begun = copy.deepcopy(found.router.state_dict())

    def known_after(weight):
        found.router.load_state_dict(begun)
        change(training, estimator=estimator, diversity=weight)
        training.generator.manual_seed(0)
        training.begin_stage_optimizers(stage)
        told = [routing.route_step(training, stage, batch, 1e-3, 0.5) for _ in range(8)]
        assert ("information" in told[0]) is (weight > 0)
        with torch.no_grad():
            return blockdrop.mutual_information(found.router.train()(batch.image_BCHW)).item()

    assert known_after(10.0) > known_after(0.0)


@pytest.mark.parametrize("estimator", ["reinforce", "gumbel"])
@pytest.mark.parametrize("norms", ["frozen", "train"])
def test_finetune_changes_both(training, batch, norms, estimator):
    change(training, estimator=estimator)
    training.position.stage = 2
    stage = training.recipe.stages[2].model_copy(update={"batchnorm": norms})
    training.begin_stage_optimizers(stage)
    net, router = states(training)
    for _ in range(2):
        losses = routing.finetune_step(training, stage, batch, 1e-2)
    assert {f"loss/{name}" for name in training.tasks} <= set(losses)
    after_net, after_router = states(training)
    moved = changed(net, after_net)
    assert any(name.endswith("conv1.weight") for name in moved)
    assert "decide.weight" in changed(router, after_router)
    statistics = {name for name in moved if "running" in name and name.startswith("backbone")}
    assert bool(statistics) is (norms == "train")


@pytest.mark.parametrize("estimator", ["reinforce", "gumbel"])
def test_a_settled_router_is_fixed_and_what_it_skips_is_not_computed(training, batch, estimator):
    change(training, estimator=estimator)
    training.position.stage = 2
    stage = training.recipe.stages[2].model_copy(update={"settle": 0.25})
    training.begin_stage_optimizers(stage)
    router = routing.current(training).router
    with torch.no_grad():
        router.decide.weight.zero_()
        router.decide.bias.copy_(torch.tensor([-1.0] + [1.0] * (len(router.decide.bias) - 1)))
    block = training.supernet.blocks[0].name
    calls = []
    handle = training.supernet.backbone.get_submodule(block).register_forward_hook(lambda *a: calls.append(a))
    net, before = states(training)
    losses = routing.finetune_step(training, stage, batch, 1e-2, 0.75)
    handle.remove()
    after_net, after = states(training)
    assert not changed(before, after) and not calls
    moved = changed(net, after_net)
    assert any(name.endswith("conv1.weight") for name in moved)
    assert not any(name.startswith(f"backbone.{block}.") for name in moved)
    cost_R = routing.current(training).cost_R
    assert losses["usage"] == pytest.approx(float(1 - cost_R[0] / cost_R.sum()))
    routing.finetune_step(training, stage, batch, 1e-2, 0.74)
    assert changed(after, states(training)[1])


@pytest.mark.parametrize("steps", [1, 3, 10, 1000])
@pytest.mark.parametrize("settle", [0.1, 0.25, 0.3, 0.35, 0.5, 0.7, 0.9])
@pytest.mark.parametrize("epochs", [1, 2, 3, 7, 10, 20])
def test_the_best_epoch_begins_with_a_settled_router_or_is_the_last(epochs, settle, steps):
    stage = FinetuneStage(name="finetune", epochs=epochs, settle=settle)
    total = epochs * steps
    settled = [epoch for epoch in range(epochs) if epoch * steps / total >= 1 - settle - 1e-9]
    assert [epoch for epoch in range(epochs) if routing.settles_in(stage, epoch)] == [*settled, epochs - 1][
        :1
    ]


def test_the_best_epoch_is_one_whose_network_was_trained_for_what_will_run(training, monkeypatch):
    scores = iter([0.9, 0.95, 0.5, 0.7, 0.6])
    training.position.stage = 2
    monkeypatch.setattr(loop, "run_turn", lambda *args: None)
    monkeypatch.setattr(loop, "validate", lambda *args: next(scores))
    stage = training.recipe.stages[2].model_copy(update={"settle": 0.6, "epochs": 5})
    training.best_score, best = float("-inf"), []
    for _ in range(5):
        loop.run_epoch(training, stage)
        training.position.next_epoch()
        best.append(training.best_score)
    assert best == [0.9, 0.95, 0.5, 0.7, 0.7]  # settles after the second
    state, at = checkpoint.load(training.run / "checkpoints/best.pt")
    assert state["score"] == 0.7 and at.epoch == 3
    stages = training.recipe.stages
    assert not any(routing.settles_in(stages[place], epoch) for place in (0, 1, 2) for epoch in range(9))


@torch.no_grad()
def test_the_host_teaches_with_all_blocks(training, batch):
    found, net = routing.current(training), training.supernet.eval()
    everything = torch.ones(len(batch.ids), len(found.cost_R), dtype=torch.bool)
    as_host = net(batch.image_BCHW, training.plan, keep_BR=everything)
    skipping = net(batch.image_BCHW, training.plan, keep_BR=~everything)
    for parameter in net.parameters():  # the teacher has weights of its own
        parameter.zero_()
    for outputs in as_host, skipping:
        by_hand = 0.0
        for name, task in training.tasks.items():
            scale = 1 if regresses(task) else 16
            loss = distillation(task, outputs[name], as_host[name], 4.0)
            least = distillation(task, as_host[name], as_host[name], 4.0)
            by_hand += task.spec.weight * scale * (loss - least).item()
        assert routing.taught(training, batch, outputs).item() == pytest.approx(by_hand, rel=1e-3, abs=1e-5)
    assert routing.taught(training, batch, skipping) > routing.taught(training, batch, as_host)


@pytest.mark.parametrize("estimator", ["reinforce", "gumbel"])
@pytest.mark.parametrize("settle", [0.0, 0.5])
def test_distill_adds_to_the_loss_what_the_host_teaches(training, batch, estimator, settle):
    change(training, estimator=estimator)
    training.position.stage = 2
    stage = training.recipe.stages[2].model_copy(update={"settle": settle})
    losses = {}
    net, router = states(training)
    for distill in 0.0, 1.0:
        training.generator.manual_seed(0)
        training.supernet.load_state_dict(net)
        routing.current(training).router.load_state_dict(router)
        training.begin_stage_optimizers(stage)
        taught = stage.model_copy(update={"distill": distill})
        losses[distill] = routing.finetune_step(training, taught, batch, 1e-3, 0.6)["loss"]
    assert losses[1.0] > losses[0.0] + 1e-4


def test_parity_moves_the_norms_in_the_greedy_pass_too(training, batch):
    change(training, parity=True)
    stage = training.recipe.stages[2].model_copy(update={"batchnorm": "train"})
    training.begin_stage_optimizers(stage)
    named = training.supernet.backbone.named_modules()
    norms = [m for n, m in named if isinstance(m, torch.nn.BatchNorm2d) and "downsample" not in n]
    before = [norm.num_batches_tracked.clone() for norm in norms]
    pictures = []
    handles = [norm.register_forward_hook(lambda *a: pictures.append(len(a[1][0]))) for norm in norms]
    routing.finetune_step(training, stage, batch, 1e-3)
    for handle in handles:
        handle.remove()
    assert all(norm.num_batches_tracked - b == 2 for norm, b in zip(norms, before, strict=True))
    # every block sees every picture, but for the pass that says what all blocks give
    assert pictures.count(len(batch.ids)) >= 2 * len(norms)


def test_answers_that_are_there_are_judged_as_those_of_their_decisions(training, batch):
    training.supernet.eval()
    given = tables(training, batch)
    expected = routing.rightness(training, batch, given)
    with torch.no_grad():
        there = [training.supernet(batch.image_BCHW, training.plan, keep_BR=table) for table in given]
    assert torch.equal(routing.rightness(training, batch, [], there).nan_to_num(2), expected.nan_to_num(2))
    mixed = routing.rightness(training, batch, given[:1], there[1:])
    assert torch.equal(mixed.nan_to_num(2), expected.nan_to_num(2))


def test_a_static_router_is_dropped(training):
    R = len(training.plan.blocks)
    policy = torch.tensor([[b % 2 == 0 for b in range(R)]])
    keep_NR = policy.expand(10, -1)
    fold(training, policy_stats(keep_NR, keep_NR.float()))
    assert training.routing is None
    assert training.plan.routed() == () and list(training.plan.row("seg")) == policy[0].tolist()


@torch.no_grad()
def test_constant_blocks_are_folded_only_where_enough_pictures_agree(training, batch):
    R = len(training.plan.blocks)
    keep_NR = torch.rand(3000, R) < 0.5
    keep_NR[:, 0], keep_NR[:, 1] = True, False
    before = training.forward(batch.image_BCHW)  # the untrained router's own decisions
    fold(training, policy_stats(keep_NR[:100], keep_NR[:100].float()))
    assert len(training.plan.routed()) == R
    logits = routing.current(training).router.eval()(batch.image_BCHW)
    fold(training, policy_stats(keep_NR, keep_NR.float()))
    assert training.plan.routed() == tuple(range(2, R))
    assert training.plan.row("seg")[:2] == (True, False)
    torch.testing.assert_close(routing.current(training).router(batch.image_BCHW), logits[:, 2:])
    assert before.keys() == training.forward(batch.image_BCHW).keys()


@torch.no_grad()
def test_a_tolerance_folds_what_few_pictures_want_otherwise_and_tells_what_it_costs(training):
    R = len(training.plan.blocks)
    keep_NR = torch.tensor([[True, False] * 50]).T.expand(-1, R).clone()
    keep_NR[:, 0], keep_NR[:, 1] = True, False
    keep_NR[:2, :2] = ~keep_NR[:2, :2]  # 2 % of the pictures
    stats = policy_stats(keep_NR, keep_NR.float())
    assert stats.fixed() == {} and stats.fixed(0.01) == {} and stats.fixed(0.02) == {0: True, 1: False}
    as_before = on_val(training).metrics
    told = fold(training, stats, 0.02)
    names = training.plan.blocks
    assert told["blocks"] == {names[0]: {"kept": True, "rate": 0.98}, names[1]: {"kept": False, "rate": 0.02}}
    assert told["before"] == as_before and told["after"] == on_val(training).metrics
    assert training.plan.routed() == tuple(range(2, R)) and training.plan.row("seg")[:2] == (True, False)


def test_what_no_picture_wants_otherwise_costs_nothing_and_nothing_is_told(training):
    keep_NR = torch.ones(3000, len(training.plan.blocks), dtype=torch.bool)
    assert fold(training, policy_stats(keep_NR, keep_NR.float()), 0.5) is None
    assert training.routing is None


def test_max_drop_solves_for_the_penalty_before_the_first_step(training):
    change(training, gamma=None, max_drop=0.02)
    judge_full(training)
    found = routing.current(training)
    R, p = len(found.cost_R), found.full_right
    assert found.gamma == pytest.approx(2 * p / (R * 0.02))  # A4 at usage 1: one block bears it all


def test_max_drop_is_of_the_task_that_has_the_fewest_blocks_to_lose(training):
    change(training, gamma=None, max_drop=0.02)
    assert set(with_rows(training)) == {0, 2, len(training.plan.blocks)}
    judge_full(training)
    found = routing.current(training)
    assert found.gamma == pytest.approx(2 * found.full_right / (2 * 0.02))
    with torch.no_grad():  # of the two blocks of `seg` the second is left, of the others the last is gone too
        found.router.decide.weight.zero_()
        found.router.decide.bias.fill_(1.0)
        found.router.decide.bias[[0, -1]] = -1.0
    found.full_quality = dict.fromkeys(found.full_quality, 0.0)  # nothing can be lost
    batches = training.loader(training.val, range(len(training.val)), train=False)
    validate_routing(training, batches, training.recipe.stages[1])
    cost_R, p = found.cost_R.double(), found.full_right
    used = {2: cost_R[1] / cost_R[:2].sum(), len(cost_R): cost_R[1:-1].sum() / cost_R.sum()}
    solved = [blockdrop.gamma_for_max_drop(0.02, u.item(), p, count) for count, u in used.items()]
    assert found.gamma == pytest.approx(max(solved)) and solved[0] != pytest.approx(solved[1])


def test_the_running_advantage_is_in_the_checkpoint(training, batch):
    found = routing.current(training)
    assert found.mean_abs_advantage is None
    for _ in range(2):
        losses = routing.route_step(training, training.recipe.stages[1], batch, 1e-3, 0.5)
    assert losses["advantage"] >= 0 and found.mean_abs_advantage is not None
    assert found.state()["mean_abs_advantage"] == found.mean_abs_advantage


def test_finetune_alone_opens_all_blocks_at_once(routed_run, tmp_path):
    tasks, recipe = routed_run
    text = recipe.read_text().replace("  - {name: route, epochs: 2, speed: 0.3}\n", "")
    recipe.write_text(text.replace("tolerance: 0.5", "estimator: gumbel"))
    loaded, how = load_tasks(tasks), load_recipe(recipe)
    training = session.prepare(
        session.Specs(loaded.spec, how.spec, "", ""), tmp_path / "run", resume=False, quiet=True
    )
    stage = training.recipe.stages[1]
    begin_stage(training, stage)
    found = routing.current(training)
    assert found.open_count == len(found.cost_R) == len(training.plan.blocks) and found.open_R.all()
    before = [parameter.clone() for parameter in found.router.parameters()]
    batch = next(iter(training.loader(training.train, range(4), train=False)))
    routing.finetune_step(training, stage, batch, 1e-2)
    assert any(not torch.equal(a, b) for a, b in zip(before, found.router.parameters(), strict=True))


@pytest.mark.parametrize("parity", [False, True])
def test_finetune_opens_what_the_curriculum_had_not_reached(training, batch, parity):
    change(training, parity=parity)
    found, stage = routing.current(training), training.recipe.stages[2]
    stage = stage.model_copy(update={"batchnorm": "train"})
    found.open_count = 1
    torch.nn.init.constant_(found.router.decide.bias, -30)
    assert found.keep(batch.image_BCHW)[:, :-1].all()
    training.position.stage = 2
    begin_stage(training, stage)
    assert found.open_R.all() and not found.keep(batch.image_BCHW).any()
    # the row that is not fine-tuned is of the router as `route` left it
    assert checkpoint.load(training.run / routing.ROUTED)[0]["routing"]["open_count"] == 1
    bias_R = found.router.decide.bias
    torch.nn.init.zeros_(bias_R)
    routing.finetune_step(training, stage, batch, 1e-2)
    assert bias_R[:-1].any()  # they are learned
    training.save()
    resumed, _ = checkpoint.load(training.run / "checkpoints/last.pt")
    found.open_count = 1
    found.load(resumed["routing"])
    assert found.open_R.all()


def test_a_router_that_cannot_be_made_is_refused_before_anything_is_trained(routed_run, tmp_path):
    tasks, recipe = routed_run
    text = recipe.read_text()
    for old, new, message in (
        (
            "name: resnet8",
            "name: resnt8",
            "routing.router.name 'resnt8' is not a timm model; did you mean 'resnet8'",
        ),
        ("name: resnet8", "name: resnet8, args: {colour: 3}", "routing.router.args"),
        ("downscale: 2", "downscale: 64", "does not take pictures of 0x0 pixels"),
    ):
        recipe.write_text(text.replace(old, new))
        with pytest.raises(SpecError, match=message):
            pk.train(tasks, recipe, tmp_path / "run", quiet=True)
        assert not (tmp_path / "run").exists()


def test_a_plan_that_skips_everything_leaves_nothing_to_route(training):
    rows = [["skip"] * len(training.plan.blocks) for _ in training.tasks]
    training.plan = Plan(training.plan.tasks, training.plan.blocks, tuple(map(tuple, rows)))
    training.routing = None
    with pytest.raises(SpecError, match="nothing left for a router"):
        begin_stage(training, training.recipe.stages[1])


def test_a_batch_without_labels_is_logged_as_numbers(training, batch):
    for name, task in training.tasks.items():
        nothing = torch.from_numpy(task.missing((32, 32)))
        batch.targets[name] = nothing.expand(len(batch.ids), *nothing.shape).clone()
    losses = routing.route_step(training, training.recipe.stages[1], batch, 1e-3, 0.5)
    assert all(value == value for value in losses.values()) and losses["advantage"] == 0


def test_too_large_a_loss_does_not_become_cheaper_where_less_is_used(training):
    change(training, gamma=None, max_drop=0.01)
    found = routing.current(training)
    found.full_right, found.gamma = 1.0, 40.0
    with torch.no_grad():
        found.router.decide.bias.fill_(-30)  # skips all: usage 0, for which A4 gives a gamma of 0
        for parameter in training.supernet.heads.parameters():
            parameter.add_(1.0)
    batches = training.loader(training.val, range(len(training.val)), train=False)
    validate_routing(training, batches, training.recipe.stages[1])
    assert found.right < 0.99 and found.gamma == 40.0


def test_of_epochs_that_use_as_much_the_one_that_loses_less_is_better(training, monkeypatch):
    change(training, gamma=None, max_drop=0.1)
    drops = iter([0.09, 0.05, 0.0, 0.2])
    monkeypatch.setattr(
        routing_check, "quality_drops", lambda *args: dict.fromkeys(training.tasks, next(drops))
    )

    def score() -> float:
        batches = training.loader(training.val, range(len(training.val)), train=False)
        return validate_routing(training, batches, training.recipe.stages[2])[1]

    kept = [score() for _ in range(3)]
    assert kept == sorted(set(kept)) and kept[0] == pytest.approx(kept[2], abs=1e-6)
    assert score() == -0.2


def test_a_rehearsal_compares_for_one_epoch(routed_run):
    loaded, how = load_tasks(routed_run[0]), load_recipe(routed_run[1], ["routing.compare_epochs=20"])
    assert session.shrink(session.Specs(loaded.spec, how.spec, "", "")).recipe.routing.compare_epochs == 1


@pytest.mark.slow
def test_costs_of_each_task_alone_are_those_of_its_own_plan(training):
    costs = costs_of(training)
    keep_NR = torch.rand(5, len(routing.current(training).cost_R)) < 0.5
    for name in training.tasks:
        net, one = training.supernet, training.plan.only([name])
        steps = cost.measure(net, net.size_HW)
        by_hand = [cost.macs(net, one.resolved(keep.tolist()), steps, [name])[0] for keep in keep_NR]
        assert costs.by_task[name].of(keep_NR).tolist() == by_hand
        assert max(by_hand) < costs.of(keep_NR).max()


def test_tuning_a_rule_stops_when_asked_to(training):
    training.stop_requested = True
    host = routing.one_network(training)
    with pytest.raises(Interrupted):
        tune(training, host, lambda num, _: torch.ones(num, len(training.plan.blocks), dtype=torch.bool), 1)


@pytest.mark.slow
def test_a_whole_run(routed_run, tmp_path):
    run = pk.train(*routed_run, tmp_path / "run", quiet=True)
    found = json.loads((run.path / "routing.json").read_text())
    names = ["all", "most_frequent", "first_k", "random_k", "dist_k", "random_drop"]
    expected = [
        ("learned", True),
        ("learned", False),
        *((rule, False) for rule in names),
        *((rule, True) for rule in names),
    ]
    assert [(row["rule"], row["tuned"]) for row in found["rows"]] == expected
    rows = {row["rule"]: row for row in found["rows"] if (row["rule"], row["tuned"]) != ("learned", False)}
    assert rows["learned"]["router_macs"] > 0 == rows["all"]["router_macs"]
    budget = min(rows["learned"]["macs"], rows["all"]["macs"])
    for rule in ("first_k", "random_k", "dist_k"):
        assert rows[rule]["macs"] == pytest.approx(budget, rel=0.15)  # 4 pictures
    assert set(found["quality"]["tasks"]) == {"seg", "depth", "normals", "keypoints", "edges", "room"}
    assert "val: seg" in (run.path / "log.txt").read_text()
    timed = json.loads((run.path / "routing_latency.json").read_text())
    assert set(timed["batch"]) == {"1"} and timed["pictures"] == 4 and timed["calls"] >= 20
    assert ("static" in timed["batch"]["1"]) is found["is_static"]
    # of the network before anything was skipped, whatever is left of it
    assert timed["macs_full"] == pytest.approx(rows["all"]["macs"], rel=0.02)
    assert sum(policy["pictures"] for policy in found["test"]["policies"]) == 4
    plan = Plan.from_json((run.path / "policy.json").read_text())
    assert bool(plan.routed()) is not found["is_static"]
    model = pk.load(run.path)
    assert model.manifest.plan == plan
    assert model.manifest.host is not None and model.manifest.host.kept_fraction() == 1
    usual = model.manifest.policies
    assert len(usual) == len(set(usual)) and bool(usual) is not found["is_static"]
    if usual:
        left = [found["blocks"].index(plan.blocks[block]) for block in plan.routed()]
        assert list(usual[0]) == [found["seen"]["most_frequent"][r] for r in left]
    tested = json.loads((run.path / "results.json").read_text())["tasks"]
    again = pk.evaluate(run.path)
    for name, values in tested.items():
        assert again[name][values["primary"]] == pytest.approx(values["metrics"][values["primary"]], rel=1e-3)


def forget_everything(training):
    """As a network that was trained into the ground."""
    with torch.no_grad():
        for parameter in training.supernet.parameters():
            parameter.zero_()


@torch.no_grad()
def test_dense_answers_are_judged_by_the_host_and_not_by_what_became_of_it(training, batch):
    """With all weights at 0, all decisions give the same: against the network as it is, all would be right."""
    everything = torch.ones(len(batch.ids), len(routing.current(training).cost_R), dtype=torch.bool)
    right_VBK = routing.rightness(training, batch, [everything])
    dense = [k for k, task in enumerate(training.tasks.values()) if not task.is_yes_or_no]
    assert right_VBK[..., dense].nansum() == right_VBK[..., dense].isfinite().sum()
    training.position.stage = 2  # finetune, which moves the weights
    forget_everything(training)
    wrong_VBK = routing.rightness(training, batch, [everything])
    assert wrong_VBK[..., dense].nanmean() < 0.8
    batches = training.loader(training.val, range(len(training.val)), train=False)
    validate_routing(training, batches, training.recipe.stages[2])
    assert routing.current(training).right < 0.8


def host_passes(training, monkeypatch):
    """Pictures that the host sees from now on."""
    seen = []
    whole = routing_host.host_answers
    monkeypatch.setattr(
        routing_host, "host_answers", lambda t, image: seen.append(len(image)) or whole(t, image)
    )
    return seen


def test_the_host_is_asked_once_per_picture_where_pictures_stay_the_same(training, batch, monkeypatch):
    seen, found = host_passes(training, monkeypatch), routing.current(training)
    training.position.stage = 2
    assert not keeps_host_quality(training, "train") and keeps_host_quality(training, "val")
    for _ in range(2):
        routing.rightness(training, batch, tables(training, batch))
    assert seen == [len(batch.ids)] * 2  # augment: {hflip: 0.5}
    recipe = training.recipe
    training.recipe = recipe.model_copy(update={"augment": type(recipe.augment)()})
    seen.clear()
    for _ in range(2):
        routing.rightness(training, batch, tables(training, batch))
    assert sum(seen) == len(training.train) == len(found.host_quality["train"])
    seen.clear()
    for _ in range(2):
        batches = training.loader(training.val, range(len(training.val)), train=False)
        validate_routing(training, batches, training.recipe.stages[2])
    assert sum(seen) == len(training.val)
    val = next(iter(training.loader(training.val, range(2), train=False)))
    given = host_quality(training, val, "val")
    for i, picture in enumerate(val.ids):
        assert torch.equal(given[i].nan_to_num(2), found.host_quality["val"][picture].nan_to_num(2))


def test_drops_are_points_of_accuracy_and_parts_of_quality(training):
    drops = quality_drops(training, {"room": 0.8, "seg": 0.5, "depth": 0.4}, {"room": 0.7, "seg": 0.45})
    assert drops == pytest.approx({"seg": 0.1, "room": 0.1}) and list(drops) == ["seg", "room"]
    assert quality_drops(training, {"seg": 0.0}, {"seg": 0.2}) == {"seg": 0}


def test_max_drop_is_of_the_mean_quality_of_each_task_and_is_told(training):
    change(training, gamma=None, max_drop=0.01, tolerance=None)
    assert training.recipe.routing.quality_tolerance == 0.01
    found, stage = routing.current(training), training.recipe.stages[1]
    batches = lambda: training.loader(training.val, range(len(training.val)), train=False)  # noqa: E731
    with torch.no_grad():
        found.router.decide.bias.fill_(30.0)
    _, score, _ = validate_routing(training, batches(), stage)
    assert score == pytest.approx(0.0, abs=1e-6)  # nothing is lost, and all is used: 1 - 1^2
    told = quality_of_result(training, found.full_quality)
    assert told["max_drop"] == 0.01 and set(told["tasks"]) == set(training.tasks)
    assert all(row["drop"] == pytest.approx(0, abs=1e-5) for row in told["tasks"].values())
    _, now = tried_on_val(training)
    found.full_quality = now | {"seg": now["seg"] / 0.9}  # one task of six lost a tenth: no mean hides it
    _, score, _ = validate_routing(training, batches(), stage)
    assert score == pytest.approx(-0.1, abs=1e-4)
    told = quality_of_result(training, found.full_quality)
    assert "seg fell by 10.0% of its quality" in in_words(told) and "max_drop 0.01 was asked" in in_words(
        told
    )


@pytest.mark.parametrize(
    ("keys", "stages", "expected"),
    [
        (
            {"gamma": None},
            ["route", "finetune"],
            5.0,
        ),  # the default was in force, whatever finetune then takes
        ({"gamma": 1.5}, ["route", "finetune"], 1.5),
        ({"gamma": 1.5}, ["finetune"], None),
        ({"gamma": None, "max_drop": 0.01}, ["route", "finetune"], None),
    ],
)
def test_the_penalty_of_route_is_told_where_there_was_one(training, keys, stages, expected):
    change(training, **keys)
    kept = [stage for stage in training.recipe.stages if stage.name in stages]
    training.recipe = training.recipe.model_copy(update={"stages": kept})
    assert _route_gamma(training) == expected


def almost_all_alike(training):
    """10,001 pictures, of which one wants the first block otherwise."""
    keep_NR = torch.ones(10_001, len(training.plan.blocks), dtype=torch.bool)
    keep_NR[0, 0] = False
    return policy_stats(keep_NR, keep_NR.float())


@torch.no_grad()
@pytest.mark.parametrize("lost", [0.0005, 0.002])
def test_a_nearly_static_policy_becomes_static_where_that_costs_nothing(training, lost):
    found, plan, stats = routing.current(training), training.plan, almost_all_alike(training)
    training.routing = None
    _, after = tried_on_val(training)  # with all blocks, which is the favourite policy
    training.routing = found
    before = after | {"seg": after["seg"] / (1 - lost)}
    told, drops = fold_static(training, stats, 0.001, before)
    assert drops["seg"] == pytest.approx(lost, abs=1e-5)
    if lost <= 0.001:
        assert training.routing is None and training.plan.routed() == ()
        name = plan.blocks[0]
        assert told["blocks"] == {name: {"kept": True, "rate": pytest.approx(10_000 / 10_001)}}
        assert told["before"].keys() == told["after"].keys() == set(training.tasks)
    else:
        assert told is None and training.routing is found and training.plan == plan


@pytest.mark.parametrize(("lost", "told"), [(0.0, ["static"]), (0.002, ["nearly_static", "unfixed"])])
def test_one_picture_of_two_hundred_does_not_keep_a_router(training, monkeypatch, lost, told):
    found = routing.current(training)
    found.full_quality = dict.fromkeys(training.tasks, 1.0)
    keep_NR = torch.ones(100, len(found.cost_R), dtype=torch.bool)  # of train and as many of val
    keep_NR[:, 1] = False

    real = routing_check.decisions

    def decided(training, source, observe=None):
        if observe is not None:
            real(training, source, observe)
        other_NR = keep_NR.clone()
        other_NR[0, 0] = source is not training.val
        return other_NR, other_NR * 0.5 + 0.25

    monkeypatch.setattr(routing_check, "decisions", decided)
    monkeypatch.setattr(routing_check, "compare_rules", lambda *args: SimpleNamespace(rows=[]))
    monkeypatch.setattr(routing_check, "record_test", lambda *args: {})
    monkeypatch.setattr(routing_check, "quality_drops", lambda *args: dict.fromkeys(training.tasks, lost))
    plan = training.plan
    written = routing_check.conclude_routing(training, training.val)
    assert [finding["code"] for finding in written["findings"]] == told
    assert written["is_static"] is (training.routing is None) is (lost == 0)
    assert len(training.plan.routed()) == (0 if lost == 0 else len(plan.routed()))


def test_rules_may_cost_what_the_router_costs_too():
    keep_NR = torch.tensor([[True, False], [True, True]])
    cost_R = torch.tensor([3.0, 1.0])
    assert equal_cost(keep_NR, cost_R, 0.2) == pytest.approx((3.5 + 0.2) / 4)
    assert equal_cost(keep_NR, cost_R, 9.0) == 1  # no rule can cost more than all blocks


def test_rules_meet_the_cost_of_the_learned_network(training):
    change(training, compare_epochs=0)
    found = routing.current(training)
    num = len(training.val)
    with torch.no_grad():  # all but the first block, for every picture
        found.router.decide.weight.zero_()
        found.router.decide.bias.fill_(1.0)
        found.router.decide.bias[:2] = -1.0
    learned_NR = torch.ones(num, len(found.cost_R), dtype=torch.bool)
    learned_NR[:, :2] = False
    stats = policy_stats(learned_NR, learned_NR.float())
    found_rows = compare_rules(training, training.val, stats, learned_NR).rows
    names = [(row["rule"], row["tuned"]) for row in found_rows]
    # no stage `route` left a router behind here: the tuned one's decisions are tried on the host
    assert names[:2] == [("learned", True), ("learned", False)] and not any(tuned for _, tuned in names[2:])
    rows = {row["rule"]: row for row in found_rows}
    whole = rows["learned"]["macs"]
    assert rows["learned"]["router_macs"] > 0
    budget = min(whole, rows["all"]["macs"])
    costs = costs_of(training)
    largest = float(costs.added_R.max())
    for rule in ("first_k", "random_k", "dist_k"):
        assert rows[rule]["macs"] == pytest.approx(budget, abs=largest)
    assert rows["most_frequent"]["macs"] == pytest.approx(whole - rows["learned"]["router_macs"])


def test_untuned_rules_meet_the_cost_of_the_router_that_was_not_tuned(training, monkeypatch):
    """The stage `route` left the first two blocks, `finetune` the others: each rule stands beside its own."""
    num, count = len(training.val), len(routing.current(training).cost_R)
    alone_NR = torch.arange(count).lt(2).expand(num, count)
    tuned_NR = ~alone_NR
    given = []
    monkeypatch.setattr(rules, "_tuned_once", lambda *args: given.append(args[3]) or {})
    costs = replace(costs_of(training), router=0)  # here it is larger than the blocks
    monkeypatch.setattr(rules, "costs_of", lambda training: costs)
    stats = policy_stats(tuned_NR, tuned_NR.float())
    found = compare_rules(training, training.val, stats, tuned_NR, rules.Decided(alone_NR, alone_NR[0]))
    rows = {row["rule"]: row for row in found.rows if row and row["tuned"] is False}
    before, after = (costs.of(keep_NR).mean().item() for keep_NR in (alone_NR, tuned_NR))
    assert rows["learned"]["macs"] == pytest.approx(before)
    assert rows["most_frequent"]["macs"] == pytest.approx(before)
    for rule in ("first_k", "random_k", "dist_k"):
        assert rows[rule]["macs"] == pytest.approx(before, abs=float(costs.added_R.max()))
    _, favourite, first_k, *_ = (rule(num, torch.Generator().manual_seed(0)) for rule in given)
    assert torch.equal(favourite, tuned_NR)
    assert costs.of(first_k).mean().item() == pytest.approx(after, abs=float(costs.added_R.max()))


@pytest.mark.parametrize(
    ("stages", "asked", "epochs"),
    [
        (["route", "finetune"], None, 2),
        (["route"], None, 3),
        (["route"], 0, 0),
        (["route", "finetune"], 5, 5),
    ],
)
def test_rules_are_tuned_as_long_as_what_they_are_compared_with(training, stages, asked, epochs):
    made = [RouteStage(name="route", epochs=3), FinetuneStage(name="finetune", epochs=2)]
    kept = [stage for stage in made if stage.name in stages]
    change(training, compare_epochs=asked)
    training.recipe = training.recipe.model_copy(update={"stages": kept})
    assert rules._epochs(training) == epochs


@torch.no_grad()
def test_a_skipped_transition_leaves_its_projection_without_the_activation_behind_it(training, batch):
    """As in the released code: what the next block reads may be negative."""
    net, found = training.supernet.eval(), routing.current(training)
    b = next(i for i, block in enumerate(net.blocks[:-1]) if block.kind == "shortcut")
    block = net.backbone.get_submodule(net.blocks[b].name)
    after = net.backbone.get_submodule(net.blocks[b + 1].name)
    projected, read = [], []
    handles = [
        block.downsample.register_forward_hook(lambda module, args, output: projected.append(output)),
        after.register_forward_pre_hook(lambda module, args: read.append(args[0])),
    ]
    keep_BR = torch.ones(len(batch.ids), len(found.cost_R), dtype=torch.bool)
    keep_BR[:, b] = False
    net(batch.image_BCHW, training.plan, keep_BR=keep_BR)
    for handle in handles:
        handle.remove()
    torch.testing.assert_close(read[0], projected[0])
    assert read[0].min() < 0


def test_what_older_runs_of_gumbel_have_written_out_is_read():
    spec = RoutingSpec.model_validate({"estimator": "gumbel", "tolerance": 0.05, "entropy": 0.1})
    assert spec.quality_tolerance == 0.05
    with pytest.raises(ValueError, match="gumbel does not read it"):
        RoutingSpec.model_validate({"estimator": "gumbel", "tolerance": 0.04})
