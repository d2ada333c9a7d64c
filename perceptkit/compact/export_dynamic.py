"""Writes a model that decides by picture as ONNX that really skips, and proves it under many decisions.

    branch      one file, one picture at a time: an `If` for each routed block
    gather      one file, any batch: blocks run on the rows that keep them
    codebook    a folder: a router, and P networks without choice

What is written is read back by the code that `load` uses and compared with `RoutedNet.masked` under 16 tables of
decisions, all blocks and none among them, and under the router's own; other batches under the first few of these
tables. What fails never gets its name.

All take pictures of the model's own size: branches that may take any size take much longer to trace.
AOTInductor computed wrong results for such branches (torch 2.14.1), silently: it is not among the formats.

Shapes: B batch, N calibration pictures, R routed blocks.
"""

import copy
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor

from perceptkit.compact import parity_file
from perceptkit.compact.artifact import Manifest
from perceptkit.compact.build import keep_tables
from perceptkit.compact.codebook import make_codebook
from perceptkit.compact.codebook_file import INDEX, ROUTER, CodebookModel, network_file, write_index
from perceptkit.compact.export import refuse_suffix, replacing
from perceptkit.compact.export_onnx import metadata, needs_packages
from perceptkit.compact.network import CompactNet
from perceptkit.compact.onnx_file import KEEP, SKIPPING, open_onnx, open_session, run_session
from perceptkit.compact.route_cost import route_cost
from perceptkit.compact.routed import RoutedNet
from perceptkit.compact.skip_graph import (
    branch_graph,
    decided_outside,
    gather_graph,
    router_graph,
    static_graph,
)
from perceptkit.compact.verify import (
    BOUND,
    SMALLEST_SCALE,
    Forward,
    parity,
    probe_images,
    refuse_mismatch,
)
from perceptkit.errors import ExportError, SpecError

DYNAMIC = ("branch", "gather", "codebook")
POLICIES = 8
"""Networks of a codebook by default."""
BATCHES = {"branch": (1, 3), "gather": (1, 2, 3, 8), "codebook": (1, 2, 3, 8)}
"""What each is compared on, see TABLES."""
TABLES = 4
"""Of the 16, by those batches that are not compared under all: a table has a row for each picture, so all 16 are tried
at the smallest batch that the way tells apart."""
NEAR = 1e-4
"""A logit this near to 0, as a part of the largest one, may be decided either way: two kernels round differently."""

Heads = dict[str, dict[str, float]]


def check_dynamic(how: str) -> str:
    """Raises SpecError for anything but one of DYNAMIC."""
    if how not in DYNAMIC:
        raise SpecError(f"{how!r} is no way to skip; choose one of {', '.join(DYNAMIC)}")
    return how


def export_dynamic(
    network: torch.nn.Module,
    manifest: Manifest,
    path: Path,
    how: str,
    calibration: Iterable[Tensor] = (),
    policies: int = POLICIES,
    nearest: bool = False,
) -> Path:
    """Writes `path`, and the proof: in parity.json beside a file, or inside a codebook's folder.

    Args:
        network: with a router.
        manifest: its manifest.
        path: file, or folder of a codebook.
        how: one of DYNAMIC.
        calibration: for a codebook, normalised pictures (B, 3, H, W) whose decisions it is made for.
        policies: for a codebook, how many networks at most.
        nearest: for a codebook, whether a picture may lose blocks that it keeps.

    Raises:
        SpecError: a model without a router, an unknown way, no pictures, a package is missing.
        ExportError: the result computes something else; what was at `path` then stays as it was.
    """
    check_dynamic(how)
    if not isinstance(network, RoutedNet):
        raise SpecError(
            "this model has no router: it skips the same blocks for every picture, and a plain "
            "`perceptkit export` leaves them out already; --dynamic-skip is for recipes with `routing:`"
        )
    needs_packages()
    routed = copy.deepcopy(network).cpu().eval()
    if how == "codebook":
        return _write_codebook(routed, manifest, path, list(calibration), policies, nearest)
    refuse_suffix(path, "onnx")
    import onnx

    graph = {"branch": branch_graph, "gather": gather_graph}[how]
    model = graph(routed, manifest.size_HW)
    sizes = {"fixed": list(manifest.size_HW)}
    decisions = f"(batch, {len(routed.plan.routed())}): whether each routed block runs, in the plan's order"
    properties = metadata(manifest, sizes) | {SKIPPING: how, f"output.{KEEP}": decisions}
    with replacing(path) as temporary:
        onnx.helper.set_model_props(model, properties)
        onnx.save(model, str(temporary))
        heads = _prove_file(routed, model, temporary, manifest.size_HW, how)
        refuse_mismatch(heads, str(path))
    told = _told(how, heads) | {"sizes": sizes, "bytes": path.stat().st_size}
    parity_file.record(path, told)
    return path


