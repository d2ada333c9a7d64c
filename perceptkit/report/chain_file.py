"""stages.json as the report sees it: what every stage made of the network, and the files that were exported in the end.

Written by train/stage_record.py; exported files have their records beside them (compact/parity_file.py), whenever they
were made. One that was written somewhere else is no part of the run.
"""

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from perceptkit.report.adaptation_file import Metrics, metrics_of

EXPORTS, RECORD, EMITTED = "exports", "parity.json", "emitted"
SMALLEST_SCALE = 0.01
"""Of a head, as in compact/verify.py: what it differs by is a part of its scale, or of this where that is larger."""


@dataclass(frozen=True)
class StageRow:
    """The network when a stage was over, or an exported file."""

    stage: str
    """Its name, or that of the file."""
    val: Metrics
    test: Metrics
    macs: float
    bits: float
    kind: str = ""
    """Of a file: its format, and how it computes or skips."""
    off: float = math.nan
    """Of a file: how far it is from the artifact, as a part of a head's scale."""


@dataclass(frozen=True)
class Chain:
    """stages.json, and exports/."""

    rows: tuple[StageRow, ...]
    tasks: Mapping[str, Any]
    """By task, `primary` and `info`."""
    exported: tuple[StageRow, ...] = ()
    damaged: tuple[str, ...] = ()
    """Exported files whose records cannot be read."""


def read_chain(file: Path) -> Chain:
    """Raises KeyError, TypeError or ValueError where what is there is not what it should be."""
    loaded = json.loads(file.read_text(encoding="utf-8"))
    rows = tuple(
        StageRow(
            str(row["stage"]),
            metrics_of(row["val"]),
            metrics_of(row["test"]),
            float(row["macs"]),
            float(row["bits"]),
        )
        for row in loaded["rows"]
    )
    for task in loaded["tasks"].values():
        str(task["info"][task["primary"]]["unit"])
    macs = next((row.macs for row in rows if row.stage == EMITTED), math.nan)
    exported, damaged = [], []
    for path, entry in _records(file.parent / EXPORTS):
        try:
            exported.append(_of_record(path, entry, macs))
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            damaged.append(path.name)
    return Chain(rows, loaded["tasks"], tuple(exported), tuple(damaged))


def _records(folder: Path) -> Iterator[tuple[Path, Any]]:
    """What was exported and is there, with its record: first files, in the order in which they were made."""
    entries = _json(folder / RECORD)
    for name, entry in entries.items() if isinstance(entries, dict) else ():
        path = folder / Path(name).name  # a record never reaches outside its own folder
        if path.is_file():
            yield path, entry
    for record in sorted(folder.glob(f"*/{RECORD}")):
        yield record.parent, _json(record)


def _json(file: Path) -> Any:
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def _of_record(path: Path, entry: Mapping[str, Any], macs: float) -> StageRow:
    """`macs`: of the artifact, which a file that says nothing else has too."""
    how = entry.get("dynamic_skip") or entry.get("precision", "32")
    after = "codebook" if "dynamic_skip" in entry else how  # what `accuracy` calls the file's own metrics
    val = entry.get("val", {})
    if entry.get("measured_on") == "val" and "accuracy" in entry:
        val = {
            task: {metric: pair[after] for metric, pair in metrics.items()}
            for task, metrics in entry["accuracy"].items()
        }
    off = [row["max_abs"] / max(SMALLEST_SCALE, row["scale"]) for row in entry["heads"].values()]
    files = [path] if path.is_file() else [f for f in path.iterdir() if f.suffix in (".onnx", ".safetensors")]
    return StageRow(
        path.name,
        metrics_of(val),
        {},
        float(entry.get("macs", macs)),
        8.0 * sum(file.stat().st_size for file in files),
        ", ".join([str(entry["format"]), *([] if how == "32" else [str(how)])]),
        max(map(float, off)),
    )
