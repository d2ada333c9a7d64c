"""Every way to adapt one backbone to several domains: accuracy, what is stored, and time, in one table.

    python tools/make_domains.py data/domains
    python tools/bench_adaptation.py data/domains --weights tf_efficientnet_lite0.safetensors --out runs/domains
    python tools/bench_adaptation.py data/domains --out runs/domains --table        what is there so far

One run of recipe `adapt` for each domain, method and seed: the base is the backbone's ImageNet weights, so there are no
old heads, and `lwf` has no row. Model selection on val, one look at test. A run that is finished is not run again.

    mean      of the test accuracies
    score     as in the Visual Decathlon, against `finetune` here: 250 a domain is what fine-tuning gets
    stored    what a domain stores of the trunk, over the trunk's own size; heads, which all store, left out
    seconds   of training, over those of `finetune` in the same domain; the median of the domains
"""

import argparse
import json
import shutil
import statistics
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

import perceptkit as pk
from perceptkit.errors import PerceptkitError
from perceptkit.spec.adaptation import ADAPTATIONS

METHODS: dict[str, dict[str, Any]] = {
    **{method: {"method": method} for method in ADAPTATIONS if method != "lwf"},
    "spottune_lora": {"method": "spottune", "tuned": "lora"},
    "taps_10": {"method": "taps", "sparsity": 10},
}
"""By row, what `adaptation` says."""
BASELINE = "finetune"
RATES: dict[str, list[str]] = {
    "feature_extractor": ["optim.lr=1e-2"],
    "bn": ["optim.lr=1e-2"],
    "series_adapter": ["optim.lr=1e-2"],
    "parallel_adapter": ["optim.lr=1e-2"],
    "piggyback": ["optim.lr=1e-2"],  # of the head: masks have their own
    "spottune_lora": ["optim.lr=1e-2"],
}
"""Changes of recipe `adapt`, whose rate is 1e-3, by top-1 on the val split of textures, 300 pictures to learn from. Not
every rate was tried for every method: docs/results.md."""


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("root", type=Path, help="image folders, one for each domain")
    parser.add_argument("--domains", nargs="+", help="folders in root; all by default")
    parser.add_argument("--methods", nargs="+", choices=tuple(METHODS), default=tuple(METHODS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--backbone", default="tf_efficientnet_lite0")
    parser.add_argument("--weights", default="pretrained", help="pretrained, or a safetensors file")
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument(
        "--limit", type=int, help="training pictures at most; half as many choose the epoch, test is whole"
    )
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--set", nargs="+", action="extend", default=[], metavar="KEY=VALUE", dest="changes")
    parser.add_argument("--table", action="store_true", help="print what is there; run nothing")
    o = parser.parse_args(arguments)
    domains = o.domains or sorted(path.name for path in o.root.iterdir() if (path / "train").is_dir())
    if not o.table:
        for seed in o.seeds:
            for domain in domains:
                for method in [BASELINE, *(m for m in o.methods if m != BASELINE)]:
                    run_once(o, domain, method, seed)
    rows = [row for path in sorted(o.out.glob("*/adaptation.json")) if (row := row_of(path.parent))]
    print(as_markdown(rows))
    return 0


def run_once(o: argparse.Namespace, domain: str, method: str, seed: int) -> None:
    """One run, unless it is there; one that was stopped begins anew."""
    out = o.out / f"{domain}-{method}-{seed}"
    if (out / "results.json").is_file():
        return
    shutil.rmtree(out, ignore_errors=True)
    tasks = o.out / "tasks" / f"{domain}.yaml"
    tasks.parent.mkdir(parents=True, exist_ok=True)
    data: dict[str, Any] = {"source": "imagefolder", "root": str((o.root / domain).absolute())}
    data |= {"size": [o.size, o.size]}
    if o.limit:
        data["limit"] = {"train": o.limit, "val": o.limit // 2}
    declared = {"version": 1, "name": domain, "data": data, "tasks": {"label": {"type": "classification"}}}
    tasks.write_text(yaml.safe_dump(declared, sort_keys=False), encoding="utf-8")
    changes = [
        f"backbone={{name: {o.backbone}, weights: {o.weights}}}",
        f"adaptation={json.dumps(METHODS[method])}",
        f"stages.adapt.epochs={o.epochs}",
        "augment={zoom: [0.85, 1.15]}",  # no flip: digits have none
        "loader={batch: 32, workers: 0}",
        *RATES.get(method, []),
        f"seed={seed}",
        *o.changes,
    ]
    try:
        pk.train(tasks, recipe="adapt", out=out, overrides=changes, quiet=True)
    except PerceptkitError as error:
        print(f"{domain} {method} {seed}: {error}", file=sys.stderr)
        return
    print(f"{domain} {method} {seed}: {row_of(out)}", file=sys.stderr, flush=True)


def row_of(run: Path) -> dict[str, Any] | None:
    """What a finished run found."""
    if not (run / "results.json").is_file():
        return None
    results, about = (json.loads((run / f"{name}.json").read_text()) for name in ("results", "adaptation"))
    domain, method, seed = run.name.rsplit("-", 2)
    bits = about["bits"]
    return {
        "domain": domain,
        "method": method,
        "seed": int(seed),
        "top1": results["tasks"]["label"]["metrics"]["top1"],
        "stored": (bits["trunk"] + bits["router"]) / bits["base"],
        "seconds": results["train_seconds"],
    }


def as_markdown(rows: Sequence[Mapping[str, Any]]) -> str:
    """Methods by domains; means over seeds, with the deviation where there are several."""
    domains = sorted({row["domain"] for row in rows})
    found = {
        (method, domain): [row for row in rows if (row["method"], row["domain"]) == (method, domain)]
        for method in METHODS
        for domain in domains
    }
    lines = [
        "| method | " + " | ".join(domains) + " | mean | score | stored | seconds |",
        "|---|" + "---:|" * (len(domains) + 4),
    ]
    baseline = {d: _mean(found[BASELINE, d], "top1") for d in domains if found[BASELINE, d]}
    for method in METHODS:
        here = [domain for domain in domains if found[method, domain]]
        if not here:
            continue
        cells = [_accuracy(found[method, domain]) for domain in domains]
        if here == domains:
            accuracy = {domain: _mean(found[method, domain], "top1") for domain in domains}
            mean = f"{100 * statistics.mean(accuracy.values()):.1f}"
            possible = len(baseline) == len(domains) and all(value < 1 for value in baseline.values())
            score = f"{pk.decathlon_score(accuracy, baseline):.0f}" if possible else ""
        else:
            mean = score = ""
        both = [domain for domain in here if domain in baseline]
        stored = statistics.mean(_mean(found[method, domain], "stored") for domain in here)
        seconds = [
            _mean(found[method, domain], "seconds") / _mean(found[BASELINE, domain], "seconds")
            for domain in both
        ]
        cells += [mean, score, f"{stored:.3f}", f"{statistics.median(seconds):.2f}" if seconds else ""]
        lines.append(f"| {method} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _mean(rows: Sequence[Mapping[str, Any]], key: str) -> float:
    return statistics.mean(row[key] for row in rows)


def _accuracy(rows: Sequence[Mapping[str, Any]]) -> str:
    if not rows:
        return ""
    values = [100 * row["top1"] for row in rows]
    spread = f" ± {statistics.stdev(values):.1f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.1f}{spread}"


if __name__ == "__main__":
    sys.exit(main())
