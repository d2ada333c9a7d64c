"""All layouts, and what a split of one holds."""

from perceptkit.spec import cityscapes, nyuv2, taskonomy
from perceptkit.spec.excluded import kept
from perceptkit.spec.layouts import Entry, Layout, held_out, part_of
from perceptkit.spec.listed import thinned
from perceptkit.spec.tasks_file import DataBase, DepthKind, LayoutData, ScenesData, Split, TaskBase

LAYOUTS: dict[str, dict[str, Layout]] = {
    "nyuv2": {"adashare": nyuv2.ADASHARE, "mtan": nyuv2.MTAN},
    "cityscapes": {
        "adashare": cityscapes.ADASHARE,
        "mtan": cityscapes.MTAN,
        "official": cityscapes.OFFICIAL,
    },
    "taskonomy": {"": taskonomy.TASKONOMY},
}
"""By `source` and `layout`."""


def layout_of(data: LayoutData) -> Layout:
    """The layout of a data set."""
    return LAYOUTS[data.source][getattr(data, "layout", "")]  # type: ignore[attr-defined]  # all have one


def depth_kind(data: DataBase | None) -> DepthKind | None:
    """What depth labels hold, where the source leaves no choice about it."""
    if isinstance(data, ScenesData):
        return "metric"
    if not isinstance(data, LayoutData) or getattr(data, "layout", "") is None:  # invalid, and reported
        return None
    return layout_of(data).depth


def layout_entries(data: LayoutData, split: Split) -> list[Entry]:
    """The pictures of one split in a fixed order, thinned to `limit`. Files are not looked at.

    Raises DataError where a list is missing or damaged.
    """
    layout = layout_of(data)
    found = held_out(layout.entries(data, part_of(layout, data, split)), data.hold_out, split)
    return kept(thinned(found, data.limit, split), lambda entry: entry.id, data, split)


def label_of(spec: TaskBase, data: LayoutData, num_classes: int = 0) -> str:
    """Which of an entry's labels a task reads."""
    return layout_of(data).label(spec.type, spec.target, num_classes)  # type: ignore[attr-defined]
