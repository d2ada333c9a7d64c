"""Every form of picture as the network's input: exactly what it was in training."""

import numpy as np
import pytest
import torch
from PIL import Image

from perceptkit.data.batch import collate
from perceptkit.data.folder import FolderSource
from perceptkit.errors import DataError
from perceptkit.runtime.pictures import find_pictures, read_picture, to_input
from perceptkit.spec.tasks_file import FolderData

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def noise(*shape, dtype=np.uint8):
    return np.random.default_rng(0).integers(0, np.iinfo(dtype).max, shape, dtype=dtype)


def write_all(folder):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(noise(40, 70, 3)).save(folder / "landscape.png")
    Image.fromarray(noise(90, 33, 3)).save(folder / "portrait.png")
    Image.fromarray(noise(32, 32, 3)).save(folder / "exact.png")
    Image.fromarray(noise(1, 1, 3)).save(folder / "pixel.png")
    Image.fromarray(noise(20, 90)).save(folder / "grey.png")
    Image.fromarray(noise(50, 60, 4)).save(folder / "rgba.png")
    Image.fromarray(noise(50, 60, dtype=np.uint16)).save(folder / "sixteen.png")
    Image.fromarray(noise(64, 128, 3)).save(folder / "turned.png", exif=exif)
    return 8


def test_the_input_is_what_it_was_in_training(tmp_path):
    count = write_all(tmp_path)
    data = FolderData(source="folder", root=tmp_path, image="{id}.png", size=(32, 48))
    source = FolderSource(data, "train", {})
    assert len(source) == count
    for i, name in enumerate(source.ids):
        in_training = collate([source.load(i)], MEAN, STD).image_BCHW
        in_use = to_input(read_picture(tmp_path / f"{name}.png"), (32, 48), MEAN, STD)
        torch.testing.assert_close(in_use, in_training, rtol=1e-6, atol=1e-5)


def test_normalisation_by_hand():
    image = np.zeros((2, 3, 3), np.uint8)
    image[1, 2] = 255, 51, 0
    made = to_input(image, (2, 3), (0.5, 0.25, 0.4), (0.25, 0.5, 0.1))
    assert made.shape == (1, 3, 2, 3) and made.dtype == torch.float32
    torch.testing.assert_close(made[0, :, 1, 2], torch.tensor([2.0, -0.1, -4.0]))


@pytest.mark.parametrize("thing", [None, 5, b"a.png", ["a.png"], torch.zeros(3, 8, 8)])
def test_what_is_no_picture_is_told_what_is(thing):
    with pytest.raises(DataError, match=rf"a path, a PIL picture or an RGB .*; got {type(thing).__name__}"):
        read_picture(thing)


def test_an_open_file(tmp_path):
    Image.fromarray(noise(5, 7, 3)).save(tmp_path / "a.png")
    with (tmp_path / "a.png").open("rb") as opened:
        assert np.array_equal(read_picture(opened), noise(5, 7, 3))


@pytest.mark.parametrize("shape", [(5, 7), (5, 7, 3), (5, 7, 4)])
def test_arrays(shape):
    array = noise(*shape)
    rgb = read_picture(array)
    assert rgb.shape == (5, 7, 3)
    assert np.array_equal(rgb, np.stack([array] * 3, -1) if array.ndim == 2 else array[..., :3])


def test_a_picture_is_the_same_from_file_pil_and_array(tmp_path):
    array = noise(5, 7, 3)
    Image.fromarray(array).save(tmp_path / "a.png")
    for form in (tmp_path / "a.png", str(tmp_path / "a.png"), Image.fromarray(array), array):
        assert np.array_equal(read_picture(form), array)


@pytest.mark.parametrize(
    "array, message",
    [
        (np.zeros((4, 4, 3)), r"must be uint8 .* got float64 \(4, 4, 3\)"),
        (np.zeros((0, 4, 3), np.uint8), r"got uint8 \(0, 4, 3\)"),
        (np.zeros((3, 4, 5), np.uint8), r"3 \(RGB\) or 4 \(RGBA\) channels last; got \(3, 4, 5\)"),
        (np.zeros(7, np.uint8), "must be uint8 of shape"),
    ],
)
def test_arrays_that_are_no_pictures(array, message):
    with pytest.raises(DataError, match=message):
        read_picture(array)


def test_a_pil_picture_that_cannot_be_used():
    with pytest.raises(DataError, match="floating-point pixels"):
        read_picture(Image.new("F", (2, 2)))


def test_missing_and_unreadable_files_are_named(tmp_path):
    with pytest.raises(DataError, match=r"none\.jpg: no such file"):
        read_picture(tmp_path / "none.jpg")
    (tmp_path / "text.jpg").write_text("hello")
    with pytest.raises(DataError, match=r"text\.jpg: not a readable picture"):
        read_picture(tmp_path / "text.jpg")
    with pytest.raises(DataError, match="not a readable picture"):
        read_picture(tmp_path)


@pytest.fixture
def folder(tmp_path):
    for name in ("b.png", "a.JPG", "notes.txt", "sub/c.png", "sub/deep/d.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "folder.png").mkdir()
    return tmp_path


@pytest.mark.parametrize(
    "pattern, expected",
    [
        (".", ["a.JPG", "b.png"]),
        ("b.png", ["b.png"]),
        ("notes.txt", ["notes.txt"]),  # named by the user: opening it will tell
        ("*", ["a.JPG", "b.png"]),
        ("*.png", ["b.png"]),
        ("sub/*.png", ["c.png"]),
        ("*/*.png", ["c.png"]),
        ("**/*.png", ["b.png", "c.png", "d.png"]),
    ],
)
def test_files_folders_and_globs(folder, pattern, expected):
    assert [path.name for path in find_pictures([folder / pattern])] == expected


def test_sources_keep_their_order(folder):
    found = find_pictures([str(folder / "sub/c.png"), folder, folder / "sub/*"])
    assert [path.name for path in found] == ["c.png", "a.JPG", "b.png", "c.png"]


def test_brackets_in_a_name_are_no_pattern(tmp_path):
    (tmp_path / "shot [1].png").touch()
    assert [path.name for path in find_pictures([tmp_path / "shot [1].png"])] == ["shot [1].png"]


@pytest.mark.parametrize("pattern", ["none.png", "*.webp", "sub/deep/*.txt"])
def test_a_source_without_pictures_is_an_error(folder, pattern):
    with pytest.raises(DataError, match="no picture found") as caught:
        find_pictures([folder, folder / pattern])
    assert str(folder / pattern) in str(caught.value)


def test_a_picture_of_another_shape_is_cropped_where_training_cropped():
    image = np.zeros((4, 8, 3), dtype=np.uint8)
    image[:, 2:6] = 255  # the middle
    made = to_input(image, (4, 4), (0.0,) * 3, (1.0,) * 3, "crop")
    assert (made == 1).all()
    assert not (to_input(image, (4, 4), (0.0,) * 3, (1.0,) * 3) == 1).all()
