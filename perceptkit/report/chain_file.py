"""stages.json as the report sees it: what every stage made of the network. Written by train/stage_record.py."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from perceptkit.report.adaptation_file import Metrics, metrics_of


@dataclass(frozen=True)
class StageRow:
    """The network when a stage was over."""

    stage: str
    val: Metrics
    test: Metrics
    macs: float
    bits: float


@dataclass(frozen=True)
class Chain:
    """stages.json."""

    rows: tuple[StageRow, ...]
    tasks: Mapping[str, Any]
    """By task, `primary` and `info`."""


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
    return Chain(rows, loaded["tasks"])
