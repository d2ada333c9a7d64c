"""Label maps in every form they are stored in, and broken files."""

import io
import random
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from perceptkit.errors import DataError
from perceptkit.tasks.label_arrays import read_label_map, shown

IDS = np.array([[0, 1, 2], [3, 4, 255]], dtype=np.uint8)


def test_grey_picture(tmp_path):
    Image.fromarray(IDS).save(tmp_path / "a.png")
    assert np.array_equal(read_label_map(tmp_path / "a.png"), IDS)


def test_16_bit_picture(tmp_path):
    deep = IDS.astype(np.uint16) * 257
    Image.fromarray(deep).save(tmp_path / "a.png")
    assert np.array_equal(read_label_map(tmp_path / "a.png"), deep)


def test_palette_picture_gives_indexes(tmp_path):
    picture = Image.new("P", (3, 2))
    picture.putdata(IDS.flatten().tolist())
    picture.putpalette([i * 7 % 256 for i in range(768)])
    picture.save(tmp_path / "a.png")
    assert np.array_equal(read_label_map(tmp_path / "a.png"), IDS)


@pytest.mark.parametrize("shape", [(2, 3), (1, 2, 3), (2, 3, 1)])
def test_npy_with_or_without_a_channel(tmp_path, shape):
    np.save(tmp_path / "a.npy", IDS.reshape(shape))
    assert np.array_equal(read_label_map(tmp_path / "a.npy"), IDS)


def test_foreign_byte_order(tmp_path):
    np.save(tmp_path / "a.npy", IDS.astype(">u2"))
    values = read_label_map(tmp_path / "a.npy")
    assert values.dtype.isnative and np.array_equal(values, IDS)


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((2, 3, 3), np.uint8), "has shape 2x3x3; expected one value per pixel"),
        (np.zeros(5), "has shape 5; expected one value per pixel"),
        (np.array(7), "expected one value per pixel"),
        (np.zeros((0, 3)), "is empty: its shape is 0x3"),
        (np.array([["a", "b"]]), "holds values of type <U1; expected numbers"),
        (np.zeros((2, 3), complex), "holds values of type complex128; expected numbers"),
    ],
)
def test_wrong_shapes_and_types(tmp_path, array, message):
    np.save(tmp_path / "a.npy", array)
    with pytest.raises(DataError, match=message) as caught:
        read_label_map(tmp_path / "a.npy")
    assert str(tmp_path / "a.npy") in str(caught.value)


def test_three_channels_wanted(tmp_path):
    Image.fromarray(IDS).save(tmp_path / "a.png")
    with pytest.raises(DataError, match="has shape 2x3; expected 3 values per pixel"):
        read_label_map(tmp_path / "a.png", channels=3)


def _png() -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.arange(400, dtype=np.uint8).reshape(20, 20)).save(buffer, format="PNG")
    return buffer.getvalue()


def _npy() -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, np.arange(400.0).reshape(20, 20))
    return buffer.getvalue()


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("suffix", "make"), [(".png", _png), (".npy", _npy)])
def test_damaged_files_never_raise_anything_else(tmp_path, suffix, make):
    random_, whole = random.Random(0), make()
    path = tmp_path / f"a{suffix}"
    damaged = [b"", b"\x00" * 50, b"not a picture", whole[: len(whole) // 2], whole[:-30], whole[:9]]
    for _ in range(150):
        spoilt = bytearray(whole)
        for _ in range(random_.randint(1, 4)):
            spoilt[random_.randrange(min(len(spoilt), 140))] = random_.randrange(256)
        damaged.append(bytes(spoilt))
    refused = 0
    for content in damaged:
        path.write_bytes(content)
        try:
            read_label_map(path)
        except DataError as error:
            refused += 1
            assert str(path) in str(error)
    assert refused >= 6


def test_pickles_and_archives_are_refused(tmp_path):
    np.save(tmp_path / "a.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(DataError, match="cannot be read"):
        read_label_map(tmp_path / "a.npy")
    np.savez(tmp_path / "b.npz", a=IDS)
    (tmp_path / "b.npz").rename(tmp_path / "b.npy")
    with pytest.raises(DataError, match="an archive of several arrays"):
        read_label_map(tmp_path / "b.npy")


def test_a_decompression_bomb_is_refused(tmp_path):
    header = struct.pack(">IIBBBBB", 2**30, 2**30, 8, 0, 0, 0, 0)
    chunk = struct.pack(">I", 13) + b"IHDR" + header + struct.pack(">I", zlib.crc32(b"IHDR" + header))
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n" + chunk)
    with pytest.raises(DataError, match="cannot be read"):
        read_label_map(tmp_path / "a.png")


def test_no_such_file(tmp_path):
    with pytest.raises(DataError, match=r"gone.png cannot be read"):
        read_label_map(tmp_path / "gone.png")


def test_shown_lists_a_few_distinct_values():
    assert shown(np.array([7, 7, 3])) == "3, 7"
    assert shown(np.arange(9)) == "0, 1, 2, 3, 4 and 4 more"
    assert shown(np.array([0.5, -1])) == "-1, 0.5"
