"""routing.json as the report sees it: what a router skips, for whom, and what looks at no picture beside it.

Written by train/routing_check.py and train/routing_record.py. The latency of routed models is read from
benchmark.json, which another verb writes, or routing_latency.json of the end of training; nothing is measured here.

Shapes: N pictures of the test split, R routed blocks.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from perceptkit.report.benchmark_file import read_benchmark

RULES = {
    "learned": "learned",
    "all": "all blocks",
    "most_frequent": "most frequent policy",
    "first_k": "FirstK",
    "random_k": "RandomK",
    "dist_k": "DistK",
    "random_drop": "random drop",
}
"""By the name in routing.json, in the order of the report; rules of other names follow as they are called."""
PERCENTILES = ("p50", "p95", "p99")
VARIANTS = ("full", "routed", "worst", "static")
GROUPS = 5
"""Of pictures by difficulty."""


@dataclass(frozen=True)
class RuleRow:
    """A way to choose blocks, and what came of it on the test split."""

    rule: str
    tuned: bool
    usage: float
    """Of the routed blocks' cost, in [0, 1]."""
    blocks: float
    """Routed blocks that a picture keeps, on average."""
    macs: float
    """Of one picture, the router included, on average."""
    macs_std: float
    """Over pictures."""
    metrics: Mapping[str, Mapping[str, float]]
    """By task and metric."""
    task_macs: Mapping[str, float] = field(default_factory=dict)
    """Of each task on its own, the router included, on average; only where there are several."""

    @property
    def title(self) -> str:
        """For people."""
        return RULES.get(self.rule, self.rule)


@dataclass(frozen=True)
class Cluster:
    """Policies that are alike."""

    keep: tuple[int, ...]
    """Of the policy in their middle, by block."""
    keep_rate: tuple[float, ...]
    policies: int
    pictures: int
    macs: float
    examples: tuple[int, ...]
    """Numbers of pictures."""


@dataclass(frozen=True)
class Difficulty:
    """The pictures on which the network with all blocks is best and worst, of one class or (task and class None) of
    all."""

    task: str | None
    class_name: str | None
    easiest: tuple[int, ...]
    hardest: tuple[int, ...]
    classes: int | None = None
    """That the task has on the split, of which some are shown; None over all pictures, and in older files."""


@dataclass(frozen=True)
class Pictures:
    """Columns with one entry per picture of the test split."""

    ids: tuple[str, ...]
    policy: tuple[int, ...]
    """Row in `RoutingFile.policies`."""
    macs: tuple[float, ...]
    full_quality: Mapping[str, Sequence[float]]
    """By task: with the network as it was before anything was skipped; NaN without a label."""


@dataclass(frozen=True)
class RoutingFile:
    """routing.json."""

    blocks: tuple[str, ...]
    gamma: str
    """The penalty, as `5`, or as `1.5, then 5` where the stage `finetune` has its own."""
    is_static: bool
    seen: Mapping[str, Any]
    """Statistics of the decisions on the splits that were learned from."""
    findings: tuple[str, ...]
    rows: tuple[RuleRow, ...]
    policies: tuple[tuple[int, ...], ...]
    """Keep by block of each different decision on the test split, the most frequent first."""
    counts: tuple[int, ...]
    """Pictures of each."""
    pictures: Pictures | None
    """None in a file from before they were written down."""
    clusters: tuple[Cluster, ...]
    difficulty: tuple[Difficulty, ...]
    folder: Path
    """Where the pictures are."""
    folded: Mapping[str, Any]
    """Blocks that became static against what some pictures chose, and metrics on val before and after; or empty."""
    quality: Mapping[str, Any] = field(default_factory=dict)
    """`max_drop` as asked for, and by task what val says beside the network before; empty in older files."""
    compare_epochs: int | None = None
    """As the recipe has it."""

    def row(self, rule: str, tuned: bool) -> RuleRow | None:
        """One line of the table."""
        return next((row for row in self.rows if (row.rule, row.tuned) == (rule, tuned)), None)

    @property
    def learned(self) -> RuleRow | None:
        """The router: fine-tuned, or as it is where nothing was."""
        return self.row("learned", True) or self.row("learned", False)

    @property
    def keep_rate(self) -> list[float]:
        """By block: the part of the test pictures that keep it."""
        total = sum(self.counts)
        columns = zip(*self.policies, strict=True)
        return [
            sum(c for keep, c in zip(column, self.counts, strict=True) if keep) / total for column in columns
        ]

    def picture(self, number: int) -> Path:
        """The PNG of one test picture."""
        return self.folder / f"{number}.png"


