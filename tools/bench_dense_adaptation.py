"""A trained multi-task network in new looks of its world, with few labels: what each way to adapt it gets there, and
what is left of the old domain.

    python tools/bench_dense_adaptation.py runs/demo --styles dusk sketch thermal --out runs/looks
    python tools/bench_dense_adaptation.py runs/doom --tasks freedoom1.yaml --out runs/levels
    python tools/bench_dense_adaptation.py runs/demo --out runs/looks --table          what is there so far

The base is a finished run: of the built-in scenes in the style `studio`, or of whatever the tasks files continue. Of n
labelled pictures a fifth chooses the epoch (val), the others are trained on; test is that of the tasks file, looked at
once. Every run takes about as many steps (--steps). A run that is finished is not run again.

    new       mean over the tasks of how much better their main metric is than fine-tuning's with as many pictures, in
              percent (Delta-MTL's formula with fine-tuning in the place of single-task nets)
    old       the same on the base's own test split: the base's neck and heads on the adapted trunk, against the base.
              The base itself is kept beside what a domain adds and answers as before, whatever is said here
    stored    what the domain stores of trunk and router, over the base's trunk
"""

import argparse
import json
import math
import shutil
import statistics
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

import perceptkit as pk
from perceptkit.report.delta_mtl import delta_mtl
from perceptkit.spec.adaptation import ADAPTATIONS

METHODS = ("finetune", "feature_extractor", "spottune", "taps")
STYLES = ("dusk", "sketch", "thermal")
BASELINE = "finetune"
BATCH = 16


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("base", type=Path, help="a finished run")
    parser.add_argument(
        "--styles", nargs="*", default=[], choices=STYLES, help="looks of the built-in scenes"
    )
    parser.add_argument("--tasks", nargs="*", default=[], type=Path, help="tasks files of other domains")
    parser.add_argument("--counts", nargs="+", type=int, default=[50, 200, 1000], help="labelled pictures")
    parser.add_argument("--methods", nargs="+", choices=tuple(ADAPTATIONS), default=METHODS)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--steps", type=int, default=400, help=f"of {BATCH} pictures, in each run")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--table", action="store_true", help="print what is there; run nothing")
    o = parser.parse_args(arguments)
    if not o.table:
        domains = {style: scenes_in(o, style) for style in o.styles}
        domains |= {file.stem: file for file in o.tasks}
        for seed in o.seeds:
            for domain, file in domains.items():
                for count in o.counts:
                    for method in o.methods:
                        run_once(o, domain, file, count, method, seed)
    rows = [row for path in sorted(o.out.glob("*/results.json")) if (row := row_of(path.parent))]
    print(as_markdown(rows))
    return 0


def scenes_in(o: argparse.Namespace, style: str) -> Path:
    """A tasks file as the base's, in another style."""
    declared = yaml.safe_load((o.base / "tasks.yaml").read_text(encoding="utf-8"))
    declared["name"], declared["data"]["style"] = style, style
    path: Path = o.out / "tasks" / f"{style}.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(declared, sort_keys=False), encoding="utf-8")
    return path


