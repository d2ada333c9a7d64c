"""How long a routed model takes on real pictures, beside the same network without choice.

    full      every block, no router: the model that skipping replaces
    routed    router, decisions to the host, and the executor that is chosen for them
    worst     the router, and then every block after all

All three in turn on the same pictures. What a picture is spared depends on the picture, so times have a distribution:
its percentiles are what a stream of pictures would see.

Shapes: N pictures, B of a call, R routed blocks.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from itertools import cycle
from typing import Any

import numpy as np
import torch
from torch import Tensor

from perceptkit.compact.route_cost import RouteCost, route_cost
from perceptkit.compact.routed import RoutedNet
from perceptkit.runtime.skipping import SkippingForward
from perceptkit.runtime.timing import interleave, spread

CALLS = 100
"""Timed calls of each, by batch size."""
WARMUP = 3
PERCENTILES = (50, 95, 99)
BRIEF_SECONDS = 4.0
"""About as long as `brief_latency` times."""
FEWEST_CALLS = 20
BRIEF_PICTURES = 64


@torch.inference_mode()
def routed_latency(
    routed: RoutedNet,
    image_NCHW: Tensor,
    batches: Sequence[int],
    calls: int = CALLS,
    device: str = "cpu",
    say: Callable[[str], None] = lambda line: None,
    policies: Sequence[Sequence[bool]] = (),
) -> dict[str, Any]:
    """Milliseconds per call by batch size, and how much of the saving that MACs predict is there on the clock.

    Args:
        routed: the model.
        image_NCHW: normalised pictures; those of a call are drawn from them.
        batches: pictures per call.
        calls: timed, of each of the three.
        device: where to run it.
        say: is told what comes next.
        policies: those of the manifest: the executors that are chosen from are those of a model that is loaded.

    Returns:
        `pictures`, `calls`, mean `macs` of a picture with the router and `macs_full` without any choice, and by
        `batch`: p50, p95, p99 of `full`, `routed` and `worst`; `predicted`, the part of the MACs that is saved;
        `saving`, the part of the time, as quartiles over the calls; `achieved`, the median of it over `predicted`, None
        where MACs predict none; `executors`, how often each was chosen.
    """
    forward = _as_loaded(routed, device, policies)
    return _by_batch(forward, routed, image_NCHW, batches, calls, device, say)


def _as_loaded(routed: RoutedNet, device: str, policies: Sequence[Sequence[bool]]) -> SkippingForward:
    """What `load` makes of an artifact by default."""
    return SkippingForward(routed, torch.device(device), codebook=policies or None)


def _by_batch(
    forward: SkippingForward,
    routed: RoutedNet,
    image_NCHW: Tensor,
    batches: Sequence[int],
    calls: int,
    device: str,
    say: Callable[[str], None] = lambda line: None,
) -> dict[str, Any]:
    size_HW = (image_NCHW.shape[2], image_NCHW.shape[3])
    cost = route_cost(routed, size_HW)
    macs_N = macs_by_picture(routed, image_NCHW, cost)
    if max(batches) > 1:
        forward.warm_up(size_HW, max(batches))
    found = {}
    for batch in batches:
        say(f"latency of {calls} batches of {batch}, with the router and without")
        found[str(batch)] = _one_size(forward, image_NCHW, macs_N, cost, batch, calls, device)
    return {
        "pictures": len(image_NCHW),
        "calls": calls,
        "macs": macs_N.mean().item(),
        "macs_full": cost.full,
        "batch": found,
    }


@torch.inference_mode()
def brief_latency(
    routed: RoutedNet,
    image_NCHW: Tensor,
    device: str = "cpu",
    seconds: float = BRIEF_SECONDS,
    policies: Sequence[Sequence[bool]] = (),
) -> dict[str, Any]:
    """`routed_latency` of single pictures, for about so many seconds: `FEWEST_CALLS` to `CALLS` calls of each."""
    forward = _as_loaded(routed, device, policies)
    one = interleave({"one": lambda: forward(image_NCHW[:1])}, WARMUP, WARMUP, device)["one"]
    return _by_batch(forward, routed, image_NCHW, (1,), calls_within(seconds, min(one)), device)


def calls_within(seconds: float, one: float) -> int:
    """Calls of each of the three that are made, where one takes that long."""
    return max(FEWEST_CALLS, min(CALLS, int(seconds / (3 * max(one, 1e-9)))))


def macs_by_picture(routed: RoutedNet, image_NCHW: Tensor, cost: RouteCost) -> Tensor:
    """(N,) MACs of each picture, router included."""
    keep_NR = torch.cat([routed.router.keep(image) for image in image_NCHW.split(32)])
    added_R = torch.tensor(cost.added_R, dtype=torch.float64)
    return cost.always + cost.router + keep_NR.double() @ added_R


def _one_size(
    forward: SkippingForward,
    image_NCHW: Tensor,
    macs_N: Tensor,
    cost: RouteCost,
    batch: int,
    calls: int,
    device: str,
) -> dict[str, Any]:
    drawn = torch.randint(len(image_NCHW), (calls, batch), generator=torch.Generator().manual_seed(batch))
    executors: Counter[str] = Counter()

    def full(image_BCHW: Tensor) -> None:
        with forward.placed.mixed():
            forward.placed.network.network(forward.placed.take(image_BCHW))

    def routed(image_BCHW: Tensor) -> None:
        forward(image_BCHW)
        assert forward.last is not None
        executors[forward.last.executor] += 1

    def worst(image_BCHW: Tensor) -> None:
        image_BCHW = forward.placed.take(image_BCHW)
        forward.decide(image_BCHW)
        with forward.placed.mixed():
            forward.run(image_BCHW, ((True,) * len(cost.added_R),) * batch)

    def on_the_next(run: Callable[[Tensor], None]) -> Callable[[], None]:
        turns = cycle(drawn)
        return lambda: run(image_NCHW[next(turns)])

    variants = {"full": on_the_next(full), "routed": on_the_next(routed), "worst": on_the_next(worst)}
    seconds = interleave(variants, calls, WARMUP, device)
    predicted = 1 - macs_N[drawn].mean().item() / cost.full
    saving = spread([1 - s / f for s, f in zip(seconds["routed"], seconds["full"], strict=True)])
    return {
        **{name: percentiles(values) for name, values in seconds.items()},
        "predicted": predicted,
        "saving": saving.to_dict(),
        "achieved": saving.median / predicted if predicted > 0 else None,
        "executors": dict(executors),
    }


def percentiles(seconds: Sequence[float]) -> dict[str, float]:
    """In milliseconds."""
    return {f"p{p}": float(np.percentile(seconds, p)) * 1e3 for p in PERCENTILES}


def as_markdown(found: Mapping[str, Any]) -> str:
    """The table that `perceptkit benchmark` prints of it."""
    lines = [
        "| batch | all blocks: p50, p95, p99 ms | routed | worst | MACs saved | time saved | achieved | executors |",
        "|---:|---:|---:|---:|---:|---:|---:|---|",
    ]
    for batch, row in found["batch"].items():
        times = [
            ", ".join(f"{row[name][f'p{p}']:.2f}" for p in PERCENTILES)
            for name in ("full", "routed", "worst")
        ]
        achieved = "-" if row["achieved"] is None else f"{row['achieved']:.2f}"
        taken = ", ".join(f"{name} {count}" for name, count in row["executors"].items())
        cells = [*times, f"{row['predicted']:.3f}", f"{row['saving']['median']:.3f}", achieved, taken]
        lines.append(f"| {batch} | " + " | ".join(cells) + " |")
    return "\n".join(lines)
