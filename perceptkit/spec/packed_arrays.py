"""Maps of numbers inside larger files: pictures and .npy files as bytes, or nested lists. numpy and Pillow only."""

import io
from typing import Any

import numpy as np
from PIL import Image

from perceptkit.errors import DataError
from perceptkit.spec.packed_labels import short

_NPY = b"\x93NUMPY"


def as_array(stored: Any, where: str) -> np.ndarray:
    """The values of a .npy file or a picture (bytes), or of nested lists; palette pictures give their indexes.

    Raises DataError that names `where`.
    """
    try:
        if isinstance(stored, bytes):
            if stored.startswith(_NPY):
                return np.asarray(np.load(io.BytesIO(stored), allow_pickle=False))
            with Image.open(io.BytesIO(stored)) as picture:
                return np.asarray(picture)
        if isinstance(stored, list | np.ndarray):
            return np.asarray(stored)
    except Exception as error:  # damaged headers fail in many ways, inside Pillow and numpy
        reason = str(error).splitlines()[0] if str(error) else "broken file"
        raise DataError(f"{where} cannot be read: {reason}") from error
    raise DataError(f"{where} holds {short(stored)}; expected a picture or an array")
