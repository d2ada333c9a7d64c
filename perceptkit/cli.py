"""The command line: parses, calls the API, prints. Nothing heavy is imported before a verb needs it.

Exit codes: 0 ok, 1 run failed, 2 usage or spec error, 3 data error, 130 interrupted and resumable.
"""

from __future__ import annotations

import argparse
import fnmatch
import json
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from perceptkit import errors
from perceptkit.versions import installed

INTERRUPTED = 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit code; no user's mistake shows a traceback."""
    os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
    os.environ.setdefault("GOMP_SPINCOUNT", "0")
    options = make_parser().parse_args(arguments)
    try:
        code: int = options.run(options)
    except errors.PerceptkitError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:  # `perceptkit ... | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:  # a place that cannot be read or written, a full disk
        if error.filename is None:
            raise
        print(f"{error.filename}: {error.strerror}", file=sys.stderr)
        return errors.PerceptkitError.exit_code
    return code


def make_parser() -> argparse.ArgumentParser:
    """All verbs and flags."""
    parser = argparse.ArgumentParser(
        prog="perceptkit",
        description="From a YAML list of perception tasks to one small, fast, verified multi-head model.",
    )
    parser.add_argument("--version", action="version", version=f"perceptkit {installed('perceptkit')}")
    verbs = parser.add_subparsers(required=True, metavar="VERB")

    def verb(name: str, run: Callable[[argparse.Namespace], int], help: str) -> argparse.ArgumentParser:
        made = verbs.add_parser(name, help=help, description=help[0].upper() + help[1:] + ".")
        made.set_defaults(run=run)
        return made

    def specs(made: argparse.ArgumentParser, optional: bool = False) -> None:
        made.add_argument(
            "tasks", metavar="TASKS", nargs="?" if optional else None, help="tasks file or name"
        )
        made.add_argument("--recipe", metavar="R", help="recipe file or name (default: adashare)")
        changes(made)

    def changes(made: argparse.ArgumentParser) -> None:
        made.add_argument(
            "--set", dest="overrides", metavar="KEY=VALUE", nargs="+", action="extend", default=[],
            help="override any key, for example stages.search.epochs=5",
        )  # fmt: skip

    made = verb("init", init, "scaffold a tasks file")
    made.add_argument("--data", metavar="DIR", type=Path, help="folder to propose tasks from")
    made.add_argument("-o", "--out", metavar="FILE", type=Path, default=Path("tasks.yaml"))
    made = verb("check", check, "check the YAML files and the data they point to; starts nothing")
    specs(made)
    made.add_argument(
        "--everything", action="store_true", help="open every picture and label file, not a sample"
    )
    made.add_argument(
        "--fix-list", metavar="FILE", type=Path,
        help="open everything and write the bad pictures, one a line: split, id, reason",
    )  # fmt: skip
    made.add_argument("--json", action="store_true", help="print JSON")
    made = verb("describe", describe, "show what would be trained: specs, heads, blocks, parameters, MACs")
    specs(made)
    made.add_argument("--json", action="store_true", help="print JSON")
    made = verb("train", train, "train, test once and write the compact artifact")
    specs(made, optional=True)
    made.add_argument("--out", metavar="DIR", type=Path, help="run folder (default: runs/NAME)")
    made.add_argument("--resume", action="store_true", help="continue the run in --out")
    made.add_argument("--dry-run", action="store_true", help="a few steps of everything, then clean up")
    made.add_argument(
        "--budget-sweep", metavar="X", type=float, nargs="+",
        help="a run for each budget, for example 0.4 0.6 0.8 1.0 of the MACs of a hard-shared pass, and their curve",
    )  # fmt: skip
    made = verb("eval", evaluate, "metrics of a run, an artifact or an exported model")
    made.add_argument("path", metavar="RUN|ARTIFACT", type=Path)
    made.add_argument("--data", metavar="TASKS", help="tasks file with the data (default: the run's own)")
    made.add_argument("--split", choices=("train", "val", "test"), default="test")
    made.add_argument("--domain", metavar="NAME", help="one that was added; it needs --data")
    changes(made)
    made = verb("predict", predict, "predict on pictures, folders or globs")
    made.add_argument("path", metavar="RUN|ARTIFACT", type=Path)
    made.add_argument("sources", metavar="SOURCE", nargs="+")
    made.add_argument(
        "--domain", metavar="NAME", help="one that was added (default: the artifact's own model)"
    )
    made.add_argument("--tasks", metavar="T", nargs="+", help="only these; the others are not computed")
    made.add_argument("--save", metavar="DIR", type=Path, default=Path("predictions"))
    made.add_argument(
        "--neighbours", metavar="GALLERY", type=Path,
        help="with an embedding: the 5 pictures of a folder, or of a saved index, that are nearest to each",
    )  # fmt: skip
    made = verb("export", export, "write another format and prove that it computes the same")
    made.add_argument("path", metavar="RUN|ARTIFACT", type=Path)
    made.add_argument("--format", default="onnx", help="artifact, torch, aoti or onnx (default)")
    made.add_argument("--int8", action="store_true", help="onnx in 8 bits, calibrated on training pictures")
    made.add_argument("--precision", default="32", help="32 (default), bf16 or fp16")
    made.add_argument("--per-task", action="store_true", help="one model for each task")
    made.add_argument(
        "--data", metavar="TASKS", help="tasks file to calibrate and measure on (default: the run's own)"
    )
    made.add_argument("--pictures", metavar="N", type=int, help="how many to calibrate on (default: 200)")
    made.add_argument(
        "--max-drop", metavar="PERCENT", type=float,
        help="of int8, bf16, fp16, --nearest: how much worse a metric may be before you are warned (default: 5)",
    )  # fmt: skip
    made.add_argument(
        "--dynamic-skip", nargs="?", const="branch", metavar="HOW",
        help="onnx that skips blocks by picture: branch (one at a time, default), gather (batches) or codebook",
    )  # fmt: skip
    made.add_argument(
        "--policies", metavar="P", type=int, help="of a codebook: networks at most (default: 8)"
    )
    made.add_argument(
        "--nearest", action="store_true",
        help="of a codebook: a picture may lose blocks that it keeps; what that costs is measured",
    )  # fmt: skip
    made.add_argument("--device", default="cpu", help="for aoti: what to compile for, cpu (default) or cuda")
    made.add_argument(
        "--optimize",
        choices=("latency", "size"),
        help="arrange the model for it, model_latency or model_size (default: as it is)",
    )
    made.add_argument("--out", metavar="PATH", type=Path, help="default: in RUN/exports/")
    made = verb("benchmark", benchmark, "accuracy, size and measured speed beside what the model replaces")
    made.add_argument("path", metavar="RUN|ARTIFACT", type=Path)
    made.add_argument(
        "--batch", metavar="N", type=int, nargs="+", default=[1, 8, 32], help="pictures per call"
    )
    made.add_argument("--rounds", metavar="N", type=int, default=20, help="timed calls of each variant")
    made.add_argument("--variants", metavar="NAME", nargs="+", help="some of them; all by default")
    made.add_argument("--baseline", metavar="RUN", type=Path, nargs="+", default=[], help="trained baselines")
    made.add_argument("--data", metavar="TASKS", help="tasks file with the data (default: the run's own)")
    made.add_argument("--split", choices=("train", "val", "test"), default="test")
    made.add_argument("--device", default="cpu")
    made.add_argument("--out", metavar="DIR", type=Path, help="default: benchmark/ inside RUN")
    made = verb("adapt", adapt, "make a trained network that of another domain")
    made.add_argument("path", metavar="RUN", type=Path)
    made.add_argument("tasks", metavar="TASKS")
    made.add_argument("--method", help="spottune (default), taps, bn, finetune, ... or auto")
    made.add_argument("--recipe", metavar="R", help="default: adapt")
    made.add_argument("--out", metavar="DIR", type=Path, help="default: runs/NAME")
    made.add_argument("--dry-run", action="store_true", help="a few steps; nothing is kept")
    changes(made)
    made = verb("domains", domains, "list, add or remove the domains of an artifact")
    made.add_argument("path", metavar="RUN|ARTIFACT", type=Path)
    made.add_argument("--add", metavar="RUN", type=Path, help="what `perceptkit adapt` wrote")
    made.add_argument("--name", help="of the domain that is added (default: the name of its tasks file)")
    made.add_argument("--remove", metavar="NAME")
    made = verb(
        "compare", compare, "runs side by side: metrics, delta-MTL, size and speed, seeds put together"
    )
    made.add_argument("paths", metavar="RUN", type=Path, nargs="+")
    made.add_argument(
        "--baseline", metavar="RUN", type=Path, nargs="+", default=[],
        help="single-task nets that delta-MTL refers to (default: the runs of method single)",
    )  # fmt: skip
    made.add_argument(
        "--latency", action="store_true", help="measure it now, side by side (default: as `benchmark` wrote)"
    )
    made.add_argument(
        "--count", metavar="TASK=METRICS", nargs="+", default=[],
        help="what delta-MTL counts of a task, as in depth=abs_rel,delta1 (default: all but err and mean_cos)",
    )  # fmt: skip
    made.add_argument("--markdown", action="store_true", help="print the tables and write nothing")
    made.add_argument("--out", metavar="DIR", type=Path, help="for tables and plots (default: comparison)")
    made = verb("report", report, "write one self-contained HTML page")
    made.add_argument("path", metavar="RUN", type=Path)
    made.add_argument("--baseline", metavar="RUN", type=Path, nargs="+", default=[], help="runs beside it")
    made.add_argument("--markdown", action="store_true", help="print its tables instead of writing the page")
    made.add_argument(
        "--lesion",
        action="store_true",
        help="first measure what is lost without which blocks; takes some hundred evaluations of 200 pictures of val",
    )
    made = verb("list", list_things, "list what there is")
    made.add_argument("what", choices=("tasks", "backbones", "recipes", "formats"))
    made.add_argument("pattern", nargs="?", default="*", help="of names, for example resnet*")
    made.add_argument(
        "--gateable", metavar="PATTERN", nargs="?", const="*",
        help="of backbones: those whose blocks can be skipped, with what there is to skip; takes seconds a model",
    )  # fmt: skip
    made = verb("schema", schema, "print the JSON schema of a file, for editors")
    made.add_argument("what", choices=("tasks", "recipe"), nargs="?", default="tasks")
    verb("doctor", doctor, "say what this machine has")
    return parser


