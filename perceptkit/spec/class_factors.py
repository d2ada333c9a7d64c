"""`class_weights` of a segmentation as a .npy file: one factor for each class, in the order of their ids.

AdaShare's Tiny-Taskonomy has such a file, `semseg_prior_factor.npy`. Nothing is unpickled.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from perceptkit.errors import DataError, SpecError
from perceptkit.spec.check_labels import read_array
from perceptkit.spec.templates import shown


def read_factors(path: Path, names: Sequence[str]) -> dict[str, float]:
    """The factors by name of their class.

    Args:
        path: of the .npy file.
        names: of the classes, in the order of their ids.

    Raises SpecError (without the key) where it is no file of so many numbers above 0.
    """
    if path.suffix.lower() != ".npy":
        raise SpecError(f"{shown(path)} is no .npy file; expected one, or factors by name, as in {{door: 4}}")
    if not path.is_file():
        raise SpecError(f"no such file of factors: {shown(path)}")
    try:
        values = read_array(path).squeeze()
    except DataError as error:
        raise SpecError(f"{shown(path)} {error}") from error
    if values.dtype.kind not in "uif" or values.shape != (len(names),):
        shape = "x".join(map(str, values.shape)) or "one value"
        raise SpecError(
            f"{shown(path)} has shape {shape} and type {values.dtype}; "
            f"expected {len(names)} numbers, one for each class"
        )
    if not (np.isfinite(values) & (values > 0)).all():
        place = int(np.flatnonzero(~(np.isfinite(values) & (values > 0)))[0])
        raise SpecError(
            f"{shown(path)} holds {values[place]:g} for the class '{names[place]}'; expected numbers above 0"
        )
    return dict(zip(names, values.astype(float).tolist(), strict=True))
