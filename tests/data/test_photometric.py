"""albumentations behind one thin file: what may be named, and the same picture from the same seed."""

import numpy as np
import pytest

from perceptkit.data.photometric import Photometric
from perceptkit.errors import SpecError
from perceptkit.spec.recipe import PhotometricSpec

NOISY = ["RandomBrightnessContrast", "HueSaturationValue", "GaussNoise", "GaussianBlur", "ISONoise"]


def make(*names, **args):
    return Photometric([PhotometricSpec(name=name, args=args) for name in names])


@pytest.fixture
def image():
    return np.random.default_rng(0).integers(0, 255, (24, 32, 3), dtype=np.uint8)


def test_the_same_seed_gives_the_same_picture(image):
    first, second = make(*NOISY), make(*NOISY)
    expected = [first(image, seed) for seed in range(10)]
    second(image, 77)  # what came before does not matter
    for seed in reversed(range(10)):
        assert np.array_equal(second(image, seed), expected[seed])
    assert len({picture.tobytes() for picture in expected}) == 10
    assert all(p.shape == image.shape and p.dtype == np.uint8 for p in expected)


def test_transforms_are_applied_independently():
    image = np.full((8, 8, 3), 100, np.uint8)
    twice = Photometric(
        [
            PhotometricSpec(name="RandomBrightnessContrast", args=fixed_brightness(0.2)),
            PhotometricSpec(name="InvertImg"),
        ]
    )
    # 100, +51, 255 - 100, 255 - 151; each at about a quarter of the seeds
    seen = [int(twice(image, seed)[0, 0, 0]) for seed in range(80)]
    assert set(seen) == {100, 151, 155, 104}
    assert min(seen.count(value) for value in set(seen)) >= 8


def test_the_given_picture_is_not_changed(image):
    before = image.copy()
    make(*NOISY, p=1.0)(image, 0)
    assert np.array_equal(image, before)


def test_transforms_run_in_order():
    image = np.full((8, 8, 3), 100, np.uint8)
    to_200 = PhotometricSpec(name="RandomBrightnessContrast", args={"p": 1.0, **fixed_brightness(0.4)})
    invert = PhotometricSpec(name="InvertImg", args={"p": 1.0})
    brighter = Photometric([to_200])(image, 0)
    assert (brighter > 100).all()
    assert np.array_equal(Photometric([to_200, invert])(image, 0), 255 - brighter)
    assert not np.array_equal(Photometric([invert, to_200])(image, 0), 255 - brighter)


def fixed_brightness(value):
    return {"brightness_limit": [value, value], "contrast_limit": [0.0, 0.0]}


@pytest.mark.parametrize(
    "name, args, message",
    [
        ("Rotate", {}, "'Rotate' may move pixels; use hflip, rotate, zoom"),
        ("HorizontalFlip", {}, "may move pixels"),
        ("CoarseDropout", {}, "may move pixels"),
        (
            "RandomBrightnesContrast",
            {},
            "no transform of albumentations; did you mean 'RandomBrightnessContrast'",
        ),
        ("Compose", {}, "'Compose' is no transform"),
        ("os", {}, "'os' is no transform"),
        ("ImageOnlyTransform", {}, "is no transform"),
        ("RandomBrightnessContrast", {"brightness": 1}, "'brightness' are not valid"),
        ("GaussNoise", {"std_range": "wide"}, "GaussNoise: .*std_range"),
        ("Normalize", {}, "Normalize turns 8-bit RGB pictures into float32 of 3 channels"),
        ("ToGray", {"num_output_channels": 1}, "into uint8 of 1 channels"),
        ("FDA", {}, "FDA: .*fda_metadata"),
    ],
)
def test_what_cannot_be_used_is_refused(name, args, message):
    with pytest.raises(SpecError, match=f"augment.photometric: .*{message}"):
        make(name, **args)