def init(options: argparse.Namespace) -> int:
    from perceptkit.spec.scaffold import scaffold

    if options.out.exists():
        raise errors.SpecError(f"{options.out} exists already")
    text = scaffold(options.data, options.out.parent)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(text, encoding="utf-8")
    print(f"wrote {options.out}; next: perceptkit check {options.out}")
    return 0


def check(options: argparse.Namespace) -> int:
    from perceptkit import api

    o = options
    everything = o.everything or o.fix_list is not None
    result = api.check(o.tasks, o.recipe, o.overrides, everything, sys.stderr.isatty())
    if o.fix_list is not None:
        result.write_fix_list(o.fix_list)
    print(json.dumps(result.as_json(), indent=1) if o.json else result)
    return errors.DataError.exit_code if result.problems else 0


def describe(options: argparse.Namespace) -> int:
    from perceptkit import api

    found = api.describe(options.tasks, options.recipe, options.overrides)
    if options.json:
        print(json.dumps(found, indent=1))
    else:
        from perceptkit.train.describe import as_text

        print(as_text(found))
    return 0


def train(options: argparse.Namespace) -> int:
    from perceptkit import api
    from perceptkit.train.training import Interrupted

    first = int(os.environ.get("RANK", "0")) == 0
    if options.tasks is not None and first:
        found = api.check(options.tasks, options.recipe, options.overrides, progress=sys.stderr.isatty())
        found.raise_problems()
        for warning in found.warnings:
            print(f"warning: {warning}", file=sys.stderr)
    if options.budget_sweep is not None:
        return sweep_budgets(options, first)
    try:
        run = api.train(
            options.tasks,
            options.recipe,
            options.out,
            options.overrides,
            resume=options.resume,
            dry_run=options.dry_run,
        )
    except Interrupted as stopped:
        print(f"\nsaved; continue with: perceptkit train --resume --out {stopped.run}", file=sys.stderr)
        return INTERRUPTED
    if options.dry_run:
        print("dry run: every stage, the test and the artifact work; nothing was kept")
    elif first:
        print(api.summary([run.path]))
        print(f"next: perceptkit report {run.path}")
    return 0


