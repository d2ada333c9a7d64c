"""What each way to skip would take for a batch, predicted from times measured once on this machine.

A block takes t(n) seconds for n pictures, about max(floor, a + c n): below some number of pictures launching its
kernels is all that costs. So every node is timed at a few batch sizes and interpolated between them; copies of rows
are a + c bytes. From the decisions for a batch follow all calls that an executor would make, and so its time.

    CostModel.measure(model, size_HW).choose(table) -> the name of the fastest executor

Shapes: B batch, H W pixels, R routed blocks.
"""

import time
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor

from perceptkit.compact.network import CompactNet, Node
from perceptkit.compact.routed import RoutedNet, run_node, run_otherwise
from perceptkit.runtime.skip_table import Policy, Run, Sorted, Table, merged, sort

ENOUGH = 0.05
"""Seconds of measuring at one batch size after which `repeats` runs are enough. The fastest of two runs of a small
network is not yet its time: an executor that is half as fast was taken for the fastest."""
MOST = 10
"""Runs at one batch size."""
COPIED = (1 << 12, 1 << 22)
"""Bytes of the two copies that are timed: the launch, and something larger than a cache."""


class Curve:
    """curve(n) -> seconds for n pictures; linear between what was measured, through the last value beyond it.

    A smaller batch is never slower: where it was measured so, that was noise.
    """

    def __init__(self, seconds: Mapping[int, float]) -> None:
        self.counts = sorted(seconds)
        self.seconds = list(accumulate((seconds[n] for n in self.counts), max))

    def __call__(self, n: int) -> float:
        if n <= self.counts[0]:
            return self.seconds[0] if n else 0.0
        if n > self.counts[-1]:
            return self.seconds[-1] * n / self.counts[-1]
        i = bisect_left(self.counts, n)
        (low, high), (before, after) = self.counts[i - 1 : i + 1], self.seconds[i - 1 : i + 1]
        return before + (after - before) * (n - low) / (high - low)


FREE = Curve({1: 0.0})


@dataclass(frozen=True)
class NodeCost:
    """One node of the compact network."""

    route: int | None
    kept: Curve
    otherwise: Curve = FREE
    """What runs for pictures that skip it: a projection, or nothing."""
    row_bytes: int = 0
    """Of its output for one picture."""
    joins: bool = False
    """Whether the rows of kept and skipped pictures go to new memory; else the kept ones are written over the input."""


@dataclass
class CostModel:
    """Times of a network's nodes, and what follows for a batch.

    Args:
        nodes: in the network's order.
        heads: necks and heads.
        launch: seconds that copying nothing takes.
        per_byte: seconds that copying a byte takes on top.
        image_bytes, output_bytes: of one picture and of all its outputs.
        static: of whole static networks by policy, where they were timed; for others the nodes are summed.
    """

    nodes: Sequence[NodeCost]
    heads: Curve
    launch: float = 0.0
    per_byte: float = 0.0
    image_bytes: int = 0
    output_bytes: int = 0
    static: dict[Policy, Curve] = field(default_factory=dict)
    _known: dict[tuple[tuple[Policy, int], ...], dict[str, float]] = field(default_factory=dict, repr=False)

    @classmethod
    def measure(
        cls,
        model: RoutedNet,
        size_HW: tuple[int, int],
        batches: Sequence[int] = (1, 4, 16),
        repeats: int = 2,
        policies: Mapping[Policy, CompactNet] | None = None,
        clock: Callable[[], float] = time.perf_counter,
    ) -> "CostModel":
        """Runs the network, all blocks and all projections, a few times at every batch size.

        Args:
            model: on its device.
            size_HW: of the picture, in pixels.
            batches: numbers of pictures that are timed.
            repeats: at least so many runs, the fastest one counts; see ENOUGH.
            policies: static networks that are timed as a whole.
            clock: seconds.
        """
        stopwatch = _Stopwatch(model.network, clock)
        device = next(model.parameters()).device
        image_BCHW = torch.zeros(max(batches), 3, *size_HW, device=device).normal_(
            generator=torch.Generator(device).manual_seed(0)
        )
        outputs: dict[str, Tensor] = {}
        static: dict[Policy, dict[int, float]] = defaultdict(dict)
        for n in batches:
            began, run = clock(), 0
            while run < repeats or (run < MOST and clock() - began < ENOUGH):
                run += 1
                outputs = stopwatch.walk(image_BCHW[:n])
                for policy, network in (policies or {}).items():
                    _, took = stopwatch.time(network, image_BCHW[:n])
                    static[policy][n] = min(took, static[policy].get(n, took))
        launch, per_byte = stopwatch.copies(device)
        return cls(
            stopwatch.nodes(),
            Curve(stopwatch.seconds["heads"]),
            launch,
            per_byte,
            _row_bytes(image_BCHW),
            sum(_row_bytes(value) for value in outputs.values()),
            {policy: Curve(seconds) for policy, seconds in static.items()},
        )

    def runs(self, node: int, kept: bool, runs: Sequence[Run]) -> list[Run]:
        """Which rows to compute so that these come out soonest: see skip_table.merged."""
        cost = self.nodes[node]
        return merged(runs, cost.kept if kept else cost.otherwise)

    def choose(self, table: Table, among: Collection[str]) -> str:
        """The fastest of these executors for a batch."""
        seconds = self.predict(table)
        return min(among, key=lambda name: seconds[name])

    def predict(self, table: Table) -> dict[str, float]:
        """Seconds of each executor for a batch, without the router. `branch` is there for one picture only."""
        batch = sort(table)
        key = tuple((p, stop - first) for p, (first, stop) in zip(batch.policies, batch.rows, strict=True))
        if key not in self._known:
            if len(self._known) >= 1024:
                self._known.clear()
            self._known[key] = self._predict(batch)
        found = dict(self._known[key])
        if batch.moved:  # which pictures change places is not in the key
            images, outputs = (
                self._copy(row_bytes * len(table)) for row_bytes in (self.image_bytes, self.output_bytes)
            )
            found["segments"] += images + outputs
            found["group"] += images  # their outputs move once, which is counted
            found["codebook"] += images
        return found

    def _predict(self, batch: Sorted) -> dict[str, float]:
        count = len(batch.order)
        found = dict.fromkeys(("mask", "gather", "segments"), self.heads(count))
        for i, node in enumerate(self.nodes):
            everything = node.kept(count)
            if node.route is None:
                for name in found:
                    found[name] += everything
                continue
            runs, gaps = batch.runs(node.route), batch.runs(node.route, kept=False)
            kept = sum(stop - first for first, stop in runs)
            # a choice reads two tensors and writes a third
            found["mask"] += everything + node.otherwise(count) + self._copy(3 * count * node.row_bytes)
            if not kept or kept == count:
                for name in ("gather", "segments"):
                    found[name] += everything if kept else node.otherwise(count)
                continue
            written = kept + node.joins * (count - kept)
            found["gather"] += node.kept(kept) + node.otherwise(count - kept)
            found["gather"] += 2 * self._copy(written * node.row_bytes)
            spans = [(True, span) for span in self.runs(i, True, runs)]
            spans += [(False, span) for span in self.runs(i, False, gaps)] if node.joins else []
            for is_kept, (first, stop) in spans:
                found["segments"] += (node.kept if is_kept else node.otherwise)(stop - first)
            found["segments"] += (len(runs) + node.joins * len(gaps)) * self.launch
            found["segments"] += written * node.row_bytes * self.per_byte
        sizes = [stop - first for first, stop in batch.rows]
        joined = self._copy(self.output_bytes * count) if len(sizes) > 1 else 0.0
        alone = [self._alone(policy, n) for policy, n in zip(batch.policies, sizes, strict=True)]
        found["group"] = sum(alone) + joined
        found["codebook"] = joined + sum(
            self.static[policy](n) if policy in self.static else seconds
            for policy, n, seconds in zip(batch.policies, sizes, alone, strict=True)
        )
        if count == 1:
            found["branch"] = alone[0]
        return found

    def _alone(self, policy: Policy, n: int) -> float:
        """n pictures of one policy through a network of their own."""
        return self.heads(n) + sum(
            (node.kept if node.route is None or policy[node.route] else node.otherwise)(n)
            for node in self.nodes
        )

    def _copy(self, count: int) -> float:
        return self.launch + count * self.per_byte


