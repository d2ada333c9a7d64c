"""A plan decided by sampling: some are drawn from the learned policy, as AdaShare draws eight, and one is kept.

    retrain: each    every distinct plan is retrained; the best score on val decides which one the run goes on with
    retrain: best    the plan with the lowest loss on val, with the weights of the search, is retrained alone

All start from the same weights and see the pictures in the same order, so that what differs between samples follows
from their plans; a plan that is drawn twice is therefore trained once and counts twice. (The authors' code draws new
initial weights for each sample, and reports the best of eight on the test split.)

Within a budget a draw that meets it stays as it is, and any other becomes a plan near it that does. Where few
plans meet the budget several draws may have the same one next to them; it counts as often.
"""

import math
import shutil
import statistics
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch

from perceptkit.model import cost
from perceptkit.spec.recipe import RetrainStage, SearchStage
from perceptkit.train import checkpoint
from perceptkit.train.budgeting import within_budget
from perceptkit.train.evaluate import Evaluation, Forward
from perceptkit.train.losses import task_losses, weighted_sum
from perceptkit.train.plan_statistics import statistics_of, take_statistics
from perceptkit.train.run_folder import write_atomically
from perceptkit.train.samples import Samples, checkpoint_of, distinct
from perceptkit.train.training import Training
from perceptkit.train.turns import steps_of_epoch

SEARCHED = "checkpoints/searched.pt"
"""In the run folder: the weights that the search ended with, where every sample starts from them."""
Metrics = dict[str, dict[str, float]]


def draw_samples(training: Training, stage: SearchStage, open_count: int) -> None:
    """Draws the plans, judges them on val, and decides which ones are retrained."""
    drawn = [
        within_budget(training, training.policy.sample(open_count, training.generator), open_count)
        for _ in range(stage.samples)
    ]
    plans, counts = distinct(drawn)
    losses = []
    for plan in plans:
        with statistics_of(training, plan):
            losses.append(validation_loss(training, partial(training.supernet, keep=plan)))
    best = min(range(len(plans)), key=lambda i: losses[i] if math.isfinite(losses[i]) else math.inf)
    queue = [best] if stage.retrain == "best" else list(range(len(plans)))
    training.samples = Samples(plans, counts, losses, queue)
    training.progress.total += further_steps(training)
    training.say(f"{stage.samples} plans drawn, {len(plans)} of them distinct; {len(queue)} to retrain")
    starts_here = any(isinstance(s, RetrainStage) and s.start == "search" for s in training.recipe.stages)
    if starts_here and training.fabric.global_rank == 0:
        state = {"supernet": training.supernet.state_dict(), "losses": training.losses_state()}
        checkpoint.save(training.run / SEARCHED, state, training.position)


@torch.no_grad()
def validation_loss(training: Training, forward: Forward) -> float:
    """sum_k lambda_k L_k on val, a mean over pictures. Every rank computes the whole."""
    training.supernet.eval()
    total, pictures = 0.0, 0
    for batch in training.loader(training.val, range(len(training.val)), train=False, shared=False):
        batch = batch.to(training.fabric.device)
        losses = task_losses(forward(batch.image_BCHW), batch, training.tasks, shared=False)
        total += weighted_sum(losses, training.tasks).item() * len(batch.ids)
        pictures += len(batch.ids)
    return total / pictures


def further_steps(training: Training) -> int:
    """Steps of the retraining of all samples but one, which is in every run's total."""
    assert training.samples is not None
    recipe = training.recipe
    stage = next(stage for stage in recipe.stages if isinstance(stage, RetrainStage))
    steps = steps_of_epoch(recipe, stage, len(training.train), training.fabric.world_size)
    return (len(training.samples.queue) - 1) * stage.epochs * steps


def begin_sample(training: Training, stage: RetrainStage) -> None:
    """The plan and the initial weights of the sample that is retrained now."""
    assert training.samples is not None
    training.plan = training.samples.plans[training.samples.queue[training.position.sample]]
    if stage.start == "search":
        training.fabric.barrier()
        state, _ = checkpoint.load(training.run / SEARCHED)
        training.supernet.load_state_dict(state["supernet"])
        training.load_losses(state)
        take_statistics(training, training.plan)