def read_routing(file: Path) -> RoutingFile:
    """Raises KeyError, TypeError or ValueError where the file is not what it should be."""
    loaded = json.loads(file.read_text(encoding="utf-8"))
    test = loaded["test"]
    seen = loaded["seen"]
    blocks = tuple(map(str, loaded["blocks"]))
    policies = tuple(tuple(map(int, row["keep"])) for row in test["policies"])
    if not policies or any(len(keep) != len(blocks) for keep in [*policies, seen["keep_rate"]]):
        raise ValueError("the policies do not fit the blocks")
    rows = sorted((_rule(row) for row in loaded["rows"]), key=lambda row: (row.tuned, _place(row.rule)))
    return RoutingFile(
        blocks=blocks,
        gamma=_gamma(loaded.get("route_gamma"), float(loaded["gamma"])),
        is_static=bool(loaded["is_static"]),
        seen=seen,
        findings=tuple(str(found["message"]) for found in loaded["findings"]),
        rows=tuple(rows),
        policies=policies,
        counts=tuple(int(row["pictures"]) for row in test["policies"]),
        pictures=_pictures(test["pictures"]) if "pictures" in test else None,
        clusters=tuple(_cluster(row) for row in test.get("clusters", [])),
        difficulty=tuple(
            Difficulty(
                row["task"], row["class"], tuple(row["easiest"]), tuple(row["hardest"]), row.get("classes")
            )
            for row in test.get("difficulty", [])
            if row.get("by") == "quality"  # older files have the cheapest and the dearest here
        ),
        folder=file.parent / "routing",
        folded=loaded.get("folded") or {},
        quality=loaded.get("quality") or {},
        compare_epochs=loaded.get("compare_epochs"),
    )


def _place(rule: str) -> int:
    return list(RULES).index(rule) if rule in RULES else len(RULES)


def _rule(row: Mapping[str, Any]) -> RuleRow:
    usage, blocks, macs, macs_std = (float(row[key]) for key in ("usage", "blocks", "macs", "macs_std"))
    metrics = {task: _numbers(values) for task, values in row["metrics"].items()}
    alone = _numbers(row.get("task_macs", {}))
    return RuleRow(str(row["rule"]), bool(row["tuned"]), usage, blocks, macs, macs_std, metrics, alone)


def _pictures(columns: Mapping[str, Any]) -> Pictures:
    quality = {
        task: [math.nan if value is None else float(value) for value in column]
        for task, column in columns["full_quality"].items()
    }
    macs = tuple(float(value) for value in columns["macs"])
    return Pictures(tuple(map(str, columns["id"])), tuple(map(int, columns["policy"])), macs, quality)


def _cluster(row: Mapping[str, Any]) -> Cluster:
    return Cluster(
        tuple(map(int, row["keep"])),
        tuple(map(float, row["keep_rate"])),
        int(row["policies"]),
        int(row["pictures"]),
        float(row["macs"]),
        tuple(map(int, row["examples"])),
    )


def _gamma(first: float | None, last: float) -> str:
    return f"{last:.3g}" if first is None or first == last else f"{first:.3g}, then {last:.3g}"


def _numbers(values: Mapping[str, Any]) -> dict[str, float]:
    return {name: math.nan if value is None else float(value) for name, value in values.items()}


def by_difficulty(
    quality_N: np.ndarray, macs_N: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray] | None:
    """Mean quality, and mean and standard deviation of MACs, of groups of equally many pictures, hardest first.

    None where fewer than two pictures would be in a group, or quality does not vary.
    """
    known = np.isfinite(quality_N)
    quality_N, macs_N = quality_N[known], macs_N[known]
    if len(quality_N) < 2 * GROUPS or quality_N.min() == quality_N.max():
        return None
    groups = np.array_split(np.argsort(quality_N, kind="stable"), GROUPS)
    columns = [(quality_N[g].mean(), macs_N[g].mean(), macs_N[g].std()) for g in groups]
    quality, mean, std = np.array(columns).T
    return quality, mean, std


Latency = Mapping[int, Mapping[str, Mapping[str, float]]]
"""By batch size, then `full`, `routed`, `worst` (all blocks and the router) or `static`, then percentile; ms per batch.
Of too few calls for a percentile, NaN."""


BRIEF = "routing_latency.json"
"""What training measures at its end, in the form of the key of benchmark.json, and with the machine."""


def read_latency(run: Path) -> Latency:
    """What benchmark.json says of a routed model's latency, or else what training measured; empty where neither can be
    read."""
    return _times(read_benchmark(run)) or _times({"routing_latency": _brief(run)})


def read_brief(run: Path) -> Mapping[str, Any]:
    """What training measured, where that is what `read_latency` gives; else empty."""
    found = _brief(run)
    return {} if _times(read_benchmark(run)) or not _times({"routing_latency": found}) else found


def read_executors(run: Path) -> Mapping[int, Mapping[str, int]]:
    """By batch size of `read_latency`, which executors ran the routed model, and how often; empty in older files."""
    found = _brief(run) if read_brief(run) else read_benchmark(run).get("routing_latency", {})
    rows = found.get("batch", {}).items()
    return {int(batch): row["executors"] for batch, row in rows if row.get("executors")}


def _brief(run: Path) -> Mapping[str, Any]:
    try:
        found: Mapping[str, Any] = json.loads((run / BRIEF).read_text(encoding="utf-8"))
        return found
    except (OSError, ValueError):
        return {}


def _times(measured: Mapping[str, Any]) -> Latency:
    try:
        by_batch = measured["routing_latency"]["batch"]
        return {
            int(batch): {
                name: _numbers({key: rows[name][key] for key in PERCENTILES})
                for name in VARIANTS
                if name in rows
            }
            for batch, rows in sorted(by_batch.items(), key=lambda item: int(item[0]))
        }
    except (ValueError, KeyError, TypeError, AttributeError):
        return {}
