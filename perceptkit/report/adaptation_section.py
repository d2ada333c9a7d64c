"""The page's section on an adapted run: the new domain and the old one, what is stored, and what was tuned."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from perceptkit.report.adaptation_file import AdaptationFile, Choices, OldDomain
from perceptkit.report.grid import DOWN, UP, Cell, Column, Row, Table, best_of, number
from perceptkit.report.pictures import inline_thumbnail
from perceptkit.report.routing_section import PICTURE_SIDE, Group, Shown, folded_words
from perceptkit.report.run_folder import Run
from perceptkit.report.tables import DECIMALS, direction

ABLATIONS = {"always_base": "always the base's", "always_tuned": "always tuned"}
STORED = {"trunk": "of the trunk", "router": "router", "rest": "neck and heads"}


@dataclass(frozen=True)
class Section:
    """Everything the template shows."""

    summary: tuple[str, ...]
    new: Table | None
    old: Table | None
    old_words: str
    stored: Table | None
    groups: tuple[Group, ...]
    fewest: tuple[Shown, ...]
    most: tuple[Shown, ...]


def adaptation_section(run: Run) -> Section | None:
    """None for runs that adapt nothing, and before one is finished."""
    found = run.adaptation
    if found is None:
        return None
    return Section(
        summary=essentials(found),
        new=new_table(run, found),
        old=old_table(found.old) if found.old else None,
        old_words=old_words(found.old),
        stored=stored_table(found.bits),
        groups=_groups(found),
        fewest=_shown_all(found, found.test.get("fewest", ())),
        most=_shown_all(found, found.test.get("most", ())),
    )


def essentials(found: AdaptationFile) -> tuple[str, ...]:
    """How it was adapted, and what was chosen, in sentences."""
    words = [f"Adapted from a base by {found.method}." if found.method else "Adapted from a base."]
    own, base = sum(found.bits.get(name, 0.0) for name in STORED), found.bits.get("base", 0.0)
    if found.bits:
        scale, unit = _bytes(max(own, base))
        share = f", {own / base:.2f}x the base's trunk" if base else ""
        words.append(f"The domain stores {number(own / scale, 2)} {unit}{share}.")
    choices = found.choices
    if choices and choices.rate:
        mean = sum(choices.rate) / len(choices.rate)
        words.append(
            f"A router chooses, image by image, between the base's copy of {len(choices.blocks)} blocks and a tuned "
            f"one; the tuned one runs in {mean:.0%} of the cases."
        )
    if choices:
        words += folded_words(choices.folded, "tuned", "of the base")
    if choices and choices.is_static:
        words.append("In the end all images run the same copies, so the router was dropped.")
    if choices:
        words += _fixed_words(choices, found.method)
    return tuple(words)


def _fixed_words(choices: Choices, method: str) -> list[str]:
    """On how many images choices were fixed, and what that says of others; where none was, how to fix some."""
    count = choices.num_images
    if not count or choices.fixed is None or method != "spottune":
        return []
    bound = f"{count:,} images; of others up to 3/{count:,} ({min(1.0, 3 / count):.2%}) may choose otherwise"
    if choices.fixed:
        return [
            f"{len(choices.fixed)} of {len(choices.blocks)} blocks were fixed to one copy, judged on {bound}."
        ]
    agreed = sum(rate in (0, 1) for rate in choices.seen_rate)
    return [
        f"No block was fixed to one copy: all images agree on {agreed} of {len(choices.blocks)}, judged on {bound}. "
        f"adaptation.fold_tolerance, 1% for example, fixes blocks all the same and tells what that costs."
    ]


def new_table(run: Run, found: AdaptationFile) -> Table | None:
    """The run's metrics beside those of the base as it came, for SpotTune also beside all blocks of one kind."""
    if run.results is None:
        return None
    ablations = {n: t for n, t in ABLATIONS.items() if found.choices and n in found.choices.ablations}
    before = [] if found.before is None else [found.before]
    rows: list[Row] = []
    for name, task in run.results.tasks.items():
        rows.append(Row(name, tuple(Cell() for _ in range(1 + len(before) + len(ablations))), kind="task"))
        for metric in sorted(task.metrics, key=lambda m: m != task.primary):
            values = [base.get(name, {}).get(metric, math.nan) for base in before]
            values.append(task.metrics[metric])
            for ablation in ablations:
                assert found.choices is not None
                values.append(found.choices.ablations[ablation].get(name, {}).get(metric, math.nan))
            info = task.info.get(metric)
            decimals = DECIMALS.get(info.unit, 3) if info else 3
            best = best_of(values, decimals, info.higher_is_better) if info else [False] * len(values)
            cells = (
                Cell(number(v, decimals), "best" if b else "") for v, b in zip(values, best, strict=True)
            )
            rows.append(
                Row(metric, tuple(cells), direction(info), "primary" if metric == task.primary else "")
            )
    columns = (
        *(Column("before", "the base") for _ in before),
        Column("this run"),
        *(Column(title) for title in ablations.values()),
    )
    notes = (
        ["Before: the base as it came, where it has a head of the task's name, type and classes."]
        if before
        else []
    )
    if ablations:
        notes.append("Ablations: the same network, every block with two copies runs the same one.")
    return Table("task, metric", columns, tuple(rows), tuple(notes))


