"""A `torch.export` program in one `.pt2` file: any batch, `torch.export.load` reads it without perceptkit.

    program = torch.export.load("model.pt2")
    outputs = program.module()(image)           # in the order of the manifest's tasks

The manifest lies beside the weights, as extra/perceptkit.json.
"""

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from perceptkit.compact.artifact import Manifest
from perceptkit.compact.export_onnx import images
from perceptkit.compact.precision import Precision
from perceptkit.compact.program import export_program, quiet
from perceptkit.compact.pt2_file import inspect, open_torch
from perceptkit.compact.verify import Forward


def write_torch(
    network: nn.Module, manifest: Manifest, path: Path, precision: Precision, device: str = "cpu"
) -> tuple[Forward, list[Tensor], dict[str, Any]]:
    """As `write_onnx`, at one size. The program is saved on the CPU: loading moves it to any device."""
    tasks = list(manifest.tasks)
    program = export_program(network, tasks, manifest.size_HW, precision)
    # Left out: an example would be a pickle in the file, guards would be Python code in it.
    program._example_inputs = None
    program._guards_code = []
    with quiet():
        torch.export.save(program, path, extra_files={"perceptkit.json": json.dumps(manifest.to_dict())})
    inspect(path)
    details = {"sizes": {"fixed": list(manifest.size_HW)}}
    return open_torch(path, tasks), images(manifest.size_HW, None), details
