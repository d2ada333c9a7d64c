"""Pictures as they are stored -> RGB pixels at the network's size: the same in training and in use.

Shapes: H W pixels.
"""

import io
import struct
from collections.abc import Iterator
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
        plain = plain_png(data, colour=True)
        if plain is None:
            plain = plain_jpeg(data)
        if plain is not None:
            return plain
        with Image.open(io.BytesIO(data)) as opened:
            plain = upright_jpeg(data, opened)
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
JPEG_BEGIN, JPEG_END = b"\xff\xd8\xff", b"\xff\xd9"
NOT_PLAIN = (b"tRNS", b"eXIf", b"exif", b"com.adobe.xmp")
"""In a PNG: a transparent colour, or a place that may say that it lies on its side."""
JPEG_FRAMES = (0xC0, 0xC1, 0xC2)
JPEG_PASSED_OVER = (0xC4, 0xDB, 0xDD, 0xE0, 0xFE)
"""Tables, JFIF's header and comments: what may come before a frame and says nothing of which side is up."""
EMPTY, NO_FORMAT = "the file is empty", "of no format that Pillow knows"


def plain_png(data: bytes, colour: bool = False) -> np.ndarray | None:
    """The values of a PNG as most are: RGB or grey of 8 bits, or grey of 16. With `colour` RGB alone.

    Decoded by OpenCV: the same numbers in less time than Pillow takes. None for all else, and for files that end too
    early, which OpenCV fills up with grey: Pillow knows more forms and says what is wrong.
    """
    if (
        not data.startswith(PNG_BEGIN)
        or not data.endswith(PNG_END)
        or any(word in part for part in _beside_pixels(data) for word in NOT_PLAIN)
    ):
        return None
    width, height, bits, colour_type, is_interlaced = struct.unpack_from(">IIBBxxB", data, 16)
    flags = PLAIN_PNG.get((bits, colour_type))
    if flags is None or is_interlaced or (colour and colour_type != RGB_PNG):
        return None
    return _decoded(data, flags) if 0 < width * height <= (Image.MAX_IMAGE_PIXELS or 0) else None


def _beside_pixels(data: bytes) -> Iterator[bytes]:
    """Type and content of the chunks of a PNG that hold no pixels; of a damaged one the rest of the file."""
    at = len(PNG_BEGIN)
    while at + 12 <= len(data):
        (length,) = struct.unpack_from(">I", data, at)
        if data[at + 4 : at + 8] != b"IDAT":
            yield data[at + 4 : at + 8 + length]
        at += length + 12
    yield data[at:]


def plain_jpeg(data: bytes) -> np.ndarray | None:
    """As `plain_png`, of a JPEG of three colours and 8 bits that says nothing of which side is up."""
    if not data.startswith(JPEG_BEGIN) or not data.endswith(JPEG_END):
        return None
    at = 2
    while at + 10 <= len(data) and data[at] == 0xFF and data[at + 1] in (*JPEG_PASSED_OVER, *JPEG_FRAMES):
        if data[at + 1] in JPEG_FRAMES:
            bits, height, width, colours = struct.unpack_from(">BHHB", data, at + 4)
            is_fit = 0 < width * height <= (Image.MAX_IMAGE_PIXELS or 0)
            return _decoded_jpeg(data) if (bits, colours) == (8, 3) and is_fit else None
        at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    return None


def upright_jpeg(data: bytes, opened: Image.Image) -> np.ndarray | None:
    """As `plain_jpeg`, of one whose header takes Pillow to read.

    Args:
        data: the file.
        opened: by Pillow, which has read the header alone.
    """
    is_whole = opened.format == "JPEG" and opened.mode == "RGB" and data.endswith(JPEG_END)
    if is_whole and opened.getexif().get(ExifTags.Base.Orientation) in (None, 1):
        return _decoded_jpeg(data)
    return None


def _decoded_jpeg(data: bytes) -> np.ndarray | None:
    return _decoded(data, cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION)


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
        if values.shape[at] == new:
            continue
        every, rest = divmod(values.shape[at], new)
        if rest or at + 1 < values.ndim:
            values = values.take(nearest(values.shape[at], new), axis=at)
        else:  # the same pixels; single numbers are faster to copy in steps than by index
            values = np.ascontiguousarray(values[..., every // 2 :: every])
    return values


def planes_nearest(values_HW3: np.ndarray, size_HW: tuple[int, int] | None) -> np.ndarray:
    """(3, H, W) of a picture of 8 or 16 bits, at `size_HW` as `take_nearest` takes it: in planes that is faster."""
    if size_HW is None:
        return np.stack(cv2.split(np.ascontiguousarray(values_HW3)))
    rows = take_nearest(values_HW3, (size_HW[0], values_HW3.shape[1]))
    return take_nearest(np.stack(cv2.split(np.ascontiguousarray(rows))), size_HW, axis=1)


def take_strongest(values_HW: np.ndarray, size_HW: tuple[int, int]) -> np.ndarray:
    """Values at `size_HW`, each the largest that falls into it: thin edges survive, ignored stays ignored."""
    for axis, (old, new) in enumerate(zip(values_HW.shape, size_HW, strict=True)):
        if new > old:
            values_HW = values_HW.take(nearest(old, new), axis)
        elif new < old:
            # first and last of the old pixels that fall into each new one
            first = np.searchsorted(nearest(new, old), np.arange(new))
            last = np.append(first[1:], old) - 1
            largest = values_HW.take(first, axis)
            for step in range(1, int((last - first).max()) + 1):
                np.maximum(largest, values_HW.take(np.minimum(first + step, last), axis), out=largest)
            values_HW = largest
    return np.ascontiguousarray(values_HW)


def nearest(old: int, new: int) -> np.ndarray:
    """For each of `new` pixels, which of `old` ones holds its centre."""
    return ((np.arange(new) + 0.5) * (old / new)).astype(int)


def fit_rgb(image: np.ndarray, size_HW: tuple[int, int], fit: Fit = "stretch") -> np.ndarray:
    """RGB uint8 at `size_HW`: stretched to it, or in its own shape and the middle of it (`crop`)."""
    if fit == "stretch":
        return resize_rgb(image, size_HW)
    covering, (wanted_H, wanted_W) = cover_rgb(image, size_HW), size_HW
    top, left = (covering.shape[0] - wanted_H) // 2, (covering.shape[1] - wanted_W) // 2
    return np.ascontiguousarray(covering[top : top + wanted_H, left : left + wanted_W])


def cover_rgb(image: np.ndarray, size_HW: tuple[int, int]) -> np.ndarray:
    """RGB uint8 in its own shape, as small as it can be and still cover `size_HW`: what `crop` takes the middle of."""
    (height, width), (wanted_H, wanted_W) = image.shape[:2], size_HW
    scale = max(wanted_H / height, wanted_W / width)  # one side just fits, the other is too long or fits too
    return resize_rgb(image, (max(wanted_H, round(height * scale)), max(wanted_W, round(width * scale))))
