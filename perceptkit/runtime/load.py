"""Finds out what a path holds and gives a Predictor for it."""

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from perceptkit.compact import build
from perceptkit.errors import SpecError
from perceptkit.runtime.onnx_model import load_onnx
from perceptkit.runtime.predictor import Predictor


def load(path: str | Path, device: str | None = None) -> Predictor:
    """A Predictor from a run folder, an artifact folder or an exported `.onnx` file.

    Args:
        path: what `perceptkit train` or `perceptkit export` wrote.
        device: `cpu`, `cuda`, ...; CUDA where there is one by default.

    Raises:
        SpecError: there is nothing that can be loaded at `path`.
        ExportError: what is there is damaged.
    """
    path = Path(path)
    if path.suffix == ".onnx":
        return load_onnx(path)
    network, manifest = build.read(artifact_folder(path))
    where = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    try:
        network = network.to(where)
    except (RuntimeError, AssertionError) as error:
        raise SpecError(f"device {str(where)!r} cannot be used here: {str(error).splitlines()[0]}") from error

    def forward(image_BCHW: Tensor) -> Mapping[str, Tensor]:
        return network(image_BCHW.to(where))

    return Predictor(manifest, forward, network)


def artifact_folder(path: Path) -> Path:
    """The artifact at `path`, a run or the artifact itself. Raises SpecError where there is none."""
    folder = path if (path / "manifest.json").is_file() else path / "artifact"
    if (folder / "manifest.json").is_file():
        return folder
    if (path / "checkpoints").is_dir():
        raise SpecError(f"{path} is not finished: continue it with `perceptkit train --resume --out {path}`")
    raise SpecError(f"{path} is no run, no artifact and no exported model")
