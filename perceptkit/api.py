"""The verbs of the command line, for Python. Each imports what it needs when it is called.

    import perceptkit as pk
    run = pk.train("tasks/indoor.yaml", recipe="recipes/adashare.yaml", out="runs/indoor")
    model = pk.load("runs/indoor")
    result = model.predict("img.jpg")

Tasks files and recipes that ship with the package go by their names: pk.train("scenes", recipe="quickstart").
"""

from __future__ import annotations

import json
import tempfile
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from perceptkit.errors import ExportError, PerceptkitError, SpecError
from perceptkit.spec.adaptation import AdaptationSpec
from perceptkit.spec.check_files import check_files
from perceptkit.spec.check_report import CheckReport
from perceptkit.spec.export import ExportSpec
from perceptkit.spec.load import LoadedRecipe, LoadedTasks, load_both, load_recipe, load_tasks
from perceptkit.spec.overrides import keys_of_section, split_overrides
from perceptkit.spec.tasks_file import Split, TasksFile

if TYPE_CHECKING:
    from torch import nn

    from perceptkit.compact.artifact import Manifest
    from perceptkit.runtime.index import Index
    from perceptkit.runtime.pictures import Picture
    from perceptkit.runtime.predictor import Predictor
    from perceptkit.runtime.variants import Variant
    from perceptkit.train.session import Specs

DEFAULT_RECIPE = "adashare"
PICTURES = 200
"""To calibrate on, where nobody says how many."""


@dataclass(frozen=True)
class Run:
    """A finished run folder."""

    path: Path

    @property
    def results(self) -> dict[str, Any]:
        """results.json: metrics on the test split, of the run and of the best constant predictor."""
        loaded: dict[str, Any] = json.loads((self.path / "results.json").read_text(encoding="utf-8"))
        return loaded

    @property
    def cost(self) -> dict[str, Any]:
        """cost.json: parameters and MACs of the compact model and of what it replaces."""
        loaded: dict[str, Any] = json.loads((self.path / "cost.json").read_text(encoding="utf-8"))
        return loaded


def load_specs(
    tasks: str | Path, recipe: str | Path | None, overrides: Sequence[str] = ()
) -> tuple[LoadedTasks, LoadedRecipe]:
    """Both files, validated. Raises SpecError with every problem of both."""
    return load_both(tasks, recipe or DEFAULT_RECIPE, overrides)


def check(
    tasks: str | Path,
    recipe: str | Path | None = None,
    overrides: Sequence[str] = (),
    everything: bool = False,
    progress: bool = False,
) -> CheckReport:
    """Validates the files and the data they point to; starts nothing and does not load torch.

    Args:
        everything: open every picture and label file instead of a sample.
        progress: show bars on stderr while files are read.

    Raises:
        SpecError: with all problems of the YAML files.
    """
    loaded, _ = load_specs(tasks, recipe, overrides)
    return check_files(loaded, everything=everything, progress=progress)


def train(
    tasks: str | Path | None = None,
    recipe: str | Path | None = None,
    out: str | Path | None = None,
    overrides: Sequence[str] = (),
    resume: bool = False,
    dry_run: bool = False,
    quiet: bool = False,
) -> Run:
    """Trains, tests once, and writes the compact artifact.

    Args:
        tasks: tasks file, or the name of one that ships with the package. Not needed with `resume`.
        recipe: recipe file or name; `adashare` by default, with `resume` that of the run.
        out: the run folder; `runs/NAME` by default.
        overrides: `key=value` strings, as for `--set`.
        resume: continue the run in `out`; where the run that it started from was moved, with `start_from=PATH` in
            `overrides`.
        dry_run: a few steps of every stage and the artifact, in a temporary folder that is removed.

    Raises:
        SpecError, DataError: what was declared cannot be trained.
        ResumeError: `out` cannot be continued.
    """
    from perceptkit.train import session

    if resume and tasks is None:
        if out is None:
            raise SpecError("--resume needs the run folder: --out DIR")
        moved = [change for change in overrides if change.startswith("start_from=")]
        if recipe is not None or len(moved) < len(overrides):
            raise SpecError(
                "--resume goes on with the run's own settings; drop --recipe and --set, "
                "or name the tasks file too, and what differs is listed"
            )
        specs = specs_of_run(Path(out))
        if moved:  # the base was: nothing else may change
            base = str(Path(moved[-1].partition("=")[2]).absolute())
            specs = replace(specs, recipe=specs.recipe.model_copy(update={"start_from": base}))
    elif tasks is None:
        raise SpecError("which tasks? give a tasks file or one of the names of `perceptkit list tasks`")
    else:
        typed = Path(out) / "recipe.yaml" if resume and out is not None else None
        if recipe is None and typed is not None and typed.is_file():
            recipe = typed
        loaded, how = load_specs(tasks, recipe, overrides)
        specs = _specs_of(loaded, how)
        if recipe == typed and not overrides and out is not None:  # what --set changed then still holds
            specs = replace(specs, recipe=specs_of_run(Path(out)).recipe)
    if dry_run:
        with tempfile.TemporaryDirectory(prefix="perceptkit-") as folder:
            return train_and_compact(session.shrink(specs), Path(folder) / "run", resume=False, quiet=quiet)
    path = Path(out) if out is not None else Path("runs") / specs.tasks.name
    return train_and_compact(specs, path, resume, quiet)


