"""Colours: one per class, and a ramp for distances."""

import colorsys

import numpy as np

DARK = 0.25
"""Brightness that is left of the picture where there is nothing to draw, as at unlabelled pixels."""

# after Trubetskoy's "20 simple, distinct colors": neighbouring ids differ most; no grey, black or white
_FIRST = (
    (230, 25, 75), (60, 180, 75), (255, 225, 25), (0, 130, 200), (245, 130, 48), (145, 30, 180),
    (70, 240, 240), (240, 50, 230), (210, 245, 60), (170, 110, 40), (0, 128, 128), (250, 190, 212),
    (128, 0, 0), (170, 255, 195), (0, 0, 140), (255, 215, 180), (128, 128, 0), (220, 190, 255),
)  # fmt: skip

# seventeen samples of Turbo (Mikhailov 2019), blue to red; nothing visible is lost between them
_TURBO = np.array(
    (
        (48, 18, 59), (64, 64, 162), (70, 107, 227), (66, 148, 255), (40, 188, 235), (24, 221, 194),
        (50, 242, 152), (109, 254, 98), (164, 252, 60), (205, 236, 52), (238, 207, 58), (253, 172, 52),
        (251, 126, 33), (235, 80, 14), (208, 47, 5), (169, 22, 1), (122, 4, 3),
    ),
    dtype=np.float32,
)  # fmt: skip


def class_colours(num_classes: int) -> np.ndarray:
    """(num_classes, 3) uint8: a colour per class id, the same in every picture and run."""
    colours = [_FIRST[i] if i < len(_FIRST) else _generated(i) for i in range(num_classes)]
    return np.array(colours, dtype=np.uint8).reshape(num_classes, 3)


def turbo(share: np.ndarray) -> np.ndarray:
    """Colours (..., 3) uint8 of numbers in [0, 1]: blue at 0, green in the middle, red at 1."""
    places = np.linspace(0, 1, len(_TURBO))
    channels = [np.interp(share, places, _TURBO[:, i]) for i in range(3)]
    colours: np.ndarray = np.rint(np.stack(channels, axis=-1)).astype(np.uint8)
    return colours


def _generated(index: int) -> tuple[int, int, int]:
    hue = index * 0.618034 % 1.0  # the golden ratio never comes near a hue it has been at
    rgb = colorsys.hsv_to_rgb(hue, (0.9, 0.5, 0.75)[index % 3], (1.0, 0.9, 0.55)[index % 3])
    return tuple(round(255 * value) for value in rgb)  # type: ignore[return-value]  # three of them
