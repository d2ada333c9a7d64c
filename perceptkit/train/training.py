"""Everything that takes part in a run, and what of it a checkpoint holds.

Shapes: B batch, R routed blocks.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from perceptkit.baselines.balancing.balance import Balance
from perceptkit.baselines.balancing.table import build_balance
from perceptkit.baselines.sharing.table import Network
from perceptkit.baselines.sharing.tree import TreeNet
from perceptkit.data.loader import make_loader
from perceptkit.data.mixed import Mixed
from perceptkit.data.source import Source
from perceptkit.data.sources import LeftOut
from perceptkit.errors import ResumeError
from perceptkit.model.plan import Plan
from perceptkit.model.router import Router, build_router
from perceptkit.model.strategy import Strategy, set_train_mode
from perceptkit.model.supernet import Supernet
from perceptkit.model.task_tree import TaskTree
from perceptkit.policies.adashare import AdaSharePolicy
from perceptkit.policies.blockdrop import greedy_keep, open_mask
from perceptkit.spec.recipe import AdaptStage, FinetuneStage, Recipe, SearchStage, StageSpec
from perceptkit.spec.router import RouterSpec
from perceptkit.tasks.base import Task
from perceptkit.train import checkpoint, optim
from perceptkit.train.budgeting import Budget
from perceptkit.train.checkpoint import Position
from perceptkit.train.progress import Progress
from perceptkit.train.ranks import synchronise_batchnorm
from perceptkit.train.run_log import RunLog
from perceptkit.train.samples import Samples, checkpoint_of


@dataclass
class Routing:
    """The router while it is learned."""

    router: Router
    cost_R: Tensor
    """What each routed block costs, in any unit."""
    gamma: float
    """Penalty of a wrong answer."""
    open_count: int = 0
    """Blocks under the router's control, counted from the last; the others run."""
    full_right: float = 1.0
    """How much of val is right with all blocks, before anything is skipped."""
    full_quality: Mapping[str, float] = field(default_factory=dict)
    """Mean quality on val by task, there."""
    right: float = 1.0
    """How much of val was right after the last epoch, by the most probable decisions."""
    mean_abs_advantage: float | None = None
    """Of the samples that the router learned from, over about the last hundred steps; None before any."""
    unique: list[int] = field(default_factory=list)
    """Different policies on val, by epoch."""
    usual: tuple[tuple[bool, ...], ...] = ()
    """Policies that most pictures got, when all was learned; for the artifact."""
    settled: tuple[bool, ...] | None = None
    """The one decision of all pictures, once it is fixed: of `spottune_global` before the stage ends."""
    host: Supernet | None = None
    """The network before anything was skipped, once it is asked; no part of a checkpoint, it has a file of its own."""
    host_quality: dict[str, dict[str, Tensor]] = field(default_factory=dict)
    """By split and id of a picture, the quality of its answers by task (K,); no part of a checkpoint either."""

    @property
    def open_R(self) -> Tensor:
        """Which blocks the router decides on, bool (R,)."""
        return open_mask(self.open_count, len(self.cost_R)).to(self.cost_R.device)

    def keep(self, image_BCHW: Tensor) -> Tensor:
        """The most probable decision, bool (B, R)."""
        return self.decide(self.router(image_BCHW))

    def decide(self, logits_BR: Tensor) -> Tensor:
        """The most probable decision by the router's logits, or the settled one; bool (B, R)."""
        if self.settled is None:
            return greedy_keep(logits_BR, self.open_R)
        return torch.tensor(self.settled, device=logits_BR.device).expand(len(logits_BR), -1)

    def note_advantage(self, mean_abs: float) -> None:
        """Of one step, into the running mean."""
        before = self.mean_abs_advantage
        self.mean_abs_advantage = mean_abs if before is None else 0.99 * before + 0.01 * mean_abs

    def state(self) -> dict[str, Any]:
        """For a checkpoint."""
        return {
            "router": self.router.state_dict(),
            "cost": self.cost_R.cpu(),
            "gamma": self.gamma,
            "open_count": self.open_count,
            "full_right": self.full_right,
            "full_quality": dict(self.full_quality),
            "right": self.right,
            "mean_abs_advantage": self.mean_abs_advantage,
            "unique": self.unique,
            "settled": self.settled,
        }

    def load(self, state: Mapping[str, Any]) -> None:
        """Continues from what `state` gave."""
        self.router.load_state_dict(state["router"])
        self.gamma, self.open_count = state["gamma"], state["open_count"]
        self.full_right, self.right = state["full_right"], state["right"]
        self.full_quality = dict(state.get("full_quality", {}))
        self.mean_abs_advantage = state["mean_abs_advantage"]
        self.unique = list(state["unique"])
        settled = state.get("settled")  # older checkpoints have none
        self.settled = None if settled is None else tuple(settled)


