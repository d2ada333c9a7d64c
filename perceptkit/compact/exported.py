"""What `perceptkit export` says when it is done, read from the record beside the files."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from perceptkit.compact.parity_file import recorded
from perceptkit.compact.quantize import accuracy_table


def as_text(path: Path) -> str:
    """Path, proof and sizes of an exported file; for int8 the table of metrics."""
    return "\n".join([str(path), *_lines(recorded(path))])


def _lines(entry: Mapping[str, Any]) -> list[str]:
    heads = entry.get("heads")
    if not heads:
        return []
    if entry.get("accuracy"):
        calibrated, split = entry["calibrated_on"], entry["measured_on"]
        counted = (
            f"calibrated on {calibrated['pictures']} pictures of {calibrated['split']}, measured on {split}:"
        )
        return [counted, accuracy_table(entry)]
    worst = max(heads, key=lambda head: heads[head]["max_abs"] / max(1.0, heads[head]["scale"]))
    lines = [
        f"read back and compared: largest difference {heads[worst]['max_abs']:.1e} ({worst}), "
        f"bound {entry['bound']:.1e} of each head's scale"
    ]
    sizes = entry.get("sizes", {})
    if "multiple_of" in sizes:
        lines.append(f"takes any batch, height and width in multiples of {sizes['multiple_of']}")
    elif "fixed" in sizes:
        height, width = sizes["fixed"]
        why = f": other sizes do not trace ({sizes['reason']})" if "reason" in sizes else ""
        lines.append(f"takes any batch of {height} x {width} (height x width){why}")
    return lines
