"""Ways of sharing side by side: the same tasks, backbone and length of training for every method, over seeds.

    python tools/bench_sharing.py --out runs/sharing                       all methods, one seed: hours on a CPU core
    python tools/bench_sharing.py --methods single hard adashare --seeds 0 1 2 --out runs/sharing
    python tools/bench_sharing.py --out runs/sharing --table               what is there so far

Every run is a process of its own, and its words are beside it in METHOD-sSEED.log. A run that is finished is not run
again, and one that was stopped goes on: the same command again does what is left. The table is that of
`perceptkit compare --latency`: all metrics, delta-MTL against `single`, parameters, MACs of all tasks and of each,
and the latency of the emitted models, timed in turn in one process, as a part of that of `single`.

All methods train the network that they emit for --epochs; what adashare learns its plan in, half as long a search after
a third as long a warm-up, comes on top, as in its paper. adashare_0.7_search goes on from the weights of the search
instead of starting anew, and hard_long trains for as many epochs as all its stages have. fafs has two halves. `random`
skips as many blocks of each task as adashare of the same seed did. Lambdas and learning rate are those of the recipes
in recipes/.
"""

import argparse
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import perceptkit as pk
from perceptkit.report.comparison_tables import as_markdown

EPOCHS = 10
"""With the frames of tasks/doom4.yaml some ten minutes a run on one core."""
LEARNED = "adashare"
"""The method whose skips `random` counts."""
OF_HARD = ("stochastic_depth", "cross_stitch", "sluice", "nddr", "mtan")
LONG = "hard_long"
"""Hard sharing for as many epochs as all stages of adashare together."""


def within(part: str) -> list[str]:
    """Changes for a budget: a part of hard sharing's MACs. The blocks that are to go have to be open."""
    return [f"budget={{macs: {part}}}", "stages.search.speed=0.25"]


METHODS: dict[str, tuple[str, list[str]]] = {
    "single": ("single", []),
    "hard": ("hard", []),
    LONG: ("hard", []),
    "branch": ("hard", ["sharing={method: branch, share_first: 4}"]),
    **{method: ("hard", [f"sharing={{method: {method}}}"]) for method in OF_HARD},
    "fafs": ("fafs", []),
    LEARNED: ("adashare", []),
    **{f"adashare_{part}": ("adashare", within(part)) for part in ("0.7", "1.0")},
    "adashare_0.7_search": ("adashare", [*within("0.7"), "stages.retrain.start=search"]),
    "random": ("hard", []),
}
"""By method its recipe and what is changed in it."""


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--methods", nargs="+", choices=tuple(METHODS), default=tuple(METHODS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--tasks", default="doom4", help="tasks file or name")
    parser.add_argument("--epochs", type=int, default=EPOCHS, help="in which the emitted network is trained")
    parser.add_argument("--set", nargs="+", action="extend", default=[], metavar="KEY=VALUE", dest="changes")
    parser.add_argument("--table", action="store_true", help="print what is there; run nothing")
    o = parser.parse_args(arguments)
    if "random" in o.methods and LEARNED not in o.methods:
        if missing := [s for s in o.seeds if not is_finished(folder(o.out, LEARNED, s))]:
            parser.error(f"random counts the skips of {LEARNED}, which has no run of seed {missing[0]}")
    failed = []
    if not o.table:
        for seed in o.seeds:
            for method in sorted(o.methods, key=list(METHODS).index):
                if not run_once(o, method, seed):
                    failed.append(folder(o.out, method, seed).name)
    runs = [folder(o.out, method, seed) for method in METHODS for seed in o.seeds if method in o.methods]
    if done := [run for run in runs if is_finished(run)]:
        print(as_markdown(pk.compare(done, out=o.out / "comparison", latency=True)))
    for name in failed:
        print(f"{name} failed: {o.out / name}.log says why", file=sys.stderr)
    return 1 if failed else 0


def folder(out: Path, method: str, seed: int) -> Path:
    """Of a run."""
    return out / f"{method}-s{seed}"


def is_finished(run: Path) -> bool:
    """Whether it was tested."""
    return (run / "results.json").is_file()


def stages_of(method: str, epochs: int) -> list[str]:
    """The lengths of a method's stages."""
    learned = {"warmup": -(-epochs // 3), "search": -(-epochs // 2), "retrain": epochs}
    if METHODS[method][0] == "adashare":
        lengths = learned
    elif method == "fafs":
        lengths = {"warmup": -(-epochs // 2), "retrain": max(1, epochs // 2)}
    else:
        lengths = {"retrain": sum(learned.values()) if method == LONG else epochs}
    return [f"stages.{name}.epochs={length}" for name, length in lengths.items()]


def run_once(o: argparse.Namespace, method: str, seed: int) -> bool:
    """One run, unless it is there; whether it got to its end."""
    run = folder(o.out, method, seed)
    if is_finished(run):
        return True
    command = [sys.executable, "-m", "perceptkit.cli", "train"]
    if (run / "checkpoints" / "last.pt").is_file():
        command += ["--resume", "--out", str(run)]
    else:
        if run.is_dir():
            shutil.rmtree(run)  # stopped before there was anything to go on from
        recipe, changes = METHODS[method]
        own = [*changes, *stages_of(method, o.epochs), "loader.workers=0", f"seed={seed}"]
        if method == "random":
            counted = folder(o.out, LEARNED, seed).resolve()
            own.append(f"sharing={{method: random, skips_of: {counted}}}")
        command += [o.tasks, "--recipe", recipe, "--out", str(run), "--set", *own, *o.changes]
    o.out.mkdir(parents=True, exist_ok=True)
    print(f"{run.name} ...", file=sys.stderr, flush=True)
    paths = [str(Path(__file__).parents[1]), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    with run.with_name(f"{run.name}.log").open("a", encoding="utf-8") as log:  # names have dots
        done = subprocess.run(command, stdout=log, stderr=subprocess.STDOUT, env=environment)
    return done.returncode == 0


if __name__ == "__main__":
    sys.exit(main())
