"""A line of text on a picture."""

import numpy as np
from PIL import Image, ImageDraw, ImageFont

MIN_TEXT_PX = 9
"""Height below which letters are not readable."""


def draw_bar(image: np.ndarray, text: str) -> np.ndarray:
    """A copy of `image` (H, W, 3) uint8 with white text, cut to its width, in a dark bar at the bottom."""
    picture = Image.fromarray(np.ascontiguousarray(image))
    height = max(MIN_TEXT_PX, round(min(image.shape[:2]) / 14))
    font = ImageFont.load_default(height)
    pen = ImageDraw.Draw(picture, "RGBA")
    left, margin = max(2, height // 4), max(1, height // 5)
    while len(text) > 3 and left + pen.textlength(text, font) > picture.width:
        text = text.removesuffix("...")[:-1] + "..."
    top = picture.height - height - 2 * margin
    pen.rectangle((0, top, picture.width, picture.height), fill=(0, 0, 0, 170))
    pen.text((left, picture.height - margin), text, fill=(255, 255, 255), font=font, anchor="ld")
    return np.asarray(picture)
