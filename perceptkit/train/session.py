"""From two validated specs to a trained run folder: builds what the loop needs, runs it, tests once.

The order is the contract: everything that can be refused is refused before the run folder is made.
"""

import math
import os
import platform
import signal
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import torch
from lightning_fabric import Fabric

from perceptkit.baselines.sharing.affinity import affinity_record
from perceptkit.baselines.sharing.table import Network, build_network
from perceptkit.baselines.sharing.whole import WholeNetwork
from perceptkit.data.cache import keep_decoded
from perceptkit.data.m_per_class import refuse_few_classes
from perceptkit.data.metric_samplers import refuse_few_for
from perceptkit.data.mixed import Mixed
from perceptkit.data.photometric import Photometric
from perceptkit.data.source import Source
from perceptkit.data.sources import open_split, open_train
from perceptkit.errors import ResumeError, SpecError
from perceptkit.model import cost
from perceptkit.model.classifier import classification_task, start_as_classifier
from perceptkit.model.plan import Plan
from perceptkit.model.router import build_router
from perceptkit.model.supernet import Supernet, head_key
from perceptkit.policies.adashare import AdaSharePolicy
from perceptkit.spec.metric_learning import OF_EQUAL_COUNTS, MPerClassSampler
from perceptkit.spec.recipe import Recipe, SearchStage, StageSpec
from perceptkit.spec.several import with_data
from perceptkit.spec.stage_steps import count_train
from perceptkit.spec.tasks_file import RGB, Data, EmbeddingSpec, SceneCounts, TasksFile, class_task
from perceptkit.tasks.base import Task
from perceptkit.tasks.table import build_tasks
from perceptkit.train import checkpoint, run_folder
from perceptkit.train.adapting import begin_adaptation, conclude_adaptation
from perceptkit.train.budgeting import Budget, begin_budget, ship_budget
from perceptkit.train.directions import refuse_directions
from perceptkit.train.domain_file import digest
from perceptkit.train.draw_samples import further_steps, is_final, samples_record, try_on_test
from perceptkit.train.evaluate import Evaluation, Forward, constant_metrics, evaluate
from perceptkit.train.leaving_out import FILE as LEFT_OUT_FILE
from perceptkit.train.leaving_out import excluded_in_words, in_words, left_out_of_run
from perceptkit.train.loop import run_stages
from perceptkit.train.pictures import write_predictions
from perceptkit.train.progress import Progress
from perceptkit.train.random_plan import drawn_plan
from perceptkit.train.ranks import rows_of_all_ranks, synchronise_batchnorm
from perceptkit.train.routing_check import conclude_routing
from perceptkit.train.run_log import RunLog
from perceptkit.train.searching import closed_in_words, opened_in_the_end
from perceptkit.train.stage_record import is_chain, record_base, record_final, record_stage
from perceptkit.train.start_from import find_base, start_from
from perceptkit.train.training import Training
from perceptkit.train.turns import steps_of_epoch, turns
from perceptkit.train.untrained_host import check_host


@dataclass(frozen=True)
class Specs:
    """What the user declared: validated, with the text as typed."""

    tasks: TasksFile
    recipe: Recipe
    tasks_text: str
    recipe_text: str
    is_rehearsal: bool = False
    """Of `shrink`: the stages are shorter than the recipe has them."""


def shrink(specs: Specs, batches: int = 2) -> Specs:
    """The same run on a few batches and one epoch per train stage: a rehearsal in seconds.

    A folder is read as it is; scenes are as few as every stage can make `batches` full batches of.
    """
    recipe, tasks = specs.recipe, specs.tasks
    smallest = min(
        (min(s.policy_fraction, 1 - s.policy_fraction) for s in recipe.stages if s.name == "search"),
        default=1.0,
    )
    largest = max(recipe.batch_of(stage) for stage in recipe.stages)
    images = math.ceil(batches * largest / smallest) + 1
    stages = [stage.model_copy(update={"epochs": 1, **_fewer_samples(stage)}) for stage in recipe.stages]
    if recipe.budget is not None:  # one epoch opens one block, which could meet none
        stages = [
            stage.model_copy(update={"curriculum": "none"}) if stage.name == "search" else stage
            for stage in stages
        ]
    routing = recipe.routing
    if routing is not None and routing.compare_epochs:
        routing = routing.model_copy(update={"compare_epochs": 1})

    def fewer(_: str, data: Data) -> dict[str, Any]:
        if data.source == "scenes":
            count = SceneCounts(train=images, val=recipe.loader.batch, test=recipe.loader.batch)
            return {"count": count}
        return {"limit": images}

    return Specs(
        with_data(tasks, fewer),
        recipe.model_copy(update={"stages": stages, "routing": routing}),
        specs.tasks_text,
        specs.recipe_text,
        is_rehearsal=True,
    )