def sweep_budgets(
    tasks: str | Path,
    budgets: Sequence[float],
    recipe: str | Path | None = None,
    out: str | Path | None = None,
    overrides: Sequence[str] = (),
    resume: bool = False,
    quiet: bool = False,
    say: Callable[[str], None] = lambda line: None,
) -> list[Run]:
    """Trains a run for each budget, and writes the curve of accuracy over cost: sweep.json, sweep.md, sweep.png.

    Args:
        tasks: tasks file, or the name of one that ships with the package.
        budgets: of the recipe's own kind (`macs`, `params`, ...); parts of the MACs of a hard-shared pass where it has
            no section `budget`.
        recipe: recipe file or name; `adashare` by default.
        out: folder of the sweep; `runs/NAME` by default. The runs are in OUT/KIND_BUDGET; what they have in common, the
            warm-up, is trained once, in OUT/warmup.
        overrides: `key=value` strings, as for `--set`.
        resume: goes on with the sweep in `out`: what is finished is not trained again, and budgets may be added.
        say: is told of each budget that no plan can meet, with the smallest that one can. The others are trained, and
            the curve lists it.

    Returns:
        The runs, in the order of `budgets`, without those that cannot be.

    Raises:
        SpecError, DataError: what was declared cannot be trained, or no plan can meet any of the budgets.
        ResumeError: a run in `out` was started with other settings.
    """
    from perceptkit.report import budget_curve
    from perceptkit.report.grid import markdown
    from perceptkit.train import run_folder, session, sweeping

    sweeping.refuse_budgets(budgets)
    before = load_specs(tasks, recipe, overrides)[1].spec.budget
    kind = before.kind if before is not None else "macs"
    place = {"device": before.device} if before is not None and before.device is not None else {}
    declared = {}
    for budget in budgets:
        section = json.dumps({kind: budget, **place})
        declared[f"{kind}_{budget:g}"] = _specs_of(
            *load_specs(tasks, recipe, [*overrides, f"budget={section}"])
        )
    first = next(iter(declared.values()))
    folder = Path(out) if out is not None else Path("runs") / first.tasks.name
    sweeping.refuse_used(folder, list(declared), resume)
    fabric = session.make_fabric(first.recipe)
    left_out = sweeping.out_of_reach(declared, folder, fabric, say)
    names = [name for name in declared if left_out is None or name not in left_out.budgets]
    open_runs = [name for name in names if not run_folder.is_finished(folder / name)]
    warmup = sweeping.share_warmup(first, folder, quiet) if open_runs else None
    for name in open_runs:
        specs, path = declared[name], folder / name
        begun = (path / "resolved.yaml").is_file()
        if not begun and warmup is not None:
            sweeping.begin_after(warmup, specs, path, fabric)
        train_and_compact(specs, path, resume=begun or warmup is not None, quiet=quiet)
    if fabric.global_rank == 0:
        curve = budget_curve.read_curve([folder / name for name in names])
        if left_out is not None:
            curve = replace(curve, unreached=tuple(sorted(left_out.budgets.values())), least=left_out.least)
        run_folder.write_json(folder / "sweep.json", budget_curve.as_json(curve))
        run_folder.write_text(folder / "sweep.md", markdown(budget_curve.as_table(curve)))
        budget_curve.write_plot(curve, folder / "sweep.png")
    return [Run(folder / name) for name in names]


def adapt(
    base: str | Path,
    tasks: str | Path,
    method: str | None = None,
    recipe: str | Path | None = None,
    out: str | Path | None = None,
    overrides: Sequence[str] = (),
    dry_run: bool = False,
    quiet: bool = False,
    say: Callable[[str], None] = lambda line: None,
) -> Run:
    """Adapts a trained network to another domain; what comes out is a run as any other.

    Args:
        base: a finished run; its backbone, heads and sharing are kept.
        tasks: tasks file of the new domain; its tasks may be others.
        method: one of spec/adaptation.py; the recipe's by default (`spottune` in recipe `adapt`). `auto` trains the
            cheap ones for a fifth of the epochs, those of which little learns with two learning rates, and goes on with
            the best on val; `adaptation.KEY=VALUE` in `overrides` then goes to those that read the key.
        recipe: recipe file or name; `adapt` by default.
        out: the run folder; `runs/NAME` by default.
        overrides: `key=value` strings, as for `--set`.
        dry_run: a few steps and the artifact, in a temporary folder that is removed.
        say: is told how `auto` chose.

    Raises:
        SpecError, DataError: what was declared cannot be adapted to.
    """
    from perceptkit.train.auto_method import candidates, choose_method
    from perceptkit.train.session import shrink

    recipe = recipe or "adapt"
    own, tried = _adaptation_in(recipe), None
    if method == "auto":
        keys, overrides = keys_of_section(overrides, "adaptation")
        tried = candidates(keys, own)
    given = [*_as_the_base(Path(base)), *overrides]
    named = method if method != "auto" else "finetune"
    if named is not None and (own is None or named != own.method):
        given = [f"adaptation={{method: {named}}}", *given]
    loaded, how = load_specs(tasks, recipe, given)
    specs = _specs_of(loaded, how)
    if dry_run:
        with tempfile.TemporaryDirectory(prefix="perceptkit-") as folder:
            return train_and_compact(shrink(specs), Path(folder) / "run", resume=False, quiet=quiet)
    path = Path(out) if out is not None else Path("runs") / specs.tasks.name
    if method == "auto":
        specs = replace(specs, recipe=choose_method(specs, path, say, tried))
    return train_and_compact(specs, path, resume=False, quiet=quiet)


def _specs_of(loaded: LoadedTasks, how: LoadedRecipe) -> Specs:
    from perceptkit.train.session import Specs

    return Specs(loaded.spec, how.spec, loaded.text, how.text)


def _adaptation_in(recipe: str | Path) -> AdaptationSpec | None:
    """What a recipe says by itself, so that its other keys of that method stay; None where it cannot stand alone."""
    try:
        return load_recipe(recipe).spec.adaptation
    except SpecError:
        return None


def _as_the_base(base: Path) -> list[str]:
    """What a recipe must say to adapt a run, as overrides. Raises SpecError where there is no run."""
    from perceptkit.errors import ResumeError

    run = next((p for p in (base, base.parent) if (p / "resolved.yaml").is_file()), base)
    try:
        recipe = specs_of_run(run).recipe
    except ResumeError as error:
        raise SpecError(f"{base} is no run to adapt: {error}") from error
    given = {
        "start_from": str(run.absolute()),
        "backbone": recipe.backbone.model_dump(mode="json") | {"weights": "none"},
        "heads": {"channels": recipe.heads.channels},
        # what was not chosen is left out: a method refuses keys that only another one reads
        "sharing": {"method": recipe.sharing.method}
        | recipe.sharing.model_dump(mode="json", exclude_defaults=True),
    }
    return [f"{key}={json.dumps(value)}" for key, value in given.items()]


def domains(path: str | Path) -> list[str]:
    """Names of the domains of a run, an artifact or a folder of domains."""
    from perceptkit.compact.domains import domain_names
    from perceptkit.runtime.load import domains_folder

    return domain_names(domains_folder(Path(path)))


