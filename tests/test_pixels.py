"""Every form of picture becomes RGB, and resizing averages or interpolates per axis."""

import numpy as np
import pytest
from PIL import Image

from perceptkit.errors import DataError
from perceptkit.pixels import (
    cover_rgb,
    fit_rgb,
    nearest,
    plain_jpeg,
    plain_png,
    planes_nearest,
    read_rgb,
    resize_rgb,
    take_nearest,
    to_rgb,
    upright_jpeg,
)


def test_sixteen_bits_become_eight():
    grey = np.array([[0, 256, 32768, 65535]], np.uint16)
    rgb = to_rgb(Image.fromarray(grey))
    assert rgb[0].tolist() == [[0] * 3, [1] * 3, [128] * 3, [255] * 3]
    assert rgb.dtype == np.uint8
    assert to_rgb(Image.fromarray(grey.astype(np.int32)))[0, :, 1].tolist() == [0, 1, 128, 255]


@pytest.mark.parametrize(
    "mode, stored, expected",
    [
        ("L", 7, (7, 7, 7)),
        ("1", 1, (255, 255, 255)),
        ("LA", (9, 0), (9, 9, 9)),
        ("RGBA", (1, 2, 3, 0), (1, 2, 3)),
        ("CMYK", (0, 255, 255, 0), (255, 0, 0)),
    ],
)
def test_modes(mode, stored, expected):
    assert tuple(to_rgb(Image.new(mode, (2, 1), stored))[0, 0]) == expected


def test_palette():
    picture = Image.new("P", (1, 1), 1)
    picture.putpalette([0, 0, 0, 10, 20, 30])
    assert to_rgb(picture)[0, 0].tolist() == [10, 20, 30]