def sweep_budgets(options: argparse.Namespace, first: bool) -> int:
    """`train --budget-sweep`."""
    from perceptkit import api
    from perceptkit.train.training import Interrupted

    o = options
    if o.tasks is None:
        raise errors.SpecError("--budget-sweep wants the tasks file, to resume a sweep too")
    if o.dry_run:
        raise errors.SpecError("--dry-run rehearses one run; drop --budget-sweep")
    try:
        runs = api.sweep_budgets(
            o.tasks, o.budget_sweep, o.recipe, o.out, o.overrides, resume=o.resume,
            say=lambda line: print(f"warning: {line}", file=sys.stderr, flush=True) if first else None,
        )  # fmt: skip
    except Interrupted as stopped:
        print(f"\nsaved in {stopped.run}; continue with the same command and --resume", file=sys.stderr)
        return INTERRUPTED
    if first:
        folder = runs[0].path.parent
        print((folder / "sweep.md").read_text(encoding="utf-8"))
        print(f"the curve: {folder / 'sweep.png'}")
    return 0


def evaluate(options: argparse.Namespace) -> int:
    from perceptkit import api

    o = options
    found = api.evaluate(o.path, o.data, o.split, o.overrides, o.domain)
    for task, metrics in found.items():
        for name, value in metrics.items():
            print(f"{task}/{name}\t{value:.4f}")
    return 0