def end_sample(training: Training) -> bool:
    """Notes how good a retrained sample was. After the last one the best of them is put in place.

    Returns:
        Whether it was the last.
    """
    samples = training.samples
    assert samples is not None
    samples.scores[samples.queue[training.position.sample]] = training.best_score
    if training.position.sample + 1 < len(samples.queue):
        return False
    chosen = samples.choose()
    training.fabric.barrier()
    if training.fabric.global_rank == 0:
        source = checkpoint_of(training.run, chosen)
        write_atomically(training.run / "checkpoints/best.pt", partial(shutil.copyfile, source))
    training.fabric.barrier()
    training.load_best()
    return True


def is_final(training: Training) -> bool:
    """Whether the chosen sample is what the run ends with: nothing follows the retraining."""
    return isinstance(training.recipe.stages[-1], RetrainStage)


def try_on_test(training: Training, test: Callable[[Forward], Evaluation]) -> dict[int, Metrics]:
    """Test metrics of the retrained plans, each looked at once; without the one that the run ends with.

    Leaves other weights in the network: `load_best` puts the run's back.
    """
    samples, metrics = training.samples, {}
    assert samples is not None
    for i in samples.queue:
        if i == samples.chosen and is_final(training):
            continue
        state, _ = checkpoint.load(checkpoint_of(training.run, i))
        training.supernet.load_state_dict(state["supernet"])
        training.supernet.eval()
        metrics[i] = test(partial(training.supernet, keep=samples.plans[i])).metrics
    return metrics


def samples_record(training: Training, metrics: Mapping[int, Metrics]) -> dict[str, Any]:
    """The part `samples` of results.json: every plan, and mean and deviation over all that were drawn.

    `metrics` are those of the test, by plan.
    """
    samples, network = training.samples, training.supernet
    assert samples is not None
    rows = []
    for i, (plan, count) in enumerate(zip(samples.plans, samples.counts, strict=True)):
        price = cost.table(network, plan, network.size_HW)["rows"]["compact"]
        rows.append(
            {
                "count": count,
                "choices": {task: list(row) for task, row in zip(plan.tasks, plan.table, strict=True)},
                "kept_fraction": plan.kept_fraction(),
                "params": price["params"],
                "macs": price["macs"],
                "val_loss": samples.val_losses[i],
                "val_score": samples.scores.get(i),
                "metrics": metrics.get(i),
            }
        )
    return {"drawn": samples.drawn, "chosen": samples.chosen, "rows": rows, **spread_of(rows)}


def spread_of(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """`mean` and `std` over samples of every number of `rows`; each counts as often as it was drawn.

    The deviation is the sample's, with n - 1, and NaN for a single sample. Test metrics are there where all plans
    were retrained: those of the best one alone have no spread.
    """
    found: dict[str, Any] = {"mean": {}, "std": {}}
    for key in ("kept_fraction", "params", "macs", "val_loss", "val_score"):
        found["mean"][key], found["std"][key] = _mean_std(rows, [row[key] for row in rows])
    if all(row["metrics"] is not None for row in rows):
        for key in found:
            found[key]["metrics"] = {
                task: {
                    name: _mean_std(rows, [row["metrics"][task][name] for row in rows])[key == "std"]
                    for name in values
                }
                for task, values in rows[0]["metrics"].items()
            }
    return found


def _mean_std(rows: Sequence[dict[str, Any]], values: Sequence[float | None]) -> tuple[float, float]:
    if any(value is None for value in values):
        return math.nan, math.nan
    drawn = [
        float(v) for row, v in zip(rows, values, strict=True) if v is not None for _ in range(row["count"])
    ]
    if not all(math.isfinite(value) for value in drawn):
        return math.nan, math.nan
    return statistics.fmean(drawn), statistics.stdev(drawn) if len(drawn) > 1 else math.nan