def add_domain(path: str | Path, run: str | Path, name: str | None = None) -> str:
    """Adds what an adapted run stores to the artifact of its base, or to a folder for domains alone.

    Args:
        path: a run, an artifact, or a folder that may not exist yet.
        run: what `adapt` wrote.
        name: of the domain; that of its tasks file by default.

    Returns:
        The name.

    Raises:
        SpecError: no such run, another base, or a name that is taken.
    """
    from perceptkit.compact.domains import add_domain as add
    from perceptkit.errors import ResumeError
    from perceptkit.runtime.load import domains_folder

    try:
        name = name or specs_of_run(Path(run)).tasks.name
    except ResumeError as error:
        raise SpecError(str(error)) from error
    add(domains_folder(Path(path)), Path(run), name)
    return name


def remove_domain(path: str | Path, name: str) -> None:
    """Deletes a domain. Raises SpecError where there is none of this name."""
    from perceptkit.compact.domains import remove_domain as remove
    from perceptkit.runtime.load import domains_folder

    remove(domains_folder(Path(path)), name)


def train_and_compact(specs: Specs, path: Path, resume: bool, quiet: bool) -> Run:
    """The run and then, in one process only, its artifact and what the recipe exports."""
    from perceptkit.baselines.sharing.tree import TreeNet
    from perceptkit.compact.artifact import WEIGHTS, Manifest, read_manifest
    from perceptkit.compact.build import write_artifact
    from perceptkit.compact.export_onnx import needs_packages
    from perceptkit.spec.sharing_options import structural
    from perceptkit.train import session
    from perceptkit.train.stage_record import record_file

    if any(wanted.format == "onnx" for wanted in specs.recipe.export):
        needs_packages()  # now, not when all is trained
    training = session.train(specs, path, resume, quiet)
    run = Run(path)
    if training.fabric.global_rank == 0:
        options = structural(specs.recipe.sharing.model_dump(exclude_none=True))
        if specs.recipe.sharing.method == "fafs" and isinstance(training.supernet, TreeNet):  # perhaps found
            options["tree"] = training.supernet.tree.to_lists()
        manifest = Manifest(
            name=specs.tasks.name,
            backbone=specs.recipe.backbone,
            heads=specs.recipe.heads,
            tasks=training.tasks,
            plan=training.plan,
            method=specs.recipe.sharing.method,
            batchnorm=specs.recipe.sharing.batchnorm,
            size_HW=specs.tasks.first.size,
            mean=training.supernet.mean,
            std=training.supernet.std,
            fit=getattr(specs.tasks.first, "fit", "stretch"),
            cost=run.cost,
            metrics=run.results["tasks"],
            router=specs.recipe.router if training.routing else None,
            policies=training.routing.usual if training.routing else (),
            host=training.host_plan,
            options=options,
        )
        router = training.routing.router if training.routing else None
        write_artifact(path / "artifact", training.supernet, manifest, router)
        routing = specs.recipe.routing
        if manifest.host is not None and routing is not None and routing.measure_latency:
            _measure_briefly(path, specs.tasks, training.fabric.device.type)
        written = read_manifest(path / "artifact").size["macs"] if router is None else None
        record_file(path, path / "artifact" / WEIGHTS, written)
    training.fabric.barrier()
    if training.fabric.global_rank == 0:
        for wanted in specs.recipe.export:
            _export_as_asked(path, wanted, training.routing is not None, training.say)
    return run


def _export_as_asked(run: Path, wanted: ExportSpec, is_routed: bool, say: Callable[[str], None]) -> None:
    """One export of a recipe; its record tells the metrics on val too, by the files themselves.

    Raises ExportError where it cannot be made, with what is to be done now that the run is over.
    """
    from perceptkit.compact.exported import as_text
    from perceptkit.compact.parity_file import amend, recorded

    choices = wanted.model_dump(exclude=set() if is_routed else {"dynamic_skip"})  # nothing is left to decide
    files: list[Path] = []
    try:
        export(run, **choices, wrote=files.append, warn=lambda line: say(f"warning: {line}"))
        for file in files:
            if "accuracy" not in recorded(file):  # else it was measured already
                amend(file, {"val": evaluate(file, split="val")})
            say(as_text(file))
    except PerceptkitError as error:
        raise ExportError(
            f"the run is finished and {run / 'artifact'} is written, but an export failed: {error}\n"
            f"when that is mended: perceptkit export {run} --format {wanted.format}"
        ) from error


def _measure_briefly(run: Path, tasks_file: TasksFile, device: str) -> None:
    """Writes routing_latency.json: what skips beside the network that it was made from, on pictures of the test split.

    Of a model that became static too: it skips the same blocks for every picture.
    """
    from torch import cat

    from perceptkit.compact import build
    from perceptkit.compact.routed import RoutedNet
    from perceptkit.report.routing_file import BRIEF
    from perceptkit.runtime.benchmark import machine
    from perceptkit.runtime.routed_latency import BRIEF_PICTURES, brief_latency, static_latency
    from perceptkit.train.evaluate_model import sample_images
    from perceptkit.train.run_folder import write_json

    network, m = build.read(run / "artifact")
    images = cat(list(sample_images(tasks_file, "test", m.size_HW, m.mean, m.std, BRIEF_PICTURES)))
    host = build.host_network(m)
    if isinstance(network, RoutedNet):
        found = brief_latency(network, images, device, policies=m.policies, host=host)
    else:
        found = static_latency(network, host, images, device)
    write_json(run / BRIEF, found | {"machine": machine(device)})


def specs_of_run(path: Path) -> Specs:
    """The specs a run was started with."""
    from perceptkit.train import run_folder
    from perceptkit.train.session import Specs

    tasks, recipe = run_folder.read_resolved(path)
    tasks_text, recipe_text = (
        (path / name).read_text(encoding="utf-8") for name in ("tasks.yaml", "recipe.yaml")
    )
    return Specs(tasks, recipe, tasks_text, recipe_text)


