"""Ways to run a routed network so that what is skipped is not computed, by the decisions on the host.

    mask       every block for every picture: the reference, compact/routed.py
    branch     one picture, an `if` per block
    gather     each block on a copy of the rows that keep it
    segments   the batch sorted once; each block on runs of neighbouring rows, which are views
    group      the batch sorted once; each distinct policy goes the whole way alone
    codebook   as group, by static networks made once; policies that are not in the book run a larger one

They compute the same; which one is fastest depends on the network, the batch and the policies, see
runtime/skip_cost.py. All need `torch.no_grad` or `torch.inference_mode`: activations are written over.

BlockDrop's authors run one picture at a time (branch); their batches are masks.

Shapes: B batch, C channels, H W pixels, R routed blocks.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from perceptkit.compact.network import CompactNet, Node
from perceptkit.compact.routed import RoutedNet, run_node, run_otherwise
from perceptkit.runtime.skip_table import Policy, Run, Sorted, Table, to_device

Outputs = dict[str, Tensor]
Merge = Callable[[Node, bool, Sequence[Run]], Sequence[Run]]
"""(node, whether its block is meant or what runs otherwise, runs) -> the runs to compute, which contain them."""


def apart(node: Node, kept: bool, runs: Sequence[Run]) -> Sequence[Run]:
    """No run is merged with another."""
    return runs


def mask(model: RoutedNet, image_BCHW: Tensor, table: Table) -> Outputs:
    """The reference."""
    return model.masked(image_BCHW, to_device(table, image_BCHW.device))


def branch(model: RoutedNet, image_BCHW: Tensor, keep_R: Policy) -> Outputs:
    """All pictures by the same decisions."""
    network = model.network

    def visit(node: Node, x: Tensor, shared: Any, last: bool) -> Tensor:
        if node.route is None or keep_R[node.route]:
            return run_node(network, node, x, shared)
        return run_otherwise(network, node, x, shared)

    return network.walk(image_BCHW, visit)


def gather(model: RoutedNet, image_BCHW: Tensor, table: Table) -> Outputs:
    """Each block on the rows that keep it; what runs otherwise on the others."""
    network, count = model.network, len(table)
    memory = Memory(image_BCHW)
    indices = _indices(table, image_BCHW.device)

    def visit(node: Node, x: Tensor, shared: Any, last: bool) -> Tensor:
        kept, skipped = (None, None) if node.route is None else indices[node.route]
        if skipped is None:
            y = run_node(network, node, x, shared)
        elif kept is None:
            y = run_otherwise(network, node, x, shared)
        else:
            some = run_node(network, node, x[kept], shared)  # index_select would lose channels_last
            if node.otherwise:
                others = run_otherwise(network, node, x[skipped], shared)
                y = _rows_for(count, some, others)
                y.index_copy_(0, skipped, others.to(y.dtype))
            else:
                y = x if memory.may_write(x, last) else x.clone()
            y.index_copy_(0, kept, some.to(y.dtype))
        memory.passed(x, y, last)
        return y

    return network.walk(image_BCHW, visit)


def segments(model: RoutedNet, image_BCHW: Tensor, batch: Sorted, merge: Merge = apart) -> Outputs:
    """Each block on the runs of rows that keep it, in place where nothing reads its input afterwards."""
    network, count = model.network, len(batch.order)
    image_BCHW = _sorted(image_BCHW, batch)
    memory = Memory(image_BCHW)

    def visit(node: Node, x: Tensor, shared: Any, last: bool) -> Tensor:
        runs = [(0, count)] if node.route is None else batch.runs(node.route)
        if runs == [(0, count)]:
            y = run_node(network, node, x, shared)
        elif not runs:
            y = run_otherwise(network, node, x, shared)
        else:
            spans = merge(node, True, runs)
            if node.otherwise:
                some = [(span, run_node(network, node, x[slice(*span)], shared)) for span in spans]
                gaps = batch.runs(node.route, kept=False) if node.route is not None else []
                others = [
                    (span, run_otherwise(network, node, x[slice(*span)], shared))
                    for span in merge(node, False, gaps)
                ]
                y = _rows_for(count, some[0][1], others[0][1])
                for span, part in others:
                    _write(y, part, span, gaps)
                for span, part in some:
                    _write(y, part, span, runs)
            else:
                y = x if memory.may_write(x, last) else x.clone()
                for span in spans:
                    _write(y, run_node(network, node, x[slice(*span)], shared), span, runs)
        memory.passed(x, y, last)
        return y

    return _unsorted(network.walk(image_BCHW, visit), batch)


def group(model: RoutedNet, image_BCHW: Tensor, batch: Sorted) -> Outputs:
    """Each distinct policy on its pictures."""
    return _apart(lambda policy, image: branch(model, image, policy), image_BCHW, batch)


class Codebook:
    """Static networks for a few policies, made when they are first needed; they share the model's weights.

    Args:
        model: what they are made from.
        policies: the book; the one that keeps all blocks is always in it. None: it is open to any policy.
        limit: networks that are held; the one not used for longest goes first.
    """

    def __init__(
        self, model: RoutedNet, policies: Sequence[Sequence[bool]] | None = None, limit: int = 64
    ) -> None:
        self.model, self.limit = model, limit
        everything = (True,) * len(model.plan.routed())
        book = None if policies is None else {everything, *(tuple(map(bool, policy)) for policy in policies)}
        if wrong := [policy for policy in book or () if len(policy) != len(everything)]:
            raise ValueError(f"{wrong[0]} is no decision on {len(everything)} routed blocks")
        self.policies = None if book is None else sorted(book, key=lambda policy: (sum(policy), policy))
        """From the fewest blocks to all of them."""
        self.networks: dict[Policy, CompactNet] = {}

    def holds(self, policy: Policy) -> bool:
        """Whether it is run as it is."""
        return self.policies is None or policy in self.policies

    def member(self, policy: Policy) -> Policy:
        """The policy itself, or the one in the book with the fewest blocks that has all of its blocks."""
        if self.policies is None or policy in self.policies:
            return policy
        return next(m for m in self.policies if all(has >= keep for has, keep in zip(m, policy, strict=True)))

    def network(self, policy: Policy) -> CompactNet:
        """Of a policy in the book."""
        found = self.networks.pop(policy, None) or self.model.static(policy, share=True)
        self.networks[policy] = found  # the last one: dictionaries keep their order
        if len(self.networks) > self.limit:
            del self.networks[next(iter(self.networks))]
        return found

    def __call__(self, image_BCHW: Tensor, batch: Sorted) -> Outputs:
        """The outputs of pictures whose policies are in the book."""
        return _apart(lambda policy, image: self.network(policy)(image), image_BCHW, batch)


class Memory:
    """Which activations may be written over: those that nothing reads any more, under whatever name.

    A skipped block gives its input on, and a plain step may give a view of it: two values in one memory. The first may
    still be needed, by another branch or by the neck, when nothing but one block reads the second.
    """

    def __init__(self, image_BCHW: Tensor) -> None:
        self.held = {self._of(image_BCHW)}  # the caller's

    def may_write(self, x: Tensor, last: bool) -> bool:
        """Whether a node may write over its input; `last`: nothing else reads this value."""
        return last and self._of(x) not in self.held

    def passed(self, x: Tensor, y: Tensor, last: bool) -> None:
        """A node made y of x."""
        if not last and self._of(x) == self._of(y):
            self.held.add(self._of(x))  # for good: a later tensor at this address is copied once too often

    def _of(self, x: Tensor) -> int:
        return x.untyped_storage().data_ptr()


def _apart(run: Callable[[Policy, Tensor], Outputs], image_BCHW: Tensor, batch: Sorted) -> Outputs:
    image_BCHW = _sorted(image_BCHW, batch)
    parts = [
        run(policy, image_BCHW[slice(*rows)]) for policy, rows in zip(batch.policies, batch.rows, strict=True)
    ]
    if len(parts) == 1:
        return parts[0]
    if not batch.moved:
        return {task: torch.cat([part[task] for part in parts]) for task in parts[0]}
    order = to_device(batch.order, image_BCHW.device)
    return {task: _joined([part[task] for part in parts], order) for task in parts[0]}


def _joined(parts: Sequence[Tensor], order: Tensor) -> Tensor:
    """The parts one after another, each row where the order says; dense outputs are large, so they move once."""
    y, first = _rows_for(len(order), parts[0], parts[0]), 0
    for part in parts:
        y.index_copy_(0, order[first : first + len(part)], part)
        first += len(part)
    return y


def _sorted(image_BCHW: Tensor, batch: Sorted) -> Tensor:
    return image_BCHW[to_device(batch.order, image_BCHW.device)] if batch.moved else image_BCHW


def _unsorted(outputs: Outputs, batch: Sorted) -> Outputs:
    if not batch.moved:
        return outputs
    back = to_device(batch.back(), next(iter(outputs.values())).device)
    return {task: value[back] for task, value in outputs.items()}


def _indices(table: Table, device: torch.device) -> list[tuple[Tensor | None, Tensor | None]]:
    """By routed block the rows that keep it and those that skip it, None for no rows; one copy to the device."""
    rows: list[int] = []
    lengths = []
    for column in zip(*table, strict=True):
        kept = [i for i, keep in enumerate(column) if keep]
        skipped = [i for i, keep in enumerate(column) if not keep]
        rows += kept + skipped
        lengths += [len(kept), len(skipped)]
    parts = [part if len(part) else None for part in to_device(rows, device).split(lengths)]
    return list(zip(parts[::2], parts[1::2], strict=True))


def _rows_for(count: int, kept: Tensor, skipped: Tensor) -> Tensor:
    """Memory for the outputs of `count` pictures, laid out as those of some that keep the block."""
    is_last = kept.ndim == 4 and kept.is_contiguous(memory_format=torch.channels_last)
    return torch.empty(
        (count, *kept.shape[1:]),
        dtype=torch.promote_types(kept.dtype, skipped.dtype),
        device=kept.device,
        memory_format=torch.channels_last if is_last else torch.contiguous_format,
    )


def _write(y: Tensor, part: Tensor, span: Run, runs: Sequence[Run]) -> None:
    """Of what was computed for the rows of a span, those of the runs in it into y."""
    for first, stop in runs:
        if span[0] <= first and stop <= span[1]:
            y[first:stop].copy_(part[first - span[0] : stop - span[0]])
