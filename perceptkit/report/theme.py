"""Colours and lettering of the plots, light and dark. Colours are told apart by colour-blind readers too.

Figures are made without pyplot: no global state, no window, the Agg canvas only.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure


@dataclass(frozen=True)
class Theme:
    """One set of colours; blue and orange follow Okabe and Ito."""

    name: str
    background: str
    text: str
    muted: str
    rule: str
    band: str
    """Behind every second stage, and in cells that are skipped."""
    hatch: str
    """Over the band in cells that are dropped."""
    shared: str
    specific: str
    route: str
    accent: str

    @property
    def keep_map(self) -> LinearSegmentedColormap:
        """Keep probability: 0 fades into the page, 1 is the colour of a kept block."""
        return LinearSegmentedColormap.from_list("keep", [self.band, self.shared])


LIGHT = Theme(
    "light",
    "#ffffff",
    "#1b2029",
    "#667080",
    "#d5dae1",
    "#f1f3f6",
    "#a9b2bf",
    "#2a72b5",
    "#e09112",
    "#8a5fa8",
    "#2a72b5",
)
DARK = Theme(
    "dark",
    "#15181d",
    "#e4e7ec",
    "#98a2b0",
    "#363d47",
    "#282e37",
    "#5c6675",
    "#5aa2e0",
    "#eda83c",
    "#b48fd0",
    "#5aa2e0",
)
THEMES = (LIGHT, DARK)


@contextmanager
def style(theme: Theme) -> Iterator[None]:
    """Matplotlib's settings for one theme, for the duration of the block."""
    settings: dict[Any, Any] = {
        "font.size": 9,
        "axes.titlesize": 9.5,
        "axes.titleweight": "bold",
        "axes.titlelocation": "left",
        "axes.titlepad": 7,
        "axes.labelsize": 8.5,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.linewidth": 0.8,
        "axes.edgecolor": theme.rule,
        "axes.facecolor": theme.background,
        "axes.labelcolor": theme.muted,
        "axes.titlecolor": theme.text,
        "axes.axisbelow": True,
        "axes.formatter.useoffset": False,
        "figure.facecolor": theme.background,
        "savefig.facecolor": theme.background,
        "text.color": theme.text,
        # names are the user's: a dollar sign is no formula
        "text.parse_math": False,
        "xtick.color": theme.rule,
        "ytick.color": theme.rule,
        "xtick.labelcolor": theme.muted,
        "ytick.labelcolor": theme.muted,
        "xtick.labelsize": 8,
        "ytick.labelsize": 8,
        "grid.color": theme.rule,
        "grid.linewidth": 0.5,
        "grid.alpha": 0.6,
        "lines.linewidth": 1.6,
        "hatch.linewidth": 0.6,
        "savefig.dpi": 170,
    }
    with matplotlib.rc_context(settings):
        yield


def figure(width: float, height: float) -> Figure:
    """An empty figure, sizes in inches."""
    made = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(made)
    return made


def panels(count: int, across: int, height: float = 1.9) -> tuple[Figure, list[Axes]]:
    """Small multiples: as many panels as asked for, at most `across` in a row."""
    columns = min(count, across)
    lines = -(-count // columns)
    made = figure(9 if columns > 1 else 6, height * lines + 0.15)
    made.get_layout_engine().set(w_pad=0.06, h_pad=0.06, wspace=0.03, hspace=0.05)  # type: ignore[union-attr,call-arg]
    axes = list(made.subplots(lines, columns, squeeze=False).flat)
    for unused in axes[count:]:
        unused.remove()
    return made, axes[:count]
