"""Runs an exported `.onnx` file: the manifest travels in its metadata, so the file is all one needs."""

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from perceptkit.compact.artifact import parse_manifest
from perceptkit.errors import ExportError, SpecError
from perceptkit.runtime.predictor import Predictor


def load_onnx(path: Path) -> Predictor:
    """Raises SpecError where onnxruntime is missing or the file is not one of ours."""
    try:
        import onnxruntime
    except ImportError as error:
        raise SpecError("ONNX models need onnxruntime: pip install 'perceptkit[export]'") from error
    if not path.is_file():
        raise SpecError(f"{path}: no such file")
    try:
        session = onnxruntime.InferenceSession(str(path), providers=onnxruntime.get_available_providers())
    except Exception as error:  # onnxruntime's own types, all derived from Exception
        raise ExportError(f"{path}: onnxruntime cannot read it ({error})") from error
    metadata = session.get_modelmeta().custom_metadata_map
    if "perceptkit" not in metadata:
        raise SpecError(f"{path} was not exported by perceptkit: its metadata has no manifest")
    manifest = parse_manifest(metadata["perceptkit"], f"the manifest in {path}")
    names = [output.name for output in session.get_outputs()]

    def forward(image_BCHW: Tensor) -> Mapping[str, Tensor]:
        outputs = session.run(names, {"image": image_BCHW.numpy()})
        return {name: torch.from_numpy(value) for name, value in zip(names, outputs, strict=True)}

    return Predictor(manifest, forward)
