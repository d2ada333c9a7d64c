"""Pictures as they are stored -> RGB pixels at the network's size: the same in training and in use.

Shapes: H W pixels.
"""

from pathlib import Path
from typing import Literal, TypeAlias

import cv2
import numpy as np
from PIL import Image, ImageOps

from perceptkit.errors import DataError

Fit: TypeAlias = Literal["stretch", "crop"]
"""How a picture of another shape comes to the network's size."""


def read_rgb(path: str | Path) -> np.ndarray:
    """RGB uint8 (H, W, 3), upright by its EXIF tag. Raises DataError that names the file."""
    try:
        with Image.open(path) as opened:
            return to_rgb(opened)
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such file") from error
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise DataError(f"{path}: not a readable picture ({error})") from error


def to_rgb(picture: Image.Image) -> np.ndarray:
    """RGB uint8 (H, W, 3) of a PIL picture; transparency is dropped, 16 bits of grey become 8."""
    picture = ImageOps.exif_transpose(picture)
    if picture.mode.startswith("I"):  # Pillow's own conversion clips: all above 255 would be white
        grey = np.asarray(picture).astype(np.int64)
        if grey.min() < 0 or grey.max() > 65535:
            raise ValueError(f"grey values of {grey.min()} to {grey.max()}; 8 and 16 bits are known")
        picture = Image.fromarray((grey >> 8).astype(np.uint8))
    elif picture.mode == "F":
        raise ValueError("floating-point pixels; 8 and 16 bits are known")
    return np.array(picture.convert("RGB"))


def resize_rgb(image: np.ndarray, size_HW: tuple[int, int]) -> np.ndarray:
    """RGB uint8 at `size_HW`; an axis that shrinks is averaged over areas, one that grows is bilinear."""
    height, width = size_HW
    if height < image.shape[0] or width < image.shape[1]:
        smaller = (min(width, image.shape[1]), min(height, image.shape[0]))
        image = cv2.resize(image, smaller, interpolation=cv2.INTER_AREA)
    if image.shape[:2] != (height, width):
        image = cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR)
    return image


def fit_rgb(image: np.ndarray, size_HW: tuple[int, int], fit: Fit = "stretch") -> np.ndarray:
    """RGB uint8 at `size_HW`: stretched to it, or in its own shape and the middle of it (`crop`)."""
    if fit == "stretch":
        return resize_rgb(image, size_HW)
    (height, width), (wanted_H, wanted_W) = image.shape[:2], size_HW
    scale = max(
        wanted_H / height, wanted_W / width
    )  # the shorter side, as the wanted shape sees it, just fits
    covering = max(wanted_H, round(height * scale)), max(wanted_W, round(width * scale))
    top, left = (covering[0] - wanted_H) // 2, (covering[1] - wanted_W) // 2
    resized = resize_rgb(image, covering)
    return np.ascontiguousarray(resized[top : top + wanted_H, left : left + wanted_W])