def load(
    path: str | Path,
    device: str | None = None,
    precision: str = "auto",
    cuda_graphs: bool = False,
    threads: int | None = None,
    executor: str = "auto",
    domain: str | None = None,
    tasks: Sequence[str] | None = None,
) -> Predictor:
    """A model to run: from a run, an artifact or an exported `.onnx` or `.pt2` file.

    Args:
        path: what `train` or `export` wrote.
        device: `cpu`, `cuda`, ...; CUDA where there is one by default.
        precision: `auto` (bf16 on CUDA that has it), `32`, `bf16` or `fp16`; fixed in an exported file.
        cuda_graphs: replay recorded kernels; for small batches on CUDA.
        threads: of the CPU.
        executor: of an artifact with a router, how it skips: `auto`, `mask`, `branch`, `gather`, `segments`, `group` or
            `codebook`.
        domain: which of the domains that were added to an artifact; the artifact's own model by default.
        tasks: those that are to be answered; then nothing but their own paths is loaded and runs. All by default.

    Raises:
        SpecError: there is nothing that can be loaded at `path`, or not so.
        ExportError: what is there is damaged.
    """
    from perceptkit.runtime.load import load as load_predictor

    return load_predictor(path, device, precision, cuda_graphs, threads, executor, domain, tasks)


def index(
    model: Predictor | str | Path,
    pictures: str | Path | Iterable[Picture],
    task: str | None = None,
    batch: int = 8,
) -> Index:
    """A gallery to search for the pictures most like another one: `index(model, "photos/").search("a.jpg", k=5)`.

    Args:
        model: what `load` gave, or what it takes.
        pictures: a folder, a glob, pictures as `predict` takes them, or the `.safetensors` file of an index that was
            saved: `index.save("gallery.safetensors")`.
        task: which embedding of the model; may be left out where there is one.
        batch: pictures in one pass.

    Raises:
        SpecError: the model has no such embedding, or the saved index is of another model.
        DataError: there is no picture, one cannot be read, or the file is no index.
    """
    from perceptkit.runtime.index import SUFFIX, make_index, open_index

    model = load(model) if isinstance(model, str | Path) else model
    if isinstance(pictures, str | Path) and Path(pictures).suffix == SUFFIX:
        return open_index(model, pictures, task)
    return make_index(model, pictures, task, batch)


def build(tasks: str | Path, recipe: str | Path | None = None, overrides: Sequence[str] = ()) -> nn.Module:
    """The network a recipe describes, with its initial weights: forward(image) -> {task: output}."""
    from perceptkit.compact.network import compact
    from perceptkit.model.plan import Plan
    from perceptkit.tasks.table import build_tasks
    from perceptkit.train.session import make_supernet

    loaded, how = load_specs(tasks, recipe, overrides)
    data = loaded.spec.first
    network = make_supernet(how.spec, build_tasks(loaded.spec), data.size, data.mean, data.std)
    plan = Plan.all_keep(list(loaded.spec.tasks), [block.name for block in network.blocks])
    return compact(network, plan)


def evaluate(
    path: str | Path,
    data: str | Path | None = None,
    split: Split = "test",
    overrides: Sequence[str] = (),
    domain: str | None = None,
) -> dict[str, dict[str, float]]:
    """Metrics of a run, an artifact or an exported model on a split, by task.

    Tasks that only the model or only the data have are left out.

    Args:
        path: what to evaluate.
        data: tasks file with the data; by default that of the run `path` belongs to.
        split: train, val or test.
        domain: which of the domains that were added to an artifact; it needs `data`.

    Raises:
        SpecError: `data` and the model have no task in common, or different ones under the same name.
    """
    from torch import inference_mode

    from perceptkit.train.evaluate_model import evaluate_forward

    if domain is not None and data is None:
        raise SpecError(
            f"{path} was trained on other data than its domain {domain}: say which with --data TASKS"
        )
    tasks_file = data_of(Path(path), data, overrides)
    model = load(path, device="cpu", domain=domain)
    manifest = model.manifest
    with inference_mode():
        return evaluate_forward(
            model.forward, model.tasks, manifest.size_HW, manifest.mean, manifest.std, tasks_file, split
        )


def data_of(path: Path, data: str | Path | None, overrides: Sequence[str] = ()) -> TasksFile:
    """The tasks file `data`, or that of the run `path` belongs to. Raises SpecError where there is neither."""
    if data is not None:
        return load_tasks(data, split_overrides(overrides)[0]).spec
    if overrides:
        raise SpecError("--set changes the tasks file of --data; say which")
    run = next((p for p in (path, *path.absolute().parents) if (p / "resolved.yaml").is_file()), None)
    if run is None:
        raise SpecError(f"{path} belongs to no run folder: say which data with --data TASKS")
    return specs_of_run(run).tasks


