"""Pictures as users have them -> the tensor a network reads.

Shapes: B batch, C = 3 channels (RGB), H W pixels.
"""

from collections.abc import Iterator, Sequence
from glob import glob
from os import PathLike
from pathlib import Path
from typing import TypeAlias

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from perceptkit.errors import DataError
from perceptkit.pixels import Fit, fit_rgb, read_rgb, to_rgb

Picture: TypeAlias = "str | Path | np.ndarray | Image.Image"
SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".tiff")


def read_picture(picture: Picture) -> np.ndarray:
    """RGB uint8 (H, W, 3) from a path, a PIL picture, or an RGB or grey uint8 array.

    Turns the picture upright by its EXIF tag. Raises DataError that names the file, or what it is that was given.
    """
    if isinstance(picture, np.ndarray):
        if picture.dtype != np.uint8 or picture.ndim not in (2, 3) or 0 in picture.shape:
            raise DataError(
                f"a picture array must be uint8 of shape (H, W, 3) or (H, W); "
                f"got {picture.dtype} {picture.shape}"
            )
        if picture.ndim == 3 and picture.shape[2] not in (3, 4):
            raise DataError(f"a picture array has 3 (RGB) or 4 (RGBA) channels last; got {picture.shape}")
        picture = Image.fromarray(picture)
    if isinstance(picture, Image.Image):
        try:
            return to_rgb(picture)
        except ValueError as error:
            raise DataError(f"not a picture that can be used: {error}") from error
    if isinstance(picture, str | PathLike) or hasattr(picture, "read"):  # Pillow reads open files too
        return read_rgb(picture)
    raise DataError(
        "a picture is a path, a PIL picture or an RGB uint8 array of shape (H, W, 3); "
        f"got {type(picture).__name__}"
    )


def to_input(
    image: np.ndarray,
    size_HW: tuple[int, int],
    mean: Sequence[float],
    std: Sequence[float],
    fit: Fit = "stretch",
) -> Tensor:
    """(1, 3, H, W) float32: resized and normalised as in training."""
    scaled = fit_rgb(image, size_HW, fit).astype(np.float32) / 255.0
    normalised = (scaled - np.asarray(mean, np.float32)) / np.asarray(std, np.float32)
    return torch.from_numpy(np.ascontiguousarray(normalised.transpose(2, 0, 1)))[None]


def find_pictures(sources: Sequence[str | Path]) -> list[Path]:
    """Files from files, folders and globs, sorted within each. Raises DataError where one gives nothing."""
    found: list[Path] = []
    for source in sources:
        path = Path(source)
        matches = list(_matches(path))
        if not matches:
            raise DataError(f"{source}: no picture found")
        found += matches
    return found


def _matches(path: Path) -> Iterator[Path]:
    if path.is_dir():
        yield from sorted(p for p in path.iterdir() if p.suffix.lower() in SUFFIXES and p.is_file())
    elif path.is_file():
        yield path
    else:
        found = (Path(name) for name in glob(str(path), recursive=True))
        yield from sorted(p for p in found if p.suffix.lower() in SUFFIXES and p.is_file())
