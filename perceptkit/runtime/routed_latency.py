"""How long a routed model takes on real pictures, beside the network that it was made from.

    full      all blocks of that network, no router: the model that skipping replaces
    routed    router, decisions to the host, and the executor that is chosen for them
    worst     the router, and then every block that is left after all
    static    what became of a router that decided alike for all pictures

In turn on the same pictures. What a picture is spared depends on the picture, so times have a distribution: its
percentiles are what a stream of pictures would see.

Shapes: N pictures, B of a call, R routed blocks.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from itertools import cycle
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from perceptkit.compact.route_cost import RouteCost, route_cost
from perceptkit.compact.routed import RoutedNet
from perceptkit.model.cost import measured_macs
from perceptkit.runtime.eager import Forward, on_device
from perceptkit.runtime.skipping import SkippingForward
from perceptkit.runtime.timing import interleave, spread

CALLS = 100
"""Timed calls of each, by batch size."""
WARMUP = 10
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
    host: nn.Module | None = None,
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
        host: the network before anything was skipped (compact/build.host_network); by default, all blocks of `routed`.

    Returns:
        `pictures`, `calls`, mean `macs` of a picture with the router and `macs_full` of the host, and by `batch`: p50,
        p95, p99 of `full`, `routed` and `worst`; `predicted`, the part of the MACs that is saved; `saving`, the part of
        the time, as quartiles over the calls; `achieved`, the median of it over `predicted`, None where MACs predict
        none or a call ran by `mask`, which skips nothing; `executors`, how often each was chosen.
    """
    forward = _as_loaded(routed, device, policies)
    return _by_batch(forward, routed, host, image_NCHW, batches, calls, device, say)


def _as_loaded(routed: RoutedNet, device: str, policies: Sequence[Sequence[bool]]) -> SkippingForward:
    """What `load` makes of an artifact by default."""
    return SkippingForward(routed, torch.device(device), codebook=policies or None)


def _by_batch(
    forward: SkippingForward,
    routed: RoutedNet,
    host: nn.Module | None,
    image_NCHW: Tensor,
    batches: Sequence[int],
    calls: int,
    device: str,
    say: Callable[[str], None] = lambda line: None,
) -> dict[str, Any]:
    size_HW = (image_NCHW.shape[2], image_NCHW.shape[3])
    cost = route_cost(routed, size_HW)
    macs_N = macs_by_picture(routed, image_NCHW, cost)
    full, macs_full = _whole(routed.network if host is None else host, image_NCHW, device)
    if max(batches) > 1:
        forward.warm_up(size_HW, max(batches))
    found = {}
    for batch in batches:
        say(f"latency of {calls} batches of {batch}, with the router and without")
        found[str(batch)] = _one_size(forward, full, image_NCHW, macs_N / macs_full, batch, calls, device)
    return _told(image_NCHW, calls, macs_N.mean().item(), macs_full, found)


def _told(
    image_NCHW: Tensor, calls: int, macs: float, macs_full: float, by_batch: Mapping[str, Any]
) -> dict[str, Any]:
    return {
        "pictures": len(image_NCHW),
        "calls": calls,
        "macs": macs,
        "macs_full": macs_full,
        "batch": by_batch,
    }


def _whole(network: nn.Module, image_NCHW: Tensor, device: str) -> tuple[Forward, float]:
    """What runs all of a network, and its MACs."""
    image = image_NCHW[:1].to(next(network.parameters()).device)
    return on_device(network, torch.device(device)), measured_macs(lambda: network(image))


@torch.inference_mode()
def brief_latency(
    routed: RoutedNet,
    image_NCHW: Tensor,
    device: str = "cpu",
    seconds: float = BRIEF_SECONDS,
    policies: Sequence[Sequence[bool]] = (),
    host: nn.Module | None = None,
) -> dict[str, Any]:
    """`routed_latency` of single pictures, for about so many seconds: `FEWEST_CALLS` to `CALLS` calls of each."""
    forward = _as_loaded(routed, device, policies)
    one = interleave({"one": lambda: forward(image_NCHW[:1])}, WARMUP, WARMUP, device)["one"]
    return _by_batch(forward, routed, host, image_NCHW, (1,), calls_within(seconds, min(one)), device)