def export(
    path: str | Path,
    out: str | Path | None = None,
    format: str = "onnx",
    precision: str = "32",
    int8: bool = False,
    per_task: bool = False,
    data: str | Path | None = None,
    pictures: int | None = None,
    split: Split = "val",
    device: str = "cpu",
    optimize: str | None = None,
    dynamic_skip: str | None = None,
    policies: int | None = None,
    nearest: bool = False,
    max_drop: float | None = None,
    wrote: Callable[[Path], None] | None = None,
    warn: Callable[[str], None] | None = None,
) -> Path:
    """Writes a run or an artifact in another format, after proving that it computes the same.

    Args:
        path: run or artifact.
        out: file or folder to write; inside the run's exports/ by default, under a name that holds the choices
            below: model_size_int8.onnx.
        format: `artifact`, `torch`, `aoti` or `onnx`.
        precision: `32`, `bf16` or `fp16`: what the file computes in. Where there are data, the metrics of every task
            in float32 and in the file are written to parity.json.
        int8: 8 bits by static calibration (`onnx`): not the same function, so the metrics of every task before
            and after are written to parity.json.
        per_task: a model of its own for each task, model_TASK; `out` is a folder then.
        data: for int8, bf16, fp16 and dynamic_skip, the tasks file; by default that of the run `path` belongs to.
        pictures: for int8 and codebooks, how many of the training split to calibrate on; 200 by default. Files of
            dynamic_skip are timed on as many others, 32 at most.
        split: for int8, bf16, fp16 and codebooks that drop blocks, which split to measure on; of dynamic_skip, to time.
        device: what `aoti` compiles for.
        optimize: `latency` or `size`; as the model was written by default (`latency` after training).
        dynamic_skip: for a model with a router (`onnx`), how it skips: `branch` (one picture at a time), `gather`
            (batches) or `codebook` (a folder: the router and a few networks without choice).
        policies: of a codebook, how many networks at most; 8 by default. They are chosen on the pictures.
        nearest: of a codebook, whether a picture may lose blocks that its router keeps. The metrics of every task by
            the router's own decisions and by the codebook are then written to parity.json, as they are for a codebook
            of one, which has no other block than the pictures keep.
        max_drop: for int8, bf16, fp16 and such codebooks, by how many percent of its primary metric before a task may
            be worse; 5 by default. Beyond it the file is written, a warning given, and its record says `"ok": false`.
            Heads that lose too much in int8 are left in float first.
        wrote: is told of each file or folder as soon as it is there.
        warn: is told of each task that lost more than `max_drop`; Python's warnings by default.

    Returns:
        What was written; with `per_task` the folder with all of it.

    Raises:
        SpecError: an unknown or impossible choice.
        ExportError: the result does not compute what it should; nothing was written.
    """
    from perceptkit.compact.export import FORMATS, file_name, find_format
    from perceptkit.compact.parity_file import recorded
    from perceptkit.compact.per_task import single_task
    from perceptkit.compact.quality import MAX_DROP, check_max_drop, warnings_of
    from perceptkit.compact.routed import refuse_routed
    from perceptkit.runtime.predictor import Predictor

    find_format(format)
    if int8 and (format != "onnx" or precision != "32"):
        raise SpecError("--int8 goes with --format onnx, and is a precision of its own")
    if dynamic_skip is not None:
        _check_dynamic(dynamic_skip, format, precision, int8, per_task, device)
    if policies is not None and dynamic_skip != "codebook":
        raise SpecError("--policies is of --dynamic-skip codebook")
    if nearest and dynamic_skip != "codebook":
        raise SpecError("--nearest is of --dynamic-skip codebook")
    for flag, given in (("--pictures", pictures), ("--data", data)):
        measured = flag == "--data" and precision != "32"
        if given is not None and not (int8 or measured) and dynamic_skip is None:
            raise SpecError(
                f"{flag} is for --int8 and --dynamic-skip, which run pictures; {format} alone does not"
            )
    drops = nearest or (dynamic_skip == "codebook" and policies == 1)
    if max_drop is not None and not int8 and precision == "32" and not drops:
        raise SpecError(
            "--max-drop is for --int8 and --precision bf16 or fp16, and for codebooks with --nearest or of one policy: "
            "their metrics are compared"
        )
    max_drop = check_max_drop(MAX_DROP if max_drop is None else max_drop)
    pictures = PICTURES if pictures is None else pictures
    if (
        per_task
        and out is not None
        and (suffix := Path(out).suffix) in {Path(f.file).suffix for f in FORMATS.values()} - {""}
    ):
        raise SpecError(
            f"--per-task writes a file for each task: --out is a folder, and {out} ends in {suffix}"
        )
    if int8 and pictures < 1:
        raise SpecError("int8 needs pictures to calibrate on: --pictures must be at least 1")
    if pictures < 0:
        raise SpecError(f"--pictures must be 0 or more, not {pictures}")
    path, marks = Path(path), [optimize] if optimize is not None else []  # else one would overwrite the other
    skipping = [] if dynamic_skip in (None, "codebook") else [dynamic_skip]
    marks += ["int8"] if int8 else [precision] if precision != "32" else skipping
    if path.is_file():
        raise SpecError(f"{path} is an exported file already; export its run or artifact")
    tasks_file, no_data = _data_to_compare_on(path, data, int8) if int8 or precision != "32" else (None, "")
    model = load(path, device="cpu")
    if optimize is not None:
        model = model.optimized(optimize)

    def tell(to: Path) -> None:
        if wrote is not None:
            wrote(to)
        for line in warnings_of(recorded(to)):
            if warn is not None:
                warn(line)
            else:
                warnings.warn(f"{to}: {line}", stacklevel=3)

    if dynamic_skip is not None:
        name = "_".join(["codebook", *marks]) if dynamic_skip == "codebook" else file_name(format, *marks)
        to = Path(out) if out else path / "exports" / name
        _export_dynamic(model, to, dynamic_skip, path, data, pictures, policies, nearest, split, max_drop)
        tell(to)
        return to
    if per_task or int8:
        refuse_routed(model.exportable(), "--per-task" if per_task else "--int8")

    def write(model: Predictor, to: Path) -> None:
        if int8:
            assert tasks_file is not None
            _export_int8(model, to, tasks_file, pictures, split, max_drop)
        else:
            if tasks_file is not None:
                from perceptkit.train.evaluate_model import declared_tasks  # loads what training needs

                declared_tasks(model.tasks, tasks_file)  # refused before a minute is spent
            model.export(to, format, precision, device)
            if precision != "32":
                where = device if format == "aoti" else "cpu"
                _compare_metrics(
                    model, to, precision, where, tasks_file, no_data, split, max_drop, data is None
                )
        tell(to)

    if not per_task:
        to = Path(out) if out else path / "exports" / file_name(format, *marks)
        write(model, to)
        return to
    folder = Path(out) if out else path / "exports"
    for task in model.tasks:
        network, manifest = single_task(model.exportable(), model.manifest, task)
        write(Predictor(manifest, network, network), folder / file_name(format, task, *marks))
    return folder


def _data_to_compare_on(path: Path, data: str | Path | None, needed: bool) -> tuple[TasksFile | None, str]:
    """As `data_of`; or None and why, where they are not `needed` and nobody named any."""
    try:
        return data_of(path, data), ""
    except SpecError as error:
        if needed or data is not None:
            raise
        return None, str(error).splitlines()[0]


