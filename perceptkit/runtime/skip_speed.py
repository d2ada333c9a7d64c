"""How much faster a dynamic file is than the same model without choice, on real pictures: both timed in turn.

Shapes: B batch.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from perceptkit.compact.onnx_file import open_onnx
from perceptkit.compact.routed import RoutedNet
from perceptkit.runtime.load import load
from perceptkit.runtime.timing import interleave, speedup, spread

ROUNDS, WARMUP = 15, 2
MOST = 32
"""Pictures of a round, spread over all that there are."""


@torch.no_grad()
def skip_speed(
    dynamic: Path, static: Path, images: Sequence[Tensor], routed: RoutedNet, batch: int, threads: int = 1
) -> Mapping[str, Any]:
    """Times both files on the same pictures, router included.

    Args:
        dynamic: what was exported.
        static: the network that keeps every block, as ONNX.
        images: normalised pictures (B, 3, H, W).
        routed: the model; its router says how much of it the pictures keep.
        batch: pictures per call.
        threads: of onnxruntime.

    Returns:
        Milliseconds per picture of both, their ratio with quartiles, and the mean kept fraction of them.
    """
    whole = torch.cat(list(images))
    chosen = torch.linspace(0, len(whole) - 1, min(MOST, len(whole))).round().long()
    batches = whole[chosen].split(batch)
    skipping, full = load(dynamic, "cpu", threads=threads).forward, open_onnx(static, "cpu", threads)[0]
    seconds = interleave(
        {
            "dynamic": lambda: [skipping(image) for image in batches],
            "static": lambda: [full(image) for image in batches],
        },
        ROUNDS,
        WARMUP,
    )
    ms = {name: spread(times).median * 1e3 / len(chosen) for name, times in seconds.items()}
    ratio = speedup(seconds["static"], seconds["dynamic"]).to_dict()
    kept = torch.cat([routed.router.keep(image) for image in batches]).float().mean().item()
    return {
        "batch": min(batch, len(chosen)),
        "pictures": len(chosen),
        "threads": threads,
        "kept_fraction": kept,
        "ms_per_picture": ms,
        "speedup": ratio,
    }
