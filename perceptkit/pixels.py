"""Pictures as they are stored -> RGB pixels at the network's size: the same in training and in use.

Shapes: H W pixels.
"""

import io
from pathlib import Path

import cv2
import numpy as np
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from perceptkit.errors import DataError


def read_rgb(path: str | Path) -> np.ndarray:
    """RGB uint8 (H, W, 3), upright by its EXIF tag. Raises DataError that names the file."""
    try:
        data = path.read() if hasattr(path, "read") else Path(path).read_bytes()
        with Image.open(io.BytesIO(data)) as opened:
            plain = plain_values(data, opened) if opened.mode == "RGB" else None
            return to_rgb(opened) if plain is None else plain
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such file") from error
    except UnidentifiedImageError as error:
        reason = NO_FORMAT if data else EMPTY
        raise DataError(f"{path}: not a readable picture ({reason})") from error
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise DataError(f"{path}: not a readable picture ({error})") from error


PLAIN = {
    "L": cv2.IMREAD_GRAYSCALE,
    "I;16": cv2.IMREAD_GRAYSCALE | cv2.IMREAD_ANYDEPTH,
    "RGB": cv2.IMREAD_COLOR_RGB,
}
"""How OpenCV reads what Pillow calls so."""
JPEG_END, PNG_END = b"\xff\xd9", b"\0\0\0\0IEND\xaeB\x60\x82"
EXIF_WORDS = (b"eXIf", b"exif", b"com.adobe.xmp")
"""In a PNG: it may say that it lies on its side."""
UPRIGHT = (None, 1)
EMPTY, NO_FORMAT = "the file is empty", "of no format that Pillow knows"


def plain_values(data: bytes, opened: Image.Image) -> np.ndarray | None:
    """The values of a picture as most are: an upright RGB JPEG; an RGB or grey PNG of 8 bits, or a grey one of 16.

    Decoded by OpenCV: the same numbers in a half to a fifth of Pillow's time. None for all else, and for files that end
    too early, which OpenCV fills up with grey: Pillow knows more forms and says what is wrong.

    Args:
        data: the file.
        opened: by Pillow, which has read the header alone.
    """
    if opened.format == "JPEG":
        is_plain = (
            opened.mode == "RGB"
            and data.endswith(JPEG_END)
            and opened.getexif().get(ExifTags.Base.Orientation) in UPRIGHT
        )
    else:
        bits, is_interlaced = data[24], data[28]
        is_plain = (
            opened.format == "PNG"
            and opened.mode in PLAIN
            and bits == (16 if opened.mode == "I;16" else 8)
            and not is_interlaced
            and "transparency" not in opened.info
            and data.endswith(PNG_END)
            and not any(word in data for word in EXIF_WORDS)
        )
    if not is_plain:
        return None
    flags = PLAIN[opened.mode] | cv2.IMREAD_IGNORE_ORIENTATION
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