def _compare_metrics(
    model: Predictor,
    to: Path,
    precision: str,
    device: str,
    tasks_file: TasksFile | None,
    no_data: str,
    split: Split,
    max_drop: float,
    may_fail: bool,
) -> None:
    """Adds to the record of a file of 16 bits the metrics of every task in float32 and in the file, or why not.

    `may_fail`: the data are the run's own, which may have been moved: the file is proved without them.
    """
    from torch import inference_mode

    from perceptkit.compact.parity_file import amend
    from perceptkit.compact.quality import compared
    from perceptkit.compact.verify import Forward
    from perceptkit.train.evaluate_model import evaluate_forward

    if tasks_file is None:
        amend(to, {"not_measured": no_data})
        return
    m, file = model.manifest, tasks_file

    def measure(forward: Forward) -> dict[str, dict[str, float]]:
        with inference_mode():
            return evaluate_forward(forward, model.tasks, m.size_HW, m.mean, m.std, file, split)

    try:
        before = measure(model.forward)
    except PerceptkitError as error:
        if not may_fail:
            raise
        amend(to, {"not_measured": str(error).splitlines()[0]})
        return
    after = measure(load(to, device=device).forward)
    amend(
        to, {"measured_on": split, **compared(before, after, model.tasks, ("float32", precision), max_drop)}
    )


def _export_int8(
    model: Predictor, to: Path, tasks_file: TasksFile, pictures: int, split: Split, max_drop: float
) -> None:
    from torch import inference_mode

    from perceptkit.compact.quantize import export_int8
    from perceptkit.compact.verify import Forward
    from perceptkit.train.evaluate_model import declared_tasks, evaluate_forward, sample_images

    m = model.manifest
    declared_tasks(model.tasks, tasks_file)  # refused before a minute is spent

    def measure(forward: Forward) -> dict[str, dict[str, float]]:
        with inference_mode():
            return evaluate_forward(forward, model.tasks, m.size_HW, m.mean, m.std, tasks_file, split)

    images = list(sample_images(tasks_file, "train", m.size_HW, m.mean, m.std, pictures))
    told = {"calibrated_on": {"split": "train", "pictures": sum(map(len, images))}, "measured_on": split}
    export_int8(model.exportable(), m, to, images, measure, told, max_drop)


def _check_dynamic(how: str, format: str, precision: str, int8: bool, per_task: bool, device: str) -> None:
    """Raises SpecError for what does not go with --dynamic-skip."""
    from perceptkit.compact.export_dynamic import check_dynamic

    check_dynamic(how)
    if format != "onnx":
        raise SpecError(
            f"--dynamic-skip writes onnx, not {format}: torch's own programs run branches slowly or, compiled, wrong"
        )
    if int8 or precision != "32":
        raise SpecError("--dynamic-skip computes in float32; drop --int8 and --precision")
    if per_task:
        raise SpecError("--dynamic-skip writes one model for all tasks; drop --per-task")
    if device != "cpu":
        raise SpecError("--device is for aoti; an ONNX file runs on any device")


def _export_dynamic(
    model: Predictor,
    to: Path,
    how: str,
    path: Path,
    data: str | Path | None,
    pictures: int,
    policies: int | None,
    nearest: bool,
    split: Split,
    max_drop: float,
) -> None:
    """The file or folder, and in its record what it saves on calibration pictures, where there are any.

    Of a codebook that drops blocks, its metrics beside those of the router's own decisions too.
    """
    from torch import inference_mode

    from perceptkit.compact.build import host_network
    from perceptkit.compact.export_dynamic import POLICIES, export_dynamic, write_static
    from perceptkit.compact.parity_file import amend, recorded
    from perceptkit.compact.quality import OWN_DECISIONS, compared
    from perceptkit.compact.routed import RoutedNet
    from perceptkit.runtime.skip_speed import MOST, skip_speed
    from perceptkit.train.evaluate_model import declared_tasks, evaluate_forward, sample_images

    m, network = model.manifest, model.exportable()
    images: list[Any] = []
    others: list[Any] = []
    not_timed = "--pictures is 0"
    if isinstance(network, RoutedNet):  # else refused below, with advice
        try:
            tasks_file = data_of(path, data)
        except SpecError as error:
            if how == "codebook" or data is not None:
                raise
            not_timed = str(error).splitlines()[0]
        else:
            if nearest:
                declared_tasks(model.tasks, tasks_file)  # refused before a minute is spent
            # timed on others than a codebook is made for
            others = list(sample_images(tasks_file, split, m.size_HW, m.mean, m.std, min(pictures, MOST)))
            if how == "codebook":
                images = list(sample_images(tasks_file, "train", m.size_HW, m.mean, m.std, pictures))
    export_dynamic(network, m, to, how, images, POLICIES if policies is None else policies, nearest)
    if images:
        amend(to, {"calibrated_on": {"split": "train", "pictures": sum(map(len, images))}})
    if not others:
        amend(to, {"not_timed": not_timed})
        return
    if recorded(to).get("codebook", {}).get("may_drop"):
        with inference_mode():
            before, after = (
                evaluate_forward(forward, model.tasks, m.size_HW, m.mean, m.std, tasks_file, split)
                for forward in (model.forward, load(to, device="cpu").forward)
            )
        amend(to, {"measured_on": split, **compared(before, after, model.tasks, OWN_DECISIONS, max_drop)})
    assert isinstance(network, RoutedNet)
    with tempfile.TemporaryDirectory(prefix="perceptkit-") as folder:
        one = how == "branch"
        static = write_static(host_network(m), m, Path(folder) / "static.onnx", any_batch=not one)
        speed = skip_speed(to, static, others, network, batch=1 if one else 32)
    amend(to, {"speed": {"split": split, **speed}})


