"""Writes a compact model in formats that other programs read, and proves each before it reports success.

    artifact    the folder of compact/artifact.py
    torch       a torch.export program, .pt2                        compact/export_torch.py
    aoti        an AOTInductor package, .pt2, for one device        compact/export_aoti.py
    onnx        any batch and size, .onnx                           compact/export_onnx.py

A writer gives what runs the finished file, read back. That is compared with the network here, for every format alike;
a file that fails never gets its name.

A model with a router goes to ONNX by compact/export_dynamic.py, or stays an artifact.
"""

import copy
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from torch import Tensor, nn

from perceptkit.compact import build
from perceptkit.compact.artifact import Manifest
from perceptkit.compact.device import find_device
from perceptkit.compact.export_aoti import write_aoti
from perceptkit.compact.export_onnx import write_onnx
from perceptkit.compact.export_torch import write_torch
from perceptkit.compact.parity_file import record, recorded
from perceptkit.compact.precision import find_precision
from perceptkit.compact.routed import RoutedNet, refuse_routed
from perceptkit.compact.verify import Forward, parity, refuse_mismatch
from perceptkit.errors import SpecError

Writer = Callable[..., tuple[Forward, list[Tensor], dict[str, Any]]]
"""(network, manifest, path, precision, device) -> what runs the file, images to compare on, more for the record."""


@dataclass(frozen=True)
class Format:
    """A format by the name of its file, and what writes it; None for the artifact, which is a folder."""

    file: str
    write: Writer | None


FORMATS: dict[str, Format] = {
    "artifact": Format("artifact", None),
    "torch": Format("model.pt2", write_torch),
    "aoti": Format("model_aoti.pt2", write_aoti),
    "onnx": Format("model.onnx", write_onnx),
}


def find_format(name: str) -> Format:
    """Raises SpecError for a name that is none."""
    if name not in FORMATS:
        raise SpecError(f"{name!r} is not a format; choose one of {', '.join(FORMATS)}")
    return FORMATS[name]


def file_name(format: str, *marks: str) -> str:
    """The name a file of this format goes by: model.onnx, model_seg_int8.onnx, ..."""
    stem, dot, suffix = find_format(format).file.partition(".")
    return "_".join([stem, *marks]) + dot + suffix


def export_network(
    network: nn.Module,
    manifest: Manifest,
    path: Path,
    format: str,
    precision: str = "32",
    device: str = "cpu",
) -> Path:
    """Writes `path` and the proof: `parity.json` in an artifact, or beside a file.

    Args:
        network: compact model.
        manifest: its manifest.
        path: file or folder to write.
        format: one of FORMATS.
        precision: one of compact/precision.py; an artifact keeps its own.
        device: what an AOTInductor package is compiled for.

    Raises:
        SpecError: an unknown or impossible choice, or something is missing that the format needs.
        ExportError: the result computes something else; what was at `path` then stays as it was.
    """
    write, chosen = find_format(format).write, find_precision(precision)
    network = copy.deepcopy(network).cpu().eval()
    if write is None:
        if precision != "32":
            raise SpecError("an artifact holds the weights as they are; it has no --precision")
        refuse_trained(path)
        build.write_verified(path, network, manifest, {"format": format, **_macs(network, manifest)})
        return path
    if format != "aoti" and device != "cpu":
        raise SpecError(
            f"--device is for aoti, which compiles for one; a file of {format} runs on any device"
        )
    find_device(device)
    refuse_routed(network, f"a file of format {format}")
    refuse_suffix(path, format)
    with replacing(path) as temporary:
        forward, images, details = write(network, manifest, temporary, chosen, device)
        heads = parity(network, lambda image: to_cpu(forward(image)), images)
        refuse_mismatch(heads, str(path), chosen.bound)
    sizes = {"batches": [len(image) for image in images], "images": [list(i.shape[2:]) for i in images]}
    told = {"format": format, "precision": precision, "bound": chosen.bound, "heads": heads}
    told |= _macs(network, manifest)
    record(path, {**told, **details, "compared_on": sizes, "bytes": path.stat().st_size})
    return path


def _macs(network: nn.Module, manifest: Manifest) -> dict[str, int]:
    """Of one picture, for the record; nothing where they differ by picture."""
    return {} if isinstance(network, RoutedNet) else {"macs": manifest.size["macs"]}


def refuse_suffix(path: Path, format: str) -> None:
    """Raises SpecError for a name that `load` and others would not know the file by."""
    suffix = Path(find_format(format).file).suffix
    if path.suffix != suffix:
        raise SpecError(f"{path}: a file of format {format} ends in {suffix}")


def refuse_trained(folder: Path) -> None:
    """Raises SpecError for what training wrote: its proof, against the trained network, cannot be made again."""
    if "reference" in recorded(folder):
        raise SpecError(
            f"{folder} is an artifact that training wrote; its proof would be lost. Export to another folder"
        )


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary file that takes the place of `path` at the end; after an error nothing is left of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix=f".{path.name}.", dir=path.parent) as folder:
        yield Path(folder) / path.name
        os.replace(Path(folder) / path.name, path)


def to_cpu(outputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same on the CPU."""
    return {name: value.cpu() for name, value in outputs.items()}