def old_table(old: OldDomain) -> Table:
    """Before, after and the change."""
    rows: list[Row] = []
    for task, metrics in old.before.items():
        rows.append(Row(task, (Cell(), Cell(), Cell()), kind="task"))
        for metric, before in metrics.items():
            higher, unit = old.directions.get(task, {}).get(metric, (None, ""))
            after = (old.after or {}).get(task, {}).get(metric, math.nan)
            decimals = DECIMALS.get(unit, 3)
            cells = (
                number(before, decimals),
                number(after, decimals),
                number(after - before, decimals, True),
            )
            arrow = "" if higher is None else UP if higher else DOWN
            rows.append(Row(metric, tuple(map(Cell, cells)), f"{unit} {arrow}".strip()))
    columns = (Column("before", "the base"), Column("after", "adapted trunk"), Column("change"))
    return Table("task, metric", columns, tuple(rows))


def old_words(old: OldDomain | None) -> str:
    """What the comparison with the old domain means, or why there is none."""
    if old is None:
        return "There is no base run, so no old domain to look back at."
    words = (
        "The base is stored beside the domain and answers as before: nothing is lost. This is what the adapted trunk "
        "makes of the base's tasks, so what would be forgotten without the base."
    )
    if old.after is None:
        return f"{words} It was not measured: {old.why or 'the file does not say why'}."
    return words


def stored_table(bits: Mapping[str, float]) -> Table | None:
    """Bytes that the domain adds, beside the base's trunk."""
    if not bits:
        return None
    own = {title: bits[name] for name, title in STORED.items() if bits.get(name) is not None}
    base = bits.get("base", 0.0)
    scale, unit = _bytes(max([*own.values(), base]))

    def row(title: str, value: float, kind: Any = "") -> Row:
        ratio = number(value / base, 3) if base else ""
        return Row(title, (Cell(number(value / scale, 2)), Cell(ratio)), kind=kind)

    rows = [row(title, value) for title, value in own.items()]
    rows.append(row("the domain", sum(own.values()), "total"))
    if base:
        rows.append(row("the base's trunk", base))
    return Table("stored", (Column("size", unit), Column("ratio to", "the base's trunk")), tuple(rows))


def _bytes(bits: float) -> tuple[float, str]:
    """Bits of a unit and its name.

    >>> _bytes(8e6), _bytes(4e6)
    ((8000000.0, 'MB'), (8000.0, 'kB'))
    """
    return (8e6, "MB") if bits >= 8e6 else (8e3, "kB")


def _groups(found: AdaptationFile) -> tuple[Group, ...]:
    total = sum(int(row["pictures"]) for row in found.test.get("clusters", ()))
    return tuple(
        Group(
            f"{row['pictures'] / total:.0%} of the images",
            f"{row['policies']} {'choice' if row['policies'] == 1 else 'different choices'}",
            tuple(map(float, row["rate"])),
            _strip_words(found, row["tuned"]),
            _shown_all(found, row["examples"]),
        )
        for row in found.test.get("clusters", ())
    )


def _shown_all(found: AdaptationFile, numbers: Sequence[int]) -> tuple[Shown, ...]:
    shown = []
    for n in numbers:
        example = found.test["examples"][str(int(n))]
        tuned = found.test["policies"][example["policy"]]["tuned"]
        shown.append(
            Shown(
                inline_thumbnail(found.folder / f"{int(n)}.png", PICTURE_SIDE),
                str(example["id"]),
                f"{sum(tuned)} tuned",
                tuple(map(float, tuned)),
                _strip_words(found, tuned),
            )
        )
    return tuple(shown)


def _strip_words(found: AdaptationFile, tuned: Sequence[int]) -> str:
    assert found.choices is not None
    names = [block for block, is_tuned in zip(found.choices.blocks, tuned, strict=False) if is_tuned]
    return f"tuned: {', '.join(names)}" if names else "no block is tuned"