def benchmark(
    path: str | Path,
    batches: Sequence[int] = (1, 8, 32),
    rounds: int = 20,
    variants: Sequence[str] | None = None,
    out: str | Path | None = None,
    data: str | Path | None = None,
    split: Split = "test",
    baselines: Sequence[str | Path] = (),
    device: str = "cpu",
    say: Callable[[str], None] | None = None,
) -> Mapping[str, Any]:
    """Accuracy, parameters, MACs, file size, memory and latency of a model beside what it replaces.

    Exports the model in every format, runs all variants interleaved in one process, and writes
    `benchmark.json` and `benchmark.png`.

    Args:
        path: run or artifact.
        batches: pictures per call.
        rounds: timed calls of every variant.
        variants: some of `perceptkit.runtime.variants.TITLES`; all by default.
        out: folder for the two files and the exports; `benchmark/` inside `path` by default.
        data: tasks file with the data, for accuracy and int8; by default that of the run `path` belongs to.
        split: what accuracy is measured on.
        baselines: runs with sharing.method single or hard; their test results stand beside their rows.
        device: where torch runs.
        say: is told what comes next, a line each: it takes minutes.

    Raises:
        SpecError: `path` is neither, a variant is unknown, or `data`, `baselines` or `device` cannot be used.
    """
    from torch import cat

    from perceptkit.compact import build
    from perceptkit.compact.device import find_device
    from perceptkit.compact.routed import RoutedNet
    from perceptkit.compact.whole import WholeNet
    from perceptkit.report.benchmark_plot import write_benchmark_plot
    from perceptkit.runtime import benchmark as bench
    from perceptkit.runtime.load import artifact_folder
    from perceptkit.runtime.routed_latency import routed_latency
    from perceptkit.runtime.variants import COMPILED_MASK, EXPORTED, TITLES, open_variants
    from perceptkit.train.evaluate_model import sample_images
    from perceptkit.train.run_folder import write_json

    artifact = artifact_folder(Path(path))
    folder = Path(out) if out is not None else Path(path) / "benchmark"
    names = list(variants or TITLES)
    if unknown := [name for name in names if name not in TITLES]:
        raise SpecError(f"{unknown[0]!r} is not a variant; choose from {', '.join(TITLES)}")
    if min(*batches, rounds) < 1:
        raise SpecError("--batch and --rounds want numbers above 0")
    find_device(device)
    if say is None:
        say = _nothing
    of_baselines = baseline_accuracies(baselines)
    tasks_file = _data_to_measure_on(Path(path), data)
    files, left_out = {}, {}
    for name in [name for name in EXPORTED if name in names]:
        try:
            file, arguments = BENCHMARK_FILES[name]
            say(f"exporting {folder / file}")
            files[name] = export(path, folder / file, data=data, warn=say, **arguments)
        except PerceptkitError as error:
            left_out[name] = str(error).splitlines()[0]
    network, m = build.read(artifact)
    if isinstance(network, RoutedNet):
        left_out["compiled"] = COMPILED_MASK
        if tasks_file is None:
            left_out["compact"] = (
                "what it skips depends on the pictures, and there are none: --data says where"
            )
    if isinstance(network, WholeNet):
        left_out["passes"] = f"sharing.method {m.method} has no plan to run one task after the other along"
    left_out = {name: why for name, why in left_out.items() if name in names}
    ready = open_variants([n for n in names if n not in left_out], artifact, files, device)
    if not ready:
        raise SpecError(f"nothing to measure: {'; '.join(left_out.values())}")
    pictures = None
    if tasks_file is not None:
        pictures = cat(list(sample_images(tasks_file, split, m.size_HW, m.mean, m.std, TIMED_PICTURES)))
    found = bench.benchmark(
        ready, artifact, files, m.size_HW, batches, rounds, device, say=say, pictures=pictures
    )
    if isinstance(network, RoutedNet) and pictures is not None and "compact" in found["rows"]:
        found["routing_latency"] = routed_latency(
            network,
            pictures,
            batches,
            device=device,
            say=say,
            policies=m.policies,
            host=build.host_network(m),
        )
        found["rows"]["compact"]["macs"] = round(found["routing_latency"]["macs"])
    found["left_out"] = left_out
    found["accuracy"] = of_baselines if split == "test" else {}
    if tasks_file is not None:
        found["accuracy"] |= accuracies(ready, m, tasks_file, split, say)
        if "passes" in found["rows"] and "compact" in found["accuracy"] and m.router is None:
            # the network that the artifact was proved equal to, in another order of execution
            found["accuracy"]["passes"] = found["accuracy"]["compact"]
    found["split"] = split
    write_json(folder / "benchmark.json", found)
    write_benchmark_plot(found, folder / "benchmark.png")
    return found


TIMED_PICTURES = 200
"""Of the split, spread over it, that `benchmark` runs on."""
BENCHMARK_FILES: dict[str, tuple[str, dict[str, Any]]] = {
    "aoti": ("model.pt2", {"format": "aoti"}),
    "onnx": ("model.onnx", {"format": "onnx"}),
    "onnx_int8": ("int8/model.onnx", {"format": "onnx", "int8": True}),
}
"""By exported variant of a benchmark: its file and the arguments of `export`."""


def _nothing(line: str) -> None:
    """Says nothing."""


def _data_to_measure_on(path: Path, data: str | Path | None) -> TasksFile | None:
    """As `data_of`; None for an artifact far from its run, where there is nothing to measure on.

    Raises SpecError where the data do not go with the model: before minutes are spent.
    """
    from perceptkit.compact.artifact import read_manifest
    from perceptkit.runtime.load import artifact_folder
    from perceptkit.train.evaluate_model import declared_tasks

    try:
        tasks_file = data_of(path, data)
    except SpecError:
        if data is not None:
            raise
        return None
    declared_tasks(read_manifest(artifact_folder(path)).tasks, tasks_file)
    return tasks_file


def baseline_accuracies(baselines: Sequence[str | Path]) -> dict[str, dict[str, float]]:
    """By variant of a benchmark, the primary metrics that the one test of a trained baseline gave.

    Raises SpecError for what is no finished run of a baseline.
    """
    found = {}
    for baseline in baselines:
        try:
            results = Run(Path(baseline)).results
        except (OSError, ValueError) as error:
            raise SpecError(
                f"{baseline} is no finished run: it has no results.json that can be read"
            ) from error
        name = {"single": "single_nets", "hard": "hard_shared"}.get(results["method"])
        if name is None:
            raise SpecError(f"{baseline} is no baseline: its sharing.method is {results['method']}")
        tasks = results["tasks"]
        found[name] = {f"{t} {r['primary']}": r["metrics"][r["primary"]] for t, r in tasks.items()}
    return found


def accuracies(
    variants: Sequence[Variant],
    manifest: Manifest,
    tasks_file: TasksFile,
    split: Split,
    say: Callable[[str], None] = _nothing,
) -> dict[str, dict[str, float]]:
    """By variant with the model's own weights, its primary metrics on a split."""
    from torch import inference_mode

    from perceptkit.runtime.variants import TRAINED
    from perceptkit.train.evaluate_model import evaluate_forward

    m, found = manifest, {}
    for variant in variants:
        if variant.name in TRAINED:
            say(f"accuracy of {variant.name} on {split}")
            with inference_mode():
                metrics = evaluate_forward(
                    variant.forward, m.tasks, m.size_HW, m.mean, m.std, tasks_file, split
                )
            primary = {name: m.tasks[name].primary for name in metrics}
            found[variant.name] = {f"{name} {key}": metrics[name][key] for name, key in primary.items()}
    return found


