"""What AdaShare's ablations lead one to expect, held against finished runs: expected, measured, and whether it holds.

    python tools/shape_checks.py runs/sharing/*-s*
    python tools/shape_checks.py runs/sharing/*-s* --planted       trains three seeds for row 9 too: minutes

Runs of all methods can be given together; each check takes those that it is about, puts seeds together and says what is
missing where there is nothing to compare. Two runs are compared where their tasks file and recipe differ in nothing but
the seed and what the check is about. Scores are mean qualities on the test split, in [0, 1]. One seed is no evidence:
the table says how many there were. The expectations are those of the paper's ablations as its readers recall them, the
thresholds are ours.

Exit code 1 where something that could be checked does not hold.

Shapes: K tasks, L blocks.
"""

import argparse
import copy
import itertools
import json
import math
import re
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np

from perceptkit.errors import SpecError
from perceptkit.report.analysis_file import entropy_bits
from perceptkit.report.run_folder import Run, read_run

DECIDED = 0.1
"""A choice is decided where a keep probability is this near to 0 or 1."""
STILL = 0.01
"""A keep probability that moved by at most this did not move."""
MANY = 8
"""Quality in 1000 that is a difference; less is none."""
FEW = 0.05
"""A skip rate up to this is near zero."""
RANDOM_POLICIES = 5
"""So many the paper's readers want of random plans, whose scores scatter."""
PLANTED = "tests/train/test_planted.py"
"""Its slow test searches for a planted plan, with three seeds, with and without curriculum."""


@dataclass(frozen=True)
class Step:
    """What the log says of the policy after an epoch of the search."""

    opened: int
    keep_KL: np.ndarray
    """Probabilities, of blocks that are not open too."""


@dataclass(frozen=True)
class Record:
    """What the checks read of a finished run."""

    name: str
    method: str
    seed: int
    specs: Mapping[str, Any]
    """resolved.yaml."""
    score: float
    keeps_KL: np.ndarray
    """The plan, bool."""
    steps: tuple[Step, ...] = ()
    val_score: Mapping[str, float] | None = None
    """By stage, after its last epoch: the best of several would be better by chance."""

    @property
    def sharing(self) -> Mapping[str, Any]:
        """The recipe's section."""
        return self.specs["recipe"]["sharing"]

    @property
    def stages(self) -> list[Mapping[str, Any]]:
        """The recipe's."""
        return self.specs["recipe"]["stages"]

    @property
    def skip_rate(self) -> float:
        """Part of the plan's choices that skip."""
        return float(1 - self.keeps_KL.mean())


@dataclass(frozen=True)
class Verdict:
    """One line of the table; `holds` is None where runs are missing, and `measured` then says which."""

    expected: str
    measured: str
    holds: bool | None


def warmup_first(records: Sequence[Record]) -> Verdict:
    """1: the network is trained with all blocks before the search."""
    expected = "skipping the warm-up lowers the score"
    searched = [r for r in _learned(records) if any(s["name"] == "search" for s in r.stages)]
    for group in _alike(searched, _without_warmup):
        having = {with_it: [r for r in group if _has_warmup(r) is with_it] for with_it in (True, False)}
        if all(having.values()):
            with_it, without = (_mean([r.score for r in having[w]]) for w in (True, False))
            seeds = f"{len(having[True])} and {len(having[False])} runs"
            return Verdict(
                expected, f"{with_it:.3f} with, {without:.3f} without ({seeds})", with_it > without
            )
    return _missing(expected, "an adashare run like another one but without the stage warmup")


def policy_decides(records: Sequence[Record]) -> Verdict:
    """2: entropy of the policy, from the epoch on in which all blocks that will be open are."""
    expected = f"entropy falls; at the end most a are below {DECIDED:g} or above {1 - DECIDED:g}"
    firsts, lasts, decided = [], [], []
    for record in _learned(records):
        count = record.steps[-1].opened if record.steps else 0
        bits = [entropy_bits(s.keep_KL[:, -count:]).mean() for s in record.steps if s.opened == count]
        if len(bits) > 1:
            firsts.append(bits[0])
            lasts.append(bits[-1])
            a_KL = record.steps[-1].keep_KL[:, -count:]
            decided.append(((a_KL < DECIDED) | (a_KL > 1 - DECIDED)).mean())
    if not firsts:
        return _missing(expected, "an adashare run with two epochs of search in which all blocks are open")
    first, last, part = _mean(firsts), _mean(lasts), _mean(decided)
    measured = f"{first:.2f} to {last:.2f} bits, {part:.0%} decided ({len(firsts)} runs)"
    return Verdict(expected, measured, last < first and part > 0.5)


