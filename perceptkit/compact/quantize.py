"""ONNX in 8 bits: weights and activations as int8, by static calibration on the user's own pictures.

The float32 file is made and proved first. Its activations are watched on calibration pictures, quantise-dequantise
pairs (QDQ) are put around its operators, and onnxruntime fuses those into integer kernels. What comes out is *not*
the same function: how far off it is is measured by the metrics of every task, before and after, and reported. Where a
task drops by more than is allowed (compact/quality.py), the dense heads of such tasks are left in float as a whole and
all is measured once more; the better of the two files is kept.

The last convolution of each head stays in float: that costs 0.1 % of the file and no time, and an output has more
than 256 values. Measured with a half-width ResNet-18 on doom, 240 pictures: corners AP .0904 in float32, .0927 so,
.1022 with int8 heads; most other metrics move by 1 % at most either way. Reducing weights to 7 bits, which avoids
saturation on CPUs without VNNI, was farther off in most. On such CPUs (AVX2) int8 is a quarter of the size, not faster.
"""

import copy
import logging
import shutil
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
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
from perceptkit.compact.quality import MAX_DROP, Metrics, check_max_drop, compared, lost_tasks
from perceptkit.compact.routed import refuse_routed
from perceptkit.compact.verify import Forward, parity, refuse_mismatch
from perceptkit.errors import ExportError, SpecError


def export_int8(
    network: nn.Module,
    manifest: Manifest,
    path: Path,
    calibration: Iterable[Tensor],
    measure: Callable[[Forward], Metrics],
    told: Mapping[str, Any],
    max_drop: float = MAX_DROP,
) -> Path:
    """Writes `path` and, in parity.json beside it, the metrics of every task in float32 and in int8.

    A task that drops by more than `max_drop` in spite of all is named there, under `lost`, and `ok` is false.

    Args:
        network: compact model.
        manifest: its manifest.
        path: file to write.
        calibration: normalised pictures (B, 3, H, W), of the training split.
        measure: metrics by task of something that runs, on pictures that are not for calibration.
        told: what is to be known of calibration and measuring; it is recorded too.
        max_drop: by how many percent of its primary metric in float32 a task may be worse.

    Raises:
        SpecError: a package is missing, or there is no picture to calibrate on.
        ExportError: the float32 file is wrong, or the int8 file computes what is no number.
    """
    needs_packages()
    refuse_routed(network, "a file in int8")
    refuse_suffix(path, "onnx")
    check_max_drop(max_drop)
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
        lost, float_heads = lost_tasks(before, after, manifest.tasks, max_drop), list[str]()
        if dense := [task for task in lost if manifest.tasks[task].dense]:
            other = Path(folder) / "float_heads.onnx"
            quantize(exact, other, batches, dense)
            rounded, _ = open_onnx(other)
            again = measure(rounded)
            if _loss(lost_tasks(before, again, manifest.tasks, max_drop)) < _loss(lost):
                heads, after, float_heads = parity(forward, rounded, batches[:4]), again, dense
                _refuse_nonsense(heads, path)
                _refuse_lost_metrics(before, after, path)
                shutil.move(other, temporary)
        size_before, size_after = exact.stat().st_size, temporary.stat().st_size
    entry = {"format": "onnx", "precision": "int8", "bound": None, "heads": heads, **details, **told}
    entry["macs"] = manifest.size["macs"]
    sizes = {"bytes": size_after, "bytes_float32": size_before, "size_ratio": size_before / size_after}
    quality = compared(before, after, manifest.tasks, ("float32", "int8"), max_drop)
    record(path, {**entry, **sizes, "float_heads": float_heads, **quality})
    return path


def _loss(lost: Mapping[str, float]) -> tuple[int, float]:
    """Of two files the one with the smaller is the better: fewer tasks that drop too far, then a smaller sum."""
    return len(lost), sum(lost.values())


def quantize(
    source: Path, target: Path, batches: Iterable[Tensor], float_heads: Collection[str] = ()
) -> None:
    """Static QDQ quantisation of an .onnx file; its metadata travel on.

    Args:
        source, target: files.
        batches: normalised pictures (B, 3, H, W) to calibrate on.
        float_heads: dense tasks whose whole head stays in float, instead of its last convolution only; of heads that
            were fused, what they share stays so for all.
    """
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
            nodes_to_exclude=_last_convolutions(prepared, float_heads),
        )
        model = onnx.load(str(made))
        onnx.helper.set_model_props(model, properties)
        onnx.save(model, str(made))
        shutil.move(made, target)


def _last_convolutions(path: Path, float_heads: Collection[str]) -> list[str]:
    """Names of the last convolution or matrix product before each output; before those of `float_heads` the last two,
    of which a dense head consists (tasks/heads.py)."""
    import onnx

    graph = onnx.load(str(path)).graph
    maker = {name: node for node in graph.node for name in node.output}
    found = []
    for output in graph.output:
        node = maker.get(output.name)
        left = 2 if output.name in float_heads else 1
        while node is not None and left:
            if node.op_type in ("Conv", "Gemm", "MatMul"):
                found.append(node.name)
                left -= 1
            node = maker.get(node.input[0])
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