def run_once(o: argparse.Namespace, domain: str, file: Path, count: int, method: str, seed: int) -> None:
    """One run, unless it is there; one that was stopped begins anew."""
    out = o.out / f"{domain}-{count}-{method}-{seed}"
    if (out / "results.json").is_file():
        return
    shutil.rmtree(out, ignore_errors=True)
    held_out = max(1, count // 5)
    is_rendered = yaml.safe_load(file.read_text(encoding="utf-8"))["data"]["source"] == "scenes"
    key = "data.count" if is_rendered else "data.limit"
    epochs = max(1, round(o.steps * BATCH / max(BATCH, count - held_out)))
    changes = [
        f"{key}.train={count - held_out}",
        f"{key}.val={held_out}",
        f"stages.adapt.epochs={epochs}",
        "augment={hflip: 0.5}",
        f"loader={{batch: {BATCH}, workers: 0}}",
        f"seed={seed}",
    ]
    if not is_rendered:
        changes[:2] = [f"data.limit={{train: {count - held_out}, val: {held_out}}}"]
    pk.adapt(o.base, file, method, out=out, overrides=changes, quiet=True)
    print(f"{out.name}: {row_of(out)}", file=sys.stderr, flush=True)


def row_of(run: Path) -> dict[str, Any]:
    """What a finished run found."""
    results, about = (json.loads((run / f"{name}.json").read_text()) for name in ("results", "adaptation"))
    domain, count, method, seed = run.name.rsplit("-", 3)
    old, bits = about["old_domain"], about["bits"]
    before, info = _main(old["before"], old["tasks"])
    return {
        "domain": domain,
        "count": int(count),
        "method": method,
        "seed": int(seed),
        "new": _main({name: task["metrics"] for name, task in results["tasks"].items()}, results["tasks"]),
        "old": delta_mtl(_main(old["after"], old["tasks"])[0], before, info).mean
        if old["after"]
        else math.nan,
        "stored": (bits["trunk"] + bits["router"]) / bits["base"],
        "seconds": results["train_seconds"],
    }


Metrics = Mapping[str, Mapping[str, float]]
Directions = Mapping[str, Mapping[str, bool]]


def _main(metrics: Metrics, tasks: Mapping[str, Any]) -> tuple[Metrics, Directions]:
    """The main metric of each task, and whether higher is better."""
    primary = {name: tasks[name]["primary"] for name in metrics}
    return (
        {name: {primary[name]: values[primary[name]]} for name, values in metrics.items()},
        {name: {primary[name]: tasks[name]["info"][primary[name]]["higher_is_better"]} for name in metrics},
    )


def as_markdown(rows: Sequence[Mapping[str, Any]]) -> str:
    """A table of what is new and old by domain, pictures and method, then one with the metrics themselves."""
    groups: dict[tuple[str, int, str], list[Mapping[str, Any]]] = {}
    for row in rows:
        groups.setdefault((row["domain"], row["count"], row["method"]), []).append(row)
    rivals = {(r["domain"], r["count"], r["seed"]): r["new"][0] for r in rows if r["method"] == BASELINE}
    lines = [
        "| domain | pictures | method | new, % | old, % | stored | seconds |",
        "|---|---:|---|---:|---:|---:|---:|",
    ]
    tasks = sorted({(task, metric) for row in rows for task, m in row["new"][0].items() for metric in m})
    more = [
        "| domain | pictures | method | " + " | ".join(f"{task} {metric}" for task, metric in tasks) + " |",
        "|---|---:|---|" + "---:|" * len(tasks),
    ]
    for (domain, count, method), group in sorted(groups.items()):
        gains = [
            delta_mtl(row["new"][0], rivals[key], row["new"][1]).mean
            for row in group
            if (key := (domain, count, row["seed"])) in rivals
        ]
        old, stored = ([row[key] for row in group] for key in ("old", "stored"))
        seconds = statistics.mean(row["seconds"] for row in group)
        cells = [
            _spread(gains, "+.1f"),
            _spread(old, "+.1f"),
            f"{statistics.mean(stored):.2f}",
            f"{seconds:.0f}",
        ]
        start = f"| {domain} | {count} | {method} | "
        lines.append(start + " | ".join(cells) + " |")
        values = [
            [row["new"][0].get(task, {}).get(metric, math.nan) for row in group] for task, metric in tasks
        ]
        more.append(start + " | ".join(_spread(v, ".3f") for v in values) + " |")
    return "\n".join([*lines, "", *more])


def _spread(values: Sequence[float], form: str) -> str:
    if not values:
        return ""
    spread = f" ± {statistics.stdev(values):{form.lstrip('+')}}" if len(values) > 1 else ""
    mean = float(f"{statistics.mean(values):{form}}") + 0.0  # no -0.0
    return f"{mean:{form}}{spread}"


if __name__ == "__main__":
    sys.exit(main())
