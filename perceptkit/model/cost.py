"""What a network costs: the one place that counts parameters and MACs.

**Parameters are a union**: stem, projections and plain steps always; a block if any task keeps it; the
neck if any task is dense; the heads. **Compute is a trie**: a block runs once for every distinct plan
prefix that keeps it, its projection in it, and the projection alone for every prefix that skips it (so twice where
tasks part there); the neck once for every distinct plan that has a dense task.

MACs are multiply-accumulates of one image at batch 1: half of what `torch.utils.flop_counter` counts. Each
step is measured once by running it, attention as plain matrix products: the counter does not know the fused
kernel of the CPU and would leave it out.

This is the trained network's: what a file holds after norms were folded and projections merged is counted from that
network itself, and is the manifest's `written` (compact/build.py).

    table(supernet, plan, size_HW) -> {"input", "rows": {"compact", "hard_shared", "single_task_nets"},
                                       "per_task_macs"}
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from perceptkit.model.blocks import num_params
from perceptkit.model.plan import Plan
from perceptkit.model.supernet import Supernet, head_key
from perceptkit.model.trie import leaves, trie
from perceptkit.model.trunk import run_part, shared_inputs, to_map


@dataclass(frozen=True)
class StepMacs:
    """MACs of everything, measured once."""

    plain: tuple[int, ...]
    """Steps without a gate, by how many blocks come before them: entry 0 is the stem, run once for all
    tasks; entry l runs once for every distinct plan prefix of l blocks."""
    block: tuple[int, ...]
    """Each block as it runs, its projection included."""
    projection: tuple[int, ...]
    """What runs where the block is skipped; 0 for identity blocks."""
    neck: int
    heads: Mapping[str, int]


def measured_macs(call: Callable[[], object]) -> int:
    """MACs that `call` executes."""
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        call()
    return counter.get_total_flops() // 2


def measured_nanoseconds(call: Callable[[], object], rounds: int = 7) -> int:
    """Time that `call` takes, the shortest of some rounds: what a shared machine adds is left out."""
    shortest = []
    for _ in range(rounds):
        _wait()
        began = time.perf_counter_ns()
        call()
        _wait()
        shortest.append(time.perf_counter_ns() - began)
    return min(shortest)


def _wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


@torch.no_grad()
def measure(
    supernet: Supernet,
    size_HW: tuple[int, int],
    meter: Callable[[Callable[[], object]], int] = measured_macs,
    batch: int = 1,
) -> StepMacs:
    """Runs every step of the network on images of this size.

    Args:
        supernet: with all its blocks.
        size_HW: in pixels.
        meter: what is measured of a call; with `measured_nanoseconds` the result holds times instead of MACs.
        batch: images; MACs are those of one image at batch 1.
    """
    was_training = supernet.training
    supernet.eval()
    device = next(supernet.parameters()).device
    x: Tensor = torch.zeros(batch, 3, *size_HW, device=device)
    num_blocks = len(supernet.blocks)
    plain, block, projection = [0] * (num_blocks + 1), [0] * num_blocks, [0] * num_blocks
    passed = 0
    shared = shared_inputs(supernet.backbone, size_HW)
    features = []
    for i, step in enumerate(supernet.steps):
        entered = x.clone()  # an activation may work in place
        executed = meter(partial(run_part, supernet.backbone, step.runs, x, shared))
        x = run_part(supernet.backbone, step.runs, entered.clone(), shared)
        if step.block is None:
            plain[passed] += executed
        else:
            block[step.block] = executed
            passed = step.block + 1
            if step.projection is not None:
                shortcut = partial(run_part, supernet.backbone, step.projection, entered, shared)
                projection[step.block] = meter(shortcut)
        if i in supernet.taps:
            features.append(to_map(supernet.backbone, x, size_HW))
    last = to_map(supernet.backbone, x, size_HW)
    neck = meter(partial(supernet.run_neck, features, size_HW)) if supernet.neck is not None else 0
    both = {
        name: meter(partial(supernet.run_heads, features, last, [name], size_HW)) for name in supernet.tasks
    }
    heads = {name: macs - (neck if supernet.tasks[name].dense else 0) for name, macs in both.items()}
    supernet.train(was_training)
    return StepMacs(tuple(plain), tuple(block), tuple(projection), neck, heads)


def macs(
    supernet: Supernet, plan: Plan, steps: StepMacs, tasks: Sequence[str] | None = None
) -> tuple[int, int]:
    """(all, backbone only) MACs of one image for all tasks, or some of them, by the prefix trie."""
    parts = breakdown(supernet, plan, steps, tasks)
    return sum(parts.values()), parts["backbone"]


def breakdown(
    supernet: Supernet, plan: Plan, steps: StepMacs, tasks: Sequence[str] | None = None
) -> dict[str, int]:
    """MACs of one image for all tasks, or some of them, by `backbone`, `necks` and `heads`."""
    chosen = list(tasks) if tasks is not None else list(plan.tasks)
    backbone = steps.plain[0]
    for node in trie(plan, chosen):
        backbone += steps.block[node.block] if node.kept else steps.projection[node.block]
        backbone += steps.plain[node.block + 1]
    necks = sum(any(supernet.tasks[t].dense for t in leaf) for leaf in leaves(plan, chosen))
    heads = sum(steps.heads[task] for task in chosen)
    return {"backbone": backbone, "necks": necks * steps.neck, "heads": heads}


def routed_macs(
    supernet: Supernet, plan: Plan, steps: StepMacs, tasks: Sequence[str] | None = None
) -> tuple[int, tuple[int, ...]]:
    """MACs of a plan with routed blocks: of a picture that skips all of them, and what each of them adds.

    A picture's own MACs are the first plus the second of the blocks it keeps; the router comes on top. A block that
    several branches of the trie run adds its MACs several times. Of two copies one always runs: nothing is added.
    """
    column = {block: r for r, block in enumerate(plan.routed())}
    added = [0] * len(column)
    for node in trie(plan, tasks):
        if node.kept and node.block in column and not plan.has_copies(node.block):
            added[column[node.block]] += steps.block[node.block] - steps.projection[node.block]
    total, _ = macs(supernet, plan, steps, tasks)
    return total - sum(added), tuple(added)


def params(supernet: Supernet, plan: Plan, tasks: Sequence[str] | None = None) -> int:
    """Parameters that all tasks, or some of them, need together: the union of what they keep."""
    return sum(_needed(supernet, plan, tasks).values())


def _needed(supernet: Supernet, plan: Plan, tasks: Sequence[str] | None = None) -> dict[int, int]:
    """Sizes of the parameters that are needed, by their identity: several networks may share some."""
    chosen = list(tasks) if tasks is not None else list(plan.tasks)
    found = _sizes(supernet.backbone)
    used = plan.only(chosen).kept_by_any()
    for step in supernet.steps:
        if step.block is not None and not used[step.block]:
            dropped = _sizes(supernet.backbone.get_submodule(step.name))
            if step.projection is not None:
                dropped = _without(dropped, _sizes(supernet.backbone.get_submodule(step.projection)))
            found = _without(found, dropped)
        elif step.has_copies and step.name not in plan.dual:  # what it is compared with has no second copy
            found = _without(found, _sizes(supernet.backbone.get_submodule(step.base)))
    if any(supernet.tasks[t].dense for t in chosen):
        found |= _sizes(supernet.neck)
    for task in chosen:
        found |= _sizes(supernet.heads[head_key(task)])
    return found


def _sizes(module: nn.Module | None) -> dict[int, int]:
    return {id(p): p.numel() for p in module.parameters()} if module is not None else {}


def _without(sizes: Mapping[int, int], others: Mapping[int, int]) -> dict[int, int]:
    return {key: size for key, size in sizes.items() if key not in others}


def row(
    supernet: Supernet, plan: Plan, steps: StepMacs, tasks: Sequence[str] | None = None
) -> dict[str, int]:
    """One line of the cost table."""
    total, backbone = macs(supernet, plan, steps, tasks)
    return {"params": params(supernet, plan, tasks), "macs": total, "backbone_macs": backbone}


def table(network: Any, plan: Plan, size_HW: tuple[int, int]) -> dict[str, Any]:
    """Parameters and MACs of the plan, of hard sharing and of one net per task, heads and necks included.

    Args:
        network: a Supernet, or nets that give a Supernet per task with `by_task()`: separate ones, or such that
            share weights but no norms, and so no activations; or a network that shares in its own way and gives the
            Supernet that it is compared with, `plain()`.
        plan: who keeps what.
        size_HW: of the input, in pixels.
    """
    if hasattr(network, "plain"):
        return _of_whole(network, plan, size_HW)
    nets: Mapping[str, Supernet] | None = network.by_task() if hasattr(network, "by_task") else None
    supernet: Supernet = network if nets is None else next(iter(nets.values()))
    steps = measure(supernet, size_HW)
    if nets is not None:  # each net has its own task only; all have the same trunk
        parts = {name: measure(net, size_HW) for name, net in nets.items()}
        own = {name: row(net, plan.only([name]), parts[name]) for name, net in nets.items()}
        dense = Plan.all_keep(plan.tasks, plan.blocks)
        alone = [row(net, dense.only([name]), parts[name]) for name, net in nets.items()]
        union: dict[int, int] = {}  # they may share all but their norms
        for name, net in nets.items():
            union |= _needed(net, plan.only([name]))
        compact = {**_summed(list(own.values())), "params": sum(union.values())}
        return {
            "input": [3, *size_HW],
            "rows": {
                "compact": compact,
                "hard_shared": _shared_instead(nets, parts),
                "single_task_nets": _summed(alone),
            },
            "per_task_macs": {name: line["macs"] for name, line in own.items()},
        }
    dense = Plan.all_keep(plan.tasks, plan.blocks)
    return {
        "input": [3, *size_HW],
        "rows": {
            "compact": row(supernet, plan, steps),
            "hard_shared": row(supernet, dense, steps),
            "single_task_nets": _summed([row(supernet, dense, steps, [task]) for task in plan.tasks]),
        },
        "per_task_macs": {task: macs(supernet, plan, steps, [task])[0] for task in plan.tasks},
    }


@torch.no_grad()
def _of_whole(network: Any, plan: Plan, size_HW: tuple[int, int]) -> dict[str, Any]:
    """The table of a network that is no trunk with a plan: it is run; heads and the necks that run are taken off."""
    was_training = network.training
    network.eval()
    plain: Supernet = network.plain().eval()
    steps, dense = measure(plain, size_HW), Plan.all_keep(plan.tasks, plan.blocks)
    image = torch.zeros(1, 3, *size_HW, device=next(network.parameters()).device)

    def executed(tasks: Sequence[str]) -> int:
        return measured_macs(partial(network, image, plan, tasks))

    total = executed(plan.tasks)
    after = sum(steps.heads[task] for task in plan.tasks) + network.num_necks() * steps.neck
    found = {
        "input": [3, *size_HW],
        "rows": {
            "compact": {"params": num_params(network), "macs": total, "backbone_macs": total - after},
            "hard_shared": row(plain, dense, steps),
            "single_task_nets": _summed([row(plain, dense, steps, [task]) for task in plan.tasks]),
        },
        "per_task_macs": {task: executed([task]) for task in plan.tasks},
    }
    network.train(was_training)
    return found


def backbone_facts(supernet: Supernet, size_HW: tuple[int, int]) -> dict[str, Any]:
    """What can be gated in the backbone, as plain data.

    `share` is the part of the backbone's MACs that skipping all blocks would save: projections, which run in
    place of their blocks, are not in it. `strides` and `channels` are those of the features, fine to coarse.
    """
    steps = measure(supernet, size_HW)
    kinds = [block.kind for block in supernet.blocks]
    total = sum(steps.plain) + sum(steps.block)
    taps = [supernet.steps[i] for i in supernet.taps]
    return {
        "identity": kinds.count("identity"),
        "shortcut": kinds.count("shortcut"),
        "macs": total,
        "share": (sum(steps.block) - sum(steps.projection)) / total,
        "strides": [tap.stride for tap in taps],
        "channels": [tap.channels for tap in taps],
    }


def _shared_instead(nets: Mapping[str, Supernet], parts: Mapping[str, StepMacs]) -> dict[str, int]:
    """What one trunk and one neck with the heads of all these nets would cost."""
    first = next(iter(nets))
    backbone = sum(parts[first].plain) + sum(parts[first].block)
    # nets of global tasks have no neck
    neck, neck_params = max((parts[name].neck, num_params(net.neck)) for name, net in nets.items())
    return {
        "params": num_params(nets[first].backbone)
        + neck_params
        + sum(num_params(net.heads) for net in nets.values()),
        "macs": backbone + neck + sum(parts[name].heads[name] for name in nets),
        "backbone_macs": backbone,
    }


def _summed(rows: Sequence[Mapping[str, int]]) -> dict[str, int]:
    return {key: sum(line[key] for line in rows) for key in rows[0]}
