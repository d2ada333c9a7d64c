"""The page's section on routing: what each picture skips, in sentences, tables and pictures."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from perceptkit.report.grid import Cell, Column, Row, Table, best_of, number
from perceptkit.report.pictures import inline_thumbnail
from perceptkit.report.routing_file import (
    PERCENTILES,
    Latency,
    RoutingFile,
    RuleRow,
    by_difficulty,
    read_brief,
    read_executors,
)
from perceptkit.report.run_folder import Run, TaskResult
from perceptkit.report.tables import DECIMALS, direction, scaled

PICTURE_SIDE = 160
"""Pixels; they are shown at half of that."""
RIVAL = "most_frequent"
TIMED = {
    "full": "before anything was skipped",
    "routed": "routed",
    "worst": "routed, the worst case",
    "static": "static",
}


@dataclass(frozen=True)
class Shown:
    """A picture with the blocks it keeps."""

    source: str
    """Data URI; empty where there is no picture."""
    id: str
    macs: str
    keep: tuple[float, ...]
    words: str


@dataclass(frozen=True)
class Contrast:
    """Easy and hard pictures of one class, or of all."""

    title: str
    easiest: tuple[Shown, ...]
    hardest: tuple[Shown, ...]


@dataclass(frozen=True)
class Group:
    """A cluster of policies."""

    title: str
    note: str
    keep: tuple[float, ...]
    words: str
    pictures: tuple[Shown, ...]


@dataclass(frozen=True)
class Section:
    """Everything the template shows."""

    static: str
    """Said first where the model became static; empty elsewhere."""
    summary: tuple[str, ...]
    findings: tuple[str, ...]
    rules: Table | None
    alone: Table | None
    """What each task costs on its own."""
    verdict: str
    contrasts: tuple[Contrast, ...]
    left_out: str
    """Classes without pictures in `contrasts`; empty where all have some."""
    groups: tuple[Group, ...]
    latency: Table | None
    compared: int
    """Runs with a router in the plot of metrics against MACs."""


def routing_section(run: Run, runs: Sequence[Run]) -> Section | None:
    """None for runs without a stage `route`, and before one is finished and nothing is logged of it.

    Args:
        run: what is reported.
        runs: it and its baselines.
    """
    found = run.routing
    if run.adapts:  # the copies of SpotTune are another section's
        return None
    if found is None:
        return Section("", (), (), None, None, "", (), "", (), None, 0) if run.of_kind("routing") else None
    return Section(
        static=static_words(found),
        summary=(
            _spread_words(found),
            *difficulty_words(found),
            *quality_words(found.quality),
            *_fixed_words(run, found),
            *folded_words(found.folded, "kept", "skipped"),
            *_loss_words(found),
        ),
        findings=found.findings or ("No sign of a collapse was found.",),
        rules=rules_table(run, found),
        alone=task_cost_table(found),
        verdict=verdict(run, found),
        contrasts=_contrasts(found),
        left_out=left_out_words(found),
        groups=_groups(found),
        latency=latency_table(run.latency, executor_words(run.path), brief_words(run.path))
        if run.latency
        else None,
        compared=sum(other.routing is not None for other in runs),
    )


def static_words(found: RoutingFile) -> str:
    """Why a model became static: the first thing to know of it."""
    if not found.is_static:
        return ""
    count, share = found.seen["num_images"], found.seen["most_frequent_share"]
    who = f"All {count:,}" if share == 1 else f"{share:.2%} of {count:,}"
    others = "" if share == 1 else ", and what the others chose was given up"
    return (
        f"{who} images of the training and validation splits got the same decision{others}, "
        "so the router was dropped and every image runs the same blocks. What follows is what was found with the "
        "router still there."
    )


def quality_words(quality: Mapping[str, Any]) -> list[str]:
    """What the model that came out loses on val, beside what it was allowed to."""
    if not quality.get("tasks"):
        return []
    words, limit = [], quality["max_drop"]
    for name, row in quality["tasks"].items():
        size = 100 * abs(row["drop"])
        unit = "points of accuracy" if row["measure"] == "accuracy" else "% of its quality"
        words.append(f"{name} {'fell' if row['drop'] > 0 else 'rose'} by {number(size, 1)} {unit}")
    told = f"On the validation split, beside the network before anything was skipped: {', '.join(words)}."
    if limit is None:
        return [told]
    kept = all(row["drop"] <= limit for row in quality["tasks"].values())
    return [
        f"{told} At most {100 * limit:.4g} % was asked for (max_drop): that is {'' if kept else 'not '}kept."
    ]


def _spread_words(found: RoutingFile) -> str:
    num, kept = sum(found.counts), sum(found.keep_rate)
    share = found.counts[0] / num
    policies = f"{len(found.policies):,} different decisions" if len(found.policies) > 1 else "one decision"
    words = (
        f"The router looks at an image once and decides on {len(found.blocks)} blocks. On the {num:,} images of the "
        f"test split it made {policies}; an image keeps {kept:.1f} of these blocks on average."
    )
    return words + (
        f" The most frequent decision serves {share:.0%} of them." if len(found.policies) > 1 else ""
    )


def difficulty_words(found: RoutingFile) -> list[str]:
    """Whether what is hard costs more: mean MACs of the hardest and the easiest fifth, by task."""
    if found.pictures is None or len(found.policies) == 1:
        return []
    macs_N, parts = np.array(found.pictures.macs), []
    for task, column in found.pictures.full_quality.items():
        if groups := by_difficulty(np.array(column), macs_N):
            _, mean, _ = groups
            scale, unit, decimals = scaled([mean[0], mean[-1]])
            hard, easy = (number(value / scale, decimals) for value in (mean[0], mean[-1]))
            parts.append(f"{task} {hard} {unit} and {easy} {unit}")
    if not parts:
        return []
    return [
        "MACs of the hardest and the easiest fifth of the images, by what the network with all blocks makes of them: "
        f"{', '.join(parts)}."
    ]


def _fixed_words(run: Run, found: RoutingFile) -> list[str]:
    """Blocks that were routed and are no more, though the model is not static."""
    if run.plan is None or found.is_static:
        return []
    plan = run.plan
    still = {plan.blocks[b] for b in plan.skippable()}
    kept = dict(zip(plan.blocks, plan.kept_by_any(), strict=True))
    gone = still | set(found.folded.get("blocks", ()))
    fixed = [f"{b} ({'kept' if kept.get(b) else 'skipped'})" for b in found.blocks if b not in gone]
    return [f"Never varied, so fixed in the plan: {', '.join(fixed)}."] if fixed else []


def folded_words(folded: Mapping[str, Any], yes: str, no: str) -> list[str]:
    """What a tolerance made static, and what that cost; nothing where nothing was.

    Args:
        folded: of routing.json or adaptation.json.
        yes, no: what either choice is called.
    """
    if not folded:
        return []
    blocks = [
        f"{name} ({yes if choice['kept'] else no}, {min(choice['rate'], 1 - choice['rate']):.1%} otherwise)"
        for name, choice in folded["blocks"].items()
    ]
    costs = [
        f"{task} {metric} {number(value, 3)} to {number(folded['after'][task][metric], 3)}"
        for task, metrics in folded["before"].items()
        for metric, value in metrics.items()
    ]
    return [
        f"Fixed though some images chose otherwise: {', '.join(blocks)}. On the validation split: {', '.join(costs)}."
    ]


def _loss_words(found: RoutingFile) -> list[str]:
    """A router that does not pay for itself."""
    learned, full = found.learned, found.row("all", False)
    if learned is None or full is None or learned.macs < full.macs or found.is_static:
        return []
    scale, unit, decimals = scaled([learned.macs, full.macs])
    ours, theirs = (number(row.macs / scale, decimals) for row in (learned, full))
    return [
        f"It costs more than it saves: {ours} {unit} MACs per image, {theirs} {unit} with all blocks and no router."
    ]


def rules_table(run: Run, found: RoutingFile) -> Table:
    """The router beside rules that look at no picture; bold is the best of what is tuned and skips as much."""
    tasks = dict(run.results.tasks) if run.results else {}
    scale, unit, decimals = scaled([row.macs for row in found.rows])
    full = found.row("all", False)
    rival = found.row(RIVAL, True)
    bold = {name: _best(found, name, task) for name, task in tasks.items()}
    rows: list[Row] = []
    for tuned, title in ((False, "as they are"), (True, "fine-tuned")):
        group = [row for row in found.rows if row.tuned is tuned]
        if not group:
            continue
        rows.append(Row(title, tuple(Cell() for _ in range(5 + len(tasks))), kind="task"))
        for row in group:
            cells = [
                Cell(number(row.usage, 2)),
                Cell(number(row.blocks, 1)),
                Cell(number(row.macs / scale, decimals)),
                Cell(number(row.macs_std / scale, decimals)),
                Cell(number(row.macs / full.macs, 2) if full and full.macs else ""),
            ]
            for name, task in tasks.items():
                text = number(_value(row, name, task), _decimals(task))
                cells.append(Cell(text, "best" if row in bold[name] else ""))
            stressed = row is found.learned or row is rival
            note = "honest rival" if row is rival else ""
            rows.append(Row(row.title, tuple(cells), note, "primary" if stressed else ""))
    columns = (
        Column("usage", "of routed"),
        Column("blocks", f"of {len(found.blocks)}"),
        Column("MACs", unit),
        Column("\N{PLUS-MINUS SIGN}", "over images"),
        Column("ratio to", "all blocks"),
        *(
            Column(name, f"{t.primary} {direction(t.info.get(t.primary))}".strip())
            for name, t in tasks.items()
        ),
    )
    notes = [
        "MACs of one image, the router's own included; usage is the part of the routed blocks' cost. FirstK, RandomK, "
        "DistK and random drop have the MACs of the learned row above and its router, as far as their blocks allow."
    ]
    if "route" not in run.stages and "finetune" in run.stages and found.row("learned", False):
        notes.append(
            "Learned, as it is: the decisions of the tuned router on the network before it was tuned."
        )
    if any(bold.values()):
        notes.append("Bold: the best of what is fine-tuned and skips blocks.")
    if rival is None:
        why = "routing.compare_epochs is 0, so no rule" if found.compare_epochs == 0 else "No rule"
        notes.append(
            f"{why} was fine-tuned: there is no honest rival to compare with (routing.compare_epochs)."
        )
    return Table("which blocks run", columns, tuple(rows), tuple(notes))


def task_cost_table(found: RoutingFile) -> Table | None:
    """MACs of one task on its own under each rule, beside those of all blocks; None for a single task."""
    full = found.row("all", False)
    if full is None or not full.task_macs:
        return None
    scale, unit, decimals = scaled(list(full.task_macs.values()))
    rows: dict[str, Row] = {}
    for row in found.rows:  # a rule costs the same, tuned or not; the router may have changed
        if row.tuned or row.rule not in rows:
            texts = (
                f"{number(macs / scale, decimals)} ({number(macs / full.task_macs[task], 2)})"
                for task, macs in row.task_macs.items()
            )
            rows[row.rule] = Row(row.title, tuple(map(Cell, texts)))
    columns = tuple(Column(task, unit) for task in full.task_macs)
    note = "MACs of one image when this task alone is asked for, the router included; in brackets over all blocks."
    return Table("one task alone", columns, tuple(rows.values()), (note,))


def _best(found: RoutingFile, name: str, task: TaskResult) -> list[RuleRow]:
    rows = [row for row in found.rows if row.tuned and row.rule != "all"]
    info = task.info.get(task.primary)
    if info is None:
        return []
    values = [_value(row, name, task) for row in rows]
    marks = best_of(values, _decimals(task), info.higher_is_better)
    return [row for row, best in zip(rows, marks, strict=True) if best]


def _value(row: RuleRow, name: str, task: TaskResult) -> float:
    return row.metrics.get(name, {}).get(task.primary, math.nan)


def _decimals(task: TaskResult) -> int:
    info = task.info.get(task.primary)
    return DECIMALS.get(info.unit, 3) if info else 3


def verdict(run: Run, found: RoutingFile) -> str:
    """The router against the honest rival, in a sentence; empty where one of them is not there."""
    learned = found.learned
    rival = found.row(RIVAL, learned.tuned) if learned is not None else None
    if learned is None or rival is None or run.results is None or not rival.macs:
        return ""
    wins, ties, compared = 0, 0, 0
    for name, task in run.results.tasks.items():
        info = task.info.get(task.primary)
        ours, theirs = (round(_value(row, name, task), _decimals(task)) for row in (learned, rival))
        if info is None or math.isnan(ours) or math.isnan(theirs):
            continue
        compared += 1
        ties += ours == theirs
        wins += ours > theirs if info.higher_is_better else ours < theirs
    if not compared:
        return ""
    of = f"{wins} of {compared} tasks" if compared > 1 else "the task" if wins else "no task"
    equal = f" and equal to it in {ties}" if ties else ""
    return (
        f"Against its own most frequent policy, made static and fine-tuned alike, the router is better in {of}{equal}, "
        f"at {learned.macs / rival.macs:.2f}x its MACs."
    )


def _contrasts(found: RoutingFile) -> tuple[Contrast, ...]:
    several = len({group.task for group in found.difficulty}) > 1
    return tuple(
        Contrast(
            "all images" if g.task is None else f"{g.task}: {g.class_name}" if several else str(g.class_name),
            tuple(_shown(found, n) for n in g.easiest),
            tuple(_shown(found, n) for n in g.hardest),
        )
        for g in found.difficulty
    )


def left_out_words(found: RoutingFile) -> str:
    """That only the first classes of a task have their easiest and hardest pictures shown; empty where all have."""
    shown = Counter(group.task for group in found.difficulty if group.task is not None)
    all_of = {group.task: group.classes for group in found.difficulty}
    few = [(task, count, all_of[task]) for task, count in shown.items() if (all_of[task] or 0) > count]
    if not few:
        return ""
    parts = [f"the first {count} of the {num} classes of {task}" for task, count, num in few]
    return f"The page shows the easiest and the hardest pictures of {' and '.join(parts)}."


def _groups(found: RoutingFile) -> tuple[Group, ...]:
    num = sum(found.counts)
    scale, unit, decimals = scaled([cluster.macs for cluster in found.clusters])
    return tuple(
        Group(
            f"{cluster.pictures / num:.0%} of the images",
            f"{cluster.policies} {'policy' if cluster.policies == 1 else 'policies'}, "
            f"{number(cluster.macs / scale, decimals)} {unit} MACs",
            cluster.keep_rate,
            _strip_words(found.blocks, cluster.keep),
            tuple(_shown(found, n) for n in cluster.examples),
        )
        for cluster in found.clusters
    )


def _shown(found: RoutingFile, n: int) -> Shown:
    assert found.pictures is not None
    keep, macs = found.policies[found.pictures.policy[n]], found.pictures.macs[n]
    scale, unit, decimals = scaled([macs])
    return Shown(
        inline_thumbnail(found.picture(n), PICTURE_SIDE),
        found.pictures.ids[n],
        f"{number(macs / scale, decimals)} {unit}",
        tuple(map(float, keep)),
        _strip_words(found.blocks, keep),
    )


def _strip_words(blocks: Sequence[str], keep: Sequence[int]) -> str:
    """What a strip shows, for those who do not see it."""
    kept = [block for block, keeps in zip(blocks, keep, strict=True) if keeps]
    return f"keeps {', '.join(kept)}" if kept else "keeps none of the routed blocks"


def brief_words(run: Path) -> str:
    """Where the times are those that training took at its end."""
    found = read_brief(run)
    if not found:
        return ""
    threads = found["machine"]["threads"]
    return (
        f"Wall clock of {found['calls']} calls each, in turn, on {found['pictures']} test images at the end of "
        f"training, with {threads} {'thread' if threads == 1 else 'threads'} of {found['machine']['device']}. "
        "perceptkit benchmark measures other batch sizes too, and takes the place of this."
    )


def executor_words(run: Path) -> str:
    """How the routed model ran: by which executors, the most frequent first."""
    parts = [
        f"{', '.join(sorted(counts, key=lambda name: -counts[name]))} at batch {batch}"
        for batch, counts in sorted(read_executors(run).items())
    ]
    return f"Routed, it ran by {'; '.join(parts)} (mask computes all blocks)." if parts else ""


def latency_table(latency: Latency, *said: str) -> Table:
    """Milliseconds per batch; notes of what is `said` follow the table's own."""
    largest = max(row["p50"] for rows in latency.values() for row in rows.values())
    decimals = 1 if largest >= 100 else 2
    rows: list[Row] = []
    for batch, variants in latency.items():
        rows.append(Row(f"batch {batch}", tuple(Cell() for _ in range(4)), kind="task"))
        full = variants.get("full")
        for name, title in TIMED.items():
            if name in variants:
                times = variants[name]
                ratio = times["p50"] / full["p50"] if full and full["p50"] and name != "full" else math.nan
                cells = (*(Cell(number(times[p], decimals)) for p in PERCENTILES), Cell(number(ratio, 2)))
                rows.append(Row(title, cells, kind="primary" if name == "routed" else ""))
    columns = (*(Column(p, "ms per batch") for p in PERCENTILES), Column("ratio to", "the first, p50"))
    note = "Router included. The worst case: an image that keeps all that any image keeps, and the router runs too."
    if not any("routed" in variants for variants in latency.values()):
        note = "The network before anything was skipped, and what is left of it for every image."
    return Table("batch, model", columns, tuple(rows), tuple(filter(None, (note, *said))))