def write_static(network: CompactNet, manifest: Manifest, path: Path, any_batch: bool) -> Path:
    """A network without choice as plain ONNX, made alike: what a dynamic file's time is measured against."""
    import onnx

    onnx.save(static_graph(network, manifest.size_HW, any_batch), str(path))
    return path


def _prove_file(routed: RoutedNet, model: Any, path: Path, size_HW: tuple[int, int], how: str) -> Heads:
    """The largest differences of a file and of its graph cut at the decisions."""
    import onnx

    session = open_session(path)
    forward, _ = open_onnx(path)
    with TemporaryDirectory(prefix="perceptkit-dynamic-") as folder:
        cut = Path(folder) / "decided.onnx"
        onnx.save(decided_outside(model, len(routed.plan.routed())), str(cut))
        opened = open_session(cut)
    tasks = list(routed.network.net.tasks)

    def decide(image_BCHW: Tensor) -> Tensor:
        step = 1 if how == "branch" else len(image_BCHW)
        parts = image_BCHW.split(step)
        return torch.cat([run_session(session, [KEEP], {"image": part})[KEEP] for part in parts])

    def answer(image_BCHW: Tensor, keep_BR: Tensor) -> Mapping[str, Tensor]:
        step = 1 if how == "branch" else len(image_BCHW)
        rows = [
            run_session(opened, tasks, {"image": image, KEEP: keep})
            for image, keep in zip(image_BCHW.split(step), keep_BR.split(step), strict=True)
        ]
        return {task: torch.cat([row[task] for row in rows]) for task in tasks}

    return _prove(
        routed, _images(size_HW, BATCHES[how]), forward, decide, answer, every=1 if how == "branch" else 3
    )


@torch.no_grad()
def _prove(
    routed: RoutedNet,
    images: list[Tensor],
    forward: Forward,
    decide: Any,
    answer: Any,
    served: Any = lambda keep_BR: keep_BR,
    every: int = 3,
) -> Heads:
    """The largest difference by head, over all images, all tables and the router's own decisions.

    Args:
        routed: the reference.
        images: batches to compare on.
        forward: what was written, as it is loaded.
        decide: image -> its decisions (B, R).
        answer: (image, decisions) -> its outputs.
        served: decisions -> those that it runs for them.
        every: the batch that is compared under all tables; others under TABLES of them.

    Raises ExportError where its router decides otherwise.
    """
    found: Heads = {}

    def compare(reference: Forward, candidate: Forward, image: Tensor) -> None:
        for name, row in parity(reference, candidate, [image]).items():
            before = found.setdefault(name, {key: 0.0 for key in row})
            found[name] = {key: max(value, before[key]) for key, value in row.items()}

    for image in images:
        tables = keep_tables(len(image), len(routed.plan.routed()))
        for keep_BR in tables if len(image) == every else tables[:TABLES]:
            compare(partial(routed.masked, keep_BR=served(keep_BR)), partial(answer, keep_BR=keep_BR), image)
        decided_BR, logits_BR = decide(image), routed.router(image)
        near = NEAR * max(SMALLEST_SCALE, logits_BR.abs().max().item())
        if (
            decided_BR.shape != logits_BR.shape
            or ((decided_BR != (logits_BR >= 0)) & (logits_BR.abs() > near)).any()
        ):
            raise ExportError("the exported router does not decide as the trained one does")
        compare(partial(routed.masked, keep_BR=served(decided_BR)), forward, image)
    return found


