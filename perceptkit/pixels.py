"""Pictures as they are stored -> RGB pixels at the network's size: the same in training and in use.

Shapes: H W pixels.
"""

import io
import struct
from pathlib import Path
from typing import Literal, TypeAlias

import cv2
import numpy as np
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from perceptkit.errors import DataError

Fit: TypeAlias = Literal["stretch", "crop"]
"""How a picture of another shape comes to the network's size."""


def read_rgb(path: str | Path) -> np.ndarray:
    """RGB uint8 (H, W, 3), upright by its EXIF tag. Raises DataError that names the file."""
    try:
        data = path.read() if hasattr(path, "read") else Path(path).read_bytes()
        if (plain := plain_png(data, colour=True)) is not None:
            return plain
        with Image.open(io.BytesIO(data)) as opened:
            plain = plain_jpeg(data, opened)
            return to_rgb(opened) if plain is None else plain
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such file") from error
    except UnidentifiedImageError as error:
        reason = NO_FORMAT if data else EMPTY
        raise DataError(f"{path}: not a readable picture ({reason})") from error
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise DataError(f"{path}: not a readable picture ({error})") from error


GREY_PNG, RGB_PNG = 0, 2
PLAIN_PNG = {
    (8, GREY_PNG): cv2.IMREAD_GRAYSCALE,
    (16, GREY_PNG): cv2.IMREAD_GRAYSCALE | cv2.IMREAD_ANYDEPTH,
    (8, RGB_PNG): cv2.IMREAD_COLOR_RGB,
}
"""How OpenCV reads a PNG of so many bits and such a colour type."""
PNG_BEGIN, PNG_END = b"\x89PNG\r\n\x1a\n", b"\0\0\0\0IEND\xaeB\x60\x82"
JPEG_END = b"\xff\xd9"
NOT_PLAIN = (b"tRNS", b"eXIf", b"exif", b"com.adobe.xmp")
"""In a PNG: a transparent colour, or a place that may say that it lies on its side."""
EMPTY, NO_FORMAT = "the file is empty", "of no format that Pillow knows"


def plain_png(data: bytes, colour: bool = False) -> np.ndarray | None:
    """The values of a PNG as most are: RGB or grey of 8 bits, or grey of 16. With `colour` RGB alone.

    Decoded by OpenCV: the same numbers in less time than Pillow takes. None for all else, and for files that end too
    early, which OpenCV fills up with grey: Pillow knows more forms and says what is wrong.
    """
    if (
        not data.startswith(PNG_BEGIN)
        or not data.endswith(PNG_END)
        or any(word in data for word in NOT_PLAIN)
    ):
        return None
    width, height, bits, colour_type, is_interlaced = struct.unpack_from(">IIBBxxB", data, 16)
    flags = PLAIN_PNG.get((bits, colour_type))
    if flags is None or is_interlaced or (colour and colour_type != RGB_PNG):
        return None
    return _decoded(data, flags) if 0 < width * height <= (Image.MAX_IMAGE_PIXELS or 0) else None


def plain_jpeg(data: bytes, opened: Image.Image) -> np.ndarray | None:
    """As `plain_png`, of an upright RGB JPEG.

    Args:
        data: the file.
        opened: by Pillow, which has read the header alone.
    """
    is_whole = opened.format == "JPEG" and opened.mode == "RGB" and data.endswith(JPEG_END)
    if is_whole and opened.getexif().get(ExifTags.Base.Orientation) in (None, 1):
        return _decoded(data, cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION)
    return None


def _decoded(data: bytes, flags: int) -> np.ndarray | None:
    try:
        return cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except cv2.error:
        return None


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


def take_nearest(values: np.ndarray, size_HW: tuple[int, int], axis: int = 0) -> np.ndarray:
    """Values at `size_HW`, each the one that its centre falls into; rows lie along `axis`, columns along the next."""
    for at, new in ((axis, size_HW[0]), (axis + 1, size_HW[1])):
        if values.shape[at] != new:
            values = values.take(nearest(values.shape[at], new), axis=at)
    return values


def nearest(old: int, new: int) -> np.ndarray:
    """For each of `new` pixels, which of `old` ones holds its centre."""
    return ((np.arange(new) + 0.5) * (old / new)).astype(int)


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
