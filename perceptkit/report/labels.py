"""Names beside points, each where it covers the least of what is drawn.

A thin line leads to a name that is further off.
"""

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.text import Annotation, Text
from matplotlib.transforms import Bbox

from perceptkit.report.theme import Theme

SIDES = [(1, 0), (1, 1), (1, -1), (0, 1), (0, -1), (-1, 0), (-1, 1), (-1, -1)]
"""Right first: where a reader looks first."""
GAPS = (7, 16, 28, 42)
"""Points between a point and its name."""
MARKER = 34
"""Pixels of the square around a point that belongs to its own name alone."""

Span = tuple[float, float, float, float]
"""(x0, y0, x1, y1) of a line, in the axes' units."""


def place_labels(
    ax: Axes, points: Sequence[tuple[float, float, str]], lines: Sequence[Span], theme: Theme
) -> None:
    """Writes each (x, y, name); the axes' limits must stand already. `lines` are better not covered either."""
    made = ax.get_figure(root=True)
    assert made is not None and isinstance(made.canvas, FigureCanvasAgg)
    made.canvas.draw()  # the layout is known then
    renderer = made.canvas.get_renderer()
    frame = ax.get_window_extent(renderer)
    places = [ax.transData.transform((x, y)) for x, y, _ in points]
    around = [Bbox.from_bounds(x - MARKER / 2, y - MARKER / 2, MARKER, MARKER) for x, y in places]
    ends = [ax.transData.transform([line[:2], line[2:]]) for line in lines]
    taken = [Bbox([both.min(0) - 2, both.max(0) + 2]) for both in ends]
    for own, (x, y, name) in enumerate(points):
        others = [*taken, *around[:own], *around[own + 1 :]]
        shown: Annotation | None = None
        best = (float("inf"), Bbox.null())
        for gap in GAPS:
            for dx, dy in SIDES:
                leads = gap > GAPS[0]
                text = ax.annotate(
                    name, (x, y), xytext=(gap * dx, gap * dy), textcoords="offset points",
                    ha={1: "left", 0: "center", -1: "right"}[dx], va={1: "bottom", 0: "center", -1: "top"}[dy],
                    fontsize=8, color=theme.text, zorder=5,
                    arrowprops={"arrowstyle": "-", "color": theme.muted, "linewidth": 0.6, "shrinkA": 0, "shrinkB": 4}
                    if leads
                    else None,
                )  # fmt: skip
                text.update_positions(renderer)
                box = Text.get_window_extent(text, renderer)  # without the line that leads to it
                outside = box.width * box.height - _common(box, frame)
                cost = sum(_common(box, other) for other in others) + 4 * outside + gap
                if cost < best[0]:
                    if shown is not None:
                        shown.remove()
                    best, shown = (cost, box), text
                else:
                    text.remove()
        taken.append(best[1])


def _common(one: Bbox, other: Bbox) -> float:
    """Area of what two boxes have in common, in square pixels."""
    both = Bbox.intersection(one, other)
    return both.width * both.height if both is not None else 0.0