def predict(options: argparse.Namespace) -> int:
    from perceptkit import api
    from perceptkit.runtime.index import write_neighbours
    from perceptkit.runtime.pictures import find_pictures

    pictures = find_pictures(options.sources)
    model = api.load(options.path, domain=options.domain, tasks=options.tasks)
    index = api.index(model, options.neighbours) if options.neighbours is not None else None
    unreadable: list[errors.DataError] = []
    for result in model.stream(pictures, on_unreadable=unreadable.append):
        print(result.save(options.save)[0])
        if index is not None:
            found = index.nearest(result[index.task].vector)
            write_neighbours(options.save / f"{result.name}.neighbours.json", found)
            print(*(f"  {near.similarity:.3f}  {near.id}" for near in found), sep="\n")
    for error in unreadable:
        print(error, file=sys.stderr)
    return errors.DataError.exit_code if unreadable else 0


@contextmanager
def ended_like_interrupted() -> Iterator[None]:
    """SIGTERM (`kill`, `timeout`) raises as Ctrl-C does: else the process ends at once, and unfinished files stay."""
    if threading.current_thread() is not threading.main_thread():  # Python lets no other set handlers
        yield
        return
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def export(options: argparse.Namespace) -> int:
    from perceptkit import api
    from perceptkit.compact.exported import as_text

    with ended_like_interrupted():
        api.export(
            options.path,
            options.out,
            options.format,
            options.precision,
            options.int8,
            options.per_task,
            options.data,
            options.pictures,
            device=options.device,
            optimize=options.optimize,
            dynamic_skip=options.dynamic_skip,
            policies=options.policies,
            nearest=options.nearest,
            max_drop=options.max_drop,
            warn=lambda line: print(f"warning: {line}", file=sys.stderr, flush=True),
            wrote=lambda path: print(as_text(path), flush=True),
        )
    return 0


def benchmark(options: argparse.Namespace) -> int:
    from perceptkit import api
    from perceptkit.runtime.benchmark import as_markdown

    o = options
    found = api.benchmark(
        o.path, o.batch, o.rounds, o.variants, o.out, o.data, o.split, o.baseline, o.device,
        say=lambda line: print(line, file=sys.stderr, flush=True),
    )  # fmt: skip
    print(as_markdown(found))
    return 0


def adapt(options: argparse.Namespace) -> int:
    from perceptkit import api
    from perceptkit.train.training import Interrupted

    o = options
    try:
        run = api.adapt(
            o.path, o.tasks, o.method, o.recipe, o.out, o.overrides, o.dry_run,
            say=lambda line: print(line, file=sys.stderr, flush=True),
        )  # fmt: skip
    except Interrupted as stopped:
        print(f"\nsaved; continue with: perceptkit train --resume --out {stopped.run}", file=sys.stderr)
        return INTERRUPTED
    if o.dry_run:
        print("dry run: the stage, the test and the artifact work; nothing was kept")
    elif int(os.environ.get("RANK", "0")) == 0:
        print(api.summary([run.path]))
        print(f"next: perceptkit domains {o.path} --add {run.path}")
    return 0


