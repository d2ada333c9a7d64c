"""`perceptkit init` for NYUv2, Cityscapes and Tiny-Taskonomy, told by the names of their folders and lists."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from perceptkit.errors import PerceptkitError
from perceptkit.spec import cityscapes, nyuv2, taskonomy
from perceptkit.spec.layout_table import layout_entries, layout_of
from perceptkit.spec.layouts import part_of
from perceptkit.spec.scaffold_text import size_line, written
from perceptkit.spec.taskonomy import RESPONSES
from perceptkit.spec.tasks_file import (
    SPLITS,
    CityscapesData,
    LayoutData,
    NYUv2Data,
    TaskonomyData,
)


class _Known(NamedTuple):
    """One layout, and the data that it is declared by."""

    data: Callable[[Path], LayoutData]
    is_here: Callable[[Path], bool]
    units: dict[str, str]
    """Of tasks whose numbers are no metres."""


def _nyuv2(layout: str) -> Callable[[Path], LayoutData]:
    return lambda root: NYUv2Data.model_validate(
        {"source": "nyuv2", "root": root, "size": [32, 32], "layout": layout}
    )


def _cityscapes(layout: str) -> Callable[[Path], LayoutData]:
    return lambda root: CityscapesData.model_validate(
        {"source": "cityscapes", "root": root, "size": [32, 32], "layout": layout}
    )


def _taskonomy(root: Path) -> LayoutData:
    return TaskonomyData(source="taskonomy", root=root, size=(32, 32))


_INVERSE = {"depth": "inverse depth"}
KNOWN: Sequence[_Known] = (
    _Known(_nyuv2("adashare"), lambda root: (root / nyuv2.LISTS).is_file(), {}),
    _Known(_cityscapes("adashare"), cityscapes.ADASHARE.is_here, _INVERSE),
    _Known(_taskonomy, taskonomy.TASKONOMY.is_here, {"depth": "log depth"}),
    _Known(_cityscapes("official"), cityscapes.OFFICIAL.is_here, {"depth": "disparity"}),
    _Known(_cityscapes("mtan"), cityscapes.MTAN.is_here, _INVERSE),
    _Known(_nyuv2("mtan"), nyuv2.MTAN.is_here, {}),
)
"""In the order in which they are tried: lists are surer than folders."""


def layout_lines(folder: Path, root: str) -> list[str] | None:
    """The lines below `data:` for one of these sets; None for anything else.

    Args:
        folder: what to propose a tasks file from.
        root: the same, as the file will name it.
    """
    for known in KNOWN:
        if known.is_here(folder):
            try:
                return _lines(known, folder, root)
            except PerceptkitError:
                continue  # a list of another form: not this set
    return None


def _lines(known: _Known, folder: Path, root: str) -> list[str] | None:
    data = known.data(folder)
    layout = layout_of(data)
    entries = {split: layout_entries(data, split) for split in SPLITS}
    first = next((entry for entry in entries["train"] if entry.image.is_file()), None)
    if first is None:
        return None
    counts = ", ".join(f"{split} {len(of_split)}" for split, of_split in entries.items())
    lines = [
        f"  source: {data.source}  # ? {layout.name}; pictures: {counts}",  # type: ignore[attr-defined]
        f"  root: {written(root)}  # relative to this file",
    ]
    if (form := getattr(data, "layout", None)) not in (None, "adashare"):
        lines.append(f"  layout: {form}")
    lines.append(size_line(entry.image for entry in entries["train"] if entry.image.is_file()))
    if part_of(layout, data, "val") == part_of(layout, data, "test"):
        lines.append("  # ? val and test are the same pictures; `hold_out: 10%` takes val from train instead")
    lines.append("tasks:")
    has = {label for entry in entries["train"] for label, path in entry.labels.items() if path.is_file()}
    of_classes = [count for count in layout.classes if layout.label("segmentation", None, count) in has]
    if of_classes:
        void = f", ignore_index: {layout.void}" if layout.void not in (None, 255) else ""
        others = f"  # ? or {' or '.join(map(str, of_classes[1:]))}" if of_classes[1:] else ""
        lines.append(f"  seg: {{type: segmentation, classes: {of_classes[0]}{void}}}{others}")
    for kind in ("normals", "depth"):
        if kind in layout.types and layout.label(kind, None, 0) in has:
            unit = f", unit: {known.units[kind]}" if kind in known.units else ""
            lines.append(f"  {kind}: {{type: {kind}{unit}}}")
    if "response" in layout.types:
        lines += [f"  {name}: {{type: response, target: {name}}}" for name in RESPONSES if name in has]
    return lines if lines[-1] != "tasks:" else None
