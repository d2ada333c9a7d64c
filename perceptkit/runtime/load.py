"""Finds out what a path holds and gives a Predictor for it: the same one whatever it holds."""

from collections.abc import Sequence
from pathlib import Path

import torch

from perceptkit.compact import build, pt2_file
from perceptkit.compact.artifact import Manifest, parse_manifest
from perceptkit.compact.codebook_file import INDEX, CodebookModel
from perceptkit.compact.device import find_device
from perceptkit.compact.network import CompactNet, CompactNets
from perceptkit.compact.onnx_file import KEY, open_onnx
from perceptkit.compact.routed import RoutedNet
from perceptkit.compact.verify import Forward
from perceptkit.compact.whole import WholeNet
from perceptkit.errors import SpecError
from perceptkit.runtime.cuda_graphs import GraphedForward
from perceptkit.runtime.eager import on_device
from perceptkit.runtime.predictor import Predictor
from perceptkit.runtime.skipping import AUTO, SkippingForward, check_executor

EXPORTED = (".onnx", ".pt2")


def load(
    path: str | Path,
    device: str | None = None,
    precision: str = "auto",
    cuda_graphs: bool = False,
    threads: int | None = None,
    executor: str = AUTO,
    domain: str | None = None,
    tasks: Sequence[str] | None = None,
) -> Predictor:
    """A Predictor from a run folder, an artifact folder, a codebook or an exported `.onnx` or `.pt2` file.

    An AOTInductor package is machine code that runs when it is loaded: load none that you do not trust. All else is
    JSON, tensors and graphs; nothing is ever unpickled.

    Args:
        path: what `perceptkit train` or `perceptkit export` wrote.
        device: `cpu`, `cuda`, ...; CUDA where there is one by default, for a package what it was compiled for.
        precision: `auto`, `32`, `bf16` or `fp16`: what an artifact is computed in. `auto` is bf16 on CUDA that has
            it, float32 elsewhere. In an exported file it is fixed.
        cuda_graphs: replay recorded kernels; for small batches on CUDA.
        threads: of the CPU. For the torch formats that is torch's setting, which holds for the whole process.
        executor: of an artifact with a router, how it skips: `auto`, or one of runtime/skipping.py.
        domain: which of the domains that were added to an artifact; the artifact's own model by default.
        tasks: those that are to be answered; then nothing but their own paths is loaded and runs. All by default.

    Raises:
        SpecError: there is nothing that can be loaded at `path`, or not so.
        ExportError: what is there is damaged.
    """
    path = Path(path)
    if threads is not None and threads < 1:
        raise SpecError(f"threads must be at least 1, not {threads}")
    if domain is not None:
        path = domains_folder(path)
    is_exported = path.suffix in EXPORTED or (path / INDEX).is_file()
    if check_executor(executor) != AUTO and is_exported:
        raise SpecError(
            f"executors are for artifacts with a router; how {path} runs was fixed when it was exported"
        )
    if is_exported and tasks is not None:
        raise SpecError(
            f"{path} answers all of its tasks; export some alone with --per-task, or load its artifact"
        )
    if is_exported and precision != "auto":
        raise SpecError(f"the precision of {path} was fixed when it was exported; load it with 'auto'")
    if (path / INDEX).is_file():
        if cuda_graphs:
            raise SpecError(
                "cuda_graphs are for runs, artifacts and .pt2 files, not for a codebook of ONNX files"
            )
        book = CodebookModel(path, device, threads)
        return Predictor(parse_manifest(book.manifest, f"the manifest in {path / INDEX}"), book)
    if path.suffix == ".onnx":
        if cuda_graphs:
            raise SpecError("cuda_graphs are for runs, artifacts and .pt2 files, not for ONNX")
        forward, metadata = open_onnx(path, device, threads)
        if KEY not in metadata:
            raise SpecError(f"{path} was not exported by perceptkit: its metadata has no manifest")
        return Predictor(parse_manifest(metadata[KEY], f"the manifest in {path}"), forward)
    where = find_device(device)
    if threads is not None:
        torch.set_num_threads(threads)
    if path.suffix == ".pt2":
        manifest, forward = _exported(path, where if device else None)
        return Predictor(manifest, _graphed(forward, where) if cuda_graphs else forward)
    if domain is not None:
        from perceptkit.compact.domains import read_domain  # loads what training needs

        network, manifest = read_domain(path, domain)
    else:
        network, manifest = build.read(artifact_folder(path))
    if tasks is not None:
        network, manifest = some_tasks(network, manifest, tasks)
    if isinstance(network, RoutedNet):
        if cuda_graphs:
            raise SpecError(f"cuda_graphs replay the same kernels every time; {path} decides by picture")
    elif executor != AUTO:
        raise SpecError(f"executor {executor!r} is for artifacts with a router, and {path} has none")

    def place(network: torch.nn.Module, manifest: Manifest) -> Forward:
        if isinstance(network, RoutedNet):
            # a book may change results where it is asked for by name; under `auto` it never does
            book = manifest.policies if executor == AUTO and manifest.policies else None
            return SkippingForward(network, where, precision, executor, book)
        forward = on_device(network, where, precision)
        return _graphed(forward, where) if cuda_graphs else forward

    return Predictor(manifest, place(network, manifest), network, place)


def _graphed(forward: Forward, device: torch.device) -> Forward:
    if device.type != "cuda":
        raise SpecError(f"cuda_graphs need a CUDA device, not {device}")
    return GraphedForward(forward)


def _exported(path: Path, device: torch.device | None) -> tuple[Manifest, Forward]:
    kind, text = pt2_file.inspect(path)
    manifest = parse_manifest(text, f"the manifest in {path}")
    if kind == "aoti":
        return manifest, pt2_file.open_aoti(path, list(manifest.tasks), device)
    return manifest, pt2_file.open_torch(path, list(manifest.tasks), device or find_device(None))


def some_tasks(
    network: torch.nn.Module, manifest: Manifest, tasks: Sequence[str]
) -> tuple[torch.nn.Module, Manifest]:
    """The model of some of its tasks. Raises SpecError where it has none of these names, or where none is named."""
    if not tasks or set(tasks) - set(manifest.tasks):
        unknown = ", ".join(sorted(set(tasks) - set(manifest.tasks))) or "nothing"
        raise SpecError(f"{unknown} is no task of this model; it has {', '.join(manifest.tasks)}")
    assert isinstance(network, CompactNet | CompactNets | RoutedNet | WholeNet)
    return network.only(tasks), manifest.only(tasks)


def domains_folder(path: Path) -> Path:
    """Where the domains of a run or an artifact are. Raises SpecError for a file."""
    if path.is_file():
        raise SpecError(f"{path} is an exported model; domains belong to a run or an artifact")
    return path / "artifact" if (path / "artifact/manifest.json").is_file() else path


def artifact_folder(path: Path) -> Path:
    """The artifact at `path`, a run or the artifact itself. Raises SpecError where there is none."""
    folder = path if (path / "manifest.json").is_file() else path / "artifact"
    if (folder / "manifest.json").is_file():
        return folder
    if (path / "checkpoints").is_dir():
        raise SpecError(f"{path} is not finished: continue it with `perceptkit train --resume --out {path}`")
    if files := sorted(file.name for file in path.glob("*") if file.suffix in EXPORTED):
        raise SpecError(f"{path} holds {len(files)} exported models; name one: {', '.join(files[:8])}")
    if path.is_file():
        raise SpecError(f"{path} is no exported model: those end in {' or '.join(EXPORTED)}")
    raise SpecError(f"{path} is no run, no artifact and no exported model")