class _Stopwatch:
    """Walks a network and keeps the shortest time of everything, by what it is and number of pictures."""

    def __init__(self, network: CompactNet, clock: Callable[[], float]) -> None:
        self.network, self.clock = network, clock
        self.seconds: dict[Any, dict[int, float]] = defaultdict(dict)
        self.row_bytes: dict[int, int] = {}

    def walk(self, image_BCHW: Tensor) -> dict[str, Tensor]:
        """Times every node, and all that is left as `heads`."""
        network, n, at, inside = self.network, len(image_BCHW), 0, 0.0

        def visit(node: Node, x: Tensor, shared: Any, last: bool) -> Tensor:
            nonlocal at, inside
            y, took = self.time(run_node, network, node, x, shared)
            self._keep((at, True), n, took)
            if node.otherwise:
                _, skipping = self.time(run_otherwise, network, node, x, shared)
                self._keep((at, False), n, skipping)
                took += skipping
            self.row_bytes[at] = _row_bytes(y)
            at, inside = at + 1, inside + took
            return y

        outputs, total = self.time(network.walk, image_BCHW, visit)
        self._keep("heads", n, max(total - inside, 0.0))
        return outputs

    def time(self, call: Callable[..., Any], *arguments: Any) -> tuple[Any, float]:
        """What it returns, and seconds until the device is done."""
        self._wait()
        began = self.clock()
        returned = call(*arguments)
        self._wait()
        return returned, self.clock() - began

    def copies(self, device: torch.device) -> tuple[float, float]:
        """Seconds that copying nothing takes, and those for each byte."""
        for size in COPIED:
            source = torch.zeros(size, dtype=torch.uint8, device=device)
            for _ in range(5):
                self._keep("copy", size, self.time(source.clone)[1])
        small, large = (self.seconds["copy"][size] for size in COPIED)
        return small, max(large - small, 0.0) / (COPIED[1] - COPIED[0])

    def nodes(self) -> list[NodeCost]:
        """What was found, in the network's order."""
        return [
            NodeCost(
                node.route,
                Curve(self.seconds[i, True]),
                Curve(self.seconds[i, False]) if node.otherwise else FREE,
                self.row_bytes[i],
                bool(node.otherwise),
            )
            for i, node in enumerate(self.network.nodes)
        ]

    def _keep(self, what: object, n: int, took: float) -> None:
        self.seconds[what][n] = min(took, self.seconds[what].get(n, took))

    def _wait(self) -> None:
        if next(self.network.parameters()).is_cuda:
            torch.cuda.synchronize()


def _row_bytes(value: Tensor) -> int:
    return value[0].numel() * value.element_size()
