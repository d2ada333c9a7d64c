"""benchmark.json as the report sees it; another verb writes it, and nothing is measured here."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def read_benchmark(run: Path) -> Mapping[str, Any]:
    """What `perceptkit benchmark` wrote into a run folder; empty where there is nothing that can be read."""
    for file in (run / "benchmark/benchmark.json", run / "benchmark.json"):
        try:
            loaded = json.loads(file.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue
        if isinstance(loaded, dict):
            return loaded
    return {}


def compact_latency(run: Path, batch: int = 1) -> float | None:
    """Median milliseconds of the compact model for one batch; None where it was not measured."""
    try:
        return float(read_benchmark(run)["rows"]["compact"]["batches"][str(batch)]["ms"]["median"])
    except (KeyError, TypeError, ValueError, AttributeError):
        return None


def machine_of(run: Path) -> tuple[Any, ...]:
    """Device and number of threads that it was measured with; empty where it was not."""
    machine = read_benchmark(run).get("machine")
    return (machine.get("device"), machine.get("threads")) if isinstance(machine, dict) else ()