def report(
    path: str | Path,
    baselines: Sequence[str | Path] = (),
    lesion: bool = False,
    say: Callable[[str], None] | None = None,
) -> Path:
    """Writes RUN/report.html, one self-contained page, and RUN/plots/. Returns the page's path.

    Args:
        path: a run folder.
        baselines: runs to stand beside it.
        lesion: first find out what is lost without which blocks, on val, which takes some hundred evaluations of at
            most `LESION_PICTURES` pictures; RUN/lesion.json keeps it for later pages.
        say: is told what is measured.

    Raises:
        SpecError: one of the paths is no run folder; or, of a lesion study, the run is not finished, was adapted,
            or is of a method without blocks that can be skipped: branch, fafs, cross_stitch, sluice, nddr, mtan.
    """
    from perceptkit.report.page import write_report

    if lesion:
        _study_lesions(Path(path), say or _nothing)
    return write_report(Path(path), [Path(b) for b in baselines])


LESION_PICTURES = 200
"""Of val, spread over it, that a lesion study looks at."""


def _study_lesions(run: Path, say: Callable[[str], None]) -> None:
    """Writes lesion.json, and affinity.json into a run from before there was one."""
    import torch

    from perceptkit.baselines.sharing.affinity import affinity_record
    from perceptkit.train.evaluate_model import sample_batches
    from perceptkit.train.lesion import lesion_study
    from perceptkit.train.run_folder import write_json
    from perceptkit.train.trained import read_trained

    trained = read_trained(run)
    network, file, recipe = trained.network, trained.tasks_file, trained.recipe
    batches = sample_batches(
        file, network.tasks, "val", network.size_HW, network.mean, network.std, LESION_PICTURES,
        recipe.loader.batch,
    )  # fmt: skip
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    found, quality_NK = lesion_study(
        network, trained.plan, batches, network.tasks, device, recipe.seed, say=say
    )
    write_json(run / "lesion.json", {"split": "val", "pictures": len(quality_NK), **found})
    if not (run / "affinity.json").exists():
        write_json(run / "affinity.json", affinity_record(quality_NK, list(network.tasks), "val"))


def compare(
    paths: Sequence[str | Path],
    baselines: Sequence[str | Path] = (),
    out: str | Path | None = None,
    latency: bool = False,
    say: Callable[[str], None] | None = None,
    counted: Mapping[str, Sequence[str]] | None = None,
) -> Mapping[str, Any]:
    """Runs side by side: every metric, delta-MTL, parameters, MACs, latency.

    Those that differ in seed only are one row.

    Args:
        paths: run folders.
        baselines: runs of single-task nets that delta-MTL refers to; by default those of `paths` whose method is
            `single`.
        out: folder for comparison.json, comparison.md and the plots; nothing is written by default.
        latency: measure it now, all models interleaved in this process; by default it is read from what `benchmark`
            wrote.
        say: is told what is measured.
        counted: by task the metrics that delta-MTL counts; by default all but those that `compat` adds.

    Returns:
        Plain data, as `perceptkit.report.comparison.compare` says; what was written is in `written`.

    Raises:
        SpecError: a path is no run folder, none is finished, a baseline is not one of single-task nets, or a metric
            that shall count is unknown.
    """
    from perceptkit.report import comparison

    folders, singles = [Path(p) for p in paths], [Path(b) for b in baselines]
    measured = None
    if latency:
        from perceptkit.runtime.side_by_side import latencies_ms

        comparison.compare(folders, singles, counted=counted)  # refused before anything is measured
        artifacts = {str(f): f / "artifact" for f in [*folders, *singles]}
        there = {name: path for name, path in artifacts.items() if (path / "manifest.json").is_file()}
        measured = {Path(name): ms for name, ms in latencies_ms(there, say=say or _nothing).items()}
    found = comparison.compare(folders, singles, measured, counted)
    return {**found, "written": _write_comparison(found, Path(out)) if out is not None else []}


def _write_comparison(found: Mapping[str, Any], folder: Path) -> list[str]:
    from perceptkit.report.comparison_plots import write_comparison_plots
    from perceptkit.report.comparison_tables import as_markdown
    from perceptkit.train.run_folder import write_json, write_text

    data, text = folder / "comparison.json", folder / "comparison.md"
    write_json(data, found)
    write_text(text, as_markdown(found))
    return list(map(str, [text, data, *write_comparison_plots(found, folder)]))


def summary(paths: Sequence[str | Path]) -> str:
    """Markdown: a table over finished runs with every metric, delta-MTL, parameters and MACs; then, of the first run,
    the router beside other rules, and what was adapted, where there are such."""
    from perceptkit.report.text import summary as text

    return text([Path(p) for p in paths])


def decathlon_score(accuracy: Mapping[str, float], baseline: Mapping[str, float] | None = None) -> float:
    """The Visual Decathlon score, 250 per domain for what is as good as full fine-tuning and 1000 at most.

    Args:
        accuracy: by domain, on the test split, in [0, 1].
        baseline: of full fine-tuning by domain, for domains of one's own; the challenge's by default.

    Raises:
        SpecError: a domain has no baseline, or a perfect one; an accuracy is not in [0, 1].
    """
    from perceptkit.report.decathlon import decathlon_score as score

    return score(accuracy, baseline)


def describe(
    tasks: str | Path, recipe: str | Path | None = None, overrides: Sequence[str] = ()
) -> Mapping[str, Any]:
    """What would be trained: both specs with every default, heads, losses, blocks, parameters, MACs, memory."""
    from perceptkit.train.describe import describe_specs

    loaded, how = load_specs(tasks, recipe, overrides)
    return describe_specs(loaded.spec, how.spec)


__all__ = [
    "PerceptkitError",
    "Run",
    "adapt",
    "add_domain",
    "benchmark",
    "build",
    "check",
    "compare",
    "decathlon_score",
    "describe",
    "domains",
    "evaluate",
    "export",
    "index",
    "load",
    "remove_domain",
    "report",
    "summary",
    "sweep_budgets",
    "train",
]