def _fewer_samples(stage: StageSpec) -> dict[str, int]:
    return {"samples": min(stage.samples, 2)} if isinstance(stage, SearchStage) else {}


def make_fabric(recipe: Recipe) -> Fabric:
    """Device, precision and processes; under `torchrun` every rank joins."""
    precision = recipe.precision
    if precision == "16" and not torch.cuda.is_available():
        raise SpecError("precision: 16 needs a GPU; on a CPU it is 32 or bf16")
    if precision == "auto":
        precision = "bf16" if torch.cuda.is_available() and torch.cuda.is_bf16_supported() else "32"
    names: dict[str, Any] = {"32": "32-true", "bf16": "bf16-mixed", "16": "16-mixed"}
    ranks = int(os.environ.get("WORLD_SIZE", "1"))
    if ranks > 1:
        local = int(os.environ["LOCAL_WORLD_SIZE"])
        fabric = Fabric(strategy="ddp", devices=local, num_nodes=ranks // local, precision=names[precision])
    else:
        fabric = Fabric(devices=1, precision=names[precision])
    fabric.launch()
    return fabric


def slow_bf16(precision: str, device: torch.device) -> str:
    """A warning where bf16 is asked for on an x86 CPU that has no arithmetic for it; else empty.

    ResNet-32 trained a twelfth as fast in bf16 as in 32 on such a CPU, and 1.7 times as fast on one with AVX512-BF16.
    """
    if precision != "bf16" or device.type != "cpu" or platform.machine() not in ("x86_64", "AMD64"):
        return ""
    if torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported():
        return ""
    return (
        "precision: bf16 is far slower than 32 on this CPU, which has neither AVX512-BF16 nor AMX; "
        "--set precision=32"
    )


def make_supernet(
    recipe: Recipe,
    tasks: Mapping[str, Task],
    size_HW: tuple[int, int],
    mean: RGB | None = None,
    std: RGB | None = None,
) -> Network:
    """The network of the recipe with its initial weights: the same for the same seed.

    `mean` and `std` are those of the data, where they are not what the backbone's weights expect.
    """
    has_base = recipe.adaptation is not None and recipe.start_from is not None  # which brings the weights
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        network = build_network(
            recipe.sharing, recipe.backbone, recipe.heads, tasks, size_HW, not has_base, mean, std
        )
        if recipe.heads.classifier == "pretrained":
            task = classification_task(tasks)
            if isinstance(network, WholeNetwork):
                plain = network.plain()
                start_as_classifier(plain, task, recipe.backbone)
                network.head(task).load_state_dict(plain.heads[head_key(task)].state_dict())
            else:
                net = network if isinstance(network, Supernet) else network.by_task()[task]
                start_as_classifier(net, task, recipe.backbone)
    return network


def refuse_empty_turns(recipe: Recipe, num_train: int, world_size: int) -> None:
    """Raises SpecError where a train stage would never make a step: too few pictures for one full batch."""
    for stage in recipe.stages:
        whole = recipe.batch_of(stage) * world_size
        for turn in turns(stage, num_train, whole, recipe.seed):
            if len(turn.indices) < whole:
                share = (
                    f" ({stage.policy_fraction:g} of {num_train} are the policy's)"
                    if stage.name == "search"
                    else ""
                )
                raise SpecError(
                    f"{stage.name}: {len(turn.indices)} pictures to train the {turn.updates} on{share} are fewer than "
                    f"one batch of {whole}; lower {'loader.batch' if stage.batch is None else 'its batch'}"
                )


def classes_to_train_on(specs: Specs, train: Source, world_size: int) -> np.ndarray | None:
    """The class or id of every picture to train on, where the recipe's `m_per_class` or `sampler` asks for them.

    Raises SpecError where a turn of a stage has fewer classes than a batch takes.
    """
    loader, task = specs.recipe.loader, class_task(specs.tasks)
    if loader.by_class is None or task is None:
        return None
    class_of = np.array([train.label(i, task) for i in range(len(train))])
    for stage in specs.recipe.stages:
        whole = specs.recipe.batch_of(stage) * world_size
        for turn in turns(stage, len(train), whole, specs.recipe.seed):
            count = len(np.unique(class_of[list(turn.indices)]))
            if loader.m_per_class is not None:
                refuse_few_classes(count, loader.m_per_class, whole)
            if loader.sampler is not None:
                refuse_few_for(loader.sampler, count, whole)
    return class_of


def refuse_losses(tasks: Mapping[str, Task]) -> None:
    """Raises SpecError where a loss cannot be made of what the tasks file says of it."""
    with torch.random.fork_rng(devices=[]):
        for task in tasks.values():
            task.begin_loss()


def refuse_unequal_counts(specs: Specs) -> None:
    """Raises SpecError for a loss that wants as many pictures of every id, where the recipe draws batches otherwise."""
    loader = specs.recipe.loader
    equal = loader.m_per_class is not None or isinstance(loader.sampler, MPerClassSampler)
    for name, task in specs.tasks.tasks.items():
        loss = task.loss.name if isinstance(task, EmbeddingSpec) else ""
        if loss in OF_EQUAL_COUNTS and not (equal and name == class_task(specs.tasks)):
            raise SpecError(f"tasks.{name}.loss: {loss} {OF_EQUAL_COUNTS[loss]}")


@torch.no_grad()
def refuse_size(recipe: Recipe, network: Network, plan: Plan) -> None:
    """Raises SpecError where the network does not take pictures of the size that `augment` makes."""
    augment = recipe.augment
    size_HW = augment.size_HW(network.size_HW)
    if size_HW == network.size_HW:
        return
    network.eval()
    try:
        network(torch.zeros(1, 3, *size_HW, device=next(network.parameters()).device), plan)
    except (RuntimeError, AssertionError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        size = f"[{network.size_HW[0]}, {network.size_HW[1]}]"
        key = next(name for name in ("resize", "crop", "pad") if getattr(augment, name))
        raise SpecError(
            f"augment.{key}: {recipe.backbone.name} takes pictures of data.size {size} only ({reason}); "
            f"end with augment.resize={size.replace(' ', '')}"
        ) from error
    finally:
        network.train()


def budget_of(specs: Specs, fabric: Fabric) -> Budget:
    """The budget of a run that is not begun, whether or not a plan can meet it."""
    data = specs.tasks.first
    network = make_supernet(specs.recipe, build_tasks(specs.tasks), data.size, data.mean, data.std)
    assert isinstance(network, Supernet)
    num_train = count_train(specs.tasks)
    opened = opened_in_the_end(specs.recipe, len(network.blocks), num_train, fabric.world_size)
    return begin_budget(specs.recipe, network, fabric, opened, refuse=False)


def prepare(specs: Specs, run: Path, resume: bool, quiet: bool) -> Training:
    """Builds everything; with `resume` continues where the last checkpoint was saved.

    Raises ResumeError, SpecError or DataError; nothing is written before all of it fits.
    """
    recipe = specs.recipe
    if recipe.start_from is not None:
        recipe = recipe.model_copy(update={"start_from": str(find_base(run, recipe))})
    if not resume:
        run_folder.refuse_used(run)
    state: tuple[dict[str, Any], checkpoint.Position] | None = None
    if resume:
        run_folder.refuse_changes(run, specs.tasks, recipe)
        if run_folder.is_finished(run):
            raise ResumeError(f"{run} is finished: nothing to resume")
        if (run / "checkpoints/last.pt").exists():
            state = checkpoint.load(run / "checkpoints/last.pt")
    tasks = build_tasks(specs.tasks)
    warning = check_host(recipe, tasks)
    refuse_losses(tasks)
    refuse_unequal_counts(specs)
    fabric = make_fabric(recipe)
    left_out = left_out_of_run(specs.tasks, tasks, run, fabric, resume, quiet)
    with fabric.rank_zero_first(local=True):  # the others find the scenes rendered
        train_source = open_train(specs.tasks, tasks, left_out)
        val_source = open_split(specs.tasks, tasks, "val", left_out=left_out)
    kept = keep_decoded(
        recipe.loader,
        {"train": train_source, "val": val_source},
        run / "cache",
        int(os.environ.get("LOCAL_WORLD_SIZE", "1")),
        whole=("train",) if recipe.augment.crop is not None else (),
    )
    refuse_empty_turns(recipe, len(train_source), fabric.world_size)
    class_of = classes_to_train_on(specs, train_source, fabric.world_size)
    if recipe.augment.photometric:
        Photometric(recipe.augment.photometric)  # refuses what is no photometric transform
    torch.manual_seed(recipe.seed)

    def fresh() -> Network:
        data = specs.tasks.first
        return make_supernet(recipe, tasks, data.size, data.mean, data.std)

    supernet = fresh().to(fabric.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    synchronise_batchnorm(supernet, fabric.device)
    blocks = [block.name for block in supernet.blocks]
    if recipe.router is not None:
        # one that cannot be made is refused now, not after the retraining
        with torch.random.fork_rng(devices=[]):
            build_router(recipe.router, len(blocks), specs.tasks.first.size)
    if recipe.routing is not None:
        refuse_directions(recipe.routing.directions, len(blocks))
    plan = Plan.all_keep(list(tasks), blocks)
    begun = None
    heads: tuple[str, ...] = ()
    if recipe.adaptation is not None:
        assert isinstance(supernet, Supernet)
        begun = begin_adaptation(recipe, supernet, normalised=specs.tasks.first.mean is not None)
        plan, heads = begun.plan, begun.transferred
        # a strategy may have added layers
        supernet = supernet.to(fabric.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        synchronise_batchnorm(supernet, fabric.device)
    elif recipe.start_from is not None:
        plan, heads = start_from(Path(recipe.start_from), recipe, tasks, supernet), tuple(tasks)
    elif recipe.sharing.method == "random":
        drawn_plan(
            recipe, list(tasks), blocks
        )  # one that cannot be drawn is refused before anything is trained
    base_digest = begun.base_digest if begun is not None else ""
    if begun is None and recipe.start_from is not None and isinstance(supernet, Supernet):
        base_digest = digest(supernet.backbone)
    if resume and (expected := run_folder.read_base(run)[1]) and expected != base_digest:
        raise ResumeError(
            f"{recipe.start_from} is not what {run} started from: base moved? --set start_from=PATH"
        )
    refuse_size(recipe, supernet, plan)
    budget, opened = None, len(blocks)
    if any(isinstance(stage, SearchStage) for stage in recipe.stages):
        opened = opened_in_the_end(recipe, len(blocks), len(train_source), fabric.world_size)
    if recipe.budget is not None:
        assert isinstance(supernet, Supernet)
        budget = begin_budget(recipe, supernet, fabric, opened, refuse=not resume)
    policy = AdaSharePolicy(list(tasks), blocks, recipe.seed, recipe.sharing.formulation).to(fabric.device)
    if fabric.global_rank == 0 and not resume:
        texts = specs.tasks_text, specs.recipe_text
        run_folder.start(run, specs.tasks, recipe, *texts, recipe.seed, base_digest)
    fabric.barrier()
    position = state[1] if state else checkpoint.Position()
    total = sum(
        stage.epochs * steps_of_epoch(recipe, stage, len(train_source), fabric.world_size)
        for stage in recipe.stages
    )
    first = fabric.global_rank == 0
    training = Training(
        run=run,
        recipe=recipe,
        tasks=tasks,
        train=train_source,
        val=val_source,
        supernet=supernet,
        make_supernet=fresh,
        fabric=fabric,
        log=RunLog(run, position.step if resume else None, enabled=first),
        progress=Progress(total, position.step, quiet or not first),
        policy=policy,
        plan=plan,
        budget=budget,
        class_of=class_of,
        left_out=left_out,
        tasks_of=train_source.tasks_of if isinstance(train_source, Mixed) else {},
        open_test=partial(open_split, specs.tasks, tasks, "test", left_out=left_out),
        strategy=begun.strategy if begun is not None else None,
        base_digest=base_digest,
        transferred=heads,
    )
    training.begin_losses()
    if first:
        training.say(kept)
    if first and not resume:
        for line in excluded_in_words(specs.tasks):
            training.say(line)
    if opened < len(blocks) and first and not resume:
        training.say(closed_in_words(opened, len(blocks)))
    if left_out is not None and first and not (run / LEFT_OUT_FILE).is_file():
        run_folder.write_json(run / LEFT_OUT_FILE, left_out)
        for line in in_words(left_out):
            training.say(line)
    if not resume and not specs.is_rehearsal:
        for said in filter(None, (warning, slow_bf16(recipe.precision, fabric.device))):
            training.say(f"warning: {said}")
    if plan.dual:
        training.begin_routing(torch.ones(len(plan.dual)), gamma=1.0)
        training.open_everything()
    training.generator.manual_seed(recipe.seed)
    if state:
        training.restore(*state)
        if training.samples is not None:
            training.progress.total += further_steps(training)
    return training


def train(specs: Specs, run: Path, resume: bool = False, quiet: bool = False) -> Training:
    """Trains, then tests the best weights once and writes results.json, cost.json and predictions/.

    Raises Interrupted after a Ctrl-C; the run can then be resumed.
    """
    training = prepare(specs, run, resume, quiet)
    assert training.open_test is not None
    with stop_on_interrupt(training), training.progress:
        recipe = specs.recipe
        has_base = recipe.adaptation is not None or recipe.start_from is not None
        is_new = training.position.step == 0 and isinstance(training.supernet, Supernet)
        if has_base and is_new and is_chain(recipe):
            record_base(training, training.open_test())
        run_stages(training)
        training.log.write_csv()
        finish(training, specs)
    return training


class stop_on_interrupt:
    """Turns the first Ctrl-C into a request that the loop honours at its next step; a second one kills."""

    def __init__(self, training: Training) -> None:
        self.training = training
        self.before: Any = None

    def __enter__(self) -> None:
        def request(signum: int, frame: FrameType | None) -> None:
            self.training.stop_requested = True
            signal.signal(signal.SIGINT, signal.default_int_handler)

        try:
            self.before = signal.signal(signal.SIGINT, request)
        except ValueError:  # not the main thread: the embedding program owns the signals
            self.before = None

    def __exit__(self, *error: object) -> None:
        if self.before is not None:
            signal.signal(signal.SIGINT, self.before)


def finish(training: Training, specs: Specs) -> None:
    """The one look at the test split, with the weights that validation chose; and how tasks relate on val."""
    training.fabric.barrier()
    recipe, run = training.recipe, training.run
    size_HW = specs.tasks.first.size
    assert training.open_test is not None
    test = training.open_test()

    def batches(source: Source) -> Any:
        return training.loader(source, range(len(source)), train=False)

    def tested(forward: Forward) -> Evaluation:
        return evaluate(forward, batches(test), training.tasks, training.fabric.device)

    of_samples = try_on_test(training, tested) if training.samples is not None else {}
    training.load_best()
    adapted = conclude_adaptation(training, test) if training.strategy is not None else None
    routed = None
    if adapted is None:
        record_stage(training, recipe.stages[-1].name)
    if adapted is None and training.routing is not None:
        routed = conclude_routing(training, test)
    result = tested(training.forward)
    on_val = evaluate(training.forward, batches(training.val), training.tasks, training.fabric.device)
    record_final(training, on_val, result)
    quality_NK = rows_of_all_ranks(on_val.quality_NK)
    constant = constant_metrics(lambda: batches(training.train), batches(test), training.tasks, size_HW)
    if training.fabric.global_rank != 0:
        return
    seconds = training.stage_seconds
    results: dict[str, Any] = {
        "split": "test",
        "method": recipe.sharing.method,
        "backbone": recipe.backbone.name,
        "seed": recipe.seed,
        "score": result.score,
        "tasks": {
            name: {
                "type": task.type,
                "primary": task.primary,
                "metrics": result.metrics[name],
                "info": {
                    key: {"higher_is_better": info.higher_is_better, "unit": info.unit}
                    for key, info in task.metric_info.items()
                    if key in result.metrics[name]
                },
            }
            for name, task in training.tasks.items()
        },
        "constant": constant,
        "train_seconds": sum(seconds.values()),
        "stage_seconds": seconds,
    }
    if training.left_out is not None:
        results["left_out"] = {split: list(reasons) for split, reasons in training.left_out.items()}
    if training.samples is not None:
        if training.samples.chosen is not None and is_final(training):
            of_samples[training.samples.chosen] = result.metrics
        results["samples"] = samples_record(training, of_samples)
    if isinstance(recipe.stages[-1], SearchStage):
        ship_budget(training, training.plan)
    elif training.samples is not None and training.samples.chosen is not None:
        ship_budget(training, training.samples.plans[training.samples.chosen])
    run_folder.write_text(run / "policy.json", training.plan.to_json() + "\n")
    run_folder.write_json(run / "cost.json", cost.table(training.supernet, training.plan, size_HW))
    run_folder.write_json(
        run / "affinity.json", affinity_record(quality_NK, list(training.tasks), split="val")
    )
    if routed is not None:
        run_folder.write_json(run / "routing.json", routed)
    if adapted is not None:
        run_folder.write_json(run / "adaptation.json", adapted)
    write_predictions(run / "predictions", training, test)
    run_folder.write_json(run / "results.json", results)
