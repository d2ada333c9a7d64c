"""ONNX in 8 bits: weights and activations as int8, by static calibration on the user's own pictures.

The float32 file is made and proved first. Its activations are watched on calibration pictures, quantise-dequantise
pairs (QDQ) are put around its operators, and onnxruntime fuses those into integer kernels. What comes out is *not*
the same function: how far off it is is measured by the metrics of every task, before and after, and reported.

The last convolution of each head stays in float: that costs 0.1 % of the file and no time, and an output has more
than 256 values. Measured with a half-width ResNet-18 on doom, 240 pictures: corners AP .0904 in float32, .0927 so,
.1022 with int8 heads; most other metrics move by 1 % at most either way. Reducing weights to 7 bits, which avoids
saturation on CPUs without VNNI, was farther off in most. On such CPUs (AVX2) int8 is a quarter of the size, not faster.
"""

import copy
import logging
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from math import isfinite, isnan
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from torch import Tensor, nn

from perceptkit.compact.artifact import Manifest
from perceptkit.compact.export import refuse_suffix, replacing
from perceptkit.compact.export_onnx import needs_packages, write_onnx
from perceptkit.compact.onnx_file import open_onnx
from perceptkit.compact.parity_file import record
from perceptkit.compact.precision import PRECISIONS
from perceptkit.compact.program import quiet
from perceptkit.compact.routed import refuse_routed
from perceptkit.compact.verify import Forward, parity, refuse_mismatch
from perceptkit.errors import ExportError, SpecError

Metrics = Mapping[str, Mapping[str, float]]


def export_int8(
    network: nn.Module,
    manifest: Manifest,
    path: Path,
    calibration: Iterable[Tensor],
    measure: Callable[[Forward], Metrics],
    told: Mapping[str, Any],
) -> Path:
    """Writes `path` and, in parity.json beside it, the metrics of every task in float32 and in int8.

    Args:
        network: compact model.
        manifest: its manifest.
        path: file to write.
        calibration: normalised pictures (B, 3, H, W), of the training split.
        measure: metrics by task of something that runs, on pictures that are not for calibration.
        told: what is to be known of calibration and measuring; it is recorded too.

    Raises:
        SpecError: a package is missing, or there is no picture to calibrate on.
        ExportError: the float32 file is wrong, or the int8 file computes what is no number.
    """
    needs_packages()
    refuse_routed(network, "a file in int8")
    refuse_suffix(path, "onnx")
    batches = list(calibration)
    if not batches:
        raise SpecError("int8 needs pictures to calibrate on: --pictures must be at least 1")
    network = copy.deepcopy(network).cpu().eval()
    with TemporaryDirectory(prefix="perceptkit-int8-") as folder, replacing(path) as temporary:
        exact = Path(folder) / "float32.onnx"
        forward, images, details = write_onnx(network, manifest, exact, PRECISIONS["32"])
        refuse_mismatch(parity(network, forward, images), f"the float32 model of {path}")
        quantize(exact, temporary, batches)
        rounded, _ = open_onnx(temporary)
        heads = parity(forward, rounded, batches[:4])
        _refuse_nonsense(heads, path)
        before, after = measure(forward), measure(rounded)
        _refuse_lost_metrics(before, after, path)
        size_before, size_after = exact.stat().st_size, temporary.stat().st_size
    accuracy = {
        task: {metric: {"float32": value, "int8": after[task][metric]} for metric, value in metrics.items()}
        for task, metrics in before.items()
    }
    entry = {"format": "onnx", "precision": "int8", "bound": None, "heads": heads, **details, **told}
    sizes = {"bytes": size_after, "bytes_float32": size_before, "size_ratio": size_before / size_after}
    record(path, {**entry, **sizes, "accuracy": accuracy})
    return path


def quantize(source: Path, target: Path, batches: Iterable[Tensor]) -> None:
    """Static QDQ quantisation of an .onnx file; its metadata travel on."""
    import onnx
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Pictures(CalibrationDataReader):
        def __init__(self) -> None:
            self.rest: Iterator[Tensor] = iter(batches)

        def get_next(self) -> dict[str, Any] | None:
            batch = next(self.rest, None)
            return None if batch is None else {"image": batch.numpy()}

    properties = {
        entry.key: entry.value for entry in onnx.load(str(source), load_external_data=False).metadata_props
    }
    with TemporaryDirectory(prefix="perceptkit-int8-") as folder, quiet(), _no_advice():
        prepared, made = Path(folder) / "prepared.onnx", Path(folder) / "made.onnx"
        quant_pre_process(str(source), str(prepared), skip_symbolic_shape=True)
        quantize_static(
            str(prepared),
            str(made),
            Pictures(),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            nodes_to_exclude=_last_convolutions(prepared),
        )
        model = onnx.load(str(made))
        onnx.helper.set_model_props(model, properties)
        onnx.save(model, str(made))
        shutil.move(made, target)


def _last_convolutions(path: Path) -> list[str]:
    """Names of the last convolution or matrix product before each output."""
    import onnx

    graph = onnx.load(str(path)).graph
    maker = {name: node for node in graph.node for name in node.output}
    found = []
    for output in graph.output:
        node = maker.get(output.name)
        while node is not None and node.op_type not in ("Conv", "Gemm", "MatMul"):
            node = maker.get(node.input[0])
        if node is not None:
            found.append(node.name)
    return found


def _refuse_nonsense(heads: Mapping[str, Mapping[str, float]], path: Path) -> None:
    broken = [name for name, row in heads.items() if not isfinite(row["max_abs"])]
    if broken:
        raise ExportError(f"{path}: in int8 {', '.join(broken)} gives values that are no numbers")


def _refuse_lost_metrics(before: Metrics, after: Metrics, path: Path) -> None:
    """A metric that float32 has and int8 has not; one that neither has lacks labels."""
    lost = [
        f"{task}/{metric}"
        for task, metrics in before.items()
        for metric, value in metrics.items()
        if not isnan(value) and isnan(after[task][metric])
    ]
    if lost:
        raise ExportError(f"{path}: in int8 there is no number for {', '.join(lost)}")


@contextmanager
def _no_advice() -> Iterator[None]:
    """onnxruntime's quantiser gives its advice to the root logger."""
    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.ERROR)
    try:
        yield
    finally:
        root.setLevel(level)


def accuracy_table(entry: Mapping[str, Any]) -> str:
    """What parity.json holds of an int8 file, to be read by people."""
    rows = [("task, metric", "float32", "int8")]
    for task, metrics in entry["accuracy"].items():
        for metric, pair in metrics.items():
            figures = ["-" if pair[t] is None else f"{pair[t]:.4f}" for t in ("float32", "int8")]
            rows.append((f"{task} {metric}", figures[0], figures[1]))
    small, large = entry["bytes"] / 1e6, entry["bytes_float32"] / 1e6
    rows.append(("file, MB", f"{large:.2f}", f"{small:.2f} ({entry['size_ratio']:.1f} times smaller)"))
    width = max(len(row[0]) for row in rows)
    return "\n".join(f"{name:{width}}  {before:>9}  {after:>9}" for name, before, after in rows)
