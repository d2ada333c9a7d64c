"""The steps of the search: what they run, what they change, and when blocks open."""

import json

import pytest
import torch

import perceptkit as pk
from perceptkit.errors import PerceptkitError
from perceptkit.model.norms import still_statistics
from perceptkit.model.plan import KEEP, SKIP
from perceptkit.spec.load import load_recipe, load_tasks
from perceptkit.train import session
from perceptkit.train.loop import begin_stage, turns_now, weight_step
from perceptkit.train.searching import policy_step, sample_for_weights


@pytest.fixture
def prepare(small_run, tmp_path):
    """Makes a run at the begin of its search; its last block is skipped by all tasks, the others are kept."""

    def made(*changes):
        tasks, recipe = small_run
        changes = ["stages.search.curriculum=none", *changes]
        loaded, how = load_tasks(str(tasks), []), load_recipe(str(recipe), changes)
        specs = session.Specs(loaded.spec, how.spec, loaded.text, how.text)
        training = session.prepare(specs, tmp_path / "run", resume=False, quiet=True)
        training.position.stage = 1
        begin_stage(training, training.recipe.stages[1])
        with torch.no_grad():
            training.policy.policy_logits_KL2[..., KEEP] = 30.0
            training.policy.policy_logits_KL2[:, -1, SKIP] = 60.0
        training.train_mode()
        return training

    return made


def parts(training):
    stage = training.recipe.stages[1]
    batch = next(iter(training.loader(training.train, range(8), train=True)))
    return stage, turns_now(training, stage, 0), batch


def statistics(training, block=""):
    return {
        name: value.clone()
        for name, value in training.supernet.backbone.state_dict().items()
        if name.startswith(block) and ("running" in name or "num_batches" in name)
    }


def differ(one, other):
    return [name for name in one if not torch.equal(one[name], other[name])]


def test_straight_through_weight_steps_run_only_what_is_kept(prepare):
    training = prepare("stages.search.gumbel=straight_through")
    stage, (weights, _), batch = parts(training)
    keep = sample_for_weights(training, stage, weights, 0)
    assert all(row == [True] * (len(row) - 1) + [False] for row in keep.values())
    names = [block.name for block in training.supernet.blocks]
    skipped, kept, everywhere = (statistics(training, name) for name in (names[-1], names[0], ""))
    assert skipped and kept
    weight_step(training, stage, batch, 1e-3, weights)
    assert [name for name in differ(skipped, statistics(training)) if "downsample" not in name] == []
    assert differ(kept, statistics(training)) == list(kept)
    assert len(differ(everywhere, statistics(training))) < len(everywhere)


def test_a_soft_weight_step_runs_all(prepare):
    training = prepare()
    stage, (weights, _), batch = parts(training)
    keep = sample_for_weights(training, stage, weights, 0)
    assert all(isinstance(k, torch.Tensor) and not k.requires_grad for row in keep.values() for k in row)
    before = statistics(training, training.supernet.blocks[-1].name)
    weight_step(training, stage, batch, 1e-3, weights)
    # the search's own, which no plan is judged with: see test_plan_statistics.py
    assert differ(before, statistics(training)) == list(before)


@pytest.mark.parametrize("formulation", ["paper", "reference_code"])
@pytest.mark.parametrize("gumbel", ["soft", "straight_through"])
def test_a_policy_step_changes_only_the_logits(prepare, gumbel, formulation):
    training = prepare(
        f"stages.search.gumbel={gumbel}",
        "stages.search.tau=[30.0, 10.0]",
        f"sharing.formulation={formulation}",
    )
    stage, (_, policy), batch = parts(training)
    logits = training.policy.policy_logits_KL2.detach().clone()
    weights = {name: p.clone() for name, p in training.supernet.named_parameters()}
    before = statistics(training)
    losses = policy_step(training, stage, batch, policy)
    assert set(losses) == {"loss", "sparsity_loss", "sharing_loss"}
    moved = (training.policy.policy_logits_KL2 - logits).abs()
    assert (moved > 0).all()  # skipped blocks too: their outputs were computed for the gradient
    after = dict(training.supernet.named_parameters())
    assert differ(weights, after) == [] and all(p.requires_grad for p in after.values())
    as_the_code = gumbel == "soft" and formulation == "reference_code"
    assert bool(differ(before, statistics(training))) == as_the_code


