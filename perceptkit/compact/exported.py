"""What `perceptkit export` says when it is done, read from the record beside the files."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from perceptkit.compact.parity_file import recorded
from perceptkit.compact.quantize import accuracy_table
from perceptkit.compact.verify import relative


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
    worst = max(heads, key=lambda head: relative(heads[head]))
    lines = [
        f"read back and compared: largest difference {heads[worst]['max_abs']:.1e} ({worst}), "
        f"{relative(heads[worst]):.1e} of the head's scale, bound {entry['bound']:.1e}"
    ]
    lines += _skipping(entry)
    sizes = entry.get("sizes", {})
    if "multiple_of" in sizes:
        lines.append(f"takes any batch, height and width in multiples of {sizes['multiple_of']}")
    elif "fixed" in sizes:
        height, width = sizes["fixed"]
        why = f": other sizes do not trace ({sizes['reason']})" if "reason" in sizes else ""
        batch = "one picture" if entry.get("dynamic_skip") == "branch" else "any batch"
        lines.append(f"takes {batch} of {height} x {width} (height x width){why}")
    return lines


def _skipping(entry: Mapping[str, Any]) -> list[str]:
    """Of a file that skips by picture: under how many decisions it was compared, its policies, its speed."""
    lines = []
    if "dynamic_skip" in entry:
        tables = entry["compared_on"]["decisions"]
        lines.append(
            f"under {tables} tables of decisions, all blocks and none among them, and the router's own"
        )
    if book := entry.get("codebook"):
        lines.append(
            f"{book['policies']} networks for {book['distinct']} policies of {book['pictures']} pictures: they keep "
            f"{book['kept_served']:.0%} of the blocks, {book['kept_wanted']:.0%} were wanted; "
            f"{book['extra_macs']:.1%} of the full model's MACs more"
        )
    if speed := entry.get("speed"):
        ms, ratio = speed["ms_per_picture"], speed["speedup"]
        lines.append(
            f"{ratio['median']:.2f} times as fast as without skipping ({ms['dynamic']:.2f} ms a picture against "
            f"{ms['static']:.2f}), batch {speed['batch']}, router included, on {speed['pictures']} training "
            f"pictures that keep {speed['kept_fraction']:.0%} of the routed blocks"
        )
    elif "dynamic_skip" in entry:
        lines.append("not timed: there are no pictures; --data TASKS names some")
    return lines
