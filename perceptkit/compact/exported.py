"""What `perceptkit export` says when it is done, read from the record beside the files."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from perceptkit.compact.parity_file import recorded
from perceptkit.compact.quality import names_of
from perceptkit.compact.verify import relative


def as_text(path: Path) -> str:
    """Path, proof and sizes of an exported file; for fewer bits than float32's the metrics before and after."""
    return "\n".join([str(path), *_lines(recorded(path))])


def _lines(entry: Mapping[str, Any]) -> list[str]:
    heads = entry.get("heads")
    if not heads:
        return []
    if entry.get("precision") == "int8":
        return _of_int8(entry)
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
    if entry.get("accuracy"):
        lines += [f"measured on {entry['measured_on']}:", *_table(_figures(entry))]
    elif "not_measured" in entry:
        lines.append(f"metrics were not compared: {entry['not_measured']}")
    return lines


def _of_int8(entry: Mapping[str, Any]) -> list[str]:
    calibrated, split = entry["calibrated_on"], entry["measured_on"]
    told = f"calibrated on {calibrated['pictures']} pictures of {calibrated['split']}, measured on {split}:"
    small, large = entry["bytes"] / 1e6, entry["bytes_float32"] / 1e6
    size = ("file, MB", f"{large:.2f}", f"{small:.2f} ({entry['size_ratio']:.1f} times smaller)")
    lines = [told, *_table([*_figures(entry), size])]
    if heads := entry.get("float_heads"):
        lines.append(f"left in float: the heads of {', '.join(heads)}, which had lost more than is allowed")
    return lines


def _figures(entry: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """A row for each metric, before and after; a dash where there is no label."""
    names = names_of(entry)
    rows = [("task, metric", *names)]
    for task, metrics in entry["accuracy"].items():
        for metric, pair in metrics.items():
            before, after = ("-" if pair[t] is None else f"{pair[t]:.4f}" for t in names)
            rows.append((f"{task} {metric}", before, after))
    return rows


def _table(rows: Sequence[tuple[str, str, str]]) -> list[str]:
    width, first = max(len(row[0]) for row in rows), max(9, *(len(row[1]) for row in rows))
    return [f"{name:{width}}  {before:>{first}}  {after:>9}" for name, before, after in rows]


def _skipping(entry: Mapping[str, Any]) -> list[str]:
    """Of a file that skips by picture: under how many decisions it was compared, its policies, its speed."""
    lines = []
    if "dynamic_skip" in entry:
        tables = entry["compared_on"]["decisions"]
        lines.append(
            f"under {tables} tables of decisions, all blocks and none among them, and the router's own"
        )
    if book := entry.get("codebook"):
        dropped = f", and {book['dropped_macs']:.1%} that were wanted are dropped" if book["may_drop"] else ""
        lines.append(
            f"{book['policies']} networks for {book['distinct']} policies of {book['pictures']} pictures: they keep "
            f"{book['kept_served']:.0%} of the blocks, {book['kept_wanted']:.0%} were wanted; "
            f"{book['extra_macs']:.1%} of the full model's MACs more{dropped}"
        )
    if speed := entry.get("speed"):
        ms, ratio = speed["ms_per_picture"], speed["speedup"]
        lines.append(
            f"{ratio['median']:.2f} times as fast as without skipping ({ms['dynamic']:.2f} ms a picture against "
            f"{ms['static']:.2f}), batch {speed['batch']}, router included, on {speed['pictures']} pictures "
            f"of {speed.get('split', 'train')} that keep {speed['kept_fraction']:.0%} of the routed blocks"
        )
    elif "dynamic_skip" in entry:
        lines.append(f"not timed: {entry.get('not_timed', 'there are no pictures; --data TASKS names some')}")
    return lines
