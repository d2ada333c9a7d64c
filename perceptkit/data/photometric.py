"""Photometric augmentation by albumentations: the one file that knows the library.

Only its image-only transforms can be named: geometry has to move labels that it knows nothing of.
"""

import difflib
import os
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np

from perceptkit.errors import SpecError
from perceptkit.pixels import read_rgb
from perceptkit.spec.recipe import PhotometricSpec

PROBE = np.arange(32 * 32 * 3, dtype=np.uint32).astype(np.uint8).reshape(32, 32, 3)
"""Every transform is tried on this before anything is trained."""

WITH_REFERENCES = ("FDA", "HistogramMatching", "PixelDistributionAdaptation")


class Photometric:
    """The transforms of a recipe, in order.

    Raises SpecError for a name that is no image-only transform, arguments that it does not take, or a result
    that is no 8-bit RGB picture any more; DataError for a reference picture that cannot be read.
    """

    def __init__(self, specs: Sequence[PhotometricSpec]) -> None:
        os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # it calls home on import otherwise
        import albumentations

        self._references = {
            _key(number): [read_rgb(path) for path in spec.references]
            for number, spec in enumerate(specs)
            if spec.name in WITH_REFERENCES
        }
        made = [_make(albumentations, spec, n, self._references.get(_key(n))) for n, spec in enumerate(specs)]
        self._compose = albumentations.Compose(made)

    def __call__(self, image: np.ndarray, seed: int) -> np.ndarray:
        """RGB uint8 (H, W, 3) in and out; the same seed gives the same picture."""
        transforms = self._compose.transforms
        # one seed each: with the same one they would all be applied, or none
        for transform, own in zip(
            transforms, np.random.SeedSequence(seed).generate_state(len(transforms)), strict=True
        ):
            transform.set_random_seed(int(own))
        changed: np.ndarray = self._compose(image=image, **self._references)["image"]
        return changed


def _key(number: int) -> str:
    """What the references of a transform are called: albumentations gives all of a class the same name."""
    return f"references_{number}"


def _make(library: Any, spec: PhotometricSpec, number: int, references: list[np.ndarray] | None) -> Any:
    where = f"augment.photometric: {spec.name}"
    only = library.ImageOnlyTransform
    known: Any = getattr(library, spec.name, None)
    kinds = known.__mro__[1:] if isinstance(known, type) else ()
    if only not in kinds:
        names = [
            n for n in dir(library) if isinstance(v := getattr(library, n), type) and only in v.__mro__[1:]
        ]
        near = difflib.get_close_matches(spec.name, names, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        moves = library.BasicTransform in kinds and known is not only
        reason = (
            "may move pixels; use hflip, vflip, rotate, zoom, pad, crop, resize"
            if moves
            else "is no transform of albumentations"
        )
        raise SpecError(f"augment.photometric: {spec.name!r} {reason}{hint}")
    takes = spec.name in WITH_REFERENCES
    if takes != bool(spec.references):
        mend = (
            "takes its look from other pictures: name them in `references`"
            if takes
            else "takes no `references`"
        )
        raise SpecError(f"{where} {mend}")
    args = {**spec.args, "metadata_key": _key(number)} if takes else spec.args
    given = {_key(number): references} if takes else {}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", UserWarning)  # only warns of arguments that it does not take
            transform, always = known(**args), known(**{**args, "p": 1.0})
        changed = library.Compose([always])(image=PROBE.copy(), **given)["image"]
    except Exception as error:  # pydantic's, cv2's, numpy's
        raise SpecError(f"{where}: {_reason(error)}") from error
    if changed.dtype != PROBE.dtype or changed.shape != PROBE.shape:
        channels = changed.shape[2] if changed.ndim == 3 else 1
        raise SpecError(f"{where} turns 8-bit RGB pictures into {changed.dtype} of {channels} channels")
    return transform


def _reason(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return " ".join(lines[:3]) or type(error).__name__
