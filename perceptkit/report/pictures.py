"""Pictures inside the page: read from disk, made no larger than they are shown, written as data URIs."""

import base64
import io
from pathlib import Path

from PIL import Image, UnidentifiedImageError

MAX_SIDE = 320
"""Pixels of the longer side of a picture in the grid of predictions."""


def inline_png(path: Path) -> str:
    """A PNG file, as it is, as a data URI."""
    return _uri(path.read_bytes())


def inline_thumbnail(path: Path, max_side: int = MAX_SIDE) -> str:
    """A picture as a data URI, shrunk to `max_side`; empty where there is no readable picture."""
    try:
        with Image.open(path) as opened:
            picture = opened.convert("RGB")
    except (OSError, UnidentifiedImageError, Image.DecompressionBombError):
        return ""
    picture.thumbnail((max_side, max_side), Image.Resampling.LANCZOS)
    png = io.BytesIO()
    picture.save(png, format="PNG", optimize=True)
    return _uri(png.getvalue())


def _uri(png: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(png).decode('ascii')}"
