"""One `.onnx` file: any batch, any size where the backbone allows it, one named output per task.

The metadata hold the manifest, and in plain words what one needs without perceptkit, so that onnxruntime alone is
enough: mean, std and sizes of the input; for each task `output.TASK`, what the graph's own output holds (logits, the
logarithm of a depth, ...) and what makes an answer of it; `classes.TASK`, its labels; `unit.TASK`, only where the
output as it stands has a unit.
"""

import copy
import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from perceptkit.compact.artifact import Manifest
from perceptkit.compact.onnx_file import KEY, open_onnx
from perceptkit.compact.precision import Precision
from perceptkit.compact.program import export_program, quiet, size_multiple
from perceptkit.compact.verify import Forward, probe_images
from perceptkit.errors import SpecError
from perceptkit.model.attention import plain_attention


def write_onnx(
    network: nn.Module, manifest: Manifest, path: Path, precision: Precision, device: str = "cpu"
) -> tuple[Forward, list[Tensor], dict[str, Any]]:
    """Writes `path`.

    Returns:
        What runs the file, read back; the images to compare it on; `sizes` for the record.

    Raises:
        SpecError: a package is missing; bf16.
    """
    needs_packages()
    if precision.name == "bf16":
        raise SpecError("onnxruntime has no bf16 convolutions: --precision fp16, or --format torch for bf16")
    import onnx

    network, tasks = plain_attention(copy.deepcopy(network)), list(manifest.tasks)
    multiple: int | None = size_multiple(network, manifest.size_HW)
    assert multiple is not None
    sizes: dict[str, Any] = {"multiple_of": multiple, "default": list(manifest.size_HW)}
    try:
        run_at_other_size(network, manifest.size_HW, multiple)
        program = export_program(network, tasks, manifest.size_HW, precision, multiple=multiple)
        # the program guards what it was traced for; the file would compute something else without a word
        run_at_other_size(program.module(), manifest.size_HW, multiple)
    except Exception as error:  # torch's own types: of guards, of windows that sizes do not divide, ...
        sizes = {"fixed": list(manifest.size_HW), "reason": _why_fixed(error, manifest.backbone.name)}
        multiple = None
        program = export_program(network, tasks, manifest.size_HW, precision)
    with quiet():
        made = torch.onnx.export(
            program, dynamo=True, input_names=["image"], output_names=tasks, verbose=False
        )
        assert made is not None
        made.save(str(path))
    model = onnx.load(str(path))
    _name_axes(model)
    onnx.helper.set_model_props(model, metadata(manifest, sizes))
    onnx.save(model, str(path))
    forward, _ = open_onnx(path)
    return forward, images(manifest.size_HW, multiple), {"sizes": sizes}


@torch.no_grad()
def run_at_other_size(network: nn.Module, size_HW: tuple[int, int], multiple: int) -> None:
    """Raises what the network raises: a tracer may take hours to find out that it is made for one size (Hiera)."""
    height, width = size_HW
    for other in ((height + multiple, width), (height, width + 3 * multiple)):
        network(probe_images(other)[1])


def _why_fixed(error: Exception, backbone: str) -> str:
    """Why sizes cannot vary, in words for whoever exports."""
    message = str(error)
    traced = "specialized" in message or "Constraints violated" in message
    if traced or isinstance(error, AssertionError | RuntimeError) and "size" in message.lower():
        return f"{backbone} computes with numbers that were made for this size, as its windows or positions"
    return (message.strip() or "torch gives no reason").splitlines()[0][:200]


def needs_packages() -> None:
    """Raises SpecError that names what ONNX export lacks: torch.onnx says so late and at length."""
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise SpecError(f"ONNX export needs {error.name}: pip install 'perceptkit[export]'") from error


def metadata(manifest: Manifest, sizes: dict[str, Any]) -> dict[str, str]:
    """The manifest for perceptkit, and plain keys for everybody else."""
    m = manifest
    told = {
        KEY: json.dumps(m.to_dict()),
        "name": m.name,
        "input": "image: RGB, float32 (batch, 3, height, width), (x / 255 - mean) / std",
        "mean": json.dumps(list(m.mean)),
        "std": json.dumps(list(m.std)),
        "size": json.dumps(list(m.size_HW)),
        "sizes": f"multiples of {sizes['multiple_of']}" if "multiple_of" in sizes else "fixed",
        "tasks": ", ".join(f"{name}: {task.type}" for name, task in m.tasks.items()),
    }
    for name, task in m.tasks.items():
        told[f"output.{name}"] = task.output_in_words
        if task.labels:
            told[f"classes.{name}"] = json.dumps(task.labels)
        if task.output_unit:
            told[f"unit.{name}"] = task.output_unit
    return told


def images(size_HW: tuple[int, int], multiple: int | None) -> list[Tensor]:
    """Noise at batches of 1, 2 and 3, and at larger, smaller and oblong sizes where they may vary."""
    one, two = probe_images(size_HW)
    found = [one, two, torch.cat([two, one])]
    if multiple is not None:
        height, width = size_HW
        for other in ((height + multiple, width), (height, width + 3 * multiple), (multiple, 2 * multiple)):
            found.append(probe_images(other)[len(found) % 2])
    return found


def _name_axes(model: Any) -> None:
    """`batch`, `height` and `width` instead of the exporter's symbols such as 32*height_steps."""
    graph, words = model.graph, {0: "batch", 2: "height", 3: "width"}
    given = graph.input[0].type.tensor_type.shape.dim
    renamed = {given[axis].dim_param: word for axis, word in words.items() if given[axis].dim_param}
    for value in (*graph.input, *graph.output):
        for axis, dim in enumerate(value.type.tensor_type.shape.dim):
            if dim.dim_param:
                dim.dim_param = renamed.get(dim.dim_param) or f"{value.name}_{words[axis]}"
    del graph.value_info[:]  # shapes inside the graph in the old symbols; onnxruntime infers its own
