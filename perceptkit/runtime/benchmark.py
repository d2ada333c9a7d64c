"""`perceptkit benchmark`: one model beside what it replaces, in one process, interleaved.

    benchmark(variants, size_HW, batches, rounds) -> plain data       as_markdown(that) -> what is printed

A round runs every variant once; see timing.py. Ratios are against the separate single-task nets where those
take part, else against the first variant.

Shapes: B batch, H W pixels.
"""

import datetime
import platform
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from perceptkit.runtime import routed_latency
from perceptkit.runtime.peak_memory import peak_memory
from perceptkit.runtime.timing import interleave, speedup, spread
from perceptkit.runtime.variants import TITLES, Variant
from perceptkit.versions import installed

WARMUP = 3
"""Rounds before the clock counts; compiled code is made in the first."""


@torch.inference_mode()
def latencies(
    variants: Sequence[Variant], image_BCHW: Tensor, rounds: int, device: str
) -> dict[str, dict[str, Any]]:
    """By variant: `ms` of this batch and `speedup` over the reference, both as quartiles."""
    calls = {variant.name: partial(variant.forward, image_BCHW) for variant in variants}
    seconds = interleave(calls, rounds, WARMUP, device)
    reference = seconds[variants[0].name]
    return {
        name: {
            "ms": spread([1e3 * second for second in values]).to_dict(),
            "speedup": speedup(reference, values).to_dict(),
        }
        for name, values in seconds.items()
    }


def benchmark(
    variants: Sequence[Variant],
    artifact: Path,
    files: Mapping[str, Path],
    size_HW: tuple[int, int],
    batches: Sequence[int],
    rounds: int,
    device: str = "cpu",
    memory: bool = True,
    say: Callable[[str], None] = lambda line: None,
    pictures: Tensor | None = None,
) -> dict[str, Any]:
    """Times every variant at every batch size, and measures its memory in a process of its own.

    A row's `note` says what has to be known to read it; it is a footnote of the table.

    Args:
        variants: from `open_variants`; the first one is the reference of all ratios.
        artifact, files: what they were opened from.
        size_HW: of the pictures, in pixels.
        batches: pictures per call.
        rounds: timed calls of each.
        device: where torch runs.
        memory: whether to measure the memory, some seconds per variant.
        say: is told what comes next.
        pictures: normalised ones (N, 3, H, W) to run on, noise by default: all the same for models that run every
            block for every picture.
    """
    if pictures is None:
        pictures = torch.randn(max(batches), 3, *size_HW, generator=torch.Generator().manual_seed(0))
    timed = {}
    for batch in batches:
        say(f"timing batch {batch}: {len(variants)} variants, {rounds} rounds")
        image_BCHW = pictures[torch.arange(batch) % len(pictures)]
        timed[batch] = latencies(variants, image_BCHW, rounds, device)
    rows = {}
    for variant in variants:
        if memory:
            say(f"memory of {variant.name}")
        peak = (
            peak_memory(variant.name, artifact, files.get(variant.name), max(batches), device)
            if memory
            else None
        )
        rows[variant.name] = {
            "title": variant.title,
            "note": variant.note,
            "params": variant.params,
            "macs": variant.macs,
            "file_bytes": variant.file_bytes,
            "peak_memory_bytes": peak,
            "batches": {str(batch): timed[batch][variant.name] for batch in batches},
        }
    return {
        "input": [3, *size_HW],
        "reference": variants[0].name,
        "rounds": rounds,
        "memory_batch": max(batches) if memory else None,
        "machine": machine(device),
        "rows": rows,
    }


def machine(device: str) -> dict[str, Any]:
    """What a figure means nothing without."""
    return {
        "perceptkit": installed("perceptkit"),
        "torch": torch.__version__,
        "onnxruntime": installed("onnxruntime"),
        "python": platform.python_version(),
        "device": torch.cuda.get_device_name() if device.startswith("cuda") else platform.machine(),
        "threads": torch.get_num_threads(),
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
    }


def as_markdown(found: Mapping[str, Any]) -> str:
    """The table that the command prints."""
    batches = list(next(iter(found["rows"].values()))["batches"])
    notes = {name: row["note"] for name, row in found["rows"].items() if row["note"]}
    height, width = found["input"][1:]
    reference = _title(found, found["reference"])
    head = ["", "params", "MACs", "file", "memory"]
    head += [f"batch {batch}: ms (quartiles)" for batch in batches] + [
        f"batch {batch}: x faster" for batch in batches
    ]
    lines = ["| " + " | ".join(head) + " |", "|---" + "|---:" * (len(head) - 1) + "|"]
    for name, row in found["rows"].items():
        mark = f" [{list(notes).index(name) + 1}]" if name in notes else ""
        cells = [row["title"] + mark, f"{row['params'] / 1e6:.2f} M", f"{row['macs'] / 1e6:.1f} M"]
        cells += [_mib(row["file_bytes"]), _mib(row["peak_memory_bytes"])]
        cells += [_quartiles(row["batches"][batch]["ms"]) for batch in batches]
        cells += [f"{row['batches'][batch]['speedup']['median']:.2f}" for batch in batches]
        lines.append("| " + " | ".join(cells) + " |")
    lines += ["", *_accuracies(found)]
    if latency := found.get("routing_latency"):
        lines += [routed_latency.as_markdown(latency), ""]
    lines += [f"[{i}] {_title(found, name)}: {note}" for i, (name, note) in enumerate(notes.items(), start=1)]
    for name, reason in found.get("left_out", {}).items():
        lines.append(f"{TITLES[name]}: left out ({reason})")
    m = found["machine"]
    lines.append(
        f"{height}x{width} pixels, {found['rounds']} interleaved rounds, {m['threads']} threads of {m['device']}, "
        f"torch {m['torch']}; x faster than: {reference}"
    )
    return "\n".join(lines)


def _accuracies(found: Mapping[str, Any]) -> list[str]:
    """Primary metric by task for every variant that has one."""
    accuracy: Mapping[str, Mapping[str, Any]] = found.get("accuracy", {})
    if not accuracy:
        return []
    columns = list(dict.fromkeys(key for row in accuracy.values() for key in row))
    lines = ["| | " + " | ".join(columns) + " |", "|---" + "|---:" * len(columns) + "|"]
    for name in [name for name in TITLES if name in accuracy]:
        row = accuracy[name]
        values = [f"{row[key]:.4f}" if row.get(key) is not None else "-" for key in columns]
        lines.append(f"| {_title(found, name)} | " + " | ".join(values) + " |")
    if without := [
        name for name in ("single_nets", "hard_shared") if name in found["rows"].keys() - accuracy.keys()
    ]:
        titles = " and ".join(_title(found, name) for name in without)
        lines += ["", f"Accuracy of {titles}: give trained ones with --baseline RUN (on test)."]
    return [*lines, ""]


def _title(found: Mapping[str, Any], name: str) -> str:
    """As its row is called; trained baselines may have none."""
    row = found["rows"].get(name)
    return row["title"] if row is not None else TITLES[name]


def _quartiles(ms: Mapping[str, float]) -> str:
    return f"{ms['median']:.2f} ({ms['q1']:.2f} - {ms['q3']:.2f})"


def _mib(count: int | None) -> str:
    return "-" if count is None else f"{count / 2**20:.1f} MiB"