def skips_rise_with_sparsity(records: Sequence[Record]) -> Verdict:
    """3: lambda_sp; and where both lambdas are 0, nothing but the tasks' losses could make a block go."""
    expected = f"skip rate rises with lambda_sp; with both lambdas 0 it is near zero (at most {FEW:g})"
    rising = _over_lambda(records, "sparsity", expected, lambda r: r.skip_rate, 1)
    free = [r for r in _learned(records) if _is_free(r.sharing)]
    if not free:
        return rising
    rate = _mean([r.skip_rate for r in free])
    told = f"{rate:.3f} with both lambdas 0 ({len(free)} runs)"
    if rising.holds is None:
        return Verdict(expected, f"{told}; rising: {rising.measured}", None if rate <= FEW else False)
    return Verdict(expected, f"{rising.measured}; {told}", rising.holds and rate <= FEW)


def policies_near_with_sharing(records: Sequence[Record]) -> Verdict:
    """4: lambda_sh; the gap at the largest is told, as the paper's readers expect none at a large one."""
    having = [r for r in records if r.steps and len(r.keeps_KL) > 1]
    expected = "mean |a_i - a_j| falls with lambda_sh; policies are identical at a large one"
    verdict = _over_lambda(having, "sharing", expected, lambda r: mean_gap(r.steps[-1].keep_KL), -1)
    if verdict.holds is None:
        return verdict
    group = _differing_in(having, "sharing")
    largest = max(float(r.sharing["sharing"]) for r in group)
    there = [r for r in group if float(r.sharing["sharing"]) == largest]
    gap = _mean([mean_gap(r.steps[-1].keep_KL) for r in there])
    alike = sum(bool((r.keeps_KL == r.keeps_KL[:1]).all()) for r in there)
    told = f"at the largest the gap is {gap:.3f}, and all tasks have one plan in {alike} of {len(there)} runs"
    return Verdict(expected, f"{verdict.measured}; {told}", verdict.holds)


def paper_shares_a_longer_prefix(records: Sequence[Record]) -> Verdict:
    """5: the weights of the sharing loss, (L - l)/L or l/L."""
    expected = "formulation paper has a longer common prefix than reference_code"
    for group in _alike(_learned(records), lambda specs: specs["recipe"]["sharing"].pop("formulation", None)):
        by = {f: [r for r in group if r.sharing.get("formulation") == f] for f in ("paper", "reference_code")}
        if all(by.values()):
            paper, code = (_mean([common_prefix(r.keeps_KL) for r in by[f]]) for f in by)
            return Verdict(expected, f"{paper:.1f} and {code:.1f} blocks", paper > code)
    return _missing(expected, "two adashare runs that differ in sharing.formulation only")


def learned_beats_random(records: Sequence[Record]) -> Verdict:
    """6: plans that skip as many blocks of each task, retrained as long and in the same way."""
    expected = (
        f"learned is no worse than random with as many skips of each task ({RANDOM_POLICIES} random policies)"
    )
    found = [
        (learned, other)
        for learned in _learned(records)
        for other in records
        if other.method == "random"
        and other.keeps_KL.shape == learned.keeps_KL.shape
        and (other.keeps_KL.sum(1) == learned.keeps_KL.sum(1)).all()
        and _of_the_emitted(other) == _of_the_emitted(learned)
    ]
    if not found:
        what = "an adashare run, and a random one with sharing.skips_of that run and the same retraining"
        return _missing(expected, what)
    learned, drawn = (_mean([r.score for r in side]) for side in zip(*found, strict=True))
    policies = len({other.keeps_KL.tobytes() for _, other in found})
    told = f"{learned:.3f} and {drawn:.3f} ({len(found)} pairs, random policies: {policies}"
    if policies < RANDOM_POLICIES:
        return _missing(expected, f"{RANDOM_POLICIES} random policies; so far {told})")
    return Verdict(expected, f"{told})", learned >= drawn - MANY / 1000)


def curriculum_holds_closed_blocks(records: Sequence[Record]) -> Verdict:
    """7: blocks that are not open are not learned."""
    expected = "a of blocks that are not open yet stays where it began"
    moved = [
        float(np.abs(step.keep_KL[:, : L - step.opened] - 0.5).max())
        for record in _learned(records)
        for step in record.steps
        for L in [step.keep_KL.shape[1]]
        if step.opened < L and record.sharing.get("formulation") != "reference_code"
    ]
    if not moved:
        return _missing(expected, "an adashare run (formulation paper) with curriculum top_down")
    return Verdict(expected, f"at most {max(moved):.4f} from 0.5 ({len(moved)} epochs)", max(moved) <= STILL)


