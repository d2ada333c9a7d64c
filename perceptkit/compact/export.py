"""Writes a compact model in formats that other programs read, and proves each before it reports success.

    artifact    the folder of compact/artifact.py
    onnx        one .onnx file: dynamic batch, one output per task, the manifest in its metadata

The proof is `compact/verify.py` on the finished file; a file that fails it never gets its name.
"""

import copy
import json
import logging
import os
import warnings
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import Tensor, nn

from perceptkit.compact import build
from perceptkit.compact.artifact import Manifest
from perceptkit.compact.verify import BOUND, parity, probe_images, refuse_mismatch
from perceptkit.errors import SpecError
from perceptkit.model.attention import plain_attention

FORMATS = ("artifact", "onnx")


class _Outputs(nn.Module):
    """The network with a tuple of outputs: ONNX has no dictionaries."""

    def __init__(self, network: nn.Module, tasks: list[str]) -> None:
        super().__init__()
        self.network, self.tasks = network, tasks

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        outputs = self.network(image)
        return tuple(outputs[task] for task in self.tasks)


def export_network(network: nn.Module, manifest: Manifest, path: Path, format: str) -> Path:
    """Writes `path` and the proof: `parity.json` in an artifact, or beside a file.

    Raises ExportError when the result computes something else; what was at `path` then stays as it was.
    """
    if format not in FORMATS:
        raise SpecError(f"{format!r} is not a format; choose one of {', '.join(FORMATS)}")
    network = copy.deepcopy(network).cpu().eval()
    if format == "onnx":
        return export_onnx(network, manifest, path)
    heads = parity(network, network, probe_images(manifest.size_HW))
    build.write_verified(path, network, manifest, {"format": format, "bound": 0.0, "heads": heads})
    return path


def export_onnx(network: nn.Module, manifest: Manifest, path: Path) -> Path:
    """One file for all tasks; runs with onnxruntime alone."""
    try:
        import onnx
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401  # torch.onnx needs it and says so late
    except ImportError as error:
        raise SpecError(f"ONNX export needs {error.name}: pip install 'perceptkit[export]'") from error
    tasks = list(manifest.tasks)
    example = probe_images(manifest.size_HW)[1]
    triple = torch.cat([example, example])[:3]
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter's own deprecations, nothing that a user can act on
        program = torch.onnx.export(
            _Outputs(plain_attention(copy.deepcopy(network)), tasks),
            (example,),
            dynamo=True,
            input_names=["image"],
            output_names=tasks,
            dynamic_shapes=({0: torch.export.Dim("batch", min=1, max=4096)},),
            verbose=False,
        )
    assert program is not None
    path.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix=f".{path.name}.", dir=path.parent) as folder:
        temporary = Path(folder) / path.name
        program.save(str(temporary))
        model = onnx.load(str(temporary))
        onnx.helper.set_model_props(model, {"perceptkit": json.dumps(manifest.to_dict())})
        onnx.save(model, str(temporary))
        compared = parity(network, _session(temporary, tasks), [*probe_images(manifest.size_HW), triple])
        refuse_mismatch(compared, str(path))
        os.replace(temporary, path)
    report = {"format": "onnx", "bound": BOUND, "heads": compared}
    path.with_name("parity.json").write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    return path


def _session(path: Path, tasks: list[str]) -> Callable[[Tensor], dict[str, Tensor]]:
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])

    def run(image: Tensor) -> dict[str, Tensor]:
        values = session.run(tasks, {"image": image.numpy()})
        return {task: torch.from_numpy(value) for task, value in zip(tasks, values, strict=True)}

    return run
