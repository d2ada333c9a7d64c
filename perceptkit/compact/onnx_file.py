"""Opens an `.onnx` file with onnxruntime: the proof of an export and the runtime read it alike."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from perceptkit.compact.verify import Forward
from perceptkit.errors import ExportError, SpecError

KEY = "perceptkit"
"""Of the manifest in the metadata."""
SKIPPING = "dynamic_skip"
"""Of how a file skips blocks by picture, in the metadata: `branch` takes one picture at a time."""
KEEP = "router.keep"
"""A router's decisions (B, R) bool among a graph's outputs. No task is called so: their names have no dots."""


def open_onnx(
    path: Path, device: str | None = "cpu", threads: int | None = None
) -> tuple[Forward, Mapping[str, str]]:
    """What runs the file, and its metadata.

    A file that takes one picture at a time is given those of a batch one after the other.

    Raises: as `open_session`.
    """
    session = open_session(path, device, threads)
    metadata = session.get_modelmeta().custom_metadata_map
    names = [output.name for output in session.get_outputs() if output.name != KEEP]

    def run(image_BCHW: Tensor) -> dict[str, Tensor]:
        return run_session(session, names, {"image": image_BCHW})

    def one_by_one(image_BCHW: Tensor) -> dict[str, Tensor]:
        rows = [run(image_1CHW) for image_1CHW in image_BCHW.split(1)]
        return {name: torch.cat([row[name] for row in rows]) for name in names}

    return one_by_one if metadata.get(SKIPPING) == "branch" else run, metadata


def to_array(value: Tensor) -> np.ndarray:
    """What onnxruntime takes."""
    return np.ascontiguousarray(value.detach().cpu().numpy())


def run_session(session: Any, names: Sequence[str], inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Some outputs of an opened file, by name."""
    arrays = {name: to_array(value) for name, value in inputs.items()}
    values = session.run(list(names), arrays)
    return {name: torch.from_numpy(value) for name, value in zip(names, values, strict=True)}


def open_session(path: Path, device: str | None = "cpu", threads: int | None = None) -> Any:
    """An onnxruntime session.

    Args:
        path: the file.
        device: `cpu` or `cuda`; the best there is by default.
        threads: of the CPU, for one operator; onnxruntime's own choice by default.

    Raises:
        SpecError: onnxruntime is missing, or lacks the device; there is no such file.
        ExportError: the file cannot be read.
    """
    try:
        import onnxruntime
    except ImportError as error:
        raise SpecError("ONNX models need onnxruntime: pip install 'perceptkit[export]'") from error
    if not path.is_file():
        raise SpecError(f"{path}: no such file")
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    if threads is not None:
        options.intra_op_num_threads = threads
    if os.environ.get("GOMP_SPINCOUNT") == "0":
        # Threads that wait by spinning made two of them slower than one on a shared machine: 86 ms against 53.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=_providers(device))
    except SpecError:
        raise
    except Exception as error:  # onnxruntime's own types, all derived from Exception
        raise ExportError(f"{path}: onnxruntime cannot read it ({error})") from error


def _providers(device: str | None) -> list[str]:
    import onnxruntime

    available = onnxruntime.get_available_providers()
    kind = torch_kind(device)
    if kind == "cuda" and "CUDAExecutionProvider" not in available:
        raise SpecError("this onnxruntime has no CUDA: pip install onnxruntime-gpu, or use --device cpu")
    if kind not in (None, "cpu", "cuda"):
        raise SpecError(f"ONNX models run on cpu or cuda, not on {device!r}")
    wanted = ["CPUExecutionProvider"] if kind == "cpu" else ["CUDAExecutionProvider", "CPUExecutionProvider"]
    return [provider for provider in wanted if provider in available]


def torch_kind(device: str | None) -> str | None:
    """`cuda` of `cuda:1`; None of None."""
    return None if device is None else device.partition(":")[0]