def retraining_beats_the_search(records: Sequence[Record]) -> Verdict:
    """8: the plan trained by itself, against the network of the search with that plan; both on val.

    The paper's readers expect far more of the retrained one than of a soft network with a sampled policy; what the log
    has is the network with the policy decided, so any difference is asked for.
    """
    expected = (
        f"retrained from scratch is better than the network of the search, by more than {MANY / 1000:g}"
    )
    pairs = [
        (found["retrain"], found["search"])
        for record in _learned(records)
        if (found := record.val_score or {}).keys() >= {"retrain", "search"}
        and any(s["name"] == "retrain" and s.get("start", "scratch") == "scratch" for s in record.stages)
    ]
    if not pairs:
        return _missing(expected, "an adashare run with the stages search and retrain, start: scratch")
    retrained, searched = (_mean(scores) for scores in zip(*pairs, strict=True))
    measured = f"{retrained:.3f} and {searched:.3f} on val ({len(pairs)} runs)"
    return Verdict(expected, measured, retrained - searched > MANY / 1000)


@dataclass(frozen=True)
class Planted:
    """What the searches for a planted plan came to."""

    found: int
    searches: int
    seeds: int


def planted_structure(records: Sequence[Record], planted: Planted | None = None) -> Verdict:
    """9: needs no data of the user's: a test has it, which `--planted` runs."""
    expected = "blocks that a task provably cannot use are skipped"
    if planted is None:
        return _missing(expected, f"no run: --planted, or pytest -m slow {PLANTED}")
    measured = (
        f"the planted plan is found in {planted.found} of {planted.searches} searches ({planted.seeds} seeds)"
    )
    return Verdict(expected, measured, 0 < planted.searches == planted.found)


def search_planted() -> Planted:
    """Runs the slow test, each seed with and without curriculum, in a process of its own; its words go to stderr."""
    with tempfile.TemporaryDirectory() as folder:
        told = Path(folder) / "junit.xml"
        command = [
            sys.executable,
            "-m",
            "pytest",
            "-q",
            "-n",
            "0",
            "-m",
            "slow",
            PLANTED,
            f"--junitxml={told}",
        ]
        subprocess.run(command, cwd=Path(__file__).parents[1], stdout=sys.stderr)
        cases = list(ElementTree.parse(told).iter("testcase")) if told.is_file() else []
    bad = [case for case in cases if any(part.tag in ("failure", "error", "skipped") for part in case)]
    seeds = {match[1] for case in cases if (match := re.search(r"\[(?:.*-)?(\d+)", case.get("name", "")))}
    return Planted(len(cases) - len(bad), len(cases), len(seeds))


CHECKS: tuple[Callable[[Sequence[Record]], Verdict], ...] = (
    warmup_first,
    policy_decides,
    skips_rise_with_sparsity,
    policies_near_with_sharing,
    paper_shares_a_longer_prefix,
    learned_beats_random,
    curriculum_holds_closed_blocks,
    retraining_beats_the_search,
    planted_structure,
)


def mean_gap(keep_KL: np.ndarray) -> float:
    """Mean over blocks and pairs of tasks of |a_i - a_j|.

    >>> mean_gap(np.array([[0.5, 1.0], [0.25, 0.0]]))
    0.625
    """
    gaps = [np.abs(one - other).mean() for one, other in itertools.combinations(keep_KL, 2)]
    return float(np.mean(gaps))


def common_prefix(keeps_KL: np.ndarray) -> int:
    """Blocks from the image on that all tasks agree on.

    >>> common_prefix(np.array([[True, True, False], [True, False, False]]))
    1
    """
    agree_L = (keeps_KL == keeps_KL[:1]).all(axis=0)
    return int(agree_L.cumprod().sum())


def _over_lambda(
    records: Sequence[Record], key: str, expected: str, value: Callable[[Record], float], sign: int
) -> Verdict:
    """Whether a number rises (`sign` 1) or falls over runs that differ in a lambda: no step against it, one with it."""
    group = _differing_in(records, key)
    if not group:
        return _missing(expected, f"two adashare runs that differ in sharing.{key} only")
    by: dict[float, list[float]] = {}
    for record in group:
        by.setdefault(float(record.sharing[key]), []).append(value(record))
    means = [_mean(by[amount]) for amount in sorted(by)]
    steps = [sign * (b - a) for a, b in itertools.pairwise(means)]
    told = ", ".join(f"{mean:.3f} at {amount:g}" for amount, mean in zip(sorted(by), means, strict=True))
    return Verdict(expected, told, min(steps) >= -1e-9 and max(steps) > 1e-9)