def _write_codebook(
    routed: RoutedNet,
    manifest: Manifest,
    path: Path,
    calibration: list[Tensor],
    policies: int,
    nearest: bool,
) -> Path:
    import onnx

    if path.exists() and not (path.is_dir() and ((path / INDEX).is_file() or not any(path.iterdir()))):
        raise SpecError(f"{path} is there and is no codebook; give --out a new folder")
    size_HW, no_rows = manifest.size_HW, torch.zeros(0, len(routed.plan.routed()), dtype=torch.bool)
    with torch.no_grad():
        keep_NR = torch.cat([no_rows, *(routed.router.keep(image) for image in calibration)])
    cost = route_cost(routed, size_HW)
    book = make_codebook(keep_NR, torch.tensor(cost.added_R), policies, nearest)
    share_P = torch.bincount(book.assign(keep_NR), minlength=len(book.policies_PR)) / len(keep_NR)
    sizes = {"fixed": list(size_HW)}
    with _staged(path) as folder:
        onnx.save(router_graph(routed.router, size_HW), str(folder / ROUTER))
        for i, keep_R in enumerate(book.policies_PR.tolist()):
            model = static_graph(routed.static(keep_R), size_HW)
            onnx.helper.set_model_props(model, metadata(manifest, sizes))
            onnx.save(model, str(folder / network_file(i)))
        write_index(folder, book, manifest.to_dict(), share_P.tolist())
        made = CodebookModel(folder)
        heads = _prove(
            routed, _images(size_HW, BATCHES["codebook"]), made, made.decide, made.answer,
            lambda keep_BR: book.policies_PR[book.assign(keep_BR)],
        )  # fmt: skip
        refuse_mismatch(heads, str(path))
        files = [folder / ROUTER, *(folder / network_file(i) for i in range(len(book.policies_PR)))]
        served_NR = book.policies_PR[book.assign(keep_NR)]
        chosen = {
            "policies": len(book.policies_PR),
            "distinct": len(keep_NR.unique(dim=0)),
            "pictures": len(keep_NR),
            "kept_wanted": keep_NR.float().mean().item(),
            "kept_served": served_NR.float().mean().item(),
            "extra_macs": book.extra_cost(keep_NR) / cost.full,
            "dropped_macs": book.dropped_cost(keep_NR) / cost.full,
            "nearest": nearest,
            "may_drop": book.may_drop,
        }
        told = _told("codebook", heads) | {"sizes": sizes, "codebook": chosen}
        added_N = served_NR.double() @ torch.tensor(cost.added_R, dtype=torch.float64)
        told["macs"] = cost.always + cost.router + added_N.mean().item()
        told["bytes"] = sum(file.stat().st_size for file in files)
        told["sha256"] = {file.name: parity_file.digest(file) for file in files}
        parity_file.write_inside(folder, told)
    return path


def _told(how: str, heads: Heads) -> dict[str, Any]:
    compared = {"batches": list(BATCHES[how]), "decisions": len(keep_tables(1, 1)), "router": True}
    told = {"format": "onnx", "dynamic_skip": how, "precision": "32", "bound": BOUND}
    return {**told, "heads": heads, "compared_on": compared}


def _images(size_HW: tuple[int, int], batches: Iterable[int]) -> list[Tensor]:
    one, two = probe_images(size_HW)
    many = torch.cat([two, one, two.flip(2), two.flip(3), one.flip(2)])
    return [many[:batch] for batch in batches]


@contextmanager
def _staged(folder: Path) -> Iterator[Path]:
    """A temporary folder whose files replace those of `folder` at the end, codebook.json last; an error leaves it."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix=f".{folder.name}.", dir=folder.parent) as name:
        temporary = Path(name)
        yield temporary
        folder.mkdir(exist_ok=True)
        (folder / INDEX).unlink(missing_ok=True)
        for old in [*folder.glob("network_*.onnx"), folder / ROUTER]:  # a smaller book may follow
            old.unlink(missing_ok=True)
        for path in sorted(temporary.iterdir(), key=lambda path: path.name == INDEX):
            os.replace(path, folder / path.name)
