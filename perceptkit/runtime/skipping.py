"""A routed model that skips: the router decides, the fastest way to run the decisions is chosen, what is skipped is
not computed.

    forward = SkippingForward(model)      forward(image_BCHW) -> {task: output}      forward.last: what was decided

The decisions come to the host once per batch, as one table; nothing after it waits for the device. The router always
runs in float32: a decision must not turn on how the backbone is rounded.

Shapes: B batch, H W pixels, R routed blocks.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from perceptkit.compact.network import Node
from perceptkit.compact.routed import RoutedNet
from perceptkit.errors import SpecError
from perceptkit.runtime import executors
from perceptkit.runtime.eager import place
from perceptkit.runtime.skip_cost import CostModel
from perceptkit.runtime.skip_table import Policy, Run, Table, decided, sort

EXECUTORS = ("mask", "branch", "gather", "segments", "group", "codebook")
AUTO = "auto"
KNOWN = 1024
"""Policies of single pictures whose way is remembered, at most."""


@dataclass(frozen=True)
class Decisions:
    """What was run for the last batch."""

    executor: str
    table: Table
    """Which routed blocks ran, by picture; of a codebook, those of the members that stood in."""

    @property
    def policies(self) -> Counter[tuple[bool, ...]]:
        """The distinct ones, with how many pictures got them."""
        return Counter(self.table)

    @property
    def blocks_run(self) -> tuple[int, ...]:
        """Routed blocks by picture."""
        return tuple(map(sum, self.table))

    @property
    def kept_fraction(self) -> float:
        """Of the routed blocks, over all pictures."""
        return sum(self.blocks_run) / (len(self.table) * len(self.table[0]))


WayOfOne = tuple[Decisions, Callable[[Tensor], dict[str, Tensor]]]
"""What is said of a single picture of some policy, and what runs it."""


def check_executor(executor: str) -> str:
    """Raises SpecError for anything but `auto` and the names in EXECUTORS."""
    if executor not in (AUTO, *EXECUTORS):
        raise SpecError(f"{executor!r} is not an executor; choose one of {', '.join((AUTO, *EXECUTORS))}")
    return executor


class SkippingForward:
    """See the module's docstring. `model` stays on the CPU and unchanged.

    Args:
        model: a router and the compact network it decides for.
        device: where to run it.
        precision: as for `on_device`, of the network; the router runs in float32.
        executor: `auto`, or one of EXECUTORS for every batch. `auto` takes what a cost model says, which is measured in
            some seconds when a picture of a new size comes, or by `warm_up`. For one picture there is no choice, and
            nothing to measure, but between `branch` and a static network of the codebook.
        codebook: policies that have a static network. `auto` takes it for batches that need no others, so that it
            never changes a result; `codebook` puts a larger member in the place of a policy that is not in the book.

    Raises:
        SpecError: no such executor, device or precision.
    """

    def __init__(
        self,
        model: RoutedNet,
        device: torch.device | None = None,
        precision: str = "auto",
        executor: str = AUTO,
        codebook: Sequence[Sequence[bool]] | None = None,
    ) -> None:
        self.executor = check_executor(executor)
        self.placed = place(model, device or torch.device("cpu"), precision)
        self.has_book = codebook is not None
        self.book = executors.Codebook(self.placed.network, codebook)
        self.costs: dict[tuple[int, int], CostModel] = {}
        """By height and width of the picture."""
        self.costs_of_one: dict[tuple[int, int], CostModel] = {}
        """Likewise, where only single pictures have come."""
        self._logits = self.placed.network.router.bare()
        self._ways_of_one: dict[tuple[int, int, Policy], WayOfOne] = {}
        """By height, width and decisions of a single picture: to choose again takes as long as a block."""
        self.last: Decisions | None = None

    def __call__(self, image_BCHW: Tensor) -> dict[str, Tensor]:
        if torch.is_grad_enabled():  # to forbid it once more takes time
            with torch.no_grad():
                return self._answer(image_BCHW)
        return self._answer(image_BCHW)

    def _answer(self, image_BCHW: Tensor) -> dict[str, Tensor]:
        image_BCHW = self.placed.take(image_BCHW)
        if not len(image_BCHW):
            return self.placed.network.network(image_BCHW)  # nothing to decide
        table = self._decide(image_BCHW)
        with self.placed.mixed():
            return self._run(image_BCHW, table)

    @torch.no_grad()
    def decide(self, image_BCHW: Tensor) -> Table:
        """The router's decisions, on the host: the one time that a batch waits for the device."""
        return self._decide(image_BCHW)

    @torch.no_grad()
    def run(self, image_BCHW: Tensor, table: Table) -> dict[str, Tensor]:
        """All tasks, with the decisions given, on the device and in the precision that are set.

        Raises SpecError where several pictures are to be run by `branch`.
        """
        return self._run(image_BCHW, table)

    def _decide(self, image_BCHW: Tensor) -> Table:
        kind = self.placed.device.type
        if not torch.is_autocast_enabled(kind):
            return decided(self._logits(image_BCHW))
        with torch.autocast(kind, enabled=False):  # the caller's
            return decided(self._logits(image_BCHW))

    def _run(self, image_BCHW: Tensor, table: Table) -> dict[str, Tensor]:
        model, name = self.placed.network, self.executor
        if len(table) == 1 and name == AUTO:
            return self._run_one(image_BCHW, table)
        candidates = self._candidates(table) if name == AUTO else [name]
        costs = None
        if len(candidates) > 1 or name == "segments" and len(table) > 1:
            costs = self._costs(image_BCHW)
        name = candidates[0] if costs is None else costs.choose(table, candidates)
        if name == "codebook":
            table = tuple(self.book.member(policy) for policy in table)
        self.last = Decisions(name, table)
        if name == "mask":
            return executors.mask(model, image_BCHW, table)
        if name == "branch":
            if len(table) > 1:
                raise SpecError(
                    f"executor 'branch' runs one picture at a time, not {len(table)}; 'auto' runs any"
                )
            return executors.branch(model, image_BCHW, table[0])
        if name == "gather":
            return executors.gather(model, image_BCHW, table)
        batch = sort(table)
        if name == "group":
            return executors.group(model, image_BCHW, batch)
        if name == "codebook":
            return self.book(image_BCHW, batch)
        return executors.segments(model, image_BCHW, batch, self._merge(costs))

    def _run_one(self, image_BCHW: Tensor, table: Table) -> dict[str, Tensor]:
        """As `auto` does it, whose choice for a policy is remembered."""
        policy = table[0]
        known = (image_BCHW.shape[2], image_BCHW.shape[3], policy)
        way = self._ways_of_one.get(known)
        if way is None:
            candidates = self._candidates(table)
            name = candidates[0]
            if len(candidates) > 1:
                name = self._costs(image_BCHW).choose(table, candidates)
            branch = partial(executors.branch, self.placed.network, keep_R=policy)
            way = Decisions(name, table), partial(self._static, policy) if name == "codebook" else branch
            if len(self._ways_of_one) >= KNOWN:
                self._ways_of_one.clear()
            self._ways_of_one[known] = way
        self.last = way[0]
        return way[1](image_BCHW)

    def _static(self, policy: Policy, image_BCHW: Tensor) -> dict[str, Tensor]:
        outputs: dict[str, Tensor] = self.book.network(policy)(image_BCHW)
        return outputs

    @torch.no_grad()
    def warm_up(self, size_HW: tuple[int, int], batch: int = 16, repeats: int = 3) -> CostModel:
        """Measures what things take for pictures of this size, in batches of up to this many."""
        self.costs[size_HW] = self._measured(size_HW, batch, repeats)
        self._ways_of_one.clear()
        return self.costs[size_HW]

    def _measured(self, size_HW: tuple[int, int], batch: int, repeats: int) -> CostModel:
        batches = sorted({n for n in (1, 2, 8) if n < batch} | {batch})
        policies = self.book.policies or []
        networks = {policy: self.book.network(policy) for policy in policies}
        with self.placed.mixed():
            return CostModel.measure(self.placed.network, size_HW, batches, repeats, networks)

    def _costs(self, image_BCHW: Tensor) -> CostModel:
        size_HW = (image_BCHW.shape[2], image_BCHW.shape[3])
        if size_HW in self.costs:
            return self.costs[size_HW]
        if len(image_BCHW) > 1:
            return self.warm_up(size_HW, max(16, len(image_BCHW)), repeats=2)
        if size_HW not in self.costs_of_one:  # soon measured; says nothing of a batch
            self.costs_of_one[size_HW] = self._measured(size_HW, 1, repeats=3)
        return self.costs_of_one[size_HW]

    def _candidates(self, table: Table) -> list[str]:
        several = ["branch"] if len(table) == 1 else ["mask", "gather", "segments", "group"]
        in_book = self.has_book and all(map(self.book.holds, table))
        return [*several, *(["codebook"] if in_book else [])]

    def _merge(self, costs: CostModel | None) -> executors.Merge:
        if costs is None:
            return executors.apart
        index = {node: i for i, node in enumerate(self.placed.network.network.nodes)}

        def merge(node: Node, kept: bool, runs: Sequence[Run]) -> Sequence[Run]:
            return costs.runs(index[node], kept, runs)

        return merge
