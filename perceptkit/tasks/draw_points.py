"""Points on a picture: a ring with a dot for each, and its label where there is room."""

import colorsys
from collections.abc import Iterable

import numpy as np
from PIL import Image, ImageDraw

TEXT_FROM_PX = 160
"""Pictures with a shorter side below this get rings only: text would hide them."""


def colour(index: int) -> tuple[int, int, int]:
    """A bright colour; neighbouring indices differ by the golden ratio of the hue circle."""
    r, g, b = colorsys.hsv_to_rgb(0.618034 * index % 1.0, 0.85, 1.0)
    return round(255 * r), round(255 * g), round(255 * b)


def draw_points(image: np.ndarray, points: Iterable[tuple[float, float, int, str]]) -> np.ndarray:
    """A copy of `image` (H, W, 3) uint8 with `points`: x, y, index of the colour, label."""
    picture = Image.fromarray(np.ascontiguousarray(image))
    pen = ImageDraw.Draw(picture)
    shorter = min(image.shape[:2])
    radius = max(1.5, shorter / 60)
    for x, y, index, label in points:
        for r, ink in ((radius + 1, (0, 0, 0)), (radius, colour(index))):
            pen.ellipse((x - r, y - r, x + r, y + r), fill=ink)
        if shorter >= TEXT_FROM_PX:
            place = (x + radius + 2, y - 6)
            pen.text(place, label, fill=colour(index), stroke_width=1, stroke_fill=(0, 0, 0))
    return np.asarray(picture)