def domains(options: argparse.Namespace) -> int:
    from perceptkit import api
    from perceptkit.compact.domains import base_words
    from perceptkit.runtime.load import domains_folder

    if options.name is not None and options.add is None:
        raise errors.SpecError("--name is of the domain that --add adds")
    if options.remove is not None:
        api.remove_domain(options.path, options.remove)
    if options.add is not None:
        api.add_domain(options.path, options.add, options.name)
    found = api.domains(options.path)
    print("\n".join(found) if found else "no domains")
    if words := base_words(domains_folder(options.path)):
        print(words, file=sys.stderr)
    return 0


def compare(options: argparse.Namespace) -> int:
    from perceptkit import api
    from perceptkit.report.comparison_tables import as_markdown

    o = options
    if o.markdown and o.out is not None:
        raise errors.SpecError("--markdown prints and writes nothing; drop it or --out")
    out = None if o.markdown else o.out or Path("comparison")
    counted: dict[str, list[str]] = {}
    for text in o.count:
        task, _, metrics = text.partition("=")
        if not task or not metrics:
            raise errors.SpecError(f"--count {text}: expected TASK=METRIC,METRIC, as in depth=abs_rel,delta1")
        counted.setdefault(task, []).extend(metrics.split(","))
    found = api.compare(
        o.paths, o.baseline, out, o.latency, lambda line: print(line, file=sys.stderr, flush=True), counted
    )
    print(as_markdown(found))
    for path in found["written"]:
        print(path)
    return 0


def report(options: argparse.Namespace) -> int:
    from perceptkit import api

    o = options
    if o.markdown and o.lesion:
        raise errors.SpecError("--lesion is for the page; drop it or --markdown")
    if o.markdown:
        print(api.summary([o.path, *o.baseline]))
    else:
        print(api.report(o.path, o.baseline, o.lesion, lambda line: print(line, file=sys.stderr, flush=True)))
    return 0


def list_things(options: argparse.Namespace) -> int:
    if options.gateable is not None and options.what != "backbones":
        raise errors.SpecError(f"--gateable is a question to backbones, not to {options.what}")
    if options.what == "backbones":
        from perceptkit.model.weights import backbone_names

        tagged = any("." in pattern for pattern in (options.pattern, options.gateable or ""))
        rows = backbone_names("*.*" if tagged else "*")
    elif options.what == "formats":
        from perceptkit.compact.export import FORMATS

        rows = list(FORMATS)
    else:
        from perceptkit.spec.shipped import list_shipped

        rows = list_shipped(options.what)
    for pattern in (options.pattern, options.gateable or "*"):
        rows = fnmatch.filter(rows, pattern)
        if not rows:
            raise errors.SpecError(f"none of the {options.what} matches '{pattern}'; * stands for any text")
    if options.gateable is not None:
        return list_gateable(rows)
    print("\n".join(rows))
    return 0


def list_gateable(names: Sequence[str]) -> int:
    """A row for each backbone that can be gated, as it is found; the others are named at the end, each with its
    reason and what to try instead."""
    from perceptkit.model.survey import as_row, survey

    refused = []
    for name in names:
        try:
            print(as_row(name, survey(name), max(map(len, names))), flush=True)
        except errors.SpecError as error:
            refused.append(str(error) if str(error).startswith(f"{name} (") else f"{name}: {error}")
    if len(refused) == len(names):
        reasons = "\n  ".join(refused[:5] + ["..."] * (len(refused) > 5))
        raise errors.SpecError(f"none of the backbones that match can be gated\n  {reasons}")
    if refused:
        told = "\n  ".join(refused)
        print(f"{len(refused)} that match cannot be gated\n  {told}", file=sys.stderr)
    return 0


def schema(options: argparse.Namespace) -> int:
    from perceptkit.spec.schema import json_schema

    print(json.dumps(json_schema(options.what), indent=1))
    return 0


def doctor(options: argparse.Namespace) -> int:
    from perceptkit.train.doctor import diagnose

    lines, healthy = diagnose()
    print("\n".join(lines))
    return 0 if healthy else 1


if __name__ == "__main__":
    sys.exit(main())