def _differing_in(records: Sequence[Record], key: str) -> list[Record]:
    """The first group of learned runs that have several values of a key of `sharing`, and else differ in the seed
    alone."""
    known = [r for r in _learned(records) if key in r.sharing]
    groups = _alike(known, lambda specs: specs["recipe"]["sharing"].pop(key))
    return next((group for group in groups if len({float(r.sharing[key]) for r in group}) > 1), [])


def _is_free(sharing: Mapping[str, Any]) -> bool:
    """Whether no regulariser acts."""
    return sharing.get("sparsity") == 0 and sharing.get("sharing") == 0


def _of_the_emitted(record: Record) -> dict[str, Any]:
    """What the network of a plan is trained on and by, but for plan and seed."""
    recipe = {
        k: v for k, v in record.specs["recipe"].items() if k not in ("seed", "budget", "stages", "sharing")
    }
    return {
        "tasks_file": record.specs["tasks_file"],
        "recipe": recipe,
        "batchnorm": record.sharing.get("batchnorm", "shared"),
        "retrain": [stage for stage in record.stages if stage["name"] == "retrain"],
    }


def _learned(records: Sequence[Record]) -> list[Record]:
    """Those whose search was held by nothing but the regularisers."""
    return [r for r in records if r.method == "adashare" and not r.specs["recipe"].get("budget")]


def _alike(records: Sequence[Record], drop: Callable[[dict[str, Any]], object]) -> list[list[Record]]:
    """Groups of runs that differ in nothing but the seed and what `drop` takes out of their specs."""
    groups: dict[str, list[Record]] = {}
    for record in records:
        specs = copy.deepcopy(dict(record.specs))
        specs["recipe"].pop("seed", None)
        drop(specs)
        groups.setdefault(json.dumps(specs, sort_keys=True), []).append(record)
    return list(groups.values())


def _without_warmup(specs: dict[str, Any]) -> None:
    specs["recipe"]["stages"] = [s for s in specs["recipe"]["stages"] if s["name"] != "warmup"]


def _has_warmup(record: Record) -> bool:
    return any(stage["name"] == "warmup" for stage in record.stages)


def _mean(values: Sequence[float]) -> float:
    return statistics.fmean(values)


def _missing(expected: str, what: str) -> Verdict:
    return Verdict(expected, f"missing: {what}", None)


def record_of(run: Run) -> Record | None:
    """None for a run that is not finished or has no plan."""
    if run.results is None or run.plan is None or not run.specs:
        return None
    score = json.loads((run.path / "results.json").read_text(encoding="utf-8")).get("score")
    rows = [row for row in run.of_kind("policy") if row.get("keep_prob") and "open_blocks" in row]
    steps = [Step(row["open_blocks"], np.array(list(row["keep_prob"].values()), dtype=float)) for row in rows]
    scores: dict[str, list[float]] = {}
    for row in run.of_kind("val"):
        if isinstance(row.get("score"), int | float):
            scores.setdefault(row["stage"], []).append(row["score"])
    val = {stage: found[-1] for stage, found in scores.items()}
    keeps_KL = np.array([run.plan.row(task) for task in run.plan.tasks])
    known = math.nan if score is None else float(score)
    return Record(run.name, run.method, run.results.seed, run.specs, known, keeps_KL, tuple(steps), val)


def as_markdown(verdicts: Sequence[Verdict]) -> str:
    """The table."""
    words = {True: "yes", False: "no", None: ""}
    lines = ["| | expected | measured | holds |", "|---|---|---|---|"]
    lines += [f"| {i} | {v.expected} | {v.measured} | {words[v.holds]} |" for i, v in enumerate(verdicts, 1)]
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", nargs="*", type=Path, metavar="RUN")
    parser.add_argument("--planted", action="store_true", help=f"run {PLANTED} for row 9: minutes")
    o = parser.parse_args(arguments)
    if not o.runs and not o.planted:
        parser.error("give run folders, or --planted")
    records = []
    for path in o.runs:
        try:
            record = record_of(read_run(path))
        except SpecError as error:
            print(error, file=sys.stderr)
            continue
        if record is None:
            print(f"{path}: not finished; left out", file=sys.stderr)
        else:
            records.append(record)
    verdicts = [check(records) for check in CHECKS]
    if o.planted:
        verdicts[CHECKS.index(planted_structure)] = planted_structure(records, search_planted())
    print(as_markdown(verdicts))
    return 1 if any(verdict.holds is False for verdict in verdicts) else 0


if __name__ == "__main__":
    sys.exit(main())
