"""Four looks of the same scenes: a domain each, with the same labels.

Shapes: H W pixels, 3 = RGB.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from perceptkit.data.scenes.textures import value_noise
from perceptkit.spec.tasks_file import Style


@dataclass(frozen=True)
class Shading:
    """What the renderer knows of every pixel, averaged over sub-pixels where surfaces meet."""

    albedo_HW3: np.ndarray
    """Linear RGB."""
    direct_HW: np.ndarray
    """Light that comes straight from the lamp, 0 in shadow."""
    gloss_HW: np.ndarray
    """Highlight of the lamp."""
    heat_HW: np.ndarray
    """Temperature in [0, 1]."""
    edges_HW: np.ndarray
    """bool."""


def studio(shading: Shading, rng: np.random.Generator) -> np.ndarray:
    """White light, as a good camera sees it."""
    light = 0.4 + 0.85 * shading.direct_HW[..., None]
    return _develop(shading.albedo_HW3 * light + 0.25 * shading.gloss_HW[..., None])


def dusk(shading: Shading, rng: np.random.Generator) -> np.ndarray:
    """A warm lamp in blue evening light, underexposed and noisy, darker towards the corners."""
    ambient, lamp = np.array([0.045, 0.06, 0.13]), np.array([0.75, 0.4, 0.16])
    light = ambient + lamp * shading.direct_HW[..., None]
    linear = shading.albedo_HW3 * light + 0.2 * lamp * shading.gloss_HW[..., None]
    height, width = shading.direct_HW.shape
    ys, xs = np.linspace(-1, 1, height)[:, None], np.linspace(-1, 1, width)[None]
    linear = linear * (1 - 0.28 * (ys**2 + xs**2))[..., None]
    noisy = _develop(linear) + rng.normal(0, 7, (height, width, 3))
    return np.clip(noisy, 0, 255)


def sketch(shading: Shading, rng: np.random.Generator) -> np.ndarray:
    """Pencil on paper: contours, and hatching where it is dark; no colour."""
    height, width = shading.direct_HW.shape
    luminance = (shading.albedo_HW3 @ np.array([0.2, 0.7, 0.1])) * (0.4 + 0.85 * shading.direct_HW)
    tone = np.clip(luminance, 0, 1) ** (1 / 2.2)
    ys, xs = np.mgrid[:height, :width] * (64 / width)  # hatching does not get finer in larger pictures
    hatch = (np.sin(2.1 * (xs + ys)) > 0) * (tone < 0.5) + (np.sin(2.1 * (xs - ys)) > 0) * (tone < 0.33)
    grain = 0.06 * value_noise(rng.uniform(0, 999, 2) + np.stack([xs.ravel(), ys.ravel()], axis=1) / 2)
    line = np.clip(ndimage.gaussian_filter(shading.edges_HW.astype(float), 0.5 * width / 64) * 1.7, 0, 1)
    paper = 0.82 + 0.14 * tone - grain.reshape(height, width) - 0.2 * hatch
    grey = paper * (1 - 0.8 * line)
    return np.clip(255 * grey, 0, 255)[..., None] * np.array([1.0, 0.985, 0.95])


def thermal(shading: Shading, rng: np.random.Generator) -> np.ndarray:
    """Temperatures in false colours: no texture, little light, soft contours."""
    heat = shading.heat_HW + 0.12 * shading.direct_HW
    soft = ndimage.gaussian_filter(heat, 0.6 * heat.shape[1] / 64) + rng.normal(0, 0.012, heat.shape)
    return np.stack([np.interp(soft, IRON[:, 0], IRON[:, c]) for c in (1, 2, 3)], axis=-1)


IRON = np.array(
    [
        [0.0, 0, 0, 20], [0.2, 40, 0, 120], [0.4, 140, 10, 150], [0.6, 220, 60, 60],
        [0.8, 250, 150, 10], [1.0, 255, 230, 90], [1.15, 255, 255, 235],
    ]
)  # fmt: skip
"""Temperature, red, green, blue."""


def _develop(linear_HW3: np.ndarray) -> np.ndarray:
    """Linear light as 8-bit values: the usual gamma."""
    return 255 * np.clip(linear_HW3, 0, 1) ** (1 / 2.2)


STYLES: dict[Style, Callable[[Shading, np.random.Generator], np.ndarray]] = {
    "studio": studio,
    "dusk": dusk,
    "sketch": sketch,
    "thermal": thermal,
}
"""Values in [0, 255], (H, W, 3)."""
