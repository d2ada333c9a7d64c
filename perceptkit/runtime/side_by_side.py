"""Latency of several artifacts, interleaved in one process: what slows the machine down slows all of them down."""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import torch

from perceptkit.runtime.load import load
from perceptkit.runtime.timing import interleave, spread

WARMUP = 3
"""Rounds before the clock counts."""


@torch.inference_mode()
def latencies_ms(
    artifacts: Mapping[str, Path], rounds: int = 30, say: Callable[[str], None] = lambda line: None
) -> dict[str, float]:
    """Median milliseconds for one picture on the CPU, by name.

    Models with a router are left out: what they skip depends on the pictures, and here there is only noise.
    """
    calls = {}
    for name, folder in artifacts.items():
        model = load(folder, "cpu", threads=torch.get_num_threads())
        if model.manifest.router is None:
            noise = torch.Generator().manual_seed(0)
            image_BCHW = torch.randn(1, 3, *model.manifest.size_HW, generator=noise)
            calls[name] = partial(model.forward, image_BCHW)
    if not calls:
        return {}
    say(f"timing {len(calls)} models, {rounds} rounds")
    seconds = interleave(calls, rounds, WARMUP)
    return {name: spread([1e3 * second for second in values]).median for name, values in seconds.items()}