def test_a_policy_step_whose_loss_is_no_number_is_refused_and_changes_nothing(prepare):
    training = prepare("stages.search.tau=[30.0, 10.0]")
    stage, (_, policy), batch = parts(training)
    head = next(p for name, p in training.supernet.heads.named_parameters() if "depth" in name)
    with torch.no_grad():
        head.fill_(float("nan"))
    logits = training.policy.policy_logits_KL2.detach().clone()
    with pytest.raises(PerceptkitError, match=r"step 0: the loss of depth is not finite"):
        policy_step(training, stage, batch, policy)
    assert torch.equal(training.policy.policy_logits_KL2, logits)


def test_logits_that_become_no_number_are_refused(prepare):
    training = prepare("stages.search.tau=[30.0, 10.0]")
    stage, (_, policy), batch = parts(training)
    training.policy.policy_logits_KL2.register_hook(lambda gradient: gradient * float("nan"))
    with pytest.raises(PerceptkitError, match="the policy's logits are not finite; try a smaller policy_lr"):
        policy_step(training, stage, batch, policy)


def test_still_statistics_normalise_by_the_batch():
    norm = torch.nn.BatchNorm2d(3).train()
    x = torch.randn(4, 3, 5, 5)
    moving = torch.nn.BatchNorm2d(3).train()(x)
    with still_statistics(norm):
        assert torch.equal(norm(x), moving)
    assert norm.running_mean.abs().sum() == 0 and norm.num_batches_tracked == 0
    norm(x)
    assert norm.running_mean.abs().sum() > 0


def test_policy_weight_decay_pulls_logits_to_zero(prepare):
    training = prepare("stages.search.policy_weight_decay=0.5")
    (group,) = training.policy_optimizer.param_groups
    assert group["weight_decay"] == 0.5


def test_the_formulation_reaches_the_policy(prepare):
    training = prepare("sharing.formulation=reference_code")
    assert training.policy.formulation == "reference_code"
    sparsity, _ = training.policy.regularisers(1)
    # the last block is surely skipped, -log(1 - a) = 0; the paper's loss has its lower bound there
    assert sparsity.item() == pytest.approx(0.0, abs=1e-6)


def test_blocks_that_the_curriculum_does_not_come_to_are_told(prepare):
    training = prepare("stages.search.curriculum=top_down", "stages.search.epochs=2")
    told = (training.run / "log.txt").read_text()
    assert (
        "decides on the last 2 of 4 blocks: its curriculum does not come to the 2 next to the image" in told
    )


def test_without_curriculum_nothing_is_told_of_blocks(prepare):
    training = prepare()
    assert "its curriculum" not in (training.run / "log.txt").read_text()


@pytest.mark.slow
def test_turns_of_steps_from_end_to_end(small_run, tmp_path):
    changes = ["alternate=steps", "turn_steps=[1, 2]", "gumbel=straight_through", "speed=0.5", "epochs=2"]
    run = pk.train(
        *small_run, tmp_path / "run", overrides=[f"stages.search.{c}" for c in changes], quiet=True
    )
    rows = [json.loads(line) for line in (run.path / "metrics.jsonl").read_text().splitlines()]
    searched = [row for row in rows if row["kind"] == "policy"]
    # 24 pictures, half of them the policy's, batches of 4: 3 weight steps and 3 x 2 policy steps an epoch
    assert [row["step"] for row in searched] == [12 + 9, 12 + 18]
    # a block opens every half epoch: the last turn of an epoch begins after 2/3 of it
    assert [row["open_blocks"] for row in searched] == [2, 4]