class Interrupted(Exception):
    """The user asked to stop; the state is saved in `run`."""

    def __init__(self, run: Path) -> None:
        super().__init__(f"interrupted; {run} can be resumed")
        self.run = run


@dataclass
class Training:
    """Everything that takes part in a run."""

    run: Path
    recipe: Recipe
    tasks: Mapping[str, Task]
    train: Source
    val: Source
    supernet: Network
    make_supernet: Callable[[], Network]
    """Called with no argument; gives a supernet with the initial weights again."""
    fabric: Fabric
    log: RunLog
    progress: Progress
    policy: AdaSharePolicy
    plan: Plan
    """What `weights` turns outside the search execute: all blocks until the search has decided."""
    position: Position = field(default_factory=Position)
    best_score: float = float("-inf")
    stage_seconds: dict[str, float] = field(default_factory=dict)
    stop_requested: bool = False
    saved_at: float = field(default_factory=time.monotonic)
    """When the last checkpoint was written, or the run began."""
    optimizer: torch.optim.Optimizer | None = None
    policy_optimizer: torch.optim.Optimizer | None = None
    """Of the search's policy, or of the router."""
    budget: Budget | None = None
    """What the search keeps to."""
    routing: Routing | None = None
    """From the stage `route` on; in the stage `adapt` the router that chooses between two copies of a block."""
    host_plan: Plan | None = None
    """What the tasks kept before a router decided, once it is known what the router decides alike for all pictures."""
    balance: Balance | None = None
    """How the tasks' losses become one, in the stages that train all tasks from their labels alone; fresh in each."""
    samples: Samples | None = None
    """Plans drawn from the policy, where the recipe decides so: after the search."""
    strategy: Strategy | None = None
    """How the base is adapted, where it is."""
    base_digest: str = ""
    """Of the base's trunk, there."""
    transferred: tuple[str, ...] = ()
    """Tasks whose heads are those of the run that this one started from."""
    class_of: np.ndarray | None = None
    """Of the pictures to train on, where batches are made of so many of each class."""
    left_out: LeftOut | None = None
    """Pictures that could not be read, where they are skipped."""
    tasks_of: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """By source, the tasks that have labels there; empty where the pictures come from one place."""
    open_test: Callable[[], Source] | None = None
    """Opens the test split, when everything is decided."""
    generator: torch.Generator = field(default_factory=torch.Generator)
    """Draws the policy samples; the same on every rank."""

    def state(self) -> dict[str, Any]:
        """All that the next step depends on, as tensors and plain data."""
        return {
            "supernet": self.supernet.state_dict(),
            "losses": self.losses_state(),
            "policy": self.policy.state_dict(),
            "optimizer": self.optimizer.state_dict() if self.optimizer else None,
            "policy_optimizer": self.policy_optimizer.state_dict() if self.policy_optimizer else None,
            "plan": self.plan.to_json(),
            "budget": self.budget.state() if self.budget else None,
            "routing": self.routing.state() if self.routing else None,
            "balance": self.balance.state_dict() if self.balance else None,
            "samples": self.samples.state() if self.samples else None,
            "tree": self.supernet.tree.to_lists() if isinstance(self.supernet, TreeNet) else None,
            "best_score": self.best_score,
            "stage_seconds": self.stage_seconds,
            "policy_generator": self.generator.get_state(),
            "torch_rng": torch.get_rng_state(),
            "precision": self.fabric.strategy.precision.state_dict(),  # the loss scale of fp16
        }

    def restore(self, state: dict[str, Any], position: Position) -> None:
        """Continues where `state` was saved."""
        self.position = position
        stage = self.recipe.stages[min(position.stage, len(self.recipe.stages) - 1)]
        if self.strategy is not None and not isinstance(stage, AdaptStage):
            self.become_plain()
        self.plan = Plan.from_json(state["plan"])
        if state.get("samples") is not None:
            self.samples = Samples.from_state(state["samples"])
        if isinstance(self.supernet, TreeNet) and state.get("tree") is not None:  # as far as it had grown
            self.supernet.part(TaskTree.of(state["tree"], list(self.tasks), len(self.supernet.blocks)))
        if state["routing"] is not None and self.routing is None:
            self.begin_routing(state["routing"]["cost"], state["routing"]["gamma"])
        if state["optimizer"] is not None:  # None: saved between two stages
            self.begin_stage_optimizers(self.recipe.stages[position.stage])
        try:
            self.supernet.load_state_dict(state["supernet"])
            self.load_losses(state)
            self.policy.load_state_dict(state["policy"])
            if self.routing is not None:
                self.routing.load(state["routing"])
        except (RuntimeError, KeyError) as error:
            raise ResumeError(f"{self.run}/checkpoints/last.pt is of another network") from error
        for optimizer, key in ((self.optimizer, "optimizer"), (self.policy_optimizer, "policy_optimizer")):
            if optimizer is not None and state[key] is not None:
                optimizer.load_state_dict(state[key])
        if self.balance is not None and state["balance"] is not None:
            self.balance.load_state_dict(state["balance"])
        self.best_score, self.stage_seconds = state["best_score"], state["stage_seconds"]
        if self.budget is not None and state.get("budget") is not None:  # else of a warm-up without one
            self.budget.load(state["budget"])
        self.generator.set_state(state["policy_generator"])
        torch.set_rng_state(state["torch_rng"])
        self.fabric.strategy.precision.load_state_dict(state["precision"])

    def save(self) -> None:
        """Writes checkpoints/last.pt."""
        if self.fabric.global_rank == 0:
            checkpoint.save(self.run / "checkpoints/last.pt", self.state(), self.position)
        self.saved_at = time.monotonic()

    @property
    def sample(self) -> int | None:
        """Which of the sampled plans is being retrained now; None where none is."""
        stages = self.recipe.stages
        retrains = self.position.stage < len(stages) and stages[self.position.stage].name == "retrain"
        return self.samples.queue[self.position.sample] if self.samples and retrains else None

    def save_best(self, score: float, plan: Plan) -> None:
        """Writes checkpoints/best.pt, or that of the plan that is being retrained, when the score on val is the best of
        the stage so far."""
        if score <= self.best_score:
            return
        self.best_score = score
        if self.fabric.global_rank == 0:
            best = {
                "supernet": self.supernet.state_dict(),
                "losses": self.losses_state(),
                "plan": plan.to_json(),
                "routing": self.routing.state() if self.routing else None,
                "score": score,
            }
            of_run = self.run / "checkpoints/best.pt"
            path = of_run if self.sample is None else checkpoint_of(self.run, self.sample)
            checkpoint.save(path, best, self.position)

    def say(self, line: str) -> None:
        """A line for the screen and for log.txt."""
        self.progress.say(line)
        self.log.say(line)

    def begin_stage_optimizers(self, stage: StageSpec) -> None:
        """Fresh optimisers: each train stage has its own."""
        made = optim.make_optimizer(self.supernet, self.recipe.optim, stage, self.recipe.adaptation)
        for name, module in self.loss_modules().items():
            if not list(module.parameters()):
                continue
            # proxies are directions, which decay would not change
            scale = getattr(getattr(self.tasks[name].spec, "loss", None), "lr_scale", 1.0)
            group = {"params": list(module.parameters()), "weight_decay": 0.0, "lr_scale": scale}
            made.add_param_group(group)
        self.balance = None
        if stage.name in ("warmup", "search", "retrain"):
            self.balance = build_balance(self.recipe.balance, self.tasks).to(self.fabric.device)
            if learned := list(self.balance.parameters()):
                made.add_param_group({"params": learned, "weight_decay": 0.0, "lr_scale": 1.0})
        self.optimizer = cast(torch.optim.Optimizer, self.fabric.setup_optimizers(made))
        if isinstance(stage, SearchStage):
            decay = stage.policy_weight_decay
            adam = torch.optim.Adam(self.policy.parameters(), lr=stage.policy_lr, weight_decay=decay)
            self.policy_optimizer = cast(torch.optim.Optimizer, self.fabric.setup_optimizers(adam))
        elif isinstance(stage, AdaptStage) and self.routing is not None:
            made = optim.router_optimizer(self.routing.router, self.recipe, stage)
            self.policy_optimizer = cast(torch.optim.Optimizer, self.fabric.setup_optimizers(made))
        elif self.routing is not None:
            # no weight decay and no scale of its own, as in BlockDrop's code
            lr = stage.lr or self.recipe.optim.lr
            own = stage.router_lr if isinstance(stage, FinetuneStage) else None
            router = {"params": list(self.routing.router.parameters()), "lr_scale": (own or lr) / lr}
            adam = torch.optim.Adam([router], lr=lr)
            self.policy_optimizer = cast(torch.optim.Optimizer, self.fabric.setup_optimizers(adam))
        else:
            self.policy_optimizer = None

    def loss_modules(self) -> dict[str, nn.Module]:
        """By task, what its loss learns of its own; most losses have nothing."""
        found = {name: task.loss_module for name, task in self.tasks.items()}
        return {name: module for name, module in found.items() if module is not None}

    def begin_losses(self) -> None:
        """Gives these fresh weights: the same for the same seed. Raises SpecError where a loss cannot be made."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.recipe.seed)
            for task in self.tasks.values():
                task.begin_loss()
        for module in self.loss_modules().values():
            module.to(self.fabric.device)

    def losses_state(self) -> dict[str, Any]:
        """Of the losses' own weights, for a checkpoint."""
        return {name: module.state_dict() for name, module in self.loss_modules().items()}

    def load_losses(self, state: Mapping[str, Any]) -> None:
        """Puts back what a checkpoint holds of them; older ones hold nothing."""
        for name, module in self.loss_modules().items():
            if name in state.get("losses", {}):
                module.load_state_dict(state["losses"][name])

    def weights(self) -> list[nn.Parameter]:
        """All that the optimiser of the weights may train: the network's, and the losses' own."""
        of_losses = [p for module in self.loss_modules().values() for p in module.parameters()]
        return [*self.supernet.parameters(), *of_losses]

    def begin_routing(self, cost_R: Tensor, gamma: float) -> None:
        """A fresh router for the plan's routed blocks: the same for the same seed."""
        adapts = self.strategy is not None
        section = self.recipe.adaptation if adapts else self.recipe.routing
        spec, plan = getattr(section, "router", None), self.plan
        assert isinstance(spec, RouterSpec)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.recipe.seed)
            router = build_router(spec, len(plan.routed()), self.supernet.size_HW)
        router = router.to(self.fabric.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        synchronise_batchnorm(router, self.fabric.device)
        self.routing = Routing(router, cost_R.to(self.fabric.device), gamma)

    def become_plain(self) -> None:
        """A network of the recipe's structure in the place of one that is being adapted: what follows the stage `adapt`
        is loaded into it."""
        fresh = self.make_supernet().to(self.fabric.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        synchronise_batchnorm(fresh, self.fabric.device)
        fresh.mean, fresh.std = self.supernet.mean, self.supernet.std  # perhaps the base's
        self.supernet, self.strategy, self.routing = fresh, None, None

    def load_best(self) -> None:
        """Puts the weights and the plan with the best validation score back."""
        state, _ = checkpoint.load(self.run / "checkpoints/best.pt")
        self.supernet.load_state_dict(state["supernet"])
        self.load_losses(state)
        self.plan = Plan.from_json(state["plan"])
        if self.routing is not None:
            self.routing.load(state["routing"])
            self.routing.router.eval()
        self.supernet.eval()

    def open_everything(self) -> None:
        """The router decides on all routed blocks."""
        assert self.routing is not None
        self.routing.open_count = len(self.routing.cost_R)

    def train_mode(self) -> None:
        """The network as it trains: where it is adapted, norms whose weights are fixed keep their statistics."""
        if self.strategy is None:
            self.supernet.train()
        else:
            set_train_mode(self.supernet)

    def forward(self, image_BCHW: Tensor) -> dict[str, Tensor]:
        """The network as it would be used now: by the plan, and the router's most probable decisions."""
        if self.routing is None:
            outputs: dict[str, Tensor] = self.supernet(image_BCHW, self.plan)
            return outputs
        return self.supernet(image_BCHW, self.plan, keep_BR=self.routing.keep(image_BCHW))

    def loader(
        self,
        source: Source,
        indices: Sequence[int],
        *,
        train: bool,
        start: int = 0,
        shared: bool = True,
        batch: int | None = None,
        tasks: Mapping[str, Task] | None = None,
        order: int | None = None,
    ) -> Any:
        """Batches of `source`; which images and augmentations follows from seed and step alone.

        Each rank gets its share of them, or all with `shared=False`. `batch` is the recipe's by default,
        `tasks` those of the run. Passes with the same `order` are alike; by default that is the epoch's.
        """
        mixed = source if isinstance(source, Mixed) and train else None
        if order is None:
            order = self.position.stage * 10_000 + self.position.epoch * 10 + self.position.turn
        return make_loader(
            source,
            indices,
            tasks or self.tasks,
            batch=batch or self.recipe.loader.batch,
            workers=self.recipe.loader.workers,
            augment=self.recipe.augment if train else None,
            mean=self.supernet.mean,
            std=self.supernet.std,
            seed=self.recipe.seed,
            epoch=order,
            shuffle=train,
            drop_last=train,
            rank=self.fabric.global_rank if shared else 0,
            world_size=self.fabric.world_size if shared else 1,
            start_batch=start,
            classes=self.class_of[list(indices)].tolist() if self.class_of is not None and train else None,
            m_per_class=self.recipe.loader.m_per_class,
            sampler=self.recipe.loader.sampler,
            sources=mixed.source_N[list(indices)].tolist() if mixed is not None else None,
            weights=mixed.weights if mixed is not None else None,
        )