def test_exif_turns_the_picture_upright(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was held with its right side up: turn by 90 degrees clockwise
    stored = np.zeros((2, 3, 3), np.uint8)
    stored[0, 0] = 255
    Image.fromarray(stored).save(tmp_path / "turned.png", exif=exif)
    rgb = read_rgb(tmp_path / "turned.png")
    assert rgb.shape == (3, 2, 3)
    assert np.argwhere(rgb[..., 0]).tolist() == [[0, 1]]


def test_errors_name_the_file(tmp_path):
    with pytest.raises(DataError, match=r"none\.png: no such file"):
        read_rgb(tmp_path / "none.png")
    (tmp_path / "text.png").write_text("not a picture")
    with pytest.raises(DataError, match=r"text\.png: not a readable picture"):
        read_rgb(tmp_path / "text.png")
    Image.fromarray(np.zeros((2, 2), np.float32)).save(tmp_path / "float.tif")
    with pytest.raises(DataError, match=r"float\.tif: not a readable picture \(floating-point pixels"):
        read_rgb(tmp_path / "float.tif")
    Image.fromarray(np.full((2, 2), 70_000, np.int32)).save(tmp_path / "large.tif")
    with pytest.raises(DataError, match=r"large\.tif: .*grey values of 70000 to 70000"):
        read_rgb(tmp_path / "large.tif")


def test_a_truncated_file_is_an_error(tmp_path):
    path = tmp_path / "half.png"
    noise = np.random.default_rng(0).integers(0, 255, (32, 32, 3), dtype=np.uint8)
    Image.fromarray(noise).save(path)
    path.write_bytes(path.read_bytes()[:1500])
    with pytest.raises(DataError, match=r"half\.png: not a readable picture"):
        read_rgb(path)


def columns(*values):
    return np.tile(np.array(values, np.uint8)[None, :, None], (4, 1, 3))


def test_shrinking_averages():
    assert resize_rgb(columns(0, 100, 200, 40), (4, 2))[0, :, 0].tolist() == [50, 120]
    assert resize_rgb(columns(0, 100, 200, 40), (2, 1))[:, 0, 0].tolist() == [85, 85]


def test_growing_interpolates():
    # new centres .25, .75, 1.25, 1.75 less a half: -.25, .25, .75, 1.25
    assert resize_rgb(columns(0, 80), (4, 4))[0, :, 0].tolist() == [0, 20, 60, 80]


def test_one_axis_shrinks_while_the_other_grows():
    stripes = columns(*[0, 100, 100, 0] * 4)  # the two in the middle are not the mean of four
    tall = resize_rgb(stripes, (9, 4))
    assert tall.shape == (9, 4, 3) and (tall == 50).all()
    wide = resize_rgb(stripes.transpose(1, 0, 2).copy(), (4, 9))
    assert wide.shape == (4, 9, 3) and (wide == 50).all()


def test_the_same_size_is_untouched():
    image = columns(1, 2, 3)
    assert resize_rgb(image, (4, 3)) is image


@pytest.mark.parametrize("size_HW", [(64, 80), (37, 51), (1, 1)])
@pytest.mark.parametrize(
    "ending, how",
    [
        ("jpg", {"quality": 95, "subsampling": 0}),
        ("jpg", {"quality": 90, "subsampling": 1}),
        ("jpg", {"quality": 75, "subsampling": 2}),
        ("jpg", {"quality": 60, "progressive": True}),
        ("png", {}),
    ],
)
def test_plain_pictures_are_those_that_pillow_reads(tmp_path, ending, how, size_HW):
    path = tmp_path / f"a.{ending}"
    values = np.random.default_rng(0).integers(0, 256, (*size_HW, 3), np.uint8)
    Image.fromarray(values).save(path, **how)
    with Image.open(path) as opened:
        expected = to_rgb(opened)
    data = path.read_bytes()
    with Image.open(path) as opened:
        plain = plain_png(data) if ending == "png" else upright_jpeg(data, opened)
    np.testing.assert_array_equal(plain, expected)
    if ending == "jpg":
        np.testing.assert_array_equal(plain_jpeg(data), expected)
    np.testing.assert_array_equal(read_rgb(path), expected)


@pytest.mark.parametrize("values", [np.arange(12, dtype=np.uint8), np.arange(12, dtype=np.uint16) * 5000])
def test_plain_maps_are_the_stored_numbers(tmp_path, values):
    path = tmp_path / "a.png"
    Image.fromarray(values.reshape(3, 4)).save(path)
    plain = plain_png(path.read_bytes())
    np.testing.assert_array_equal(plain, values.reshape(3, 4))
    assert plain.dtype == values.dtype and plain_png(path.read_bytes(), colour=True) is None


def test_what_is_not_plain_is_left_to_pillow(tmp_path):
    path = tmp_path / "a.png"
    grey = Image.fromarray(np.zeros((4, 4), np.uint8))
    for mode, how in (("1", {}), ("P", {}), ("RGBA", {}), ("L", {"transparency": 0})):
        grey.convert(mode).save(path, **how)
        assert plain_png(path.read_bytes()) is None
    exif = Image.Exif()
    exif[0x0112] = 6
    grey.save(path, exif=exif)
    assert plain_png(path.read_bytes()) is None
    grey.convert("RGB").save(tmp_path / "a.jpg", exif=exif)
    with Image.open(tmp_path / "a.jpg") as opened:
        assert upright_jpeg((tmp_path / "a.jpg").read_bytes(), opened) is None
    assert plain_jpeg((tmp_path / "a.jpg").read_bytes()) is None
    for mode in ("L", "CMYK"):
        grey.convert(mode).save(tmp_path / "a.jpg")
        assert plain_jpeg((tmp_path / "a.jpg").read_bytes()) is None


@pytest.mark.parametrize("size_HW", [(8, 12), (4, 6), (3, 5), (8, 4), (11, 17)])
def test_planes_are_the_same_pixels(size_HW):
    values = np.random.default_rng(0).integers(0, 256, (8, 12, 3), np.uint8)
    expected = values[nearest(8, size_HW[0])][:, nearest(12, size_HW[1])]
    np.testing.assert_array_equal(planes_nearest(values, size_HW), expected.transpose(2, 0, 1))
    np.testing.assert_array_equal(take_nearest(values[..., 0], size_HW), expected[..., 0])
    np.testing.assert_array_equal(planes_nearest(values, None), values.transpose(2, 0, 1))


def test_nearest_pixels():
    # 4 -> 2 takes 1 and 3, whose cells hold the centres; 2 -> 4 each twice
    assert take_nearest(np.arange(4)[:, None], (2, 1)).ravel().tolist() == [1, 3]
    assert take_nearest(np.array([[7, 8]]), (1, 4)).tolist() == [[7, 7, 8, 8]]


def ramps(height, width):
    """The column's number in red, the row's in green."""
    image = np.zeros((height, width, 3), dtype=np.uint8)
    image[..., 0], image[..., 1] = np.arange(width), np.arange(height)[:, None]
    return image


def test_the_middle_is_taken_where_the_shorter_side_fits():
    image = fit_rgb(ramps(4, 10), (4, 4), "crop")
    assert image[0, :, 0].tolist() == [3, 4, 5, 6] and image[:, 0, 1].tolist() == [0, 1, 2, 3]
    image = fit_rgb(ramps(10, 4), (4, 4), "crop")
    assert image[:, 0, 1].tolist() == [3, 4, 5, 6]


@pytest.mark.parametrize("shape", [(8, 20), (20, 8), (3, 5), (72, 144), (1, 7), (7, 1)])
@pytest.mark.parametrize("size", [(4, 4), (72, 144), (5, 3)])
def test_any_shape_comes_to_the_size(shape, size):
    assert fit_rgb(ramps(*shape), size, "crop").shape == (*size, 3)


def test_the_shape_stays():
    image = fit_rgb(ramps(8, 20), (4, 4), "crop")  # half the size, 4 x 10, columns 6 to 13 of the picture
    assert np.abs(image[0, :, 0].astype(int) - [6, 8, 10, 12]).max() <= 1


def test_stretching_is_resizing():
    assert np.array_equal(fit_rgb(ramps(8, 20), (4, 4)), resize_rgb(ramps(8, 20), (4, 4)))


def test_what_covers_is_what_the_middle_is_taken_of():
    whole = cover_rgb(ramps(8, 20), (4, 4))
    assert whole.shape == (4, 10, 3)
    assert np.array_equal(whole[:, 3:7], fit_rgb(ramps(8, 20), (4, 4), "crop"))
    assert cover_rgb(ramps(3, 5), (72, 144)).shape == (86, 144, 3)