@torch.inference_mode()
def static_latency(
    network: nn.Module,
    host: nn.Module,
    image_NCHW: Tensor,
    device: str = "cpu",
    seconds: float = BRIEF_SECONDS,
) -> dict[str, Any]:
    """`brief_latency` of a model that skips the same blocks for all pictures: of `full` and `static`."""
    full, macs_full = _whole(host, image_NCHW, device)
    static, macs = _whole(network, image_NCHW, device)
    one = interleave({"one": lambda: full(image_NCHW[:1])}, WARMUP, WARMUP, device)["one"]
    calls = calls_within(seconds, min(one))
    drawn = torch.randint(len(image_NCHW), (calls, 1), generator=torch.Generator().manual_seed(1))
    variants = {
        "full": _on_the_next(full, image_NCHW, drawn),
        "static": _on_the_next(static, image_NCHW, drawn),
    }
    row = _saved(interleave(variants, calls, WARMUP, device), "static", 1 - macs / macs_full)
    return _told(image_NCHW, calls, macs, macs_full, {"1": row})


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
    full: Forward,
    image_NCHW: Tensor,
    part_N: Tensor,
    batch: int,
    calls: int,
    device: str,
) -> dict[str, Any]:
    drawn = torch.randint(len(image_NCHW), (calls, batch), generator=torch.Generator().manual_seed(batch))
    executors: Counter[str] = Counter()

    def routed(image_BCHW: Tensor) -> None:
        forward(image_BCHW)
        assert forward.last is not None
        executors[forward.last.executor] += 1

    def worst(image_BCHW: Tensor) -> None:
        image_BCHW = forward.placed.take(image_BCHW)
        forward.decide(image_BCHW)
        with forward.placed.mixed():
            forward.run(image_BCHW, ((True,) * len(forward.placed.network.plan.routed()),) * batch)

    variants = {
        name: _on_the_next(run, image_NCHW, drawn)
        for name, run in (("full", full), ("routed", routed), ("worst", worst))
    }
    seconds = interleave(variants, calls, WARMUP, device)
    row = _saved(seconds, "routed", 1 - part_N[drawn].mean().item()) | {"executors": dict(executors)}
    return row | {"achieved": None} if executors["mask"] else row


def _on_the_next(run: Callable[[Tensor], object], image_NCHW: Tensor, drawn: Tensor) -> Callable[[], object]:
    turns = cycle(drawn)
    return lambda: run(image_NCHW[next(turns)])


def _saved(seconds: Mapping[str, Sequence[float]], name: str, predicted: float) -> dict[str, Any]:
    saving = spread([1 - s / f for s, f in zip(seconds[name], seconds["full"], strict=True)])
    return {
        **{variant: percentiles(values) for variant, values in seconds.items()},
        "predicted": predicted,
        "saving": saving.to_dict(),
        "achieved": saving.median / predicted if predicted > 0 else None,
    }


def percentiles(seconds: Sequence[float]) -> dict[str, float | None]:
    """In milliseconds; None of fewer calls than one in which so slow a one is to be expected: p99 of a hundred."""
    return {
        f"p{p}": float(np.percentile(seconds, p)) * 1e3 if len(seconds) * (100 - p) >= 100 else None
        for p in PERCENTILES
    }


def as_markdown(found: Mapping[str, Any]) -> str:
    """The table that `perceptkit benchmark` prints of it."""
    lines = [
        "| batch | unskipped: p50, p95, p99 ms | routed | worst | MACs saved | time saved | achieved | executors |",
        "|---:|---:|---:|---:|---:|---:|---:|---|",
    ]
    for batch, row in found["batch"].items():
        times = [
            ", ".join("-" if row[name][f"p{p}"] is None else f"{row[name][f'p{p}']:.2f}" for p in PERCENTILES)
            for name in ("full", "routed", "worst")
        ]
        achieved = "-" if row["achieved"] is None else f"{row['achieved']:.2f}"
        taken = ", ".join(f"{name} {count}" for name, count in row["executors"].items())
        cells = [*times, f"{row['predicted']:.3f}", f"{row['saving']['median']:.3f}", achieved, taken]
        lines.append(f"| {batch} | " + " | ".join(cells) + " |")
    return "\n".join(lines)
