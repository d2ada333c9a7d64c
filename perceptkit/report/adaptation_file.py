"""adaptation.json as the report sees it: what a run made of its base.

Written by train/adapting.py, old_domain.py and adapting_record.py. Files of older versions lack keys: what is not there
is empty or None, and the page leaves it out.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Metrics = Mapping[str, Mapping[str, float]]
"""By task and metric."""


@dataclass(frozen=True)
class OldDomain:
    """The base's tasks on the base's pictures."""

    before: Metrics
    after: Metrics | None
    why: str
    """Why `after` is None."""
    directions: Mapping[str, Mapping[str, tuple[bool, str]]]
    """By task and metric, whether higher is better, and the unit."""


@dataclass(frozen=True)
class Choices:
    """What SpotTune's router chose."""

    blocks: tuple[str, ...]
    seen_rate: tuple[float, ...]
    """By block: the part of the pictures it learned from that run the tuned copy."""
    test_rate: tuple[float, ...]
    """The same of the test split; empty where it was not written down."""
    is_static: bool
    ablations: Mapping[str, Metrics]
    folded: Mapping[str, Any]
    """Blocks that became static against what some pictures chose, and metrics on val before and after; or empty."""

    fixed: tuple[str, ...] | None
    """Blocks of which one copy is left; None in files of older versions."""
    num_images: int
    """That the choices were judged on; 0 where that was not written down."""

    @property
    def rate(self) -> tuple[float, ...]:
        """Of the test split where it is known."""
        return self.test_rate or self.seen_rate


@dataclass(frozen=True)
class AdaptationFile:
    """adaptation.json."""

    method: str
    before: Metrics | None
    """The base's network on the new domain, tasks whose heads it brings; None where it was not measured."""
    bits: Mapping[str, float]
    layers_tuned: Mapping[str, float]
    old: OldDomain | None
    choices: Choices | None
    test: Mapping[str, Any]
    """Groups and pictures, as train/adapting_record.py says; empty where there are none."""
    folder: Path
    """Where the pictures are."""


def read_adaptation(file: Path) -> AdaptationFile:
    """Raises AttributeError, KeyError, TypeError or ValueError where what is there is not what it should be."""
    loaded = json.loads(file.read_text(encoding="utf-8"))
    test = loaded.get("test") or {}
    copies = loaded.get("copies") or {}
    return AdaptationFile(
        method=str(loaded.get("method", "")),
        before=metrics_of(loaded["before"]["test"]) if loaded.get("before") else None,
        bits={str(name): float(value) for name, value in (loaded.get("bits") or {}).items()},
        layers_tuned={str(name): float(part) for name, part in (loaded.get("layers_tuned") or {}).items()},
        old=_old(loaded.get("old_domain")),
        choices=_choices(copies, test) if copies.get("blocks") else None,
        test=test if copies.get("blocks") and {"policies", "examples"} <= test.keys() else {},
        folder=file.parent / "adaptation",
    )


def _old(loaded: Any) -> OldDomain | None:
    if not loaded:
        return None
    after = loaded.get("after")
    return OldDomain(
        metrics_of(loaded.get("before") or {}),
        None if after is None else metrics_of(after),
        str(loaded.get("why", "")),
        {
            task: {m: (bool(i["higher_is_better"]), str(i["unit"])) for m, i in about["info"].items()}
            for task, about in (loaded.get("tasks") or {}).items()
        },
    )


def _choices(copies: Mapping[str, Any], test: Mapping[str, Any]) -> Choices:
    blocks = tuple(map(str, copies["blocks"]))
    seen = tuple(map(float, (copies.get("seen") or {}).get("keep_rate") or ()))
    rate = tuple(map(float, test.get("rate") or ()))
    if any(len(values) not in (0, len(blocks)) for values in (seen, rate)):
        raise ValueError("the choices do not fit the blocks")
    ablations = {name: metrics_of(found) for name, found in (copies.get("ablations") or {}).items()}
    return Choices(
        blocks,
        seen,
        rate,
        bool(copies.get("static")),
        ablations,
        copies.get("folded") or {},
        tuple(map(str, copies["fixed"])) if "fixed" in copies else None,
        int((copies.get("seen") or {}).get("num_images") or 0),
    )


def metrics_of(loaded: Mapping[str, Any]) -> Metrics:
    """By task and metric; null is a number that is none."""
    return {
        task: {name: math.nan if value is None else float(value) for name, value in values.items()}
        for task, values in loaded.items()
    }
