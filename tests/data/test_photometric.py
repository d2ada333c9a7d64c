"""albumentations behind one thin file: what may be named, and the same picture from the same seed."""

import warnings

import albumentations
import numpy as np
import pytest
from PIL import Image

from perceptkit.data.photometric import WITH_REFERENCES, Photometric
from perceptkit.errors import DataError, SpecError
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


REFUSED = ("Normalize", "ToFloat", "FromFloat", "TextImage")
"""Image-only transforms that do not give an 8-bit RGB picture, or need a font and a place for it."""


def test_every_other_image_only_transform_can_be_used(image, tmp_path):
    reference = tmp_path / "reference.png"
    Image.fromarray(255 - image).save(reference)
    names = [n for n in dir(albumentations) if is_image_only(getattr(albumentations, n))]
    assert len(names) > 50
    for name in sorted(set(names) - set(REFUSED)):
        paths = [str(reference)] if name in WITH_REFERENCES else []
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # ToGray's complaint of grey pictures, ToRGB's of colour
            transform = Photometric([PhotometricSpec(name=name, args={"p": 1.0}, references=paths)])
            changed = transform(image, 1)
            assert np.array_equal(transform(image, 1), changed), name
        assert changed.shape == image.shape and changed.dtype == np.uint8, name


def is_image_only(thing):
    return isinstance(thing, type) and albumentations.ImageOnlyTransform in thing.__mro__[1:]


def test_two_transforms_of_a_class_have_references_of_their_own(image, tmp_path):
    specs = []
    for name, value in (("dark", 10), ("bright", 240)):
        Image.fromarray(np.full((9, 9, 3), value, np.uint8)).save(tmp_path / f"{name}.png")
        args = {"p": 1.0, "blend_ratio": [1.0, 1.0]}
        path = str(tmp_path / f"{name}.png")
        specs.append(PhotometricSpec(name="HistogramMatching", args=args, references=[path]))
    assert (Photometric(specs)(image, 0) == 240).all()
    assert (Photometric(specs[::-1])(image, 0) == 10).all()


def test_references_that_are_not_taken_or_not_there():
    with pytest.raises(SpecError, match="InvertImg takes no `references`"):
        Photometric([PhotometricSpec(name="InvertImg", references=["a.png"])])
    with pytest.raises(DataError, match=r"nowhere.png: no such file"):
        Photometric([PhotometricSpec(name="FDA", references=["nowhere.png"])])


@pytest.mark.parametrize(
    "name, args, message",
    [
        ("Rotate", {}, "'Rotate' may move pixels; use hflip, vflip, rotate, zoom, pad, crop, resize"),
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
        ("FDA", {}, "FDA takes its look from other pictures: name them in `references`"),
        ("TextImage", {}, "TextImage: .*font_path"),
        ("ToFloat", {}, "ToFloat turns 8-bit RGB pictures into float32"),
    ],
)
def test_what_cannot_be_used_is_refused(name, args, message):
    with pytest.raises(SpecError, match=f"augment.photometric: .*{message}"):
        make(name, **args)
